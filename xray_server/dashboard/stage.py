"""The page of a stage: its metrics and figures, who would pass instead, and its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from xray.exceptions import PluginError
from xray.metrics import COMMON_METRICS, METRICS_OF_ALL_TYPES, Metric
from xray_server.analysis.reading import Reader
from xray_server.analysis.whatif import what_if
from xray_server.api.answers import Here, Service
from xray_server.api.insight_models import WhatIfParameters
from xray_server.api.parameters import Parameters
from xray_server.api.stages import find_stage, panel_of_stage
from xray_server.api.whatif import read_from
from xray_server.dashboard import forms
from xray_server.dashboard.candidate_table import OPERATORS, TableParameters, as_csv, as_lines, table, value_at
from xray_server.dashboard.filters import SCALED
from xray_server.dashboard.rendering import HEADERS, render
from xray_server.dashboard.stage_figures import (
    has_scores,
    panel_figures,
    rank_figure,
    score_figure,
    score_names,
    scores_of,
)
from xray_server.errors import not_found
from xray_server.query.fields import camel

router = APIRouter(include_in_schema=False)

MAX_RANKED = 20_000
_VIEWS = ("overview", "candidates", "checks", "values", "llm", "json")
_NAMED = 20


class StagePage(TableParameters):
    """What the page takes: which view, and of the candidates which."""

    view: Literal["overview", "candidates", "checks", "values", "llm", "json"] = "overview"


@router.get("/stages/{stage_id}")
async def stage(stage_id: str, request: Request, service: Here) -> Response:
    """One stage."""
    parameters = forms.read(StagePage, request)
    found = await find_stage(service, stage_id)
    shown: dict[str, Any] = {
        "stage": found,
        "pipeline": found.get("pipeline") or {},
        "metrics": found.get("metrics") or {},
        "view": parameters.view,
        "views": _views(found),
        "meaning": _meaning(service, found.get("type")),
        "has_scores": has_scores(found),
        "has_ranks": found.get("type") == "ranking",
    }
    if parameters.view == "overview":
        shown["declared"] = _declared(found, await service.declarations())
        shown["is_judged"] = found.get("type") == "filtering" and "failed" in shown["metrics"]
    elif parameters.view in ("candidates", "checks"):
        if parameters.view == "checks" and not parameters.columns:
            parameters.column = ["verdict", *(f"checks.{name}" for name in _check_names(found))]
        shown |= {
            "table": await table(service, stage_id, parameters),
            "asked": parameters,
            "value_at": value_at,
            "operators": OPERATORS,
            "labels": list(shown["metrics"].get("label_counts") or ())[:500],
            "download": _download(request, stage_id),
        }
    return render(request, "stage.html", shown)


def _views(stage: Mapping[str, Any]) -> list[tuple[str, str, int | None]]:
    capture = stage.get("capture") or {}
    kept = capture.get("kept") if isinstance(capture.get("kept"), int) else None
    found: list[tuple[str, str, int | None]] = [("overview", "Overview", None), ("candidates", "Candidates", kept)]
    if _check_names(stage):
        found.append(("checks", "Evaluation table", None))
    if stage.get("llm"):
        found.append(("llm", "Model", None))
    return [*found, ("values", "Input and output", None), ("json", "JSON", None)]


def _check_names(stage: Mapping[str, Any]) -> list[str]:
    """The checks of the evaluation table, those that most candidates failed first."""
    failed = (stage.get("metrics") or {}).get("checks_failed")
    if not isinstance(failed, Mapping):
        return []
    return sorted(failed, key=lambda name: (-failed[name] if isinstance(failed[name], int) else 0, name))[:30]


def _meaning(service: Service, name: Any) -> str:
    try:
        return service.plugins.stage_type(str(name)).meaning
    except PluginError:
        return "A type that this service has no plugin for."


def _declared(stage: Mapping[str, Any], declarations: Mapping[str, list[Metric]]) -> list[dict[str, Any]]:
    """The stage's metrics with what they mean: value, unit, name as a question writes it."""
    declared = declarations.get(str(stage.get("type")), ())
    known = {metric.name: metric for metric in (*COMMON_METRICS, *declared, *METRICS_OF_ALL_TYPES)}
    rows = []
    metrics = stage.get("metrics") or {}
    for name in sorted(metrics, key=lambda name: (list(known).index(name) if name in known else len(known), name)):
        metric = known.get(name)
        rows.append({
            "name": name,
            "value": metrics[name],
            "unit": metric.unit if metric else "",
            "scale": metric.unit if metric and metric.unit in SCALED else "",
            "meaning": metric.meaning if metric else "Not declared by its type.",
            "bad": metric.bad if metric else None,
            "kind": metric.kind if metric else ("table" if isinstance(metrics[name], Mapping) else "number"),
            "query": camel(name),
        })  # fmt: skip
    return rows


def _download(request: Request, stage_id: str) -> str:
    query = "&".join(
        part for part in str(request.url.query).split("&") if not part.startswith(("view=", "cursor=", "page="))
    )
    return f"/stages/{stage_id}/candidates.FORMAT" + (f"?{query}" if query else "")


