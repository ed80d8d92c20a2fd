"""Retention on servers that free what is removed only later: the limit holds, and nothing goes that need not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from xray_server.daemons import retention as retention_module
from xray_server.daemons import spare as spare_module
from xray_server.daemons.retention import Policy, Retention
from xray_server.stores.base import Removed, Usage
from xray_server.stores.mongo.footprint import LATELY_S, Contents, Footprint, Overhead

LIMIT = 10**9
LENGTH, BARE, ENTRIES = 4000, 2000, 1000
"""Bytes of a stage with its page, without it, and of its index entries."""

STAGE_BYTES, BARE_BYTES = LENGTH * 1.1 + ENTRIES, BARE * 1.1 + ENTRIES
HOUR_S = 3600.0


class CleaningServer:
    """Models PostgreSQL: files only grow, and what was removed is used again once the server has cleaned up.

    It looks every minute, and cleans where a fifth of the documents has been removed or written anew.
    """

    every_s, share = 60.0, 0.2

    def __init__(self):
        self.full = self.bare = self.dead = self.free = self.room = 0.0
        self.next = self.every_s

    @property
    def live(self):
        """What the stages need, in bytes."""
        return self.full * STAGE_BYTES + self.bare * BARE_BYTES

    @property
    def files(self):
        return self.live + self.room + self.free

    @property
    def length(self):
        return self.full * LENGTH + self.bare * BARE

    def write(self, count, size=STAGE_BYTES):
        self.free -= min(self.free, count * size)
        self.full += count

    def strip(self, count):
        """Write stages anew without their page."""
        self.full, self.dead, self.room = self.full - count, self.dead + count, self.room + count * STAGE_BYTES
        self.free -= min(self.free, count * BARE_BYTES)
        self.bare += count

    def remove(self, count):
        bare = min(count, self.bare)
        self.bare, self.full, self.dead = self.bare - bare, self.full - (count - bare), self.dead + count
        self.room += bare * BARE_BYTES + (count - bare) * STAGE_BYTES

    def pass_time(self, now):
        if now >= self.next:
            self.next += self.every_s
            self.clean_up()

    def clean_up(self):
        if self.dead > self.share * (self.full + self.bare):
            self.free, self.room, self.dead = self.free + self.room, 0.0, 0.0

    def takes(self, footprint):
        indexes = self.files * ENTRIES / STAGE_BYTES
        stages = self.full + self.bare
        there = Contents({"stages": int(stages)}, {"stages": self.length / max(stages, 1)}, 0.5)
        return footprint.by_contents({"storageSize": self.files - indexes, "indexSize": indexes}, there)


class CheckpointingServer(CleaningServer):
    """Models MongoDB: it says what is free, as of its last checkpoint, and what all documents come to, at once."""

    share = 0.0

    def __init__(self):
        super().__init__()
        self.account = {"storageSize": 4096, "freeStorageSize": 0, "indexSize": 4096, "indexFreeStorageSize": 0}

    def clean_up(self):
        super().clean_up()
        indexes, free = (size * ENTRIES / STAGE_BYTES for size in (self.files, self.free))
        self.account = {"storageSize": self.files - indexes, "freeStorageSize": self.free - free,
                        "indexSize": indexes, "indexFreeStorageSize": free}  # fmt: skip

    def takes(self, footprint):
        return footprint.by_account({**self.account, "dataSize": self.length})


class Served:
    """A store on a modelled server that somebody writes to; its time passes with what is asked of it."""

    kind = "served"

    def __init__(self, server, bytes_per_s, filled=0.0):
        self.server, self.bytes_per_s = server, bytes_per_s
        self.now, self.highest, self.pages_removed, self.stages_removed, self.lowest = 0.0, 0.0, 0, 0, 1.0
        self.footprint = Footprint(lambda: self.now)
        server.write(filled * LIMIT / STAGE_BYTES)
        server.clean_up()

    def pass_time(self, seconds):
        end = self.now + seconds
        while self.now < end:
            step = min(0.5, end - self.now)
            self.now += step
            self.server.write(step * self.bytes_per_s(self.now) / STAGE_BYTES)
            self.server.pass_time(self.now)
            self.highest = max(self.highest, self.server.files / LIMIT)

    @property
    def share(self):
        """What is there, as a share of the limit."""
        return self.server.live / LIMIT

    async def projects(self):
        return ["default"]

    async def usage(self):
        self.pass_time(0.03)
        takes = self.server.takes(self.footprint)
        stages = int(self.server.full + self.server.bare)
        return Usage(takes.in_use, stages // 8, stages, int(self.server.full), takes.held, takes.lately)

    async def remove_candidates(self, project, *, before, limit):
        self.pass_time(0.05)
        gone = 0 if before is not None else min(limit, int(self.server.full))
        self.server.strip(gone)
        self.footprint.removed(gone * (LENGTH - BARE), 0)
        self.pages_removed += gone
        self.lowest = min(self.lowest, self.share)
        return Removed(pages=gone)

    async def remove_runs(self, project, *, before, limit):
        self.pass_time(0.05)
        gone = 0 if before is not None else min(limit * 8, int(self.server.full + self.server.bare))
        before = self.server.length
        self.server.remove(gone)
        self.footprint.removed(before - self.server.length, gone)
        self.stages_removed += gone
        self.lowest = min(self.lowest, self.share)
        return Removed(runs=gone // 8)

    async def reclaim(self):
        """Leave it to the server."""


@pytest.fixture
def keep(monkeypatch):
    """Let retention look after a store for some time."""

    def keep(store, seconds, limit=LIMIT):
        async def sleep(seconds):
            store.pass_time(seconds)

        async def use():
            retention = Retention(store, Policy(max_disk_bytes=limit))
            end = store.now + seconds
            while store.now < end:
                store.pass_time(await retention.remove_by_size())

        for module in (retention_module, spare_module):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: store.now))
        monkeypatch.setattr(retention_module, "asyncio", SimpleNamespace(sleep=sleep))
        asyncio.run(use())

    return keep


def steady(bytes_per_s):
    return lambda now: bytes_per_s


def in_turns(bytes_per_s):
    return lambda now: 2 * bytes_per_s * (now % 10 < 5)


BOTH = pytest.mark.parametrize("server", [CleaningServer, CheckpointingServer])


@BOTH
@pytest.mark.parametrize("pace", [steady, in_turns])
@pytest.mark.parametrize("bytes_per_s", [10**6, 3 * 10**6, 5 * 10**6])
def test_the_files_stay_within_a_tenth_under_fast_writers(keep, server, pace, bytes_per_s):
    """From empty on, at up to a pace that fills the store in three minutes; half of the files is always in use.

    Whole runs go: stages that are written anew without their page take more room than is given back in time.
    """
    store = Served(server(), pace(bytes_per_s))
    keep(store, LIMIT / bytes_per_s + 900)
    assert store.stages_removed
    assert store.highest <= 1.1
    assert store.lowest >= 0.4


@BOTH
@pytest.mark.parametrize("bytes_per_s", [50_000, 200_000])
def test_the_files_stay_within_a_tenth_under_slow_writers(keep, server, bytes_per_s):
    """Candidates go first, and runs only where there are no more candidates."""
    store = Served(server(), in_turns(bytes_per_s), filled=0.88)
    keep(store, 3000)
    assert store.pages_removed
    assert store.stages_removed == 0 or store.server.full < 0.01 * store.server.bare
    assert store.highest <= 1.1
    assert store.lowest >= 0.5


@BOTH
def test_nothing_more_goes_when_nobody_writes(keep, server):
    """Files that stay as large as they were are no reason to remove: a full store that is left alone stays full."""
    store = Served(server(), lambda now: 10**6 if now < 1200 else 0)
    keep(store, 1260)
    assert store.stages_removed
    share = store.share
    keep(store, 6 * HOUR_S)
    assert store.share >= 0.97 * share


@BOTH
def test_a_lowered_limit_takes_what_is_too_much(keep, server):
    """Half of the limit leaves half of what was there, and little less, though the files may stay as they are."""
    store = Served(server(), steady(0), filled=0.88)
    keep(store, 600)
    assert not store.pages_removed
    keep(store, 1200, limit=LIMIT // 2)
    assert 0.4 <= store.share <= 0.5


def test_the_delay_of_a_server_is_learned(keep):
    """Where it cleans up more often than expected more is kept after a while; where more rarely, the files hold too."""

    class Quick(CleaningServer):
        every_s, share = 15.0, 0.0

    class Slow(CleaningServer):
        every_s = 120.0

    quick, slow = Served(Quick(), steady(3 * 10**6)), Served(Slow(), steady(2 * 10**6))
    keep(quick, 450)
    share = quick.share
    keep(quick, 1500)
    assert quick.share > share + 0.03
    assert quick.highest <= 1.0
    keep(slow, 2500)
    assert slow.highest <= 1.1


def test_room_is_used_again_where_writers_slow_down(keep):
    """What was kept free for fast writers fills up when they are slow, and the files grow no more for it."""
    store = Served(CleaningServer(), lambda now: 5 * 10**6 if now < 900 else 100_000)
    keep(store, 900)
    share = store.share
    keep(store, 3000)
    assert store.share >= share + 0.05
    assert store.highest <= 1.1


@BOTH
def test_asked_once_it_removes_no_more_than_is_too_much(monkeypatch, server):
    """With a target of its own, as ``xray gc`` has it, nothing is kept free for writers."""
    store = Served(server(), lambda now: 10**6 if now < 900 else 0)
    store.pass_time(900)
    for module in (retention_module, spare_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: store.now))
    for _ in range(20):  # what retention beside it sees
        asyncio.run(store.usage())
        store.pass_time(3)
    asyncio.run(Retention(store, Policy(max_disk_bytes=LIMIT), target=1.0).remove_by_size())
    assert not store.pages_removed
    asyncio.run(Retention(store, Policy(max_disk_bytes=LIMIT * 8 // 10), target=1.0).remove_by_size())
    assert 0.75 <= store.share <= 0.83


def test_what_was_written_is_expected_again_for_a_while(keep):
    """A burst is remembered for some minutes, so that the next one meets room, and forgotten in the end."""
    store = Served(CleaningServer(), lambda now: 10**6 if now < 300 else 0)
    store.pass_time(1)
    for _ in range(300):
        lately = asyncio.run(store.usage()).lately_bytes
        store.pass_time(1)
    assert lately == pytest.approx(LATELY_S * 10**6, rel=0.1)
    for _ in range(6):
        store.pass_time(100)
        after = asyncio.run(store.usage()).lately_bytes
    assert 0.3 * lately < after < 0.5 * lately
    store.pass_time(HOUR_S)
    assert asyncio.run(store.usage()).lately_bytes < 0.01 * lately


def test_overhead_is_the_least_that_was_seen():
    """Files with room in them say nothing about what documents need; small changes are not written down."""
    overhead = Overhead()
    assert overhead.of(100, 1) is None
    assert overhead.to_write() is None
    thousand = Contents({"runs": 400, "stages": 600}, {"runs": 50, "stages": 500}, 0.0)
    overhead.learn(400_000, 90_000, thousand)
    assert overhead.of(320_000, 1000) == pytest.approx(490_000)
    overhead.learn(960_000, 900_000, thousand)
    assert overhead.of(320_000, 1000) == pytest.approx(490_000)
    assert overhead.to_write() == {"tables": 1.25, "indexes": 90}
    overhead.learn(399_000, 89_500, thousand)
    assert overhead.to_write() is None
    overhead.learn(352_000, 90_000, thousand)
    assert overhead.to_write() == {"tables": pytest.approx(1.1), "indexes": 89.5}
    overhead.learn(10, 10, Contents({"runs": 0}, {"runs": 0.0}, 0.0))
    assert overhead.of(320_000, 1000) == pytest.approx(441_500)
