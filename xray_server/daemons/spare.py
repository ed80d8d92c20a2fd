"""What retention keeps free on a server that frees what is removed only later."""

from __future__ import annotations

import time

GAIN = 2.0
"""What is kept free for each byte that a store holds above the target: a store whose files only grow is stopped well
before a tenth, whatever else was expected of it."""

FAR_OVER = 0.1
"""The share of the limit that files go over it at the most while it is kept."""

LEARN_EVERY_S = 60.0
LEAST_EXPECTED, MOST_EXPECTED = 0.5, 1.5
LESS, MORE = 0.95, 1.2
"""What is kept free of what was written lately: all of it to begin with. Each minute in which removal left the files
well below the target it is somewhat less, and each in which they went over it more."""

MOST_SPARE = 0.6
"""The share of the target that is kept free at the most, so that a store never empties itself."""


class Spare:
    """Learns how much has to stay unused, so that the files of a store stay below its limit."""

    def __init__(self) -> None:
        self._held_at_first: int | None = None
        self._expected = 1.0  # share of what was written lately that is kept free
        self._highest = self._removed_then = 0
        self._learns_at = 0.0

    def size_bytes(self, held: int, lately: int, target: int, limit: int, removed: int) -> int:
        """What is to stay unused for what was removed and is not free yet.

        In a store that takes no more than it may, as much is removed as is written, and what was written within the
        time that a server needs is missing until it is free. How long it really needs shows in what the store holds:
        where that has gone over the target more is kept free, and for good in a store whose files only grow.

        Args:
            held: What the files hold, in bytes.
            lately: What was written within the time that a server may need, in bytes.
            target: What the data is to take, in bytes.
            limit: What it may take.
            removed: How many runs and pages were removed so far.
        """
        if self._held_at_first is None:
            self._held_at_first = held
        # Files that were far too large from the beginning are those of another limit, and have room enough.
        is_given = self._held_at_first > (1 + FAR_OVER) * limit
        over = 0 if is_given else max(0, held - target)
        self._learn(held, target, removed)
        return int(min(lately * self._expected + GAIN * over, MOST_SPARE * target))

    def _learn(self, held: int, target: int, removed: int) -> None:
        """Expect less of the server's delay where the files stay well below the target all the same, else more."""
        self._highest = max(self._highest, held)
        if time.monotonic() < self._learns_at:
            return
        if self._highest > target:
            self._expected = min(self._expected * MORE, MOST_EXPECTED)
        elif self._highest < LESS * target and removed > self._removed_then:
            self._expected = max(self._expected * LESS, LEAST_EXPECTED)
        self._learns_at, self._highest, self._removed_then = time.monotonic() + LEARN_EVERY_S, 0, removed
