"""What a store owes to figures over many stages, and to reading the pages of many, as tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xray_server.conformance.suite import StoreSuite
from xray_server.pages import paginate
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Exists, Field, Metric, Not, Reference, Scan, Test
from xray_server.query.evaluate import matches
from xray_server.stores.base import Grouped, Store, WriteBatch
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

_EVERY = Scan("stages")
_BY = (Field(("type",)), Field(("pipeline", "label")), Field(("run_id",)), Field(("id",)))
_NUMBERS: tuple[Reference, ...] = (
    Field(("duration_ms",)),
    Metric("failed"),
    Metric("fail_ratio"),
    Metric("label_counts", "price.too high"),
    Metric("label_counts", "other"),
    Metric("never_seen"),
)
_WAYS: tuple[tuple[tuple[Field, ...], int | None], ...] = (
    ((), None),
    (_BY[:1], None),
    (_BY[:2], 86_400_000),
    (_BY, 60_000),
    ((), 3_600_000),
)
"""By which fields, and by how long spans of time, stages are grouped."""

_Found = dict[tuple[Any, ...], tuple[int, list[list[float]]]]
"""Keys and start of the span → the count, and the sorted numbers of each reference."""


class ValuesContract(StoreSuite):
    """``grouped``, which a store may leave out, and ``pages_of_many``."""

    def test_groups_are_of_exactly_the_stages_that_fit(self, tmp_path: Path) -> None:
        """Whatever the condition, a store that groups counts all stages that satisfy it, and no others."""
        stages = sample_stages(sample_runs())
        odd: dict[str, Any] = {"failed": [7], "fail_ratio": "high"}
        stages_and_odd = stages | {
            STAGE_ID: {"id": STAGE_ID, "run_id": "r", "type": "scoring", "metrics": odd, "metrics_over": 1}
        }
        conditions = [*STAGE_CONDITIONS, *combined(STAGE_CONDITIONS)]

        async def use(store: Store) -> None:
            for project, given in ((PROJECT, stages), ("with odd ones", stages_and_odd)):
                await store.write(project, WriteBatch(runs=sample_runs(), stages=given))
                for number, condition in enumerate(conditions):
                    by, span_ms = _WAYS[number % len(_WAYS)]
                    found = await store.grouped(project, Scan("stages", stage=condition), by, span_ms, _NUMBERS)
                    expected = [stage for stage in given.values() if matches(condition, stage)]
                    if found is not None:
                        assert _together([found]) == _expected(expected, by, span_ms), (condition, by, span_ms)
                        assert found.stages == len(expected)
                        assert found.last is None

        self.with_store(tmp_path, use)

    def test_groups_are_of_the_run_s_condition_too(self, tmp_path: Path) -> None:
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
                expected = [stage for stage in stages.values() if matches(condition, runs[stage["run_id"]])]
                for by, span_ms in _WAYS:
                    found = await store.grouped(PROJECT, Scan("stages", pipeline=condition), by, span_ms, _NUMBERS)
                    if found is not None:
                        assert _together([found]) == _expected(expected, by, span_ms)

        self.with_store(tmp_path, use)

    def test_spans_of_time_are_counted_from_1970(self, tmp_path: Path) -> None:
        """A stage lies in the span that begins last before it, or with it, also before 1970; or it has no start."""
        starts = (None, 0, 1, 59_999, 60_000, -1, -60_000, -60_001, 1_793_491_200_000, 1_793_491_259_999)
        stages = sample_stages(sample_runs())
        for stage, start in zip(stages.values(), starts, strict=False):
            stage.pop("started_at", None)
            if start is not None:
                stage["started_at"] = start

        async def use(store: Store) -> None:
            await store.write(PROJECT, WriteBatch(stages=stages))
            for span_ms in (60_000, 86_400_000):
                found = await store.grouped(PROJECT, _EVERY, (), span_ms, ())
                if found is not None:
                    assert _together([found]) == _expected(stages.values(), (), span_ms, ())

        self.with_store(tmp_path, use)

    def test_groups_go_on_where_they_stopped(self, tmp_path: Path) -> None:
        """Read in parts, each stage counts once, the latest first; those that began at one time, or never, too."""
        stages = sample_stages(sample_runs())
        for number, stage in enumerate(stages.values()):
            if number % 4:
                stage["started_at"] = 1_000 + number // 5
        filtering = Test(Field(("type",)), Compare("eq", "filtering"))

        async def use(store: Store) -> None:
            await store.write(PROJECT, WriteBatch(stages=stages))
            for condition in (EVERYTHING, filtering, And((filtering, Test(Metric("failed"), Compare("gte", 0))))):
                wanted = [stage for stage in stages.values() if matches(condition, stage)]
                for limit in (1, 2, 7, len(wanted)):
                    parts: list[Grouped] = []
                    after: tuple[Any, ...] | None = None
                    while not parts or after is not None:
                        scan = Scan("stages", stage=condition, after=after, limit=limit)
                        part = await store.grouped(PROJECT, scan, _BY, 1, _NUMBERS)
                        if part is None:
                            return
                        assert part.stages <= limit
                        assert part.stages or part.last is None
                        parts.append(part)
                        after = part.last
                    of_parts = [[group.span for group in part.groups] for part in parts if part.groups]
                    orders = [[(span is not None, span or 0) for span in spans] for spans in of_parts]
                    assert all(min(one) >= max(next_) for one, next_ in itertools.pairwise(orders))
                    assert _together(parts) == _expected(wanted, _BY, 1)

        self.with_store(tmp_path, use)

    def test_groups_do_not_mix_projects(self, tmp_path: Path) -> None:
        """Nothing of another project is counted."""

        async def use(store: Store) -> None:
            await store.write("other", sample_batch())
            found = await store.grouped(PROJECT, _EVERY, _BY, 1000, _NUMBERS)
            assert found is None or (found.stages == 0 and not found.groups)

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


def _together(parts: Sequence[Grouped]) -> _Found:
    """What some answers say, put together."""
    found: _Found = {}
    for part in parts:
        assert sum(group.count for group in part.groups) == part.stages
        for group in part.groups:
            kind = (*group.keys, group.span)
            count, numbers = found.get(kind, (0, [[] for _ in group.numbers]))
            numbers = [sorted([*one, *other]) for one, other in zip(numbers, group.numbers, strict=True)]
            found[kind] = count + group.count, numbers
    return found


def _expected(
    stages: Iterable[Any], by: Sequence[Field], span_ms: int | None, numbers: Sequence[Reference] = _NUMBERS
) -> _Found:
    """What a store has to say of some stages."""
    found: _Found = {}
    for stage in stages:
        start = stage.get("started_at")
        span = None if span_ms is None or start is None else start // span_ms * span_ms
        count, given = found.get((*(value_of(stage, one) for one in by), span), (0, [[] for _ in numbers]))
        values = [value_of(stage, one) for one in numbers]
        given = [
            sorted([*some, value]) if type(value) in (int, float) else some
            for some, value in zip(given, values, strict=True)
        ]
        found[(*(value_of(stage, one) for one in by), span)] = count + 1, given
    return found
