"""What a store owes to rollups, as tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xray_server.conformance.suite import StoreSuite
from xray_server.documents import Document, merge_into
from xray_server.rollups import HOUR_MS, read_rollups, refresh, roll_up
from xray_server.stores.base import Bucket, Rollup, Store, WriteBatch
from xray_server.testing_data import PROJECT

NOON = 1_800_000_000_000 // HOUR_MS * HOUR_MS
LATER = NOON + 1_000 * HOUR_MS


def a_stage(number: int, **fields: Any) -> Document:
    """A partial stage that started at noon; ``hour`` and ``version`` say otherwise."""
    hour, version = fields.pop("hour", 0), fields.pop("version", "1")
    pipeline = {"label": fields.pop("label", "shop")} | ({} if version is None else {"version": version})
    stage: Document = {
        "id": f"00000000-0000-7000-9000-{number:012d}", "run_id": f"00000000-0000-7000-8000-{number:012d}",
        "pipeline": pipeline, "name": "filter", "type": "filtering", "status": "success",
        "started_at": NOON + hour * HOUR_MS + number, "metrics": {"failed": number}, "metrics_over": 1,
    }  # fmt: skip
    return {name: value for name, value in (stage | fields).items() if value is not None}


def a_bucket(hour: int = 0, version: str | None = "1", label: str | None = "shop", name: str = "filter") -> Bucket:
    """The bucket of such a stage."""
    return Bucket(label, name, "filtering", version, NOON + hour * HOUR_MS)


def batch_of(*stages: Document) -> WriteBatch:
    """A batch of stages."""
    merged: dict[str, Document] = {}
    for stage in stages:
        merge_into(merged.setdefault(stage["id"], {}), stage)
    return WriteBatch(stages=merged)


class RollupContract(StoreSuite):
    """Dirty marks and kept rollups."""

    def test_a_write_marks_the_bucket_and_the_one_before(self, tmp_path: Path) -> None:
        """A stage's bucket is dirty after a write, also the one that it has left; without a start it is in none."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch_of(a_stage(1, version=None), a_stage(2, started_at=None)))
            assert await dirty(store) == {a_bucket(version=None)}
            await keep_all(store)
            assert await dirty(store) == set()
            await store.write(PROJECT, batch_of(a_stage(1, version="7")))
            assert await dirty(store) == {a_bucket(version=None), a_bucket(version="7")}
            await keep_all(store)
            assert [rollup.bucket for rollup in await kept(store)] == [a_bucket(version="7")]
            await store.write(PROJECT, batch_of(a_stage(1, metrics={"failed": 9}, metrics_over=2)))
            await store.write(PROJECT, batch_of(a_stage(2, status="failure", hour=3)))
            assert await dirty(store) == {a_bucket(version="7"), a_bucket(3)}

        self.with_store(tmp_path, use)

    def test_a_mark_grows_and_goes_only_when_it_has_not(self, tmp_path: Path) -> None:
        """A rollup that was computed before another write leaves the bucket dirty; a mark is never given twice."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch_of(a_stage(1)))
            ((bucket, first),) = await store.dirty_buckets(PROJECT, limit=10)
            await store.write(PROJECT, batch_of(a_stage(2)))
            ((_, second),) = await store.dirty_buckets(PROJECT, limit=10)
            assert second > first
            await store.keep_rollups(PROJECT, [(of_stages(bucket, 1), first)])
            assert await dirty(store) == {bucket}
            await store.keep_rollups(PROJECT, [(of_stages(bucket, 2), second)])
            assert await dirty(store) == set()
            await store.write(PROJECT, batch_of(a_stage(3)))
            ((_, third),) = await store.dirty_buckets(PROJECT, limit=10)
            assert third > second

        self.with_store(tmp_path, use)

    def test_a_late_rollup_does_not_replace_a_later_one(self, tmp_path: Path) -> None:
        """Of two that compute the same bucket, the one that read it first cannot undo what the other one kept."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch_of(a_stage(1)))
            ((bucket, early),) = await store.dirty_buckets(PROJECT, limit=10)
            await store.write(PROJECT, batch_of(a_stage(2)))
            ((_, late),) = await store.dirty_buckets(PROJECT, limit=10)
            await store.keep_rollups(PROJECT, [(of_stages(bucket, 2), late)])
            await store.keep_rollups(PROJECT, [(of_stages(bucket, 1), early)])
            assert [rollup.stage_count for rollup in await kept(store)] == [2]
            assert await dirty(store) == set()

        self.with_store(tmp_path, use)

    def test_dirty_buckets_come_by_hour_and_can_be_narrowed(self, tmp_path: Path) -> None:
        """The oldest hour first, up to the limit; by label and hours; never of another project."""

        async def use(store: Store) -> None:
            stages = [a_stage(n, hour=hour, label=f"l{n % 2}") for n, hour in enumerate((4, 1, 3, 0, 2))]
            await store.write(PROJECT, batch_of(*stages, a_stage(9, hour=9, label=None)))
            await store.write("other", batch_of(a_stage(1, hour=-5)))
            assert await hours(store, limit=10) == [0, 1, 2, 3, 4, 9]
            assert await hours(store, limit=2) == [0, 1]
            assert await hours(store, limit=10, label="l1") == [0, 1]
            assert await hours(store, limit=10, since=NOON + HOUR_MS, until=NOON + 4 * HOUR_MS) == [1, 2, 3]
            assert await hours(store, limit=1, since=NOON + 2 * HOUR_MS, label="l0") == [2]
            assert [bucket.hour for bucket, _ in await store.dirty_buckets("other", limit=9)] == [NOON - 5 * HOUR_MS]

        self.with_store(tmp_path, use)

    def test_rollups_are_kept_as_they_are(self, tmp_path: Path) -> None:
        """What was kept comes back by hour, narrowed by label, name and hours; one of no stages removes it."""

        async def use(store: Store) -> None:
            stages = [
                a_stage(1, hour=2),
                a_stage(2, hour=1, label=None, metrics={"x": 0.1, "t": {"a.b $c": -5}}),
                a_stage(3, hour=1, name="rank", version=None),
                a_stage(4, hour=0, label="é", status="failure"),
            ]
            await store.write(PROJECT, batch_of(*stages))
            await store.write("other", batch_of(a_stage(5)))
            await keep_all(store)
            expected = {rollup.bucket: rollup for rollup in roll_up(stages)}
            found = await kept(store)
            assert {rollup.bucket: rollup for rollup in found} == expected
            assert [rollup.bucket.hour for rollup in found] == [NOON + hour * HOUR_MS for hour in (0, 1, 1, 2)]
            one = await store.rollups(PROJECT, label="shop", name="rank", since=NOON, until=LATER)
            assert [rollup.bucket for rollup in one] == [a_bucket(1, None, name="rank")]
            hour = await store.rollups(PROJECT, since=NOON + HOUR_MS, until=NOON + 2 * HOUR_MS)
            assert [rollup.bucket.hour for rollup in hour] == [NOON + HOUR_MS] * 2
            await store.write(PROJECT, batch_of(a_stage(6, hour=2)))
            ((bucket, mark),) = await store.dirty_buckets(PROJECT, limit=9)
            await store.keep_rollups(PROJECT, [(of_stages(bucket, 0), mark)])
            assert bucket not in {rollup.bucket for rollup in await kept(store)}

        self.with_store(tmp_path, use)

    def test_rollups_are_what_the_stages_say(self, tmp_path: Path) -> None:
        """Writes out of order, repeated and corrected: what is read equals what all stages sum up to, at any time."""
        draw = random.Random(7)  # noqa: S311 - a test has to be repeatable
        parts = list(random_parts(draw, 60))
        # Some are sent twice, and all in any order.
        parts = draw.sample(parts, len(parts)) + draw.choices(parts, k=40)

        async def use(store: Store) -> None:
            whole: dict[str, Document] = {}
            expected: list[Rollup] = []
            for start in range(0, len(parts), 25):
                written = parts[start : start + 25]
                await store.write(PROJECT, batch_of(*written))
                for part in written:
                    merge_into(whole.setdefault(part["id"], {}), part)
                expected[:] = roll_up(whole.values())
                assert await read_rollups(store, PROJECT, since=0, until=LATER) == expected
                await refresh(store, PROJECT, until=LATER, limit=draw.randrange(4))
                assert await read_rollups(store, PROJECT, since=0, until=LATER) == expected
            while await refresh(store, PROJECT, until=LATER):
                pass
            assert await dirty(store) == set()
            assert await kept(store) == expected
            shop = [rollup for rollup in expected if rollup.bucket.label == "l1" and rollup.bucket.name == "rank"]
            assert await read_rollups(store, PROJECT, label="l1", name="rank", since=0, until=LATER) == shop

        self.with_store(tmp_path, use)

    def test_no_clean_bucket_lacks_a_stage(self, tmp_path: Path) -> None:
        """While stages are written and buckets brought up to date at once, a reader gets no fewer than there were."""

        async def use(store: Store) -> None:
            written = 0

            async def write() -> None:
                nonlocal written
                for number in range(40):
                    await store.write(PROJECT, batch_of(a_stage(number)))
                    written += 1

            async def read(reads: Callable[[], Awaitable[object]]) -> None:
                while written < 40:
                    await reads()
                    await asyncio.sleep(0)

            async def count() -> None:
                before = written
                found = await read_rollups(store, PROJECT, since=NOON, until=LATER)
                assert sum(rollup.stage_count for rollup in found) >= before

            await asyncio.gather(write(), read(lambda: refresh(store, PROJECT, until=LATER)), read(count))

        self.with_store(tmp_path, use)


