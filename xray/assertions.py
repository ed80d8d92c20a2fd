"""Assertions about decisions, for tests; each says what happened instead.

Use them through ``xray.testing``. They take a run of a ``Recorder`` or one that was built by hand.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Callable, Mapping
from typing import Any, Literal

from xray.exceptions import did_you_mean
from xray.hand_built import Run
from xray.metrics import Metric
from xray.recorded import CandidateStep, RecordedRun, RecordedStage

AnyRun = RecordedRun | Run
Operator = Literal["<", "<=", "==", "!=", ">=", ">"]

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operators.lt,
    "<=": operators.le,
    "==": operators.eq,
    "!=": operators.ne,
    ">=": operators.ge,
    ">": operators.gt,
}


def assert_survives(run: AnyRun, candidate_id: str | int, *, stage: str | None = None) -> None:
    """Assert that a candidate went on: past one stage, or to the end of the run.

    A candidate goes no further where it failed, or where others were passed, selected or ranked and it was not.

    Args:
        run: The run.
        candidate_id: The candidate's id.
        stage: The stage's path or name. By default the candidate has to be in the last stage that takes candidates,
            and must have been lost in none.

    Raises:
        AssertionError: It did not; the message tells its way.
        LookupError: There is no such stage.
    """
    __tracebackhide__ = True
    recorded = _recorded(run)
    way = recorded.candidate(candidate_id)
    if stage is not None:
        wanted = recorded.stage(stage)
        here = [step for step in way if step.stage is wanted]
        if here and not here[0].lost:
            return
        raise AssertionError(_told(f"'{candidate_id}' does not survive stage '{wanted.path}'", recorded, candidate_id))
    last = _last_stage(recorded)
    if way and not any(step.lost for step in way) and (last is None or any(step.stage is last for step in way)):
        return
    raise AssertionError(_told(f"'{candidate_id}' does not survive the run", recorded, candidate_id))


def assert_rejected(
    run: AnyRun, candidate_id: str | int, *, stage: str | None = None, reason_label: str | None = None
) -> None:
    """Assert that a candidate went no further.

    Args:
        run: The run.
        candidate_id: The candidate's id.
        stage: The path or name of the stage where; any by default.
        reason_label: The label that it must have been rejected with; any by default.

    Raises:
        AssertionError: It was not, or for another reason; the message tells its way.
        LookupError: There is no such stage.
    """
    __tracebackhide__ = True
    recorded = _recorded(run)
    where = "in the run" if stage is None else f"in stage '{recorded.stage(stage).path}'"
    lost = [
        step
        for step in recorded.candidate(candidate_id)
        if step.lost and (stage is None or step.stage is recorded.stage(stage))
    ]
    if not lost:
        raise AssertionError(_told(f"'{candidate_id}' was not rejected {where}", recorded, candidate_id))
    labels = [step.row.get("reason_label") for step in lost]
    if reason_label is not None and reason_label not in labels:
        said = " and ".join(f"'{label}'" if label is not None else "no label" for label in labels)
        what = f"'{candidate_id}' was rejected {where} with {said}, not with '{reason_label}'"
        raise AssertionError(_told(what, recorded, candidate_id))


def assert_metric(run: AnyRun, stage: str, metric: str, operator: Operator, value: float) -> None:
    """Assert that a metric of a stage compares with a value.

    Args:
        run: The run.
        stage: The stage's path or name.
        metric: The metric's name, as questions write it or not: ``fail_ratio``, ``$failRatio``; of a table with the
            key: ``label_counts.price_too_high``. A key that a table of counts or shares does not have counts as 0.
        operator: ``<``, ``<=``, ``==``, ``!=``, ``>=`` or ``>``.
        value: What it is compared with.

    Raises:
        AssertionError: It does not, or the stage has no such metric.
        LookupError: There is no such stage.
        ValueError: There is no such operator.
    """
    __tracebackhide__ = True
    if operator not in _OPERATORS:
        raise ValueError(f"There is no operator '{operator}'; there are {', '.join(_OPERATORS)}.")
    recorded = _recorded(run).stage(stage)
    found = _metric(recorded, metric)
    if not _OPERATORS[operator](found, value):
        raise AssertionError(
            f"{metric} of stage '{recorded.path}' is {found!r}, not {operator} {value!r}.\n{_metrics_told(recorded)}"
        )


def assert_label_counts(run: AnyRun, stage: str, expected: Mapping[str, int]) -> None:
    """Assert how many candidates a stage rejected with each reason label, no more and no fewer.

    Args:
        run: The run.
        stage: The stage's path or name.
        expected: Label → how many; a count of 0 may be given or left out.

    Raises:
        AssertionError: It was otherwise; the message names each label that differs.
        LookupError: There is no such stage.
    """
    __tracebackhide__ = True
    recorded = _recorded(run).stage(stage)
    found = recorded.metrics.get("label_counts") or {}
    differing = [
        f"  {label}: {found.get(label, 0)}, not {expected.get(label, 0)}"
        for label in sorted({*found, *expected})
        if found.get(label, 0) != expected.get(label, 0)
    ]
    if differing:
        raise AssertionError("\n".join([f"The labels of stage '{recorded.path}' are not as expected:", *differing]))


def _recorded(run: AnyRun) -> RecordedRun:
    return run if isinstance(run, RecordedRun) else RecordedRun(run.events())


def _last_stage(run: RecordedRun) -> RecordedStage | None:
    """The last stage that a candidate could have reached: generated candidates are others."""
    outer = [stage for stage in run.stages if stage.parent_id is None and stage.rows]
    taking = [stage for stage in outer if stage.stage_type is None or stage.stage_type.takes_candidates]
    return taking[-1] if taking else None


def _told(what: str, run: RecordedRun, candidate_id: str | int) -> str:
    """What is wrong, and the way of the candidate through the run, a line a stage."""
    way = {id(step.stage): step for step in run.candidate(candidate_id)}
    lines = [f"{what}."]
    was_there = False
    for stage in run.stages:
        step: CandidateStep | None = way.get(id(stage))
        if step is not None:
            was_there = True
            lines.append(f"  {step}{'  <- lost here' if step.lost else ''}")
        elif stage.rows or stage.seen:
            kept = f"; only {len(stage.rows)} of {stage.seen} are kept" if stage.seen > len(stage.rows) else ""
            lines.append(f"  {stage.path}  not among its {stage.seen} candidates{kept}")
    if not was_there:
        known = {row["candidate_id"] for stage in run.stages for row in stage.rows}
        hint = did_you_mean(str(candidate_id), known) or ""
        lines.append(f"No stage has a candidate '{candidate_id}'. {hint}".rstrip())
    return "\n".join(lines)


def _metric(stage: RecordedStage, asked: str) -> Any:
    __tracebackhide__ = True
    name, _, key = asked.removeprefix("$").partition(".")
    names = {_folded(known): known for known in stage.metrics}
    known = names.get(_folded(name))
    declared: dict[str, Metric] = {}
    if stage.stage_type is not None:
        declared = {metric.name: metric for metric in stage.stage_type.all_metrics()}
    if known is None:
        why = "has no value here" if name in declared else f"is none of a {stage.type} stage's"
        hint = None if name in declared else did_you_mean(name, {*stage.metrics, *declared})
        raise AssertionError(f"The metric '{name}' {why}. {hint or ''}".rstrip() + f"\n{_metrics_told(stage)}")
    value = stage.metrics[known]
    if not key:
        return value
    if isinstance(value, dict):
        if key in value:
            return value[key]
        if known in declared and declared[known].kind == "table" and declared[known].unit in ("candidates", "ratio"):
            return 0
    raise AssertionError(f"{known} of stage '{stage.path}' has no '{key}': it is {value!r}.")


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _metrics_told(stage: RecordedStage) -> str:
    return "\n".join([f"Stage '{stage.path}' has:", *(f"  {name}: {value!r}" for name, value in stage.metrics.items())])
