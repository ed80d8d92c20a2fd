"""The page of a run: its stages, its timeline, its funnel, and which stage is unlike its history."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from xray_server.analysis.funnel import funnel
from xray_server.analysis.reading import Reader
from xray_server.analysis.record import RunRecord, StageRecord
from xray_server.api.analyses import analyzed
from xray_server.api.answers import Here, Service
from xray_server.api.insight_models import AnalysisParameters
from xray_server.api.parameters import PageParameters, Parameters
from xray_server.api.runs import find_run
from xray_server.dashboard import forms
from xray_server.dashboard.rendering import render
from xray_server.dashboard.sankey import sankey
from xray_server.dashboard.waterfall import waterfall
from xray_server.documents import Document

router = APIRouter(include_in_schema=False)

STAGES_A_PAGE = 100
MAX_CANDIDATES = 5000
MAX_COUNTED_STAGES = 100
"""Of a run with more candidates, or more stages, the funnel is checked by the stages' figures alone."""

MAX_COMPARED_STAGES = 300
"""A run with more stages is compared with its history when somebody asks for it: all of its candidates are read."""


class RunPage(PageParameters):
    """What the page takes."""

    limit: int = STAGES_A_PAGE
    sort: str = "order"


@router.get("/runs/{run_id}")
async def run(run_id: str, request: Request, service: Here) -> Response:
    """One run."""
    parameters = forms.read(RunPage, request)
    found = await find_run(service, run_id)
    name = parameters.sort.lstrip("-")
    question: dict[str, Any] = {
        "stage": {"run_id": run_id} | ({name: {"$exists": True}} if name.startswith("$") else {}),
        "sort": {name: -1 if parameters.sort.startswith("-") else 1},
        "limit": parameters.limit,
        "cursor": parameters.cursor,
    }
    answer = await service.ask(question)
    traces = dict.fromkeys(
        trace["trace_id"]
        for stage in answer["rows"]
        if isinstance(trace := stage.get("trace"), dict) and trace.get("trace_id")
    )
    shown = {
        "run": found,
        "answer": answer,
        "sort": parameters.sort,
        "depths": _depths(answer["rows"]) if parameters.sort == "order" else {},
        "traces": list(traces)[:5],
        "has_stages": bool(answer["rows"]),
        "is_large": found.get("stage_count", 0) > MAX_COMPARED_STAGES or len(answer["rows"]) > MAX_COMPARED_STAGES,
    }
    return render(request, "run.html", shown)


def _depths(stages: list[Document]) -> dict[str, int]:
    found: dict[str, int] = {}
    for stage in stages:
        found[stage["id"]] = found.get(stage.get("parent_id") or "", -1) + 1
    return found


@router.get("/runs/{run_id}/flow")
async def flow(run_id: str, request: Request, service: Here, _: Annotated[Parameters, Query()]) -> Response:
    """The timeline and the funnel of a run."""
    reader = Reader(service.store, service.project)
    record = await reader.run(run_id, candidates=False)
    record = await _with_candidates(reader, record)
    found = funnel(record)
    flags = [(row["path"], row["stage_id"], flag) for row in found["stages"] for flag in row["flags"]]
    shown = {
        "run": record.document,
        "time": waterfall(record.document, [stage.document for stage in record.stages]),
        "figure": sankey(found),
        "conserved": found["conserved"],
        "flags": flags[:8],
        "flag_count": len(flags),
    }
    return render(request, "run_flow.html", shown)


async def _with_candidates(reader: Reader, record: RunRecord) -> RunRecord:
    """The same with its candidates, where they are few enough to be counted one by one."""
    few = len(record.stages) <= MAX_COUNTED_STAGES
    if not few or not 0 < sum(stage.seen for stage in record.stages) <= MAX_CANDIDATES:
        return record
    stages: list[StageRecord] = [await reader.stage(stage.document) for stage in record.stages]
    return RunRecord(record.document, stages)


@router.get("/runs/{run_id}/suspects")
async def suspects(
    run_id: str, request: Request, service: Here, parameters: Annotated[AnalysisParameters, Query()]
) -> Response:
    """Which stages of a run are unlike their history."""
    answer = await analyzed(service, run_id, parameters)
    stages = await _stage_ids(service, run_id, [suspect["path"] for suspect in answer["suspects"]])
    return render(request, "run_suspects.html", {"found": answer, "stages": stages, "run_id": run_id})


async def _stage_ids(service: Service, run_id: str, paths: list[str]) -> dict[str, str]:
    """Path → id, for the stages of a run that were named."""
    if not paths:
        return {}
    question = {"stage": {"run_id": run_id, "path": {"$in": paths}}, "limit": len(paths), "fields": ["path"]}
    rows = (await service.ask(question))["rows"]
    return {row["path"]: row["id"] for row in rows if row.get("path")}
