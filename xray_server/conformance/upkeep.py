"""What a store owes to retention, checks and accounts, as tests."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from xray.ids import now_ms
from xray_server.conformance.rollups import NOON, a_stage
from xray_server.conformance.suite import StoreSuite
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, CandidatePage, paginate
from xray_server.query.ast import Compare, Metric, Scan, Test
from xray_server.rollups import HOUR_MS, refresh
from xray_server.stores.base import Removed, Store, WriteBatch
from xray_server.testing_data import PROJECT, documents, ids, sample_columns

COUNT = 6


def a_run(number: int) -> str:
    """The id of the run number *n*, as the stages have it."""
    return str(a_stage(number)["run_id"])


def old_batch(order: tuple[int, ...] = (3, 0, 5, 1, 4, 2), columns: int = 3) -> WriteBatch:
    """Runs that started an hour apart, each with a stage and its candidates; number 0 is the oldest."""
    batch = WriteBatch()
    for number in order:
        stage = a_stage(number, hour=number)
        run_id, stage_id = stage["run_id"], stage["id"]
        start = NOON + number * HOUR_MS
        batch.runs[run_id] = {"id": run_id, "label": "shop", "started_at": start, "status": "success"}
        batch.stages[stage_id] = stage
        batch.pages += paginate(run_id, stage_id, start, sample_columns(columns))
    return batch


class UpkeepContract(StoreSuite):
    """Projects, usage, removal, giving back, checks."""

    def test_projects_are_those_that_have_something(self, tmp_path: Path) -> None:
        """Runs, stages or pages make a project; they are sorted, and gone with the last run."""

        async def use(store: Store) -> None:
            assert await store.projects() == []
            await store.write("b", WriteBatch(runs={a_run(1): {"id": a_run(1)}}))
            await store.write("a", WriteBatch(stages={a_stage(1)["id"]: a_stage(1)}))
            await store.write("c", WriteBatch(pages=old_batch().pages))
            assert await store.projects() == ["a", "b", "c"]
            await store.remove_runs("b", before=None, limit=10)
            assert await store.projects() == ["a", "c"]

        self.with_store(tmp_path, use)

    def test_usage_grows_with_data_and_falls_with_removal(self, tmp_path: Path) -> None:
        """The counts are right for a few rows; what was removed does not count once it has been given back."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch())
            small = await store.usage()
            assert (small.run_count, small.stage_count, small.page_count) == (COUNT, COUNT, COUNT)
            assert small.size_bytes > 0
            for number in range(10, 40):
                await store.write(PROJECT, old_batch((number,), columns=20 * PAGE_SIZE))
            large = await store.usage()
            assert large.page_count == COUNT + 30 * 20
            assert large.size_bytes > small.size_bytes
            while (await store.remove_candidates(PROJECT, before=None, limit=100)).pages:
                pass
            await store.reclaim()
            after = await store.usage()
            assert (after.stage_count, after.page_count) == (COUNT + 30, 0)
            assert after.size_bytes < large.size_bytes

        self.with_store(tmp_path, use)

    def test_candidates_go_and_the_stage_says_so(self, tmp_path: Path) -> None:
        """The oldest pages go first and up to the limit; stages stay with their metrics and the time of the removal."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch())
            await store.write("other", old_batch())
            before, began = await documents(store, "stages"), now_ms()
            removed = await store.remove_candidates(PROJECT, before=NOON + 4 * HOUR_MS, limit=3)
            assert removed == Removed(0, 3, 3, 9, up_to=NOON + 2 * HOUR_MS)
            assert await with_pages(store) == {3, 4, 5}
            assert await said_removed(store) == {0, 1, 2}
            after = await documents(store, "stages")
            for stage in after.values():
                assert began <= stage.pop("candidates_removed_at", began) <= now_ms()
            assert after == before
            removed = await store.remove_candidates(PROJECT, before=NOON + 4 * HOUR_MS, limit=3)
            assert (removed.pages, removed.up_to) == (1, NOON + 3 * HOUR_MS)
            assert await store.remove_candidates(PROJECT, before=NOON + 4 * HOUR_MS, limit=3) == Removed()
            assert (await store.remove_candidates(PROJECT, before=None, limit=9)).pages == 2
            assert await with_pages(store) == set()
            assert await with_pages(store, "other") == set(range(COUNT))
            assert await said_removed(store, "other") == set()
            assert set(await documents(store, "runs")) == set(old_batch().runs)

        self.with_store(tmp_path, use)

    def test_pages_without_a_start_are_the_oldest(self, tmp_path: Path) -> None:
        """Pages of a run whose start nobody said go first, by age too."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch())
            stage = a_stage(9)
            pages = paginate(stage["run_id"], stage["id"], None, sample_columns(2))
            await store.write(PROJECT, WriteBatch(stages={stage["id"]: stage}, pages=pages))
            removed = await store.remove_candidates(PROJECT, before=NOON, limit=5)
            assert removed == Removed(0, 1, 1, 2, up_to=None)
            assert await said_removed(store) == {9}

        self.with_store(tmp_path, use)

    def test_runs_go_with_everything(self, tmp_path: Path) -> None:
        """The oldest runs go first and up to the limit, with stages, metrics, pages and the rollups of their hours."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch())
            await store.write("other", old_batch())
            await store.write(PROJECT, WriteBatch(stages={a_stage(20)["id"]: a_stage(20, run_id=a_run(0), name="b")}))
            await refresh(store, PROJECT, until=NOON + 99 * HOUR_MS)
            await store.write(PROJECT, WriteBatch(stages={a_stage(21)["id"]: a_stage(21, run_id=a_run(1), hour=1)}))
            removed = await store.remove_runs(PROJECT, before=NOON + 3 * HOUR_MS, limit=2)
            assert removed == Removed(2, 4, 2, 6, up_to=NOON + HOUR_MS)
            assert set(await documents(store, "runs")) == {a_run(number) for number in (2, 3, 4, 5)}
            assert {stage["run_id"] for stage in (await documents(store, "stages")).values()} == {
                a_run(number) for number in (2, 3, 4, 5)
            }
            assert await with_pages(store) == {2, 3, 4, 5}
            low = Scan("stages", stage=Test(Metric("failed"), Compare("lte", 2)))
            assert ids(await store.scan(PROJECT, low)) == [a_stage(2)["id"]]
            left = await store.rollups(PROJECT, since=0, until=NOON + 99 * HOUR_MS)
            assert [rollup.bucket.hour for rollup in left] == [NOON + hour * HOUR_MS for hour in (2, 3, 4, 5)]
            assert await store.dirty_buckets(PROJECT, limit=10) == []
            assert (await store.remove_runs(PROJECT, before=NOON + 3 * HOUR_MS, limit=2)).runs == 1
            assert await store.remove_runs(PROJECT, before=NOON + 3 * HOUR_MS, limit=2) == Removed()
            assert (await store.remove_runs(PROJECT, before=None, limit=99)).runs == 3
            assert await store.rollups(PROJECT, since=0, until=NOON + 99 * HOUR_MS) == []
            assert set(await documents(store, "runs", "other")) == {a_run(number) for number in range(COUNT)}
            assert await with_pages(store, "other") == set(range(COUNT))

        self.with_store(tmp_path, use)

    def test_runs_without_a_start_are_judged_by_their_id(self, tmp_path: Path) -> None:
        """The time in an id of version 7 counts; without one a run is not removed by age, and goes first without it."""
        digits = f"{NOON + 5:012x}"
        timed = f"{digits[:8]}-{digits[8:]}-7000-8000-000000000001"
        random_id = "00000000-0000-4000-8000-000000000001"
        started = "ffffffff-0000-7000-8000-000000000001"

        async def use(store: Store) -> None:
            runs: list[Document] = [{"id": timed}, {"id": random_id}, {"id": started, "started_at": NOON + 9}]
            await store.write(PROJECT, WriteBatch(runs={run["id"]: run for run in runs}))
            assert await store.remove_runs(PROJECT, before=NOON + 5, limit=9) == Removed()
            dry = await store.remove_runs(PROJECT, before=NOON + 6, limit=9, dry_run=True)
            assert await store.remove_runs(PROJECT, before=NOON + 6, limit=9) == dry == Removed(runs=1, up_to=NOON + 5)
            assert set(await documents(store, "runs")) == {random_id, started}
            assert (await store.remove_runs(PROJECT, before=None, limit=1)).runs == 1
            assert set(await documents(store, "runs")) == {started}

        self.with_store(tmp_path, use)

    def test_a_dry_run_says_what_would_go_and_changes_nothing(self, tmp_path: Path) -> None:
        """Whatever the limit, it is all that calls without ``dry_run`` remove together."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch(columns=PAGE_SIZE + 5))
            await store.write("other", old_batch())
            for before in (NOON + 3 * HOUR_MS, NOON, None):
                for remove in (store.remove_candidates, store.remove_runs):
                    known = [await documents(store, of) for of in ("runs", "stages")]
                    dry = await remove(PROJECT, before=before, limit=1, dry_run=True)
                    assert [await documents(store, of) for of in ("runs", "stages")] == known
                    count = {None: COUNT, NOON: 0, NOON + 3 * HOUR_MS: 3}[before]
                    assert (dry.pages, dry.candidates) == (2 * count, (PAGE_SIZE + 5) * count)
                    assert dry.stages == count
            assert await with_pages(store) == set(range(COUNT))
            dry = await store.remove_runs(PROJECT, before=None, limit=1, dry_run=True)
            parts = [await store.remove_runs(PROJECT, before=None, limit=2) for _ in range(COUNT)]
            assert sum(parts, Removed()) == dry == Removed(COUNT, COUNT, 2 * COUNT, (PAGE_SIZE + 5) * COUNT, dry.up_to)

        self.with_store(tmp_path, use)

    def test_a_large_run_goes_whole(self, tmp_path: Path) -> None:
        """A run with thousands of stages and pages leaves nothing behind, and counts as one."""
        stages = [a_stage(number, run_id=a_run(1)) for number in range(1200)]

        async def use(store: Store) -> None:
            batch = WriteBatch(runs={a_run(1): {"id": a_run(1), "started_at": NOON}})
            batch.stages = {stage["id"]: stage for stage in stages}
            batch.pages = list(itertools.chain(*(paginate(a_run(1), s["id"], NOON, sample_columns(1)) for s in stages)))
            await store.write(PROJECT, batch)
            await store.write(PROJECT, old_batch((2000,)))
            removed = await store.remove_runs(PROJECT, before=None, limit=1)
            assert removed == Removed(1, 1200, 1200, 1200, up_to=NOON)
            assert set(await documents(store, "runs")) == {a_run(2000)}
            assert set(await documents(store, "stages")) == {a_stage(2000)["id"]}
            assert [page async for page in store.pages(PROJECT, stages[-1]["id"])] == []

        self.with_store(tmp_path, use)

    def test_what_was_removed_may_be_written_again(self, tmp_path: Path) -> None:
        """A batch that is sent once more after its removal is there once more."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch())
            await store.remove_candidates(PROJECT, before=None, limit=99)
            await store.write(PROJECT, old_batch())
            assert await with_pages(store) == set(range(COUNT))
            await store.remove_runs(PROJECT, before=None, limit=99)
            await store.write(PROJECT, old_batch())
            assert await documents(store, "stages") == old_batch().stages

        self.with_store(tmp_path, use)

    def test_removal_and_giving_back_disturb_no_write(self, tmp_path: Path) -> None:
        """While the oldest pages and runs are removed, everything new that is written is there afterwards."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch(columns=3 * PAGE_SIZE))
            new = tuple(range(10, 40))

            async def clear() -> None:
                for _ in range(3):
                    while (await store.remove_candidates(PROJECT, before=NOON + 9 * HOUR_MS, limit=2)).pages:
                        await store.reclaim()
                    await store.remove_runs(PROJECT, before=NOON + 9 * HOUR_MS, limit=1)

            await asyncio.gather(clear(), *(store.write(PROJECT, old_batch((number,))) for number in new))
            assert set(await documents(store, "runs")) >= {a_run(number) for number in new}
            stages = await documents(store, "stages")
            for number in new:
                assert stages[a_stage(number)["id"]] == a_stage(number, hour=number)
            assert await with_pages(store, among=new) == set(new)
            await store.reclaim()
            assert await with_pages(store, among=new) == set(new)

        self.with_store(tmp_path, use)

    def test_a_fresh_store_has_nothing_to_find_fault_with(self, tmp_path: Path) -> None:
        """A check looks at indexes and questions, each in words, and all are as they should be."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, old_batch())
            findings = await store.check()
            assert len(findings) > 1
            assert [finding for finding in findings if not finding.ok] == []
            assert all(finding.what and finding.detail for finding in findings)

        self.with_store(tmp_path, use)


async def with_pages(store: Store, project: str = PROJECT, among: tuple[int, ...] = (*range(COUNT), 9)) -> set[int]:
    """The numbers of the stages that have pages."""
    return {number for number in among if await _pages(store, project, a_stage(number)["id"])}


async def said_removed(store: Store, project: str = PROJECT) -> set[int]:
    """The numbers of the stages that say that their candidates were removed."""
    stages = await documents(store, "stages", project)
    return {int(stage["id"][-12:]) for stage in stages.values() if stage.get("candidates_removed_at") is not None}


async def _pages(store: Store, project: str, stage_id: Any) -> list[CandidatePage]:
    return [page async for page in store.pages(project, stage_id)]
