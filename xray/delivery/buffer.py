"""The buffer: records wait here in memory, bounded in number and bytes, and every one is counted.

The caller's thread only appends to a deque under a lock that is never held during I/O or encoding.
"""

from __future__ import annotations

import collections
import threading
from collections import Counter
from collections.abc import Callable

from xray.delivery.stats import Record

NEVER = 1 << 62


class Buffer:
    """Records that wait, and the counts of all.

    Everything that is not a method is read and changed under :attr:`lock` only.

    Args:
        max_records: Records that may wait.
        max_bytes: What waiting records, and those under way, may weigh.
        wake: Called, under the lock, when the worker has something to look at.
    """

    def __init__(self, max_records: int, max_bytes: int, wake: Callable[[], None]) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._wake = wake
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        """Somebody may wait for what became of the records."""
        self.waiting: collections.deque[Record] = collections.deque()
        self.bytes = 0
        """What waits and what is under way."""
        self.under_way = 0
        """How many records have left the queue and are not settled."""
        self.wake_bytes = NEVER
        """At which weight to wake the worker; it says so anew each time that it waits."""
        self.is_closed = False
        self.recorded = 0
        self.refused = 0
        self.acknowledged = 0
        self.spooled = 0
        self.sent = 0
        self.dropped: Counter[str] = Counter()

    def submit(self, record: Record) -> bool:
        """Take a record; False, counted, where there is no room."""
        size = record.size_bytes
        with self.lock:
            waiting = self.waiting
            self.recorded += 1
            if self.is_closed or len(waiting) >= self._max_records or self.bytes + size > self._max_bytes:
                self.refused += 1
                self.dropped["after_shutdown" if self.is_closed else "buffer_full"] += 1
                return False
            waiting.append(record)
            self.bytes += size
            if len(waiting) == 1 or self.bytes >= self.wake_bytes:
                self.wake_bytes = NEVER  # once is enough: the worker is about to look
                self._wake()
        return True

    def taken_in(self) -> int:
        """How many records were taken in so far: the number of the next one."""
        return self.recorded - self.refused

    def take(self, max_records: int, max_bytes: int) -> tuple[list[Record], int, int]:
        """The oldest records, as many as go together; their weight, and the number of the first.

        The weight stays counted until they are settled: they are still in memory.
        """
        waiting = self.waiting
        first = self.taken_in() - len(waiting)
        records: list[Record] = []
        weight = 0
        while waiting and len(records) < max_records:
            size = waiting[0].size_bytes
            if records and weight + size > max_bytes:
                break
            weight += size
            records.append(waiting.popleft())
        self.under_way += len(records)
        return records, weight, first

    def settle(self, weight_bytes: int, acknowledged: int, spooled: int, dropped: Counter[str]) -> None:
        """Records that were under way are settled.

        Args:
            weight_bytes: What they weighed.
            acknowledged: How many are stored.
            spooled: How many lie in the spool.
            dropped: Reason → how many are lost.
        """
        self.bytes = max(0, self.bytes - weight_bytes)
        self.under_way = max(0, self.under_way - acknowledged - spooled - dropped.total())
        self.acknowledged += acknowledged
        self.spooled += spooled
        self.dropped += dropped
        self.changed.notify_all()

    def settle_spooled(self, acknowledged: int, dropped: Counter[str]) -> None:
        """Records of this process that lay in the spool are settled."""
        self.spooled -= acknowledged + dropped.total()
        self.acknowledged += acknowledged
        self.dropped += dropped
        self.changed.notify_all()

    def give_up(self, reason: str) -> None:
        """Count all that waits or is under way as lost."""
        left = len(self.waiting) + self.under_way
        if left:
            self.dropped[reason] += left
        self.waiting.clear()
        self.under_way = self.bytes = 0
        self.changed.notify_all()
