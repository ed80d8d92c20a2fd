"""The page of comparisons: two runs, or two groups of runs, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from xray.exceptions import QueryError, SchemaError
from xray.ids import is_id
from xray.insight import ComparisonView, DiffView
from xray_server.api.answers import Here, Service
from xray_server.api.comparisons import compare_answer, diff_answer
from xray_server.dashboard.choices import choices
from xray_server.dashboard.figures import Figure, chart_text
from xray_server.dashboard.rendering import render
from xray_server.errors import not_found

router = APIRouter(include_in_schema=False)

BY = ("version", "environment", "status", "key", "label")
_HEAD = ("id", "key", "label", "version", "status", "started_at", "duration_ms")
_MAX_ROWS = 200
"""Rows that a table of the page shows; the answer of the API has all of them."""


@router.get("/compare")
async def compare(request: Request, service: Here) -> Response:
    """Two runs where ``a`` and ``b`` are given; two groups where ``by``, or two filters, are; else the forms for both.

    ``a`` and ``b`` are ids or keys of runs. Groups are told apart by ``by``, ``label`` and the values ``x`` and ``y``,
    or by the JSON filters ``filter_a`` and ``filter_b``.
    """
    given = {name: value for name, value in request.query_params.items() if value}
    shown: dict[str, Any] = {
        "labels": (await choices(service)).labels,
        "by": BY,
        "kind": None,
        "problem": None,
    }
    status = 200
    try:
        if given.get("a") or given.get("b"):
            shown |= await _runs(service, given.get("a", ""), given.get("b", ""))
        elif given.get("by") or given.get("filter_a") or given.get("filter_b"):
            shown |= await _groups(service, given)
    except (SchemaError, QueryError) as error:
        status, shown["problem"] = 422, error.as_dict()
    return render(request, "compare.html", shown, status=status)


async def _runs(service: Service, a: str, b: str) -> dict[str, Any]:
    if not a or not b:
        raise SchemaError("Two runs are compared.", code="bad_parameter", path="b" if a else "a", hint="Name both.")
    ids = [await _run_id(service, each) for each in (a, b)]
    answer = await diff_answer(service, *ids)
    return {
        "kind": "runs",
        "answer": answer | {side: dict.fromkeys(_HEAD) | answer[side] for side in ("a", "b")},
        "headline": DiffView(answer).headline,
        "most": _MAX_ROWS,
        "metrics": _metrics(answer["stages"]),
        "unit": await _units(service),
    }


async def _run_id(service: Service, run: str) -> str:
    """The id of a run by its id, or by its key, of several the latest."""
    if is_id(run):
        return run
    rows = (await service.ask({"pipeline": {"key": run}, "return": "runs", "limit": 1}))["rows"]
    if not rows:
        raise not_found(f"No run has the id or key '{run:.100}'.", "Look for it in the list of runs.")
    return str(rows[0]["id"])


async def _units(service: Service) -> Callable[[str], str]:
    """What tells the unit of a metric, or of an entry of one that is a table."""
    catalog = await service.catalog()

    def unit(name: str) -> str:
        metric = catalog.declaration(name.partition(".")[0])
        return "" if metric is None else metric.unit

    return unit


def _metrics(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The metrics that differ, in the order of the stages, durations last within each."""
    rows = [{"path": stage["path"], **change} for stage in stages for change in stage["metrics"]]
    return [row for row in rows if row["name"] != "duration_ms"] + [row for row in rows if row["name"] == "duration_ms"]


async def _groups(service: Service, given: Mapping[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if given.get("by"):
        body = {"by": given["by"], "label": given.get("label")}
        if given.get("x") or given.get("y"):
            body["values"] = [given.get("x", ""), given.get("y", "")]
    else:
        body = {side: _filter(given.get(f"filter_{side}", ""), f"filter_{side}") for side in ("a", "b")}
    answer = await compare_answer(service, body)
    view = ComparisonView(answer)
    moved = [row for row in view.rows if row["moved"]]
    return {
        "kind": "groups",
        "answer": answer,
        "headline": view.headline,
        "moved": moved[:_MAX_ROWS],
        "others": [row for row in view.rows if not row["moved"]][:_MAX_ROWS],
        "sides": [_sentence(group) for group in answer["groups"]],
        "figures": _figures(moved),
        "unit": await _units(service),
        "body": json.dumps({name: value for name, value in body.items() if value is not None}, ensure_ascii=False),
    }


def _filter(text: str, parameter: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError(
            f"The filter is not JSON: {error}.", code="bad_json", path=parameter, hint='{"version": "2026.11"}'
        ) from None
    return found


def _sentence(condition: Mapping[str, Any]) -> str:
    """A group in words: ``label competitor_discovery, version 2026.10``; a filter that is more than that as JSON."""
    if all(isinstance(value, str | int | float) for value in condition.values()):
        return ", ".join(f"{name} {value}" for name, value in condition.items()) or "all runs"
    return json.dumps(condition, ensure_ascii=False)


def _figures(moved: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """How far what moved moved: the effects as bars, the largest ones."""
    if not moved:
        return []
    rows = sorted(moved, key=lambda row: -abs(row["effect"]))[:20][::-1]
    names = [f"{chart_text(row['path'], 30)} · {chart_text(what(row), 40)}" for row in rows]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row["effect"] for row in rows],
        "y": names,
        "marker": {"color": ["var(--label-5)" if row["effect"] > 0 else "var(--label-4)" for row in rows]},
        "hovertemplate": "%{y}<br>%{x:+.2f}<extra></extra>",
    }
    axis = {"range": [-1.05, 1.05], "title": {"text": "effect"}}
    return [
        Figure(
            "effects", "What moved, and how far", [trace],
            {"xaxis": axis, "yaxis": {"type": "category"}},
            note="Below 0 lower in B, above 0 higher: Cliff's delta of metrics, Cohen's h of shares of reason labels.",
            height=100 + 24 * len(rows),
        )
    ]  # fmt: skip


def what(row: Mapping[str, Any]) -> str:
    """What a row of a comparison is about."""
    return str(row["metric"]) if "metric" in row else f"label {row['label']}"
