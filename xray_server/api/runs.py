"""``/v1/pipelines`` and ``/v1/runs``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from xray.ids import is_id
from xray_server.api.answers import Here, iso_time, whole_list
from xray_server.api.models import ErrorAnswer, Parameters, Pipelines, RunParameters, Runs, RunWithStages
from xray_server.errors import json_response, not_found
from xray_server.query.parser import MAX_LIMIT

router = APIRouter(tags=["runs"], responses={422: {"model": ErrorAnswer}})


@router.get("/v1/pipelines", response_model=Pipelines)
async def pipelines(_: Annotated[Parameters, Query()], service: Here) -> Response:
    """List the pipelines, the one with the latest run first."""
    rows = []
    for summary in await service.store.pipelines(service.project):
        row = dataclasses.asdict(summary)
        for name in ("first_started_at", "last_started_at"):
            row[name] = iso_time(row[name])
        rows.append(row)
    return json_response(whole_list(rows))


@router.get("/v1/runs", response_model=Runs)
async def runs(parameters: Annotated[RunParameters, Query()], service: Here) -> Response:
    """List runs, the latest first.

    Beside these parameters any field or metric may be named, with an operator behind `__`: `duration_ms__gt=500`,
    `name__in=a,b`, `metadata.team=ads`. The operators are eq, ne, gt, gte, lt, lte, in, nin, exists and regex.
    """
    conditions: dict[str, Any] = {
        name: ("pipeline", name, "$eq", getattr(parameters, name))
        for name in ("label", "key", "status", "version", "environment")
    }
    conditions["since"] = ("pipeline", "started_at", "$gte", parameters.since)
    conditions["until"] = ("pipeline", "started_at", "$lt", parameters.until)
    return json_response(
        await service.listing("runs", conditions, parameters.limit, parameters.cursor, parameters.suffixed())
    )


@router.get("/v1/runs/{run_id}", response_model=RunWithStages, responses={404: {"model": ErrorAnswer}})
async def run(run_id: str, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Show one run with its stages in order."""
    missing = not_found(
        f"There is no run '{run_id:.100}'.", None if is_id(run_id) else "Look for your own id with /v1/runs?key=…"
    )
    if not is_id(run_id):
        raise missing
    found = (await service.ask({"pipeline": {"id": run_id}, "return": "runs", "limit": 1}))["rows"]
    if not found:
        raise missing
    stages: list[Any] = []
    question: dict[str, Any] = {"stage": {"run_id": run_id}, "sort": {"order": 1}, "limit": MAX_LIMIT}
    while True:
        answer = await service.ask(question)
        stages += answer["rows"]
        if answer["cursor"] is None:
            return json_response(found[0] | {"stages": stages})
        question["cursor"] = answer["cursor"]
