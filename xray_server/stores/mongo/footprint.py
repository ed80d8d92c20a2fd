"""What a database takes: by the server's account, and by what its documents come to.

The server's account comes late. MongoDB says what is free in its files, as of its last checkpoint, about a minute ago.
Servers on PostgreSQL do not say it at all: their files only grow, and what a removed or changed document took is used
again once the server has cleaned up, which it does every minute at the most, and of large tables more rarely. Whoever
went by the files alone would go on removing until nothing is left; whoever trusted that what is removed is free would
find the files larger and larger. So there are two figures: ``held``, the files less what the server says is free in
them, and ``in_use``, what the documents that there are need, which falls at once when some are removed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from xray_server.stores.mongo import pages
from xray_server.stores.mongo.filters import Filter
from xray_server.stores.mongo.forms import Raw

EXACT_UP_TO = 10_000
"""Documents that are counted; of larger collections the server's estimate is taken."""

SETTLED_FROM_BYTES = 16 * 1024 * 1024
"""Size of a database's files from which they are a measure of what is in them."""

SAMPLE = 5000
"""Documents whose length is asked for, of a collection: the mean is right to some two in a hundred."""

SAMPLE_EVERY_S = 2.0

COUNTED_AFTER_S = 10.0
"""After this a server's estimate of how many documents there are takes account of those that were removed."""

LATELY_S = 75.0
"""How far back *lately* reaches: servers make a checkpoint, or clean up, about once a minute."""

CALMED_AFTER_S = 600.0
"""After this long without writes a third is left of what is expected from writers."""

KNOWN_TO = 0.02
"""Overhead is written down when it has changed by this share."""

_OVERHEAD = "overhead"
_MEASURED = ("stages", "pages", "runs", "buckets", "sighting_tail", "sighting_parts")
"""The collections that can be large."""


@dataclass(frozen=True, slots=True)
class Takes:
    """What a database takes, in bytes.

    Args:
        in_use: What its documents and their index entries need.
        held: Its files, less what the server says is free in them.
        lately: What was written lately, or may be as soon as it was written before.
    """

    in_use: int
    held: int
    lately: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What there is.

    Args:
        counts: How many documents each of the collections has that can be large.
        lengths: Their mean lengths in bytes.
        inside: The share of the stages that hold their page.
    """

    counts: Mapping[str, int]
    lengths: Mapping[str, float]
    inside: float

    @property
    def documents(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    @property
    def length(self) -> float:
        """What they come to, in bytes."""
        return sum(count * self.lengths[name] for name, count in self.counts.items())

    @property
    def is_exact(self) -> bool:
        """Whether everything was counted and measured."""
        return all(count <= SAMPLE for count in self.counts.values())


class _Greatest:
    """The greatest of the values of the last minutes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._values: deque[tuple[float, float]] = deque()

    def with_(self, value: float, within_s: float) -> float:
        """Note a value; the greatest of those of the last seconds."""
        now = self._clock()
        while self._values and (self._values[-1][1] <= value):
            self._values.pop()  # it will never be the greatest again
        self._values.append((now, value))
        while self._values[0][0] < now - within_s:
            self._values.popleft()
        return self._values[0][1]


