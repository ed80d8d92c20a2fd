"""The list of runs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from xray_server.api.answers import Here
from xray_server.api.models import RunParameters
from xray_server.api.runs import list_runs
from xray_server.dashboard import forms
from xray_server.dashboard.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/")
async def runs(request: Request, service: Here) -> Response:
    """The runs, the latest first."""
    answer = await list_runs(service, forms.read(RunParameters, request))
    return render(request, "runs.html", {"answer": answer})
