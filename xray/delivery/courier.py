"""What the worker does with batches: have them sent, write them to the spool, settle them.

Each step leaves every record of a batch somewhere: on its way, held for the next try, in the spool, or counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xray.delivery.batch import Batch
from xray.delivery.buffer import Buffer
from xray.delivery.forks import importing
from xray.delivery.notices import Notices
from xray.delivery.retry import Breaker
from xray.delivery.sender import Job, Sender
from xray.delivery.transport import Transport

if TYPE_CHECKING:
    from xray.delivery.segments import Frame
    from xray.delivery.spool import Spool

log = logging.getLogger("xray")

MAX_BATCH_RECORDS = 500
_WRITE_BYTES = 1 << 20
"""What is written to the spool at once."""


class Courier:
    """Batches that have left the buffer, until they are settled. Its steps are taken on the worker's thread.

    Args:
        buffer: Where records are counted.
        spool: Where they wait when they cannot be sent, or None.
        make_transport: Makes the transport.
        notices: What says that something went wrong.
        batch_bytes: Snapshots that go into one request.
    """

    def __init__(
        self,
        buffer: Buffer,
        spool: Spool | None,
        make_transport: Callable[[], Transport],
        notices: Notices,
        batch_bytes: int,
    ) -> None:
        self._buffer = buffer
        self._spool = spool
        self._notices = notices
        self._batch_bytes = batch_bytes
        self._job_batch: Batch | None = None
        self._chunk_batch: Batch | None = None
        self.work = threading.Condition(buffer.lock)
        """The worker waits here."""
        self.sender = Sender(make_transport, self._sent)
        self.breaker = Breaker()
        self.job: Job | None = None
        self.held: deque[Batch] = deque()
        """Batches that could not be sent or spooled yet."""
        self.out: list[Batch] = []
        """Every batch that has left the buffer and is not settled."""
        self.is_hurried = False
        """Whether somebody waits for everything to be sent."""
        self.failed_at_the_end = False
        """Whether a try failed after the buffer was closed."""
        self.is_abandoned = False
        """Whether all that was left has been counted as lost already."""

    def is_free(self) -> bool:
        """Whether a batch can be given to the sender."""
        return self.job is None and not self.sender.is_busy

    def out_bytes(self) -> int:
        """What the batches weigh that have left the buffer."""
        return sum(batch.weight_bytes for batch in self.out)

    def first_unsettled(self) -> int:
        """The number of the oldest record that is not settled; of the next one to come, where all are."""
        buffer = self._buffer
        first = min((batch.first for batch in self.out), default=buffer.taken_in() - len(buffer.waiting))
        return first if self._spool is None else min(first, self._spool.first_pending())

    def _sent(self) -> None:
        with self.work:
            self.work.notify_all()

    # --- sending ------------------------------------------------------------------------------------------------

    def send_waiting(self) -> None:
        """Send what waits in the buffer."""
        self._give(self._take())

    def send_held(self) -> None:
        """Send what could not be sent before."""
        self._give(self.held.popleft())

    def send_spooled(self) -> None:
        """Send what lies in the spool, the oldest first."""
        batch, self._chunk_batch = self._chunk_batch, None
        if batch is not None:
            self._give(batch)
            return
        assert self._spool is not None
        chunk = self._spool.next_chunk(self._batch_bytes, MAX_BATCH_RECORDS, own_only=self._buffer.is_closed)
        if chunk is None:
            with self.work:
                self._buffer.changed.notify_all()
            return
        batch = Batch(len(chunk.records), [], [], chunk=chunk)
        for place, events in enumerate(chunk.records):
            batch.events += events
            batch.owner += [place] * len(events)
        self._give(batch)

    def _take(self) -> Batch:
        with self.work:
            records, weight, first = self._buffer.take(MAX_BATCH_RECORDS, self._batch_bytes)
            batch = Batch(len(records), [], [], first, weight, records)
            self.out.append(batch)
        batch.fill()
        return batch

    def _give(self, batch: Batch) -> None:
        if not batch.events:  # nothing in it could be made into an event, or be read
            self._finish(batch)
            return
        with self.work:
            if batch.chunk is None or batch.chunk.segment.is_own:
                self._buffer.sent += batch.count
            self._job_batch = batch
            job = self.job = Job(batch.events, time.monotonic())
        self.sender.give(job)

    def settle_job(self) -> None:
        """The sender is done with a batch."""
        job, batch = self.job, self._job_batch
        assert job is not None
        assert job.delivery is not None
        assert batch is not None
        self.job = self._job_batch = None
        for place, (reason, why) in job.delivery.rejected.items():
            batch.lose(batch.owner[place], reason)
            self._notices.rejected(reason, why)
            if self._spool is not None:
                self._spool.set_aside(batch.events[place], reason, why)
        failure = job.delivery.failure
        if failure is None:
            if self.breaker.succeeded():
                self._notices.answers_again()
            self._finish(batch)
            return
        self._failed(failure.outcome, failure.reason, failure.retry_after_s)
        batch.keep(job.delivery.left)
        self._put_back(batch)

    def give_up_job(self) -> None:
        """The request takes too long: what it carries is the worker's again, whatever becomes of it."""
        batch = self._job_batch
        assert batch is not None
        self.job = self._job_batch = None
        self._failed("retry", "no answer in time", None)
        self.sender.abort()
        # The sender may still read the events: what they refer to is left to the garbage collector.
        batch.records = ()
        self._put_back(batch)

    def _failed(self, outcome: str, reason: str, retry_after_s: float | None) -> None:
        with self.work:
            self.breaker.failed(time.monotonic(), retry_after_s, for_long=outcome == "denied")
            if self.is_hurried and outcome != "denied":
                self.breaker.hurry()
            self.failed_at_the_end = self._buffer.is_closed
        if not self.failed_at_the_end or outcome == "denied" or reason != "no answer in time":
            self._notices.failed(outcome, reason)

    def _put_back(self, batch: Batch) -> None:
        if batch.chunk is None:
            self.held.append(batch)
        else:
            self._chunk_batch = batch

    # --- spooling -----------------------------------------------------------------------------------------------

    def spool_waiting(self) -> None:
        """Write what waits in the buffer to the spool."""
        self.held.append(self._take())
        self.spool_held()

    def spool_held(self) -> None:
        """Write the batch that is held longest to the spool; what cannot be written stays in memory."""
        with importing:
            from xray.delivery.segments import make_frame

        batch = self.held.popleft()
        by_record: dict[int, list[dict[str, Any]]] = {}
        for event, place in zip(batch.events, batch.owner, strict=True):
            by_record.setdefault(place, []).append(event)
        written: set[int] = set()
        frames: dict[int, Frame] = {}
        size = 0
        try:
            for place, events in by_record.items():
                try:
                    frames[place] = make_frame(events)
                except Exception as error:
                    log.debug("X-Ray: a record could not be spooled", exc_info=True)
                    batch.lose(place, f"internal_error: {type(error).__name__}")
                    continue
                size += frames[place].size_bytes
                if size >= _WRITE_BYTES:
                    self._write(frames, batch, written)
                    size = 0
            self._write(frames, batch, written)
        except OSError as error:
            self._notices.no_spool(error)
            batch.keep([place for place, owner in enumerate(batch.owner) if owner not in written | batch.lost.keys()])
            batch.count -= len(written)
            with self.work:
                if not self.is_abandoned:
                    self._buffer.settle(0, 0, len(written), Counter())
            self.held.appendleft(batch)
            return
        self._finish(batch, len(written))

    def _write(self, frames: dict[int, Frame], batch: Batch, written: set[int]) -> None:
        assert self._spool is not None
        if not frames:
            return
        try:
            self._spool.append(list(frames.values()), batch.first)
            written.update(frames)
        except OSError:
            # A disk that has no room for all of them may have it for some.
            for place, frame in frames.items():
                self._spool.append([frame], batch.first)
                written.add(place)
        frames.clear()

    # --- settling -----------------------------------------------------------------------------------------------

    def _finish(self, batch: Batch, spooled: int = 0) -> None:
        """All records of a batch are stored, lost, or in the spool."""
        lost = Counter(batch.lost.values())
        acknowledged = batch.count - lost.total() - spooled
        # Tidied up before anybody is told: whoever waits for the flush has the interpreter for itself.
        batch.release()
        if batch.chunk is not None:
            self._finish_chunk(batch, acknowledged, lost)
            return
        with self.work:
            self.out.remove(batch)
            if not self.is_abandoned:
                self._buffer.settle(batch.weight_bytes, acknowledged, spooled, lost)

    def _finish_chunk(self, batch: Batch, acknowledged: int, lost: Counter[str]) -> None:
        assert self._spool is not None
        assert batch.chunk is not None
        if batch.chunk.damaged:
            lost["spool_corrupt"] += batch.chunk.damaged
        self._spool.settle(batch.chunk)
        if batch.chunk.segment.is_own:
            with self.work:
                self._buffer.settle_spooled(acknowledged, lost)
        else:
            self._spool.from_others.update({"acknowledged": acknowledged} if acknowledged else {}, **lost)

    def lose_all(self, reason: str) -> None:
        """Count all that is left as lost."""
        with self.work:
            self.held.clear()
            self.out.clear()
            if not self.is_abandoned:
                self._buffer.give_up(reason)

    def lose_broken(self) -> None:
        """A step failed: what it had in its hands is lost, and counted."""
        with self.work:
            known = {id(batch) for batch in self.held} | {id(self._job_batch)}
            for batch in [batch for batch in self.out if id(batch) not in known]:
                self.out.remove(batch)
                if not self.is_abandoned:
                    self._buffer.settle(batch.weight_bytes, 0, 0, Counter({"internal_error": batch.count}))