def random_parts(draw: random.Random, count: int) -> Iterable[Document]:
    """Stages of a few buckets, each in several partial documents that correct each other."""
    for number in range(count):
        whole = a_stage(
            number,
            hour=draw.choice((0, 1, 2, 4, 7)),
            label=draw.choice(["l1", "l2", None]),
            name=draw.choice(["rank", "filter"]),
        )
        for over in range(draw.randrange(1, 4)):
            metrics: Document = {"fail_ratio": draw.random(), "failed": draw.randrange(-5, 5)}
            if draw.random() < 0.5:
                metrics["label_counts"] = {f"r{draw.randrange(3)}": draw.randrange(9), "n": 1}
            if draw.random() < 0.3:
                metrics |= {"margin": None, "histogram": {"edges": [0, 1], "counts": [3]}}
            status = draw.choice(["running", "success"])
            yield {**whole, "metrics": metrics, "metrics_over": over, "status": status}
        if draw.random() < 0.3:
            yield {"id": whole["id"], "run_id": whole["run_id"], "pipeline": {"version": "2"}, "status": "failure"}


def of_stages(bucket: Bucket, count: int) -> Rollup:
    """A rollup that says how many stages it is of."""
    return replace(roll_up([a_stage(1)])[0], bucket=bucket, stage_count=count)


async def dirty(store: Store) -> set[Bucket]:
    """All dirty buckets."""
    return {bucket for bucket, _ in await store.dirty_buckets(PROJECT, limit=1000)}


async def hours(store: Store, **narrowed: Any) -> list[int]:
    """The hours of dirty buckets, counted from noon."""
    return [(bucket.hour - NOON) // HOUR_MS for bucket, _ in await store.dirty_buckets(PROJECT, **narrowed)]


async def kept(store: Store) -> Sequence[Rollup]:
    """All kept rollups."""
    return await store.rollups(PROJECT, since=0, until=LATER)


async def keep_all(store: Store) -> None:
    """Bring every bucket up to date."""
    while await refresh(store, PROJECT, until=LATER):
        pass