class Lately:
    """What was removed and written in the last minutes, by this process's looks.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._removed: deque[tuple[float, float]] = deque()
        self._removed_ever = 0.0
        self._looks: deque[tuple[float, float]] = deque()
        self._expected = 0.0
        self._expected_at = clock()

    def removed(self, size_bytes: float) -> None:
        """Note a removal."""
        self._removed.append((self._clock(), size_bytes))
        self._removed_ever += size_bytes

    def removed_since(self, time_s: float) -> float:
        """What was removed after a time."""
        while self._removed and self._removed[0][0] < self._clock() - LATELY_S:
            self._removed.popleft()
        return sum(size for at, size in self._removed if at > time_s)

    def written(self, in_use: float) -> float:
        """Note what is in use now; what was written lately, or may be as soon as it was written before."""
        now = self._clock()
        self._looks.append((now, in_use + self._removed_ever))
        while self._looks[0][0] < now - LATELY_S:
            self._looks.popleft()
        written = max(0.0, self._looks[-1][1] - self._looks[0][1])
        self._expected *= math.exp((self._expected_at - now) / CALMED_AFTER_S)
        self._expected, self._expected_at = max(self._expected, written), now
        return self._expected


class Overhead:
    """What documents take beyond their own length, on a server that does not say what is free in its files.

    The least that was ever seen: files that were more than that had room in them.
    """

    def __init__(self, tables: float | None = None, indexes: float | None = None) -> None:
        self._tables = tables
        self._indexes = indexes
        self._written = tables, indexes

    def learn(self, tables_bytes: float, indexes_bytes: float, contents: Contents) -> None:
        """Compare the files with what is in them."""
        if contents.documents:
            tables, indexes = tables_bytes / max(contents.length, 1.0), indexes_bytes / contents.documents
            self._tables = tables if self._tables is None else min(self._tables, tables)
            self._indexes = indexes if self._indexes is None else min(self._indexes, indexes)

    def of(self, length: float, documents: float) -> float | None:
        """What documents of a length altogether need, with their index entries; None where nothing is known yet."""
        if self._tables is None or self._indexes is None:
            return None
        return self._tables * length + self._indexes * documents

    def to_write(self) -> Raw | None:
        """What is to be written down, where it has changed since."""
        known = self._tables, self._indexes
        is_same = all(
            now is None or (then is not None and now > then * (1 - KNOWN_TO))
            for now, then in zip(known, self._written, strict=True)
        )
        if is_same:
            return None
        self._written = known
        return {"tables": self._tables, "indexes": self._indexes}


class Footprint:
    """Watches what a database takes, and says it.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lately = Lately(clock)
        self._lengths, self._ratios = _Greatest(clock), _Greatest(clock)
        self._overhead: Overhead | None = None
        self._contents: Contents | None = None
        self._sampled_at = 0.0

    def removed(self, length: float, documents: int) -> None:
        """Note a removal by this process.

        Args:
            length: The documents' own length, in bytes; of documents that stay: what they have become shorter by.
            documents: How many went altogether.
        """
        known = None if self._overhead is None else self._overhead.of(length, documents)
        self._lately.removed(length if known is None else known)

    async def look(self, database: AsyncDatabase[Raw]) -> tuple[Takes, Contents]:
        """What the database takes, and what is in it.

        Raises:
            PyMongoError: The server could not be reached, or refused.
        """
        stats = await database.command({"dbStats": 1, "freeStorage": 1})
        contents = await self._look_into(database)
        if "freeStorageSize" in stats:
            return self.by_account(stats), contents
        if self._overhead is None:
            known = await database["form"].find_one({"_id": _OVERHEAD}) or {}
            self._overhead = Overhead(known.get("tables"), known.get("indexes"))
        takes = self.by_contents(stats, contents)
        if changed := self._overhead.to_write():
            await database["form"].update_one({"_id": _OVERHEAD}, {"$min": changed}, upsert=True)
        return takes, contents

    def by_account(self, stats: Mapping[str, Any]) -> Takes:
        """Where the server says what is free, as of its last checkpoint, and what all documents come to, as of now."""
        data = stats["storageSize"] - stats["freeStorageSize"]
        if data < SETTLED_FROM_BYTES:
            # What is new is in memory and in the journal until the next checkpoint, and in no collection's file.
            data = max(data, stats["dataSize"])
        held = data + stats["indexSize"] - stats.get("indexFreeStorageSize", 0)
        length = float(stats["dataSize"])
        # The account is of a moment when there was as much as this at the most. So each of the ratios is too low, if
        # anything; of a store that grows only the one just after a checkpoint is right.
        then = self._lengths.with_(length, LATELY_S)
        in_use = length * self._ratios.with_(held / then, 2 * LATELY_S) if then else float(held)
        return Takes(int(in_use), int(held), int(self._lately.written(in_use)))

    def by_contents(self, stats: Mapping[str, Any], contents: Contents) -> Takes:
        """Where it says nothing of the kind, from how many documents there are and how long they are."""
        overhead = self._overhead = self._overhead or Overhead()
        held = stats["storageSize"] + stats["indexSize"]
        overhead.learn(stats["storageSize"], stats["indexSize"], contents)
        needed = overhead.of(contents.length, contents.documents)
        if needed is None:
            return Takes(int(held), int(held), int(self._lately.written(0.0)))
        uncounted = 0.0 if contents.is_exact else self._lately.removed_since(self._clock() - COUNTED_AFTER_S)
        in_use = max(0.0, needed - uncounted)
        return Takes(int(min(in_use, held)), int(held), int(self._lately.written(in_use)))

    async def _look_into(self, database: AsyncDatabase[Raw]) -> Contents:
        counts = {name: await count(database[name], {}) for name in _MEASURED}
        known = self._contents
        is_small = all(number <= SAMPLE for number in counts.values())
        if known is None or is_small or self._clock() - self._sampled_at >= SAMPLE_EVERY_S:
            lengths, inside = {}, 0.0
            for name in _MEASURED:
                lengths[name], share = await _sampled(database[name], counts[name])
                inside = share if name == "stages" else inside
            self._sampled_at = self._clock()
        else:
            lengths, inside = dict(known.lengths), known.inside
        if counts["stages"] < EXACT_UP_TO and counts["stages"]:
            inside = await count(database["stages"], dict(pages.HAS_PAGE)) / counts["stages"]
        self._contents = Contents(counts, lengths, inside)
        return self._contents


async def count(collection: AsyncCollection[Raw], where: Filter) -> int:
    """How many documents there are; an estimate, and of all, where there are many."""
    counted = await collection.count_documents(where, limit=EXACT_UP_TO)
    return counted if counted < EXACT_UP_TO else max(counted, int(await collection.estimated_document_count()))


async def _sampled(collection: AsyncCollection[Raw], known: int) -> tuple[float, float]:
    """The mean length of a collection's documents, and the share of those that hold a page."""
    has_page = {"$cond": [{"$eq": [{"$type": f"${pages.MARKS}"}, "missing"]}, 0, 1]}
    steps: list[Raw] = [{"$sample": {"size": SAMPLE}}] if known > SAMPLE else []
    steps.append({"$group": {"_id": None, "length": {"$avg": {"$bsonSize": "$$ROOT"}}, "inside": {"$avg": has_page}}})
    async with await collection.aggregate(steps) as cursor:
        async for found in cursor:
            return float(found["length"]), float(found["inside"])
    return 0.0, 0.0
