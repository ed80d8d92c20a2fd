"""The conformance suite that every store is held to; shipped, so that a store of your own can be held to it too.

A subclass says how to make a store, and pytest finds the tests by the subclass's name::

    class TestMyStore(StoreContract):
        async def make_store(self, place: Path) -> Store:
            return MyStore(place / "data")
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from xray.exceptions import StoreClosed
from xray_server.conformance.analyses import AnalysisContract
from xray_server.conformance.deadlines import DeadlineContract
from xray_server.conformance.decided import DecidedContract
from xray_server.conformance.half_days import HalfDayContract
from xray_server.conformance.named import NamedContract
from xray_server.conformance.rollups import RollupContract
from xray_server.conformance.sightings import SightingContract
from xray_server.conformance.upkeep import UpkeepContract
from xray_server.conformance.values import ValuesContract
from xray_server.conformance.zones import ZoneContract
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, join_columns, paginate
from xray_server.query.ast import EVERYTHING, And, Compare, Field, In, Metric, Not, Or, Reference, Scan, SortKey, Test
from xray_server.query.evaluate import matches
from xray_server.stores.base import Store, WriteBatch
from xray_server.testing_data import (
    BY_ID,
    PROJECT,
    RUN_CONDITIONS,
    RUN_ID,
    STAGE_CONDITIONS,
    STAGE_ID,
    combined,
    documents,
    ids,
    in_order,
    pages_of,
    sample_batch,
    sample_columns,
    sample_runs,
    sample_stages,
    tests_on,
    value_of,
)


class StoreContract(
    RollupContract,
    HalfDayContract,
    UpkeepContract,
    NamedContract,
    ValuesContract,
    ZoneContract,
    SightingContract,
    AnalysisContract,
    DeadlineContract,
    DecidedContract,
):
    """What ``xray_server.stores.base.Store`` promises, as tests; a subclass says how to make a store."""

    # --- writing ------------------------------------------------------------------------------------------------

    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        """Runs, stages, pages and declarations come back as they were given."""
        given = sample_batch()

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            assert await documents(store, "runs") == given.runs
            assert await documents(store, "stages") == given.stages
            assert await pages_of(store) == given.pages
            assert await store.declarations(PROJECT) == given.declarations

        self.with_store(tmp_path, use)

    def test_any_order_and_repetition_give_the_same(self, tmp_path: Path) -> None:
        """Partial batches in any order, some of them twice, give the same documents and pages."""
        parts = [
            WriteBatch(runs={RUN_ID: {"id": RUN_ID, "status": "running", "label": "a", "metadata": {"x": 1}}}),
            WriteBatch(runs={RUN_ID: {"id": RUN_ID, "status": "success", "duration_ms": 5, "metadata": {"y": 2}}}),
            WriteBatch(stages={STAGE_ID: {"id": STAGE_ID, "run_id": RUN_ID, "metrics": {"n": 1}, "metrics_over": 1}}),
            WriteBatch(stages={STAGE_ID: {"id": STAGE_ID, "run_id": RUN_ID, "metrics": {"n": 2}, "metrics_over": 2}}),
            WriteBatch(pages=paginate(RUN_ID, STAGE_ID, 1, sample_columns(9).slice(0, 4))),
            WriteBatch(pages=paginate(RUN_ID, STAGE_ID, 1, sample_columns(9).slice(4, 9), from_seq=4)),
        ]
        results = []
        for number, order in enumerate((parts, parts[::-1], parts[1::2] + parts[::2] + parts)):

            async def use(store: Store, order: Sequence[WriteBatch] = order) -> Any:
                for batch in order:
                    await store.write(PROJECT, batch)
                found = [await documents(store, "runs"), await documents(store, "stages")]
                columns = join_columns(await pages_of(store))
                return [*found, list(columns.rows())]

            results.append(self.with_store(tmp_path / str(number), use))
        assert results[0] == results[1] == results[2]
        assert results[0][0][RUN_ID]["metadata"] == {"x": 1, "y": 2}
        assert results[0][1][STAGE_ID]["metrics"] == {"n": 2}
        assert results[0][2] == list(sample_columns(9).rows())

    def test_replaced_metrics_are_found_no_more(self, tmp_path: Path) -> None:
        """After metrics over more candidates replaced others, only the new values are found."""

        async def use(store: Store) -> None:
            for over in (1, 2):
                stage = {"id": STAGE_ID, "run_id": RUN_ID, "metrics": {f"n{over}": over}, "metrics_over": over}
                await store.write(PROJECT, WriteBatch(stages={STAGE_ID: stage}))
            for over, expected in ((1, []), (2, [STAGE_ID])):
                condition = Test(Metric(f"n{over}"), Compare("gt", 0))
                assert ids(await store.scan(PROJECT, Scan("stages", stage=condition))) == expected

        self.with_store(tmp_path, use)

    def test_writes_at_once_lose_nothing(self, tmp_path: Path) -> None:
        """Many writes of the same document at once are all merged."""

        async def use(store: Store) -> None:
            await asyncio.gather(
                *(
                    store.write(PROJECT, WriteBatch(runs={RUN_ID: {"id": RUN_ID, "metadata": {f"k{n}": n}}}))
                    for n in range(50)
                )
            )
            assert (await documents(store, "runs"))[RUN_ID]["metadata"] == {f"k{n}": n for n in range(50)}

        self.with_store(tmp_path, use)

    def test_none_is_ignored(self, tmp_path: Path) -> None:
        """A field that is None in a batch neither unsets nor sets anything."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, WriteBatch(runs={RUN_ID: {"id": RUN_ID, "label": "a", "key": None}}))
            await store.write(PROJECT, WriteBatch(runs={RUN_ID: {"id": RUN_ID, "label": None}}))
            assert await documents(store, "runs") == {RUN_ID: {"id": RUN_ID, "label": "a"}}

        self.with_store(tmp_path, use)

    def test_data_outlives_the_store_object(self, tmp_path: Path) -> None:
        """What was written is there when the same place is opened again."""
        given = sample_batch()
        self.with_store(tmp_path, lambda store: store.write(PROJECT, sample_batch()))
        assert self.with_store(tmp_path, lambda store: documents(store, "stages")) == given.stages
        assert self.with_store(tmp_path, pages_of) == given.pages

    def test_what_was_given_and_returned_is_the_callers(self, tmp_path: Path) -> None:
        """Changing a batch after the write, or a returned document, changes nothing in the store."""

        async def use(store: Store) -> None:
            batch = sample_batch()
            await store.write(PROJECT, batch)
            assert batch == sample_batch()
            for document in (*batch.runs.values(), *(row.document for row in await store.scan(PROJECT, Scan("runs")))):
                document.setdefault("metadata", {})["team"] = "changed"
            (await store.declarations(PROJECT))["plugin_type"].clear()
            assert await documents(store, "runs") == sample_runs()
            assert await store.declarations(PROJECT) == sample_batch().declarations

        self.with_store(tmp_path, use)

    # --- projects and life --------------------------------------------------------------------------------------

    def test_projects_do_not_see_each_other(self, tmp_path: Path) -> None:
        """The same ids in two projects are different things, for every method."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            other = {"id": RUN_ID, "label": "theirs"}
            pages = paginate(RUN_ID, STAGE_ID, 1, sample_columns(1))
            stage = {"id": STAGE_ID, "run_id": RUN_ID, "metrics": {"failed": 7}, "metrics_over": 1}
            await store.write("other", WriteBatch({RUN_ID: other}, {STAGE_ID: stage}, pages))
            assert await documents(store, "runs") == sample_runs()
            assert await documents(store, "runs", "other") == {RUN_ID: other}
            of_both = Scan("stages", stage=Test(Metric("failed"), Compare("eq", 7)))
            assert ids(await store.scan("other", of_both)) == [STAGE_ID]
            assert STAGE_ID not in ids(await store.scan(PROJECT, of_both))
            assert await pages_of(store, "other") == pages
            assert [summary.label for summary in await store.pipelines("other")] == ["theirs"]
            assert await store.declarations("other") == {}
            assert await store.scan("third", Scan("runs")) == []

        self.with_store(tmp_path, use)

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        """Before ``open`` and after ``close`` every method raises StoreClosed; closing twice is harmless."""

        async def refused(store: Store) -> None:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.write(PROJECT, sample_batch()),
                lambda: store.scan(PROJECT, Scan("runs")),
                lambda: pages_of(store),
                lambda: store.pipelines(PROJECT),
                lambda: store.declarations(PROJECT),
                lambda: store.dirty_buckets(PROJECT, limit=1),
                lambda: store.keep_rollups(PROJECT, []),
                lambda: store.rollups(PROJECT, since=0, until=1),
                lambda: store.keep_named(PROJECT, "question", "one", {}),
                lambda: store.named(PROJECT, "question", "one"),
                lambda: store.all_named(PROJECT, "question"),
                lambda: store.remove_named(PROJECT, "question", "one"),
                store.projects,
                store.usage,
                lambda: store.remove_candidates(PROJECT, before=None, limit=1),
                lambda: store.remove_candidates(PROJECT, before=None, limit=1, dry_run=True),
                lambda: store.remove_runs(PROJECT, before=None, limit=1),
                lambda: store.remove_runs(PROJECT, before=None, limit=1, dry_run=True),
                store.reclaim,
                store.check,
            ]
            for call in calls:
                with pytest.raises(StoreClosed):
                    await call()

        async def run() -> None:
            store = await self.make_store(tmp_path)
            await refused(store)
            await store.open()
            await store.close()
            await refused(store)
            await store.close()

        asyncio.run(run())

    # --- reading ------------------------------------------------------------------------------------------------

    def test_conditions_on_runs_are_exact(self, tmp_path: Path) -> None:
        """For every operator on every scalar field, nulls included, a scan finds what the evaluator says."""
        runs = sample_runs()

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for condition in (*RUN_CONDITIONS, *combined(RUN_CONDITIONS)):
                expected = [run["id"] for run in runs.values() if matches(condition, run)]
                found = ids(await store.scan(PROJECT, Scan("runs", pipeline=condition)))
                assert found == expected, condition

        self.with_store(tmp_path, use)

    def test_conditions_on_stages_are_exact(self, tmp_path: Path) -> None:
        """For every operator on scalar fields and metrics, nulls included, a scan finds what the evaluator says."""
        stages = sample_stages(sample_runs())

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for condition in (*STAGE_CONDITIONS, *combined(STAGE_CONDITIONS)):
                expected = [stage["id"] for stage in stages.values() if matches(condition, stage)]
                found = ids(await store.scan(PROJECT, Scan("stages", stage=condition)))
                assert found == expected, condition

        self.with_store(tmp_path, use)

    def test_conditions_on_a_stages_run_are_exact(self, tmp_path: Path) -> None:
        """A condition on the pipeline holds for a stage where it holds for the stage's run."""
        runs, stages = sample_runs(), sample_stages(sample_runs())

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for condition in RUN_CONDITIONS:
                expected = [stage["id"] for stage in stages.values() if matches(condition, runs[stage["run_id"]])]
                found = ids(await store.scan(PROJECT, Scan("stages", pipeline=condition)))
                assert found == expected, condition

        self.with_store(tmp_path, use)

    def test_runs_by_their_stages(self, tmp_path: Path) -> None:
        """A run is found where some stage of it satisfies the condition on stages."""
        stages = sample_stages(sample_runs())

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for condition in STAGE_CONDITIONS:
                expected = {stage["run_id"] for stage in stages.values() if matches(condition, stage)}
                found = ids(await store.scan(PROJECT, Scan("runs", stage=condition)))
                assert set(found) == expected, condition

        self.with_store(tmp_path, use)

    def test_what_reaches_into_json_never_lacks_a_document(self, tmp_path: Path) -> None:
        """Conditions on metadata and tags, and their complements, find at least what the evaluator says."""
        runs = sample_runs()
        conditions = [
            condition
            for path, values in (
                (("metadata", "team"), ["ads", 3]),
                (("metadata", "n"), [4]),
                (("metadata",), [{"team": "ads"}]),
                (("tags",), ["t1", ["a", "t1"]]),
            )
            for condition in tests_on(Field(path), values)
        ]

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for condition in (*conditions, *combined(conditions)):
                expected = {run["id"] for run in runs.values() if matches(condition, run)}
                assert expected <= set(ids(await store.scan(PROJECT, Scan("runs", pipeline=condition)))), condition

        self.with_store(tmp_path, use)

    def test_candidates_only_narrow(self, tmp_path: Path) -> None:
        """A condition on a candidate never loses a stage that has such a candidate."""
        here, nowhere = (Test(Field(("candidate_id",)), Compare("eq", f"candidate {n}")) for n in (3, 999))
        label = Test(Field(("reason_label",)), In(("too_dear", "x")))

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            await store.write(PROJECT, WriteBatch(stages={STAGE_ID: {"id": STAGE_ID, "run_id": RUN_ID}}))
            for condition in (here, label, And((here, label)), Or((here, nowhere)), Not(nowhere), EVERYTHING):
                assert STAGE_ID in ids(await store.scan(PROJECT, Scan("stages", candidate=condition))), condition

        self.with_store(tmp_path, use)

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize(
        "reference",
        [
            Field(("started_at",)),
            Field(("duration_ms",)),
            Field(("pipeline", "label")),
            Metric("fail_ratio"),
            Metric("label_counts", "price.too high"),
        ],
        ids=str,
    )
    def test_scans_go_on_after_any_row(self, tmp_path: Path, reference: Reference, descending: bool) -> None:
        """Stages come in order, absent values first when ascending, and ``after`` goes on behind any of them."""
        stages = sample_stages(sample_runs())

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            sort = (SortKey(reference, descending), SortKey(Field(("order",)), not descending), BY_ID)
            expected = [stage["id"] for stage in in_order(stages.values(), sort)]
            rows = await store.scan(PROJECT, Scan("stages", sort=sort))
            assert ids(rows) == expected
            for position, row in enumerate(rows):
                assert row.sort_values == tuple(value_of(row.document, key.reference) for key in sort)
                following = Scan("stages", sort=sort, after=row.sort_values, limit=5)
                assert ids(await store.scan(PROJECT, following)) == expected[position + 1 : position + 6]

        self.with_store(tmp_path, use)

    def test_pages_lie_on_one_grid(self, tmp_path: Path) -> None:
        """However candidates are cut into events, their pages are the same; ``from_seq`` leaves out earlier pages."""
        columns = sample_columns(2 * PAGE_SIZE + 5)

        async def use(store: Store) -> None:
            for start in (300, 0, 500, 100, 400, 200):
                part = columns.slice(start, min(start + 100, len(columns)))
                await store.write(PROJECT, WriteBatch(pages=paginate(RUN_ID, STAGE_ID, 1, part, from_seq=start)))
            pages = await pages_of(store)
            assert [page.page for page in pages] == [0, 1, 2]
            assert [seq for page in pages for seq in page.seqs] == list(range(len(columns)))
            assert list(join_columns(pages).rows()) == list(columns.rows())
            later = [page async for page in store.pages(PROJECT, STAGE_ID, from_seq=PAGE_SIZE)]
            assert [page.page for page in later] == [1, 2]
            assert [page async for page in store.pages(PROJECT, RUN_ID)] == []

        self.with_store(tmp_path, use)

    def test_pipelines_are_summed_up(self, tmp_path: Path) -> None:
        """Each label has its counts, times, versions and environments; the one with the latest run comes first."""

        async def use(store: Store) -> None:
            runs: list[Document] = [
                {"label": "old", "started_at": 5, "status": "failure", "version": "1", "environment": "live"},
                {"label": "old", "started_at": 3, "status": "success", "version": "2", "environment": "live"},
                {"label": "new", "started_at": 9},
                {"status": "failure"},
            ]
            given = {f"00000000-0000-7000-8000-{n:012d}": run for n, run in enumerate(runs)}
            await store.write(PROJECT, WriteBatch(runs={run_id: {"id": run_id} | run for run_id, run in given.items()}))
            new, old, unnamed = await store.pipelines(PROJECT)
            assert (new.label, new.run_count, new.versions, new.last_started_at) == ("new", 1, (), 9)
            assert (old.label, old.run_count, old.failure_count) == ("old", 2, 1)
            assert (old.first_started_at, old.last_started_at) == (3, 5)
            assert (old.versions, old.environments) == (("1", "2"), ("live",))
            assert (unnamed.label, unnamed.failure_count, unnamed.last_started_at) == (None, 1, None)

        self.with_store(tmp_path, use)
