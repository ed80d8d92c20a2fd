"""``/v1/pipelines`` and ``/v1/runs``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from xray.ids import is_id
from xray_server.api.answers import Here, Service, iso_time, whole_list
from xray_server.api.models import ErrorAnswer, Pipelines, Runs, RunWithStages
from xray_server.api.parameters import Parameters, RunParameters
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
    return json_response(await list_runs(service, parameters))


async def list_runs(service: Service, parameters: RunParameters) -> dict[str, Any]:
    """A page of runs, the latest first.

    Args:
        service: The service.
        parameters: By what to list them.

    Raises:
        QueryError: A parameter names nothing, or its value does not fit.
        StoreError: The data could not be read.
    """
    return parameters.paged(
        await service.listing(
            "runs", run_conditions(parameters), parameters.limit, parameters.cursor, parameters.suffixed()
        )
    )


def run_conditions(parameters: RunParameters) -> dict[str, Any]:
    """The conditions that the parameters of a list of runs stand for, as ``Service.listing`` takes them."""
    conditions: dict[str, Any] = {
        name: ("pipeline", name, "$eq", getattr(parameters, name))
        for name in ("label", "key", "status", "version", "environment")
    }
    conditions["since"] = ("pipeline", "started_at", "$gte", parameters.since)
    conditions["until"] = ("pipeline", "started_at", "$lt", parameters.until)
    return conditions


@router.get("/v1/runs/{run_id}", response_model=RunWithStages, responses={404: {"model": ErrorAnswer}})
async def run(run_id: str, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Show one run with its stages in order."""
    found = await find_run(service, run_id)
    stages: list[Any] = []
    question: dict[str, Any] = {"stage": {"run_id": run_id}, "sort": {"order": 1}, "limit": MAX_LIMIT}
    while True:
        answer = await service.ask(question)
        stages += answer["rows"]
        if answer["cursor"] is None:
            return json_response(found | {"stages": stages})
        question["cursor"] = answer["cursor"]


async def find_run(service: Service, run_id: str) -> dict[str, Any]:
    """One run, without its stages.

    Args:
        service: The service.
        run_id: The run's id.

    Raises:
        ApiError: There is no such run.
        StoreError: The data could not be read.
    """
    if is_id(run_id):
        rows = (await service.ask({"pipeline": {"id": run_id}, "return": "runs", "limit": 1}))["rows"]
        if rows:
            found: dict[str, Any] = rows[0]
            return found
    hint = None if is_id(run_id) else "Look for your own id with /v1/runs?key=…"
    raise not_found(f"There is no run '{run_id:.100}'.", hint)
