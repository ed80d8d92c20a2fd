"""The transport interface: how a batch of events leaves the process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["stored", "retry", "denied", "too_large", "refused", "broken"]


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of a batch.

    Args:
        outcome: ``stored``: durable, but for the events in ``rejected``; ``retry``: nothing is known to be stored,
            and sending the same batch again may succeed; ``denied``: it may once the other side lets this sender in;
            ``too_large``: smaller batches may succeed; ``refused``: sending it again cannot succeed; ``broken``:
            something in it, or the transport, is broken, and smaller batches tell what.
        rejected: Place in the batch → why the service does not take that event.
        reason: Why the batch was not stored, for logs and statistics.
        retry_after_s: How long to wait before the next try, where the other side said so.
    """

    outcome: Outcome
    rejected: dict[int, str]
    reason: str = ""
    retry_after_s: float | None = None


class Transport(ABC):
    """Takes batches of events to where they are kept.

    **Threads.** ``send`` is called from one thread at a time, never from the caller's thread of decorated code; a
    new thread may take over (after a fork, or when the old one ended).

    **Ownership.** The events are the transport's to read during the call, not to keep or change.

    **Errors.** ``send`` does not raise for anything that happens on the way: it says so in the result. An exception
    is taken for a defect, of an event as long as there are several, and treated as ``broken``.

    **Deadlines.** Each call returns within a bounded time, whatever the other side does.
    """

    @abstractmethod
    def send(self, events: Sequence[dict[str, Any]]) -> SendResult:
        """Send one batch; sending the same events again must be harmless.

        Args:
            events: Events of the wire schema, plain JSON values.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. ``send`` may be called again afterwards and then opens new ones."""

    def abort(self) -> None:  # noqa: B027 - a transport that always returns in time needs none
        """Make a ``send`` under way return soon; called from another thread when it has outlasted its deadline."""
