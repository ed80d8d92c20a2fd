"""The page of a candidate: its way through one run, and what became of it in others."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import RedirectResponse

from xray_server.analysis.passport import passport
from xray_server.analysis.reading import Reader
from xray_server.api.answers import Here
from xray_server.api.insight_models import LostParameters
from xray_server.api.parameters import Parameters
from xray_server.api.passports import lost_answer
from xray_server.api.runs import find_run
from xray_server.api.shown import with_times
from xray_server.dashboard import forms, links
from xray_server.dashboard.rendering import render

router = APIRouter(include_in_schema=False)


class CandidatePage(Parameters):
    """What the page takes: the id, where it cannot stand in the path."""

    id: str = ""


class HistoryPage(LostParameters):
    """What the history takes."""

    id: str


@router.get("/runs/{run_id}/candidates")
async def by_parameter(run_id: str, request: Request, service: Here) -> Response:
    """The page of the candidate that a form asked for."""
    candidate_id = forms.read(CandidatePage, request).id
    if not candidate_id:
        return RedirectResponse(links.run_url(run_id), 303)
    address = links.candidate_url(run_id, candidate_id)
    if "?" not in address:
        return RedirectResponse(address, 303)
    return await _page(run_id, candidate_id, request, service)


@router.get("/runs/{run_id}/candidates/{candidate_id:path}")
async def candidate(
    run_id: str, candidate_id: str, request: Request, service: Here, _: Annotated[Parameters, Query()]
) -> Response:
    """One candidate in a run."""
    return await _page(run_id, candidate_id, request, service)


async def _page(run_id: str, candidate_id: str, request: Request, service: Here) -> Response:
    record = await Reader(service.store, service.project).run(run_id)
    found: dict[str, Any] = with_times(passport(record, candidate_id))
    run = await find_run(service, run_id)
    history = links.with_parameters("/candidates/history", {"id": candidate_id, "label": run.get("label")})
    paths = {step["path"]: step["stage_id"] for step in found["steps"]}
    shown = {
        "found": found,
        "run": run,
        "history": history,
        "paths": paths,
        "seen": sum(step["seen"] == "yes" for step in found["steps"]),
    }
    return render(request, "candidate.html", shown)


@router.get("/candidates/history")
async def history(request: Request, service: Here) -> Response:
    """What became of a candidate in other runs."""
    parameters = forms.read(HistoryPage, request)
    asked = LostParameters.model_validate(parameters.model_dump(exclude={"id"}))
    answer = await lost_answer(service, parameters.id, asked)
    return render(request, "candidate_history.html", {"answer": answer, "asked": parameters})
