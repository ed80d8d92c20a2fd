"""What a store owes to figures over many stages, and to reading the pages of many, as tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xray_server.conformance.suite import StoreSuite
from xray_server.pages import paginate
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Exists, Field, Metric, Not, Reference, Scan, Test
from xray_server.query.evaluate import matches
from xray_server.stores.base import Store, Values, WriteBatch
from xray_server.testing_data import (
    PROJECT,
    STAGE_CONDITIONS,
    STAGE_ID,
    combined,
    pages_of,
    sample_batch,
    sample_columns,
    sample_runs,
    sample_stages,
    value_of,
)

_WANTED: tuple[Reference, ...] = (
    Field(("id",)),
    Field(("type",)),
    Field(("pipeline", "label")),
    Field(("pipeline", "started_at")),
    Field(("duration_ms",)),
    Metric("failed"),
    Metric("fail_ratio"),
    Metric("label_counts", "price.too high"),
    Metric("label_counts", "other"),
    Metric("never_seen"),
)
_EVERY = Scan("stages")


class ValuesContract(StoreSuite):
    """``values``, which a store may leave out, and ``pages_of_many``."""

    def test_values_are_those_of_exactly_the_stages_that_fit(self, tmp_path: Path) -> None:
        """Whatever the condition, a store that gives values gives those of all stages that satisfy it, of no others."""
        stages = sample_stages(sample_runs())
        odd: dict[str, Any] = {"failed": [7], "fail_ratio": "high"}
        stages_and_odd = stages | {
            STAGE_ID: {"id": STAGE_ID, "run_id": "r", "type": "scoring", "metrics": odd, "metrics_over": 1}
        }
        conditions = [*STAGE_CONDITIONS, *combined(STAGE_CONDITIONS)]

        async def use(store: Store) -> None:
            for project, given in ((PROJECT, stages), ("with odd ones", stages_and_odd)):
                await store.write(project, WriteBatch(runs=sample_runs(), stages=given))
                for condition in conditions:
                    found = await store.values(project, Scan("stages", stage=condition), _WANTED)
                    expected = [stage for stage in given.values() if matches(condition, stage)]
                    if found is not None:
                        assert _rows(found) == sorted(map(_values, expected), key=str)

        self.with_store(tmp_path, use)

    def test_values_are_of_the_run_s_condition_too(self, tmp_path: Path) -> None:
        """A condition on the run counts, on a field that its stages have too and on one that only the run has."""
        runs, stages = sample_runs(), sample_stages(sample_runs())
        conditions: list[Condition] = [
            Test(Field(("label",)), Compare("eq", "pipeline 1")),
            Test(Field(("status",)), Compare("eq", "success")),
            Not(Test(Field(("duration_ms",)), Exists(wanted=True))),
        ]

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for condition in conditions:
                found = await store.values(PROJECT, Scan("stages", pipeline=condition), _WANTED)
                expected = [stage for stage in stages.values() if matches(condition, runs[stage["run_id"]])]
                if found is not None:
                    assert _rows(found) == sorted(map(_values, expected), key=str)

        self.with_store(tmp_path, use)

    def test_values_go_on_where_they_stopped(self, tmp_path: Path) -> None:
        """Read in parts, each stage comes once, the latest first; those that began at one time, or never, too."""
        stages = sample_stages(sample_runs())
        for number, stage in enumerate(stages.values()):
            if number % 4:
                stage["started_at"] = 1_000 + number // 5
        filtering = Test(Field(("type",)), Compare("eq", "filtering"))

        async def use(store: Store) -> None:
            await store.write(PROJECT, WriteBatch(stages=stages))
            for condition in (EVERYTHING, filtering, And((filtering, Test(Metric("failed"), Compare("gte", 0))))):
                wanted = [stage for stage in stages.values() if matches(condition, stage)]
                found: list[tuple[Any, ...]] = []
                after: tuple[Any, ...] | None = None
                while True:
                    scan = Scan("stages", stage=condition, after=after, limit=2)
                    part = await store.values(PROJECT, scan, (Field(("started_at",)), *_WANTED))
                    if part is None:
                        return
                    found += zip(*part.columns, strict=True)
                    if part.stages < 2:
                        break
                    after = part.last
                starts = [row[0] for row in found]
                assert starts == sorted(starts, key=lambda start: (start is not None, start), reverse=True)
                assert sorted((row[1:] for row in found), key=str) == sorted(map(_values, wanted), key=str)

        self.with_store(tmp_path, use)

    def test_values_do_not_mix_projects(self, tmp_path: Path) -> None:
        """Nothing of another project is counted."""

        async def use(store: Store) -> None:
            await store.write("other", sample_batch())
            found = await store.values(PROJECT, _EVERY, _WANTED)
            assert found is None or found.stages == 0

        self.with_store(tmp_path, use)

    def test_pages_of_many_are_all_pages(self, tmp_path: Path) -> None:
        """A stage that is in the answer has all of its pages there, in order; one that has none, none."""
        batch = sample_batch()
        few = next(iter(batch.stages))
        batch.pages += paginate(batch.stages[few]["run_id"], few, None, sample_columns(3))

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch)
            await store.write("other", sample_batch())
            found = await store.pages_of_many(PROJECT, [few, "unknown", STAGE_ID, *list(batch.stages)[1:]])
            for stage_id, pages in found.items():
                assert list(pages) == [page async for page in store.pages(PROJECT, stage_id)]
            assert await pages_of(store)
            assert not (await store.pages_of_many("third", [few])).get(few)
            assert await store.pages_of_many(PROJECT, []) == {}

        self.with_store(tmp_path, use)

    def test_candidates_are_counted(self, tmp_path: Path) -> None:
        """The counts are those of the pages, also where these were written twice, overlap, or precede their stage."""
        few = next(iter(sample_stages(sample_runs())))

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for start in (0, 2, 1):
                pages = paginate("r", few, None, sample_columns(3), start)
                await store.write(PROJECT, WriteBatch(pages=pages))
            await store.write("other", WriteBatch(pages=paginate("r", few, None, sample_columns(50))))
            found = await store.candidate_counts(PROJECT, [few, STAGE_ID, "unknown"])
            for stage_id, count in found.items():
                assert count == sum([len(page.seqs) async for page in store.pages(PROJECT, stage_id)])
            assert found.get(few, 5) == 5

        self.with_store(tmp_path, use)


def _rows(found: Values) -> list[tuple[Any, ...]]:
    assert len(found.columns) == len(_WANTED)
    assert all(len(column) == found.stages for column in found.columns)
    return sorted(zip(*found.columns, strict=True), key=str)


def _values(stage: Any) -> tuple[Any, ...]:
    """What ``values`` gives of a stage."""
    given = [value_of(stage, reference) for reference in _WANTED]
    return tuple(
        value if isinstance(reference, Field) or type(value) in (int, float) else None
        for reference, value in zip(_WANTED, given, strict=True)
    )
