"""The worker: one background thread that takes records from the buffer and has them sent, or writes them to the spool.

It never waits for the network itself (the sender does), so that a network that is stuck cannot keep what is recorded
from the disk. Nothing is lost uncounted: what cannot be sent goes to the spool, what fits nowhere is counted by reason.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from xray.delivery.batch import events_of
from xray.delivery.buffer import NEVER, Buffer
from xray.delivery.courier import Courier
from xray.delivery.notices import Notices
from xray.delivery.stats import Record, Stats
from xray.delivery.transport import Transport

if TYPE_CHECKING:
    from xray.delivery.spool import Spool

log = logging.getLogger("xray")

_SPOOL_AFTER_S = 1.0
"""How long records wait for a request that is under way before they go to the spool."""
_LOOK_AROUND_EVERY_S = 30.0
"""How often to look for what ended processes left."""
_SHARE_FOR_THE_NETWORK = 0.5
"""Of the time that the process's end may take, where there is a spool: the rest is for writing to it."""

_Step = Callable[[], object]


class Worker:
    """Owns the buffer, and the thread that empties it.

    Args:
        make_transport: Makes the transport; called at the first batch, not on the caller's thread.
        where: Where batches go, for the warning when they cannot.
        max_records: Records that may wait.
        max_bytes: What waiting records may weigh.
        batch_bytes: Snapshots that go into one request.
        flush_interval_s: How long a record waits for company at most.
        request_timeout_s: How long a request may take altogether; what it carried is then to be sent anew.
        make_spool: Makes the spool, told what to call where records in it are lost; None for no spool.
        spool_first: Whether records are on disk before the call that recorded them returns.
    """

    def __init__(
        self,
        make_transport: Callable[[], Transport],
        *,
        where: str,
        max_records: int,
        max_bytes: int,
        batch_bytes: int,
        flush_interval_s: float,
        request_timeout_s: float = 32.0,
        make_spool: Callable[[Callable[[str, int], None]], Spool] | None = None,
        spool_first: bool = False,
    ) -> None:
        self._max_bytes = max_bytes
        self._batch_bytes = batch_bytes
        self._flush_interval_s = flush_interval_s
        self._request_timeout_s = request_timeout_s
        self._spool_first = spool_first and make_spool is not None
        buffer = self._buffer = Buffer(max_records, max_bytes, self._wake)
        spool = self._spool = None if make_spool is None else make_spool(self._lost_in_spool)
        notices = Notices(where, max_bytes, None if spool is None else spool.folder)
        self._courier = Courier(buffer, spool, make_transport, notices, batch_bytes)
        self._work = self._courier.work
        self._thread: threading.Thread | None = None
        self._linger_until: float | None = None
        self._spools_turn = False
        self._look_around_at = 0.0
        self._lost_before_flush = 0
        self._flushing = 0
        self._network_until = 0.0
        self.submit: Callable[[Record], bool] = self._submit_spool_first if self._spool_first else buffer.submit
        """Take a record; False, counted, where there is no room."""

    def forget(self) -> None:
        """In a forked child: the parent sends what it recorded; the child makes a worker of its own."""
        if self._spool is not None:
            self._spool.forget()

    # --- the caller's side --------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """There is something to look at; called under the lock."""
        if self._thread is None or not self._thread.is_alive():
            self._start()
        else:
            self._work.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="xray-worker", daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter ends; stop() does the work
            thread.start()
            self._thread = thread

    def _submit_spool_first(self, record: Record) -> bool:
        """Write a record to the spool, redacted, before this returns; into the buffer where that fails."""
        from xray.delivery.segments import make_frame

        spool, buffer = self._spool, self._buffer
        assert spool is not None
        if buffer.is_closed or not spool.may_write(time.monotonic()):
            return buffer.submit(record)
        try:
            spool.append([make_frame(events_of(record))], buffer.taken_in())
        except Exception:
            log.debug("X-Ray: a record could not be spooled", exc_info=True)
            return buffer.submit(record)
        with contextlib.suppress(Exception):
            record.release()
        with buffer.lock:
            buffer.recorded += 1
            buffer.spooled += 1
            if self._linger_until is None:
                self._linger_until = time.monotonic() + self._flush_interval_s
                self._wake()
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything recorded so far is settled.

        Args:
            timeout_s: How long to wait at most.

        Returns:
            Whether every record since the last flush was durably stored.
        """
        deadline = time.monotonic() + timeout_s
        buffer, courier = self._buffer, self._courier
        with buffer.lock:
            target = buffer.taken_in()
            self._hurry(1)
            try:
                while courier.first_unsettled() < target:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    buffer.changed.wait(left)
                lost = buffer.dropped.total()
                whole = lost == self._lost_before_flush
                self._lost_before_flush = lost
                return whole
            finally:
                self._hurry(-1)

    def _hurry(self, more: int) -> None:
        self._flushing += more
        self._courier.is_hurried = self._flushing > 0
        if more > 0:
            self._courier.breaker.hurry()
            self._work.notify_all()

    def stop(self, timeout_s: float) -> None:
        """Send what is left, or write it to the spool, and end the thread.

        Args:
            timeout_s: How long to wait at most; with a spool half of it for the network, and the whole for the disk
                after that. What is neither sent nor spooled by then is counted as lost.
        """
        buffer, spool = self._buffer, self._spool
        with buffer.lock:
            buffer.is_closed = True
            self._network_until = time.monotonic() + timeout_s * (1 if spool is None else _SHARE_FOR_THE_NETWORK)
            thread = self._thread
            self._work.notify_all()
        if thread is not None and thread.is_alive():
            thread.join(timeout_s if spool is None else timeout_s * (1 + _SHARE_FOR_THE_NETWORK))
        elif buffer.waiting or self._courier.out:
            self._run()  # no thread could be started
        with buffer.lock:
            self._courier.is_abandoned = True
            buffer.give_up("shutdown")
        if spool is not None and (thread is None or not thread.is_alive()):
            spool.close()

    def stats(self) -> Stats:
        """The counts at this moment."""
        buffer = self._buffer
        with buffer.lock:
            return Stats(
                recorded=buffer.recorded,
                acknowledged=buffer.acknowledged,
                buffered=len(buffer.waiting) + buffer.under_way,
                buffered_bytes=buffer.bytes,
                dropped=dict(buffer.dropped),
                failures={},
                spooled=buffer.spooled,
                sent=buffer.sent,
                from_others={} if self._spool is None else dict(self._spool.from_others),
            )

    def _lost_in_spool(self, reason: str, records: int) -> None:
        with self._buffer.lock:
            self._buffer.settle_spooled(0, Counter({reason: records}))

    # --- the worker's side --------------------------------------------------------------------------------------

    def _run(self) -> None:
        courier = self._courier
        courier.sender.start()
        while True:
            with self._work:
                step = self._next_step()
            if step is None:
                break
            try:
                step()
            except Exception:
                log.debug("X-Ray: a step of the worker failed", exc_info=True)
                courier.lose_broken()
        courier.sender.end()
        if self._spool is not None:
            self._spool.close()

    def _next_step(self) -> _Step | None:
        """Wait until there is something to do, and say what; None when it is time to end. Called under the lock."""
        courier, buffer = self._courier, self._buffer
        while True:
            now = time.monotonic()
            job = courier.job
            if job is not None and job.delivery is not None:
                return courier.settle_job
            if job is not None and now >= job.began + self._request_timeout_s:
                return courier.give_up_job
            if buffer.is_closed:
                step, until = self._last_step(now)
                if until is None:
                    return step
                self._work.wait(max(0.0, until - now))
                continue
            is_open = courier.breaker.is_open(now)
            may_spool = self._spool is not None and self._spool.may_write(now)
            if courier.held and is_open and may_spool:
                return courier.spool_held
            due_at = self._due_at(now)
            is_due = due_at is not None and now >= due_at
            may_send = courier.is_free() and courier.breaker.may_try(now)
            step = self._step_of_sending(now, is_due=is_due) if may_send else None
            if step is not None:
                return step
            is_stuck = is_open or (not courier.is_free() and (job is None or now >= job.began + _SPOOL_AFTER_S))
            if may_spool and is_due and (is_stuck or self._waiting_bytes() >= self._max_bytes // 2):
                self._linger_until = None
                return courier.spool_waiting
            acts_on_batches = may_send or (is_stuck and may_spool)
            self._wait(now, due_at, self._batch_bytes if acts_on_batches else self._max_bytes // 2)

    def _step_of_sending(self, now: float, *, is_due: bool) -> _Step | None:
        """What to send, where the sender is free and a try is due."""
        courier, spool = self._courier, self._spool
        if courier.held:
            return courier.send_held
        if spool is not None:
            if now >= self._look_around_at:
                self._look_around_at = now + _LOOK_AROUND_EVERY_S
                return spool.take_over
            # What is recorded now and what is in the spool take turns.
            if (self._spools_turn or not is_due) and spool.has_pending() and self._spool_is_due(now):
                self._spools_turn = False
                return courier.send_spooled
        if is_due:
            self._spools_turn = True
            self._linger_until = None
            return courier.send_waiting
        return None

    def _spool_is_due(self, now: float) -> bool:
        """With spool-first, records wait for company in the spool as they else do in the buffer."""
        if self._linger_until is None or self._buffer.waiting or self._flushing:
            return True
        if now < self._linger_until:
            return False
        self._linger_until = None
        return True

    def _waiting_bytes(self) -> int:
        return self._buffer.bytes - self._courier.out_bytes()

    def _due_at(self, now: float) -> float | None:
        """When what waits in the buffer is to be taken; None where nothing does."""
        if not self._buffer.waiting:
            if not self._spool_first:
                self._linger_until = None
            return None
        if self._linger_until is None:
            self._linger_until = now + self._flush_interval_s
        is_enough = self._flushing or self._waiting_bytes() >= self._batch_bytes
        return now if is_enough else self._linger_until

    def _wait(self, now: float, due_at: float | None, enough_bytes: int) -> None:
        """Wait for whatever may come next.

        Args:
            now: The time.
            due_at: When what waits is to be taken.
            enough_bytes: At which weight of what waits there is something to do.
        """
        courier, spool = self._courier, self._spool
        moments = [due_at, self._linger_until]
        if courier.job is not None:
            moments += [courier.job.began + self._request_timeout_s, courier.job.began + _SPOOL_AFTER_S]
        if courier.breaker.has_failed:
            moments += [courier.breaker.next_try, courier.breaker.opens_at()]
        if spool is not None:
            moments += [spool.retry_at, self._look_around_at]
        later = [moment for moment in moments if moment is not None and moment > now]
        enough_bytes += courier.out_bytes()
        self._buffer.wake_bytes = enough_bytes if enough_bytes > self._buffer.bytes else NEVER
        self._work.wait(min(later) - now if later else None)

    def _last_step(self, now: float) -> tuple[_Step | None, float | None]:
        """The next step while the process ends, None where it is time to; or until when to wait for what is sent."""
        courier, spool = self._courier, self._spool
        in_time = now < self._network_until
        if courier.job is not None:
            return (None, self._network_until) if in_time else (courier.give_up_job, None)
        may_send = courier.is_free() and in_time and not courier.failed_at_the_end
        # With no spool there is one more try; else it is not worth waiting for.
        may_send = may_send and (spool is None or not courier.breaker.has_failed)
        if courier.held or self._buffer.waiting:
            if may_send:
                return (courier.send_held if courier.held else courier.send_waiting), None
            if spool is not None and spool.may_write(now):
                return (courier.spool_held if courier.held else courier.spool_waiting), None
            reason = "shutdown" if spool is None else "spool_failed"
            if spool is None and in_time and courier.failed_at_the_end:
                reason = "unreachable"
            return (lambda: courier.lose_all(reason)), None
        if may_send and self._spool_first and spool is not None and spool.has_pending(own_only=True):
            return courier.send_spooled, None
        return None, None
