"""What API and CLI ask of a store again and again: ``Store.check`` says how each is served."""

from __future__ import annotations

from collections.abc import Iterator

from xray_server.query.ast import And, Compare, Condition, Field, In, Metric, Operator, Scan, SortKey, Test
from xray_server.query.sorting import BY_REMOVAL, DEFAULT_SORT, REMOVED

_BY_ID = (SortKey(Field(("id",))),)
_ID = "00000000-0000-7000-8000-000000000000"


def offered_questions() -> Iterator[tuple[str, Scan]]:
    """Each question in words, and as a scan with values that stand for any others."""
    yield "a run by its id", Scan("runs", pipeline=_is("id", _ID))
    yield "the latest runs", Scan("runs", sort=DEFAULT_SORT)
    yield "the latest runs of a pipeline", Scan("runs", pipeline=_is("label", "a"), sort=DEFAULT_SORT)
    yield "a run by its key", Scan("runs", pipeline=_is("key", "a"), sort=DEFAULT_SORT)
    yield "runs by time", Scan("runs", pipeline=_between("started_at"), sort=DEFAULT_SORT)
    yield "a stage by its id", Scan("stages", stage=_is("id", _ID))
    yield "the stages of a run", Scan("stages", stage=_is("run_id", _ID), sort=(SortKey(Field(("order",))), *_BY_ID))
    yield "the stages of several runs", Scan("stages", stage=Test(Field(("run_id",)), In((_ID, _ID[:-1] + "1"))))
    yield "the latest stages", Scan("stages", sort=DEFAULT_SORT)
    yield "the latest stages of a type", Scan("stages", stage=_is("type", "a"), sort=DEFAULT_SORT)
    yield "the latest stages of a name", Scan("stages", stage=_is("name", "a"), sort=DEFAULT_SORT)
    yield "the latest stages of a pipeline", Scan("stages", pipeline=_is("label", "a"), sort=DEFAULT_SORT)
    yield (
        "the stages of a type in a span of time, for figures",
        Scan("stages", stage=And((_is("type", "a"), _between("started_at"))), sort=DEFAULT_SORT),
    )
    yield "stages by a metric", Scan("stages", stage=_metric(Compare("gt", 0.9)), sort=DEFAULT_SORT)
    yield (
        "stages in the order of a metric",
        Scan("stages", sort=(SortKey(Metric("fail_ratio"), descending=True), *_BY_ID)),
    )
    yield "stages whose candidates were removed", Scan("stages", stage=REMOVED, sort=BY_REMOVAL)
    yield (
        "the stages of an hour of a pipeline, for its rollup",
        Scan("stages", stage=And((_is("pipeline.label", "a"), _between("started_at"))), sort=by_start()),
    )


def by_start() -> tuple[SortKey, ...]:
    """Ascending by start, the order in which stages are read for rollups and exports."""
    return (SortKey(Field(("started_at",))), *_BY_ID)


def _is(name: str, value: str) -> Condition:
    return Test(Field(tuple(name.split("."))), Compare("eq", value))


def _metric(operator: Operator) -> Condition:
    return Test(Metric("fail_ratio"), operator)


def _between(name: str) -> Condition:
    return And((Test(Field((name,)), Compare("gte", 0)), Test(Field((name,)), Compare("lt", 3_600_000))))
