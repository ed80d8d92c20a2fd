"""The thread that waits for the network, so that nothing else does."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xray.delivery.forks import importing
from xray.delivery.transport import SendResult, Transport

log = logging.getLogger("xray")


@dataclass(slots=True)
class Delivery:
    """What became of events that were to be sent.

    Args:
        rejected: Place of an event → the reason of its loss, and the error in words.
        left: Places of those of which it is not known whether they are stored.
        failure: Why there are such, where there are.
    """

    rejected: dict[int, tuple[str, str]] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    failure: SendResult | None = None


def deliver(transport: Transport, events: Sequence[dict[str, Any]]) -> Delivery:
    """Send events, in smaller batches where the other side or a bad event wants it.

    Args:
        transport: Where to.
        events: Events of the wire schema.
    """
    delivery = Delivery()
    parts = [range(len(events))]
    while parts:
        part = parts.pop()
        if not part:
            continue
        result = _send(transport, [events[place] for place in part])
        if result.outcome == "stored":
            for place, why in result.rejected.items():
                delivery.rejected[part[place]] = ("rejected", why)
        elif result.outcome in ("retry", "denied"):
            delivery.failure = result
            delivery.left = sorted([*part, *(place for other in parts for place in other)])
            break
        elif result.outcome != "refused" and len(part) > 1:
            # Too large, or something in it breaks the transport: smaller batches find the one that does.
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]
        else:
            reason = result.reason if result.outcome == "broken" else result.outcome
            for place in part:
                delivery.rejected[place] = (reason, result.reason)
    return delivery


def _send(transport: Transport, events: list[dict[str, Any]]) -> SendResult:
    try:
        return transport.send(events)
    except Exception as error:
        log.debug("X-Ray: a transport failed", exc_info=True)
        return SendResult("broken", {}, f"internal_error: {type(error).__name__}")


class Job:
    """A batch in the sender's hands."""

    __slots__ = ("began", "delivery", "events")

    def __init__(self, events: Sequence[dict[str, Any]], began: float) -> None:
        self.events = events
        self.began = began
        self.delivery: Delivery | None = None


class Sender:
    """Sends one job at a time on a daemon thread of its own.

    Args:
        make_transport: Makes the transport; called on the sender's thread, at the first job.
        on_done: Called on the sender's thread after each job.
    """

    def __init__(self, make_transport: Callable[[], Transport], on_done: Callable[[], None]) -> None:
        self._make_transport = make_transport
        self._on_done = on_done
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._transport: Transport | None = None
        self._thread: threading.Thread | None = None
        self.is_busy = False
        """Whether a job is under way, wanted still or not."""

    def start(self) -> None:
        """Start the thread; where the interpreter starts none any more, jobs are done by who gives them."""
        thread = threading.Thread(target=self._run, name="xray-sender", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return
        self._thread = thread

    def give(self, job: Job) -> None:
        """Have a job done; its delivery is there when ``on_done`` is called."""
        self.is_busy = True
        if self._thread is not None:
            self._jobs.put(job)
        else:
            self._do(job)

    def abort(self) -> None:
        """Cut short the job under way, where the transport can."""
        if self._transport is not None:
            with contextlib.suppress(Exception):
                self._transport.abort()

    def end(self) -> None:
        """End the thread after the job under way."""
        if self._thread is not None:
            self._jobs.put(None)
        else:
            self._close()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(job)
            del job
        self._close()

    def _do(self, job: Job) -> None:
        try:
            if self._transport is None:
                with importing:
                    self._transport = self._make_transport()
            job.delivery = deliver(self._transport, job.events)
        except Exception as error:
            log.debug("X-Ray: there is no transport", exc_info=True)
            problem = (f"internal_error: {type(error).__name__}", str(error))
            job.delivery = Delivery(dict.fromkeys(range(len(job.events)), problem))
        job.events = ()
        self.is_busy = False
        self._on_done()

    def _close(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(Exception):
                self._transport.close()
