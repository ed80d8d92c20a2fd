"""The buffer and its worker: records wait in memory, one background thread turns them into events and sends them.

The caller's thread only appends to a deque under a lock that is never held during I/O or encoding. Everything is
bounded: the buffer in records and bytes, the wait of ``flush`` by its deadline. What does not fit, or cannot be
sent, is counted by reason.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from xray.delivery.transport import SendResult, Transport

log = logging.getLogger("xray")

_MAX_RETRY_WAIT_S = 30.0
_MAX_EVENT_BYTES = 4 << 20
_MAX_BATCH_RECORDS = 500


class Record(Protocol):
    """What waits in the buffer: it knows its weight and can be made into an event on the worker's thread."""

    @property
    def size_bytes(self) -> int:
        """What it weighs."""
        ...

    def event(self) -> dict[str, Any]:
        """The event of the wire schema."""
        ...

    def release(self) -> None:
        """The worker is done with the record and its event."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """Exact counts of records since the process (or a fork of it) began.

    ``recorded = acknowledged + buffered + sum(dropped.values())`` at any moment.

    Args:
        recorded: Runs' starts and ends and stages that were recorded.
        acknowledged: Those that the service says are durably stored.
        buffered: Those that wait or are on their way.
        buffered_bytes: What they weigh.
        dropped: Reason → how many were lost.
        failures: Name of a step of X-Ray → how often it failed; the user's code was not affected.
        sampled_out: Records of runs that were held for ``keep_if`` and then not kept; not among ``recorded``.
    """

    recorded: int
    acknowledged: int
    buffered: int
    buffered_bytes: int
    dropped: dict[str, int]
    failures: dict[str, int]
    sampled_out: int = 0


class Worker:
    """Owns the buffer and the thread that empties it.

    Args:
        make_transport: Makes the transport; called on the worker's thread, at the first batch.
        where: Where batches go, for the warning when they cannot.
        max_records: Records that may wait.
        max_bytes: What waiting records may weigh.
        batch_bytes: Snapshots that go into one request.
        flush_interval_s: How long a record waits for company at most.
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
    ) -> None:
        self._make_transport = make_transport
        self._where = where
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._batch_bytes = batch_bytes
        self._flush_interval_s = flush_interval_s
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._waiting: collections.deque[Record] = collections.deque()
        self._bytes = 0
        self._in_flight = 0
        self._recorded = 0
        self._acknowledged = 0
        self._dropped: Counter[str] = Counter()
        self._lost_before_flush = 0
        self._flushing = 0
        self._stopping = False
        self._abandoned = False
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None
        self._failed_tries = 0
        self._said: set[str] = set()

    def after_fork(self) -> None:
        """In a forked child: the parent sends what it recorded, the child begins with nothing."""
        self._reset()

    # --- the caller's side --------------------------------------------------------------------------------------

    def submit(self, record: Record) -> bool:
        """Take a record; False, counted, where there is no room."""
        size = record.size_bytes
        with self._lock:  # the condition's own, without the condition's detours
            waiting = self._waiting
            self._recorded += 1
            if self._stopping or len(waiting) >= self._max_records or self._bytes + size > self._max_bytes:
                self._dropped["after_shutdown" if self._stopping else "buffer_full"] += 1
                return False
            waiting.append(record)
            self._bytes += size
            if len(waiting) == 1 or self._bytes >= self._batch_bytes:
                if self._thread is None or not self._thread.is_alive():
                    self._start()
                else:
                    self._condition.notify_all()
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything recorded so far is settled.

        Args:
            timeout_s: How long to wait at most.

        Returns:
            Whether every record since the last flush was durably stored.
        """
        deadline = time.monotonic() + timeout_s
        with self._condition:
            target = self._recorded
            self._flushing += 1
            self._condition.notify_all()
            try:
                while self._settled() < target:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    self._condition.wait(left)
                lost = self._dropped.total()
                whole = lost == self._lost_before_flush
                self._lost_before_flush = lost
                return whole
            finally:
                self._flushing -= 1

    def stop(self, timeout_s: float) -> None:
        """Send what is left, once more where the service was not reachable, and end the thread.

        Args:
            timeout_s: How long to wait at most; what is not sent by then is counted as lost.
        """
        with self._condition:
            self._stopping = True
            thread = self._thread
            self._condition.notify_all()
        if thread is not None and thread.is_alive():
            thread.join(timeout_s)
        with self._condition:
            left = len(self._waiting) + self._in_flight
            self._abandoned = True
            if left:
                self._dropped["shutdown"] += left
                self._waiting.clear()
                self._in_flight = 0
                self._bytes = 0
            self._condition.notify_all()

    def stats(self) -> Stats:
        """The counts at this moment."""
        with self._condition:
            return Stats(
                recorded=self._recorded,
                acknowledged=self._acknowledged,
                buffered=len(self._waiting) + self._in_flight,
                buffered_bytes=self._bytes,
                dropped=dict(self._dropped),
                failures={},
            )

    def _settled(self) -> int:
        return self._acknowledged + self._dropped.total()

    # --- the worker's side --------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="xray-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            records = self._next_batch()
            if records is None:
                break
            weight = sum(record.size_bytes for record in records)
            count = len(records)
            try:
                lost = self._deliver(records)
            except Exception as error:
                log.debug("X-Ray: a batch failed", exc_info=True)
                lost = Counter({f"internal_error: {type(error).__name__}": count})
            # Tidied up before anybody is told: whoever waited for the flush has the interpreter for itself.
            _release(records)
            del records
            self._settle(lost, count - lost.total(), weight)
        if self._transport is not None:
            self._transport.close()

    def _next_batch(self) -> list[Record] | None:
        """Wait for records; give as many as go into one request, or None when it is time to end."""
        with self._condition:
            while not self._waiting:
                if self._stopping:
                    return None
                self._condition.wait()
            deadline = time.monotonic() + self._flush_interval_s
            while not (self._stopping or self._flushing or self._bytes >= self._batch_bytes):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            batch: list[Record] = []
            weight = 0
            while self._waiting and len(batch) < _MAX_BATCH_RECORDS:
                weight += self._waiting[0].size_bytes
                if batch and weight > self._batch_bytes:
                    break
                batch.append(self._waiting.popleft())
            # The weight stays counted until the batch is settled: it is still in memory.
            self._in_flight = len(batch)
            return batch

    def _deliver(self, records: Sequence[Record]) -> Counter[str]:
        """Send a batch; how many of the records were lost, by reason."""
        if self._transport is None:
            self._transport = self._make_transport()
        events: list[dict[str, Any]] = []
        owner: list[int] = []
        broken = 0
        for place, record in enumerate(records):
            try:
                event = record.event()
                # A record weighs about what its event does; only a heavy one is worth measuring.
                heavy = record.size_bytes > _MAX_EVENT_BYTES // 2
                parts = split_event(event, _MAX_EVENT_BYTES) if heavy else [event]
            except Exception:
                log.debug("X-Ray: a record could not be made into an event", exc_info=True)
                broken += 1
                continue
            events += parts
            owner += [place] * len(parts)
        lost: dict[int, str] = {}
        self._send(events, owner, lost)
        reasons = Counter(lost.values())
        if broken:
            reasons["not_serialisable"] = broken
        return reasons

    def _send(self, events: list[dict[str, Any]], owner: list[int], lost: dict[int, str]) -> None:
        """Send events until they are settled; ``lost`` takes the place of each record that was not stored, and why."""
        if not events:
            return
        assert self._transport is not None
        result = self._transport.send(events)
        while result.outcome == "retry" and self._wait_to_retry(result):
            result = self._transport.send(events)
        if result.outcome == "too_large" and len(events) > 1:
            middle = len(events) // 2
            self._send(events[:middle], owner[:middle], lost)
            self._send(events[middle:], owner[middle:], lost)
            return
        if result.outcome == "stored":
            if self._failed_tries:
                log.info("X-Ray: %s answers again", self._where)
            self._failed_tries = 0
            for place, why in result.rejected.items():
                lost[owner[place]] = "rejected"
                self._say("rejected", f"X-Ray: the service at {self._where} does not take an event: {why}")
            return
        reason = {"retry": "unreachable", "too_large": "too_large"}.get(result.outcome, "refused")
        if reason != "unreachable":
            self._say(reason, f"X-Ray: {self._where} does not take what is recorded ({result.reason}).")
        for place in owner:
            lost[place] = reason

    def _wait_to_retry(self, result: SendResult) -> bool:
        """Wait with full jitter before the next try; False when the process ends and the last try was made."""
        self._failed_tries += 1
        self._say(
            "unreachable",
            f"X-Ray: {self._where} cannot be reached ({result.reason}). Recorded events wait in memory, up to "
            f"{self._max_bytes >> 20} MB, and are sent when it can; what does not fit, or is left when the process "
            "ends, is counted in xray.stats(). Your code is not affected. This is said once.",
        )
        ceiling = min(_MAX_RETRY_WAIT_S, 0.2 * 2 ** min(self._failed_tries, 10))
        wait_s = result.retry_after_s
        if wait_s is None:
            wait_s = random.uniform(0, ceiling)  # noqa: S311 - jitter, not a secret
        deadline = time.monotonic() + min(wait_s, _MAX_RETRY_WAIT_S)
        with self._condition:
            if self._stopping:
                return False
            while not self._stopping:
                left = deadline - time.monotonic()
                if left <= 0:
                    return True
                self._condition.wait(left)
            return True

    def _say(self, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            log.warning("%s", message)

    def _settle(self, dropped: Counter[str], acknowledged: int, weight_bytes: int) -> None:
        with self._condition:
            self._bytes = max(0, self._bytes - weight_bytes)
            if self._abandoned:
                return  # stop() has counted these as lost already
            self._dropped += dropped
            self._acknowledged += acknowledged
            self._in_flight = max(0, self._in_flight - dropped.total() - acknowledged)
            self._condition.notify_all()


def _release(records: Sequence[Record]) -> None:
    for record in records:
        with contextlib.suppress(Exception):
            record.release()


def split_event(event: dict[str, Any], max_bytes: int) -> list[dict[str, Any]]:
    """Cut a stage event whose candidates weigh too much for one event into a stage and candidates events.

    Args:
        event: An event of the wire schema.
        max_bytes: What one event may weigh as msgpack.
    """
    columns = event.get("columns")
    if event["type"] != "stage" or not columns:
        return [event]
    columns = {name: _cuttable(values) for name, values in columns.items()}
    size = len(msgspec.msgpack.encode(columns))
    count = len(columns["candidate_id"])
    if size <= max_bytes or count < 2:
        return [event]
    step = max(1, count * max_bytes // (size + 1))
    parts = [{name: value for name, value in event.items() if name != "columns"}]
    for start in range(0, count, step):
        part = {name: _cut(values, slice(start, start + step)) for name, values in columns.items()}
        parts.append({"type": "candidates", "id": event["id"], "run": event["run"], "from_seq": start, "columns": part})
    return parts


def _cuttable(values: Any) -> Any:
    """A column that is still msgpack as a list of pieces that are; of one by field each field's."""
    if isinstance(values, dict):
        return {name: _cuttable(field) for name, field in values.items()}
    if isinstance(values, msgspec.Raw):
        return msgspec.msgpack.decode(values, type=list[msgspec.Raw])
    return values


def _cut(values: Any, part: slice) -> Any:
    return {name: field[part] for name, field in values.items()} if isinstance(values, dict) else values[part]
