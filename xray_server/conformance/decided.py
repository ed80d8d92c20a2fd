"""What a store owes to whoever does not evaluate again what it says that it has decided, as tests."""

from __future__ import annotations

from pathlib import Path

from xray_server.conformance.suite import StoreSuite
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Exists, Field, In, Metric, Not, Or, Scan, Test
from xray_server.query.evaluate import matches
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import Store, WriteBatch
from xray_server.testing_data import PROJECT, RUN_CONDITIONS, STAGE_CONDITIONS, sample_runs, sample_stages

_ODD = Metric("odd")
_OF_FREE_FORM: tuple[Condition, ...] = (
    *(Test(_ODD, Compare(op, 2)) for op in ("eq", "gt", "gte", "lt", "lte")),
    Test(_ODD, In((1, 7))),
    Test(_ODD, Exists(wanted=True)),
    Test(_ODD, Compare("eq", None)),
    Test(Field(("metadata", "team")), Compare("eq", "ads")),
    Test(Field(("metadata", "team")), In(("ads", "core"))),
    Test(Field(("capture", "kept")), Compare("gt", 5)),
)


class DecidedContract(StoreSuite):
    """A store may decide the conditions of a scan; then they hold."""

    def test_the_conditions_hold_for_what_is_decided(self, tmp_path: Path) -> None:
        """Of runs and of stages, whatever is sorted by; also where metrics and metadata hold anything."""
        runs, stages = sample_runs(), sample_stages(sample_runs())
        odd = [1, None, [1, 7], {"a": 2}, "a", True, [None], 7, 2]
        for number, stage in enumerate(stages.values()):
            stage["metrics"] = {**stage.get("metrics", {}), "odd": odd[number % len(odd)]}
            stage["metadata"] = {"team": ("ads", ["ads", "x"], {"ads": 1}, None)[number % 4]}
            stage["capture"] = {"kept": number, "seen": 7}
        of_stage = [*STAGE_CONDITIONS[::3], *_OF_FREE_FORM, *(Not(condition) for condition in _OF_FREE_FORM)]
        pairs = zip(of_stage, (*of_stage[7:], *of_stage[:7]), strict=True)
        of_stage += [both for one, other in pairs for both in (And((one, other)), Or((one, Not(other))))]
        of_run: list[Condition] = [EVERYTHING, *RUN_CONDITIONS[::5]]

        async def use(store: Store) -> None:
            await store.write(PROJECT, WriteBatch(runs=runs, stages=stages))
            for number, condition in enumerate(of_stage):
                pipeline, other = of_run[number % len(of_run)], of_stage[(number * 7) % len(of_stage)]
                scan = Scan("stages", pipeline=pipeline, stage=condition, sort=DEFAULT_SORT)
                for row in await store.scan(PROJECT, scan):
                    if row.decided:
                        assert matches(condition, row.document), condition
                        assert matches(pipeline, runs[row.document["run_id"]]), pipeline
                scan = Scan("runs", pipeline=pipeline, stage=condition, stages=(other,), sort=DEFAULT_SORT)
                for row in await store.scan(PROJECT, scan):
                    if row.decided:
                        assert matches(pipeline, row.document), pipeline
                        of_this = [stage for stage in stages.values() if stage["run_id"] == row.document["id"]]
                        for asked in (condition, other):
                            assert any(matches(asked, stage) for stage in of_this), asked

        self.with_store(tmp_path, use)
