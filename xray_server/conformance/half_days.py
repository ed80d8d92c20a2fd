"""What a store owes to half days, as tests: with them trends read what the stages say, as without."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xray_server.conformance.rollups import NOON, a_bucket, a_stage, batch_of, random_parts
from xray_server.conformance.suite import StoreSuite
from xray_server.documents import Document, merge_into
from xray_server.half_days import HALF_DAY_MS, half_day_of, sums_of
from xray_server.rollups import HOUR_MS, order, read_half_days, refresh, refresh_half_days, roll_up
from xray_server.stores.base import Bucket, Rollup, Store
from xray_server.testing_data import PROJECT

FIRST = NOON // HALF_DAY_MS * HALF_DAY_MS
DAYS = 4
END = FIRST + DAYS * 2 * HALF_DAY_MS


class HalfDayContract(StoreSuite):
    """Sums of half days, and their marks; a store without them passes too."""

    def test_half_days_are_what_the_stages_say(self, tmp_path: Path) -> None:
        """Writes out of order and repeated, and hours and half days brought up to date in between, in any turn."""
        draw = random.Random(11)  # noqa: S311 - a test has to be repeatable
        parts = [spread(part) for part in random_parts(draw, 70)]
        parts = draw.sample(parts, len(parts)) + draw.choices(parts, k=40)

        async def use(store: Store) -> None:
            whole: dict[str, Document] = {}
            for start in range(0, len(parts), 20):
                written = parts[start : start + 20]
                await store.write(PROJECT, batch_of(*written))
                for part in written:
                    merge_into(whole.setdefault(part["id"], {}), part)
                for step in draw.choices((refresh, refresh_half_days), k=3):
                    assert await read(store) == added_up(roll_up(whole.values()))
                    await step(store, PROJECT, until=END, limit=draw.randrange(1, 9))
            while await refresh(store, PROJECT, until=END) or await refresh_half_days(store, PROJECT, until=END):
                pass
            expected = added_up(roll_up(whole.values()))
            assert await read(store) == expected
            ranked = {
                bucket: sums for bucket, sums in expected.items() if (bucket.label, bucket.name) == ("l1", "rank")
            }
            assert await read(store, label="l1", name="rank") == ranked
            kept = await store.half_days(PROJECT, since=FIRST, until=END)
            if kept is not None:
                assert kept.dirty == set()
                assert {rollup.bucket: rollup for rollup in kept.rollups} == expected

        self.with_store(tmp_path, use)

    def test_a_stretch_may_begin_and_end_within_a_half_day(self, tmp_path: Path) -> None:
        """Of these the hours are taken, and no hour twice."""
        stages = [a_stage(number, hour=number - NOON // HOUR_MS + FIRST // HOUR_MS) for number in range(60)]

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch_of(*stages))
            for _ in range(2):
                for first, last in ((0, 60), (5, 30), (5, 6), (12, 24), (13, 23), (11, 25), (36, 47)):
                    since, until = FIRST + first * HOUR_MS, FIRST + last * HOUR_MS
                    found = await read_half_days(store, PROJECT, since=since, until=until)
                    assert sum(rollup.stage_count for rollup in found) == last - first
                while await refresh(store, PROJECT, until=END) or await refresh_half_days(store, PROJECT, until=END):
                    pass

        self.with_store(tmp_path, use)

    def test_a_late_stage_puts_its_half_day_out_of_date(self, tmp_path: Path) -> None:
        """Its hour is dirty first, then, once that is kept, the half day: a reader is never told less than is known."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch_of(a_stage(1)))
            await refresh(store, PROJECT, until=END)
            await refresh_half_days(store, PROJECT, until=END)
            for number in range(2, 5):
                await store.write(PROJECT, batch_of(a_stage(number)))
                assert (await read(store))[half_day_of(a_bucket())].stage_count == number
                await refresh(store, PROJECT, until=END)
                kept = await store.half_days(PROJECT, since=FIRST, until=END)
                assert kept is None or kept.dirty == {half_day_of(a_bucket())}
                assert (await read(store))[half_day_of(a_bucket())].stage_count == number
                await refresh_half_days(store, PROJECT, until=END)
                assert (await read(store))[half_day_of(a_bucket())].stage_count == number

        self.with_store(tmp_path, use)

    def test_a_half_day_that_was_summed_up_too_early_stays_out_of_date(self, tmp_path: Path) -> None:
        """Who has read its mark before another hour of it was kept does not make it clean."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch_of(a_stage(1)))
            await refresh(store, PROJECT, until=END)
            early = await store.dirty_half_days(PROJECT, limit=9, until=END)
            if not early:
                return  # a store without half days
            await store.write(PROJECT, batch_of(a_stage(2)))
            await refresh(store, PROJECT, until=END)
            ((bucket, mark),) = early
            sums = sums_of(roll_up([a_stage(1)]))
            await store.keep_half_days(PROJECT, [(sums[bucket], mark)])
            assert [each for each, _ in await store.dirty_half_days(PROJECT, limit=9, until=END)] == [bucket]
            assert (await read(store))[bucket].stage_count == 2
            assert await store.dirty_half_days("other", limit=9, until=END) == []

        self.with_store(tmp_path, use)

    def test_half_days_go_with_the_runs_of_their_hours(self, tmp_path: Path) -> None:
        """Of a half day that lost some of its hours what is left is told; one that lost all is gone."""

        async def use(store: Store) -> None:
            batch = batch_of(*(a_stage(hour, hour=hour - NOON // HOUR_MS + FIRST // HOUR_MS) for hour in range(30)))
            for stage in batch.stages.values():
                batch.runs[stage["run_id"]] = {
                    "id": stage["run_id"], "label": "shop", "started_at": stage["started_at"], "status": "success"
                }  # fmt: skip
            await store.write(PROJECT, batch)
            while await refresh(store, PROJECT, until=END) or await refresh_half_days(store, PROJECT, until=END):
                pass
            for hours in (5, 16, 29):
                await store.remove_runs(PROJECT, before=FIRST + hours * HOUR_MS, limit=99)
                for _ in range(2):
                    counts = [rollup.stage_count for rollup in (await read(store)).values()]
                    assert counts == [
                        min(end - begin, end - hours) for begin, end in ((0, 12), (12, 24), (24, 30)) if end > hours
                    ]
                    assert sum(counts) == 30 - hours
                    await refresh_half_days(store, PROJECT, until=END)
            await store.remove_runs(PROJECT, before=None, limit=99)
            assert await read(store) == {}
            assert await store.dirty_half_days(PROJECT, limit=9, until=END) in ([], ())

        self.with_store(tmp_path, use)


def spread(part: Document) -> Document:
    """The same part of a stage in any of some days, where it says when the stage began."""
    if "started_at" not in part:
        return part
    hour = random.Random(part["id"]).randrange(DAYS * 24)  # noqa: S311 - the same for all parts of a stage
    return {**part, "started_at": FIRST + hour * HOUR_MS}


def added_up(rollups: Iterable[Rollup]) -> dict[Bucket, Rollup]:
    """Rollups of hours and half days as sums of half days, in their order."""
    found = sums_of(rollups)
    return {bucket: found[bucket] for bucket in sorted(found, key=order)}


async def read(store: Store, **narrowed: Any) -> dict[Bucket, Rollup]:
    """All that a reader is told, as sums of half days."""
    return added_up(await read_half_days(store, PROJECT, since=FIRST, until=END, **narrowed))
