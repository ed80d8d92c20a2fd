"""The timeline of a run: a lane for each stage, and one lane for all repetitions of a stage under the same parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_Stage = Mapping[str, Any]

MAX_LANES = 80
_UNITS = 1000.0
"""The width of a lane in its own units."""

_MERGED = 1.0
"""Units between two repetitions below which they are drawn as one."""

_LEAST = 2.0
_CLOCK_MS = 2.0
"""Starts are kept to the millisecond: of two stages that began within so long, their order tells more."""

_GAP_SHARE = 0.02
_SHORTEST_WITH_GAPS_MS = 20


@dataclass(slots=True)
class Span:
    """One bar: where it lies in units of the lane, and what it stands for.

    Args:
        start: Where it begins, from 0 to 1000.
        width: How wide it is.
        stage_id: The stage, or None where it stands for several.
        failed: Whether the stage raised.
        text: What it is, in words.
    """

    start: float
    width: float
    stage_id: str | None
    failed: bool
    text: str


@dataclass(slots=True)
class Lane:
    """One line of the timeline.

    Args:
        name: The stage's name.
        type: The stage's type.
        depth: How many stages it lies inside of.
        stage_id: The stage, or the first of several.
        count: How many stages the lane has.
        took_ms: How long they took together.
        failures: How many of them raised.
        spans: The bars.
    """

    name: str
    type: str
    depth: int
    stage_id: str
    count: int = 0
    took_ms: float = 0.0
    failures: int = 0
    spans: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class Waterfall:
    """The timeline of a run.

    Args:
        lanes: The lanes, in the order in which their stages began; each below its parent.
        took_ms: How long the run took, from its start to the end of what ended last.
        gaps: When no stage was running, where that is long enough to be seen: bars of the run itself.
        idle_ms: How long no stage was running, over all gaps that are shown.
        hidden: How many lanes there are beside these.
    """

    lanes: list[Lane]
    took_ms: float
    gaps: list[Span]
    idle_ms: float
    hidden: int


def waterfall(run: Mapping[str, Any], stages: Sequence[_Stage]) -> Waterfall:
    """Lay out a run in time.

    Args:
        run: The run's document, its times in milliseconds since 1970.
        stages: Its stages.
    """
    ordered = sorted(stages, key=lambda stage: (_number(stage.get("order")), stage["id"]))
    times = _times(ordered)
    starts = [start for start, _ in times.values()]
    zero = _number(run.get("started_at")) or min(starts, default=0.0)
    zero = min([zero, *starts])
    end = max([zero + _number(run.get("duration_ms")), *(stop for _, stop in times.values())])
    took = max(end - zero, 1e-6)
    scale = _UNITS / took
    lanes = _lanes(ordered, times, zero, scale)
    gaps, idle = _gaps(ordered, times, zero, took) if took >= _SHORTEST_WITH_GAPS_MS else ([], 0.0)
    return Waterfall(lanes[:MAX_LANES], took, gaps, idle, max(0, len(lanes) - MAX_LANES))


def _times(ordered: Sequence[_Stage]) -> dict[str, tuple[float, float]]:
    """When each stage began and ended, in milliseconds since 1970."""
    found: dict[str, tuple[float, float]] = {}
    before: dict[Any, tuple[float, float]] = {}
    for stage in ordered:
        started = stage.get("started_at")
        if not isinstance(started, int | float):
            continue
        start = float(started)
        earlier = before.get(stage.get("parent_id"))
        if earlier is not None and start < earlier[1] and earlier[1] - earlier[0] <= _CLOCK_MS:
            start = earlier[1]
        span = start, start + _number(stage.get("duration_ms"))
        found[stage["id"]] = before[stage.get("parent_id")] = span
    return found


def _lanes(
    ordered: Sequence[_Stage], times: Mapping[str, tuple[float, float]], zero: float, scale: float
) -> list[Lane]:
    by_key: dict[tuple[Any, str], Lane] = {}
    lane_of: dict[Any, tuple[Any, str]] = {}
    children: dict[Any, list[tuple[Any, str]]] = {}
    ids = {stage["id"] for stage in ordered}
    for stage in ordered:
        parent_id = stage.get("parent_id")
        parent = lane_of.get(parent_id) if parent_id in ids else None
        key = (parent, str(stage.get("name") or ""))
        lane_of[stage["id"]] = key
        lane = by_key.get(key)
        if lane is None:
            depth = 0 if parent is None else by_key[parent].depth + 1
            lane = by_key[key] = Lane(key[1], str(stage.get("type") or ""), depth, stage["id"])
            children.setdefault(parent, []).append(key)
        lane.count += 1
        failed = stage.get("status") == "failure"
        lane.failures += failed
        lane.took_ms += _number(stage.get("duration_ms"))
        if stage["id"] in times:
            _draw(lane, stage, times[stage["id"]], zero, scale, failed=failed)
    for lane in by_key.values():
        lane.spans.sort(key=lambda span: span.failed)  # what is drawn last is seen
    return list(_in_order(children, by_key, None))


def _in_order(children: Mapping[Any, list[tuple[Any, str]]], lanes: Mapping[tuple[Any, str], Lane], of: Any) -> Any:
    for key in children.get(of, ()):
        yield lanes[key]
        yield from _in_order(children, lanes, key)


def _draw(lane: Lane, stage: _Stage, times: tuple[float, float], zero: float, scale: float, *, failed: bool) -> None:
    start = (times[0] - zero) * scale
    width = max((times[1] - times[0]) * scale, _LEAST)
    start = min(start, _UNITS - width)
    last = lane.spans[-1] if lane.spans else None
    if (
        last is not None
        and last.failed == failed
        and start - last.start >= 0
        and start <= last.start + last.width + _MERGED
    ):
        last.width = max(last.width, start + width - last.start)
        last.stage_id = None
        last.text = "several"
        return
    lane.spans.append(Span(start, width, stage["id"], failed, str(stage.get("path") or stage.get("name") or "")))


def _gaps(
    ordered: Sequence[_Stage], times: Mapping[str, tuple[float, float]], zero: float, took: float
) -> tuple[list[Span], float]:
    """When none of the outermost stages was running."""
    ids = {stage["id"] for stage in ordered}
    outer = sorted(
        times[stage["id"]] for stage in ordered if stage.get("parent_id") not in ids and stage["id"] in times
    )
    gaps: list[Span] = []
    idle, at = 0.0, zero
    for start, stop in [*outer, (zero + took, zero + took)]:
        if start - at >= took * _GAP_SHARE:
            idle += start - at
            gaps.append(Span((at - zero) / took * _UNITS, (start - at) / took * _UNITS, None, failed=False, text=""))
        at = max(at, stop)
    return (gaps, idle) if outer else ([], 0.0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
