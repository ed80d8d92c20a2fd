"""The metrics of a stage: the sender's where it sent them, else computed from the candidates."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xray.exceptions import PluginError
from xray.metrics import METRICS_OF_ALL_TYPES, Metric
from xray.plugins import Plugins
from xray.stage_types.base import Columns, StageType
from xray_server.documents import Document
from xray_server.field_values import check_metrics
from xray_server.pages import CandidatePage, join_columns
from xray_server.tables import plain

log = logging.getLogger("xray.server")

AT_ONCE = 1000
"""Candidates up to which a stage is measured again with each part of it."""

GROWTH = 1.25

_COMMON = frozenset(metric.name for metric in METRICS_OF_ALL_TYPES)


@dataclass(frozen=True, slots=True)
class Measured:
    """What measuring gave.

    Args:
        partial: ``capture``, ``metrics``, ``metrics_over`` and ``facts``, to be merged into the stage.
        may_have_more: Whether candidates of the stage may lie in other events.
    """

    partial: Document
    may_have_more: bool


def measure(stage: Mapping[str, Any], columns: Columns, sent: Mapping[str, Any] | None, plugins: Plugins) -> Measured:
    """Measure a stage by its event.

    Metrics that the sender computed are taken as they are. Where it sent none of its type's, or where all candidates
    are there, the type's are computed from the candidates of the event.

    Args:
        stage: The partial stage document of the event.
        columns: The candidates of the event.
        sent: The metrics of the event, or None.
        plugins: The stage types that the service has.
    """
    count = len(columns)
    capture = stage.get("capture") or {}
    kept, seen = capture.get("kept"), capture.get("seen")
    partial: Document = {}
    if not capture:
        partial["capture"] = {"mode": "full", "seen": count, "kept": count}
    stage_type = _find(stage["type"], plugins)
    given = dict(sent or {})
    sent_its_own = bool(_declared(stage_type) & given.keys() - {"duration_ms"}) if stage_type else bool(given)
    metrics: dict[str, Any] = {}
    if stage_type is not None and (not sent_its_own or count >= max(seen or 0, 1)):
        metrics = _compute(stage_type, columns, stage.get("facts"), partial)
    partial["metrics"] = _with_duration(metrics | given, stage)
    partial["metrics_over"] = max(seen or 0, count) if sent_its_own else count
    return Measured(partial, may_have_more=kept is None or kept > count)


def remeasure(
    stage: Mapping[str, Any], pages: Sequence[CandidatePage], plugins: Plugins, count: int | None = None
) -> Document:
    """Measure a stage by what the store has of it.

    Args:
        stage: The stage document of the store.
        pages: All of its pages; none where :func:`lacks_metrics` says that they are not looked at.
        plugins: The stage types that the service has.
        count: How many candidates the store has of it; None where that is not known otherwise.

    Returns:
        A partial stage document; empty where the store's is right already.
    """
    if count is None:
        count = sum(len(page.seqs) for page in pages)
    capture = stage.get("capture") or {}
    partial: Document = {}
    if any((capture.get(name) or 0) < count for name in ("kept", "seen")):
        partial["capture"] = {"kept": count, "seen": count}
    stage_type = _find(stage.get("type"), plugins)
    over = stage.get("metrics_over", -1)
    if count == over and "duration_ms" not in (stage.get("metrics") or {}):
        # How long it took came after the candidates.
        partial |= {"metrics": duration, "metrics_over": over} if (duration := _with_duration({}, stage)) else {}
    if stage_type is None or count <= over:
        return partial
    metrics = _compute(stage_type, join_columns(pages), stage.get("facts"), partial)
    of_sender = {
        name: value for name, value in (stage.get("metrics") or {}).items() if name not in _declared(stage_type)
    }
    partial["metrics"] = _with_duration(of_sender | metrics, stage)
    partial["metrics_over"] = count
    return partial


def lacks_metrics(stage: Mapping[str, Any], count: int, plugins: Plugins) -> bool:
    """Whether a stage's candidates have to be looked at to measure it again.

    Args:
        stage: The stage document of the store.
        count: How many candidates the store has of it.
        plugins: The stage types that the service has.
    """
    return count > stage.get("metrics_over", -1) and _find(stage.get("type"), plugins) is not None


def can_wait(stage: Mapping[str, Any], count: int) -> bool:
    """Whether a stage need not be measured again yet: it is long, more of it is to come, and most of it is measured.

    Measuring all of a stage again for each part of it would take the square of the time. So a long stage is measured
    when what its sender says it kept is there, and before that whenever it has grown by a quarter.

    Args:
        stage: The stage document of the store.
        count: How many candidates the store has of it.
    """
    kept = (stage.get("capture") or {}).get("kept")
    more_to_come = kept is not None and count < kept
    return more_to_come and count > AT_ONCE and count < GROWTH * stage.get("metrics_over", 0)


def declarations_for(
    stage_type: str, sent: Mapping[str, Any] | None, declarations: Sequence[dict[str, Any]], plugins: Plugins
) -> list[dict[str, Any]]:
    """What has to be remembered about a sender's metrics: of those that no plugin of the service declares.

    Args:
        stage_type: The type's name.
        sent: The sender's metrics.
        declarations: What the sender said about them; a metric of which it said nothing is described by its value.
        plugins: The stage types that the service has.
    """
    if not sent and not declarations:
        return []
    found = _find(stage_type, plugins)
    known = _COMMON | (_declared(found) | set(found.columns) if found else frozenset())
    by_name = {declaration["name"]: declaration for declaration in declarations if declaration["name"] not in known}
    for name, value in (sent or {}).items():
        if name not in known and name not in by_name:
            by_name[name] = Metric(name, "", "", _kind(value)).as_dict()
    return list(by_name.values())


def _kind(value: Any) -> Any:
    if _is_number(value):
        return "number"
    return "table" if isinstance(value, dict) and all(map(_is_number, value.values())) else "data"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _find(name: str | None, plugins: Plugins) -> StageType | None:
    try:
        return None if name is None else plugins.stage_type(name)
    except PluginError:
        return None


@functools.lru_cache(maxsize=256)  # a type's declarations do not change, and an instance serves the whole process
def _declared(stage_type: StageType) -> frozenset[str]:
    return frozenset(metric.name for metric in stage_type.all_metrics())


def _compute(
    stage_type: StageType, columns: Columns, facts: Mapping[str, Any] | None, partial: Document
) -> dict[str, Any]:
    try:
        # Copies: a plugin's code gets nothing that it could change behind our back.
        values = {
            name: column if _is_left_packed(name, stage_type) else plain(column)
            for name, column in columns.values.items()
        }
        return check_metrics(
            stage_type.measure(Columns(list(columns.candidate_id), values, dict(facts or {}))), "metrics"
        )
    except Exception as error:
        # A plugin's code may fail on any input; the stage is worth keeping without its metrics.
        log.warning("Computing the metrics of a '%s' stage failed", stage_type.name, exc_info=True)
        partial["facts"] = {"metrics_error": f"{type(error).__name__}: {error}"[:500]}
        return {}


def _is_left_packed(name: str, stage_type: StageType) -> bool:
    """Whether a column may stay a table: the type says that it does not look at it."""
    return name in ("data", "output") and not stage_type.reads_candidates


def _with_duration(metrics: dict[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
    duration_ms = stage.get("duration_ms")
    return metrics if duration_ms is None else {"duration_ms": duration_ms} | metrics