# --- parts that are asked for when they come into view ----------------------------------------------------------


@router.get("/stages/{stage_id}/panel")
async def panel(stage_id: str, request: Request, service: Here, _: Annotated[Parameters, Query()]) -> Response:
    """The figures of the stage's type."""
    found = await find_stage(service, stage_id)
    made = await panel_of_stage(service, found)
    shown = {"figures": panel_figures(found, made.figures), "trouble": made.problem, "stage": found}
    return render(request, "stage_panel.html", shown)


@router.get("/stages/{stage_id}/scores")
async def scores(
    stage_id: str, request: Request, service: Here, parameters: Annotated[WhatIfParameters, Query()]
) -> Response:
    """The scores with their cutoff, and a slider that asks who would pass instead."""
    found = await find_stage(service, stage_id)
    run, record = await read_from(service, found["run_id"], stage_id)
    names = score_names(record)
    name = parameters.score or (None if scores_of(record, None) or not names else names[0])
    values = [score for _, score in scores_of(record, name)]
    shown: dict[str, Any] = {"stage": found, "figure": score_figure(run, record, name), "names": names, "name": name}
    if values:
        decided = what_if(run, record, threshold=min(values), score=name, near=0)["threshold"]
        now = decided["now"]
        at = parameters.threshold if parameters.threshold is not None else _threshold_now(values, now)
        shown |= {"low": min(values), "high": max(values), "at": at, "step": (max(values) - min(values)) / 200 or 1}
        asked = parameters.model_copy(update={"threshold": at, "score": name, "near": 5})
        shown["answer"] = what_if(run, record, **asked.model_dump())
    return render(request, "stage_scores.html", shown)


def _threshold_now(values: list[float], now: int | None) -> float:
    """The cutoff that lets as many go on as did; in the middle of the scores where nobody decided."""
    ordered = sorted(values, reverse=True)
    if not now or now > len(ordered):
        return ordered[len(ordered) // 2]
    return ordered[now - 1]


@router.get("/stages/{stage_id}/whatif")
async def whatif(
    stage_id: str, request: Request, service: Here, parameters: Annotated[WhatIfParameters, Query()]
) -> Response:
    """Who would pass under another cutoff, or without a rule."""
    found = await find_stage(service, stage_id)
    run, record = await read_from(service, found["run_id"], stage_id)
    answer = what_if(run, record, **parameters.model_copy(update={"near": min(parameters.near, 5)}).model_dump())
    return render(request, "stage_whatif.html", {"stage": found, "answer": answer})


@router.get("/stages/{stage_id}/ranks")
async def ranks(stage_id: str, request: Request, service: Here, _: Annotated[Parameters, Query()]) -> Response:
    """How the order changed."""
    found = await find_stage(service, stage_id)
    record = await Reader(service.store, service.project).stage(found, MAX_RANKED)
    return render(request, "stage_ranks.html", {"stage": found, "figure": rank_figure(found["run_id"], record.rows)})


# --- candidates -------------------------------------------------------------------------------------------------


@router.get("/stages/{stage_id}/candidates.jsonl")
async def lines(stage_id: str, request: Request, service: Here) -> Response:
    """The candidates that the filters let through, as JSON Lines."""
    parameters = forms.read(TableParameters, request)
    await find_stage(service, stage_id)
    return _stream(as_lines(service, stage_id, parameters), "application/x-ndjson", f"candidates-{stage_id}.jsonl")


@router.get("/stages/{stage_id}/candidates.csv")
async def sheet(stage_id: str, request: Request, service: Here) -> Response:
    """The same as CSV."""
    parameters = forms.read(TableParameters, request)
    await find_stage(service, stage_id)
    return _stream(as_csv(service, stage_id, parameters), "text/csv; charset=utf-8", f"candidates-{stage_id}.csv")


def _stream(content: Any, media_type: str, name: str) -> Response:
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(content, headers=headers, media_type=media_type)


@router.get("/stages/{stage_id}/candidates/{seq}")
async def candidate_of_stage(
    stage_id: str, seq: int, request: Request, service: Here, _: Annotated[Parameters, Query()]
) -> Response:
    """One candidate as it came in beside what the stage made of it."""
    found = await find_stage(service, stage_id)
    row = await _row(service, stage_id, seq)
    if row is None:
        raise not_found(f"The stage has no candidate at place {seq}.")
    decided = {name: value for name, value in row.items() if name not in ("data", "candidate_id")}
    return render(request, "stage_candidate.html", {"stage": found, "row": row, "seq": seq, "decided": decided})


async def _row(service: Service, stage_id: str, seq: int) -> Mapping[str, Any] | None:
    async for page in service.store.pages(service.project, stage_id, from_seq=max(0, seq)):
        if seq in page.seqs:
            place = page.seqs.index(seq)
            return next(page.columns().slice(place, place + 1).rows())
        return None
    return None
