"""``/v1/stages`` and their candidates."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from xray.ids import is_id
from xray_server.api.answers import Here, Service
from xray_server.api.models import CandidateList, ErrorAnswer, PanelAnswer, StageModel, Stages
from xray_server.api.parameters import CandidateParameters, Parameters, StageParameters
from xray_server.errors import json_response, not_found
from xray_server.panels import Panel, panel_of

router = APIRouter(tags=["stages"], responses={422: {"model": ErrorAnswer}})


@router.get("/v1/stages", response_model=Stages)
async def stages(parameters: Annotated[StageParameters, Query()], service: Here) -> Response:
    """List stages, the latest first.

    Beside these parameters any field or metric may be named, with an operator behind `__`: `fail_ratio__gt=0.9`,
    `name__in=a,b`, `metadata.team=ads`. The operators are eq, ne, gt, gte, lt, lte, in, nin, exists and regex.
    """
    conditions: dict[str, Any] = {
        name: ("stage", name, "$eq", getattr(parameters, name)) for name in ("run_id", "type", "name")
    }
    conditions["label"] = ("pipeline", "label", "$eq", parameters.label)
    conditions["since"] = ("stage", "started_at", "$gte", parameters.since)
    conditions["until"] = ("stage", "started_at", "$lt", parameters.until)
    answer = await service.listing("stages", conditions, parameters.limit, parameters.cursor, parameters.suffixed())
    return json_response(parameters.paged(answer))


@router.get("/v1/stages/{stage_id}", response_model=StageModel, responses={404: {"model": ErrorAnswer}})
async def stage(stage_id: str, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Show one stage."""
    return json_response(await find_stage(service, stage_id))


@router.get("/v1/stages/{stage_id}/candidates", response_model=CandidateList, responses={404: {"model": ErrorAnswer}})
async def candidates(stage_id: str, parameters: Annotated[CandidateParameters, Query()], service: Here) -> Response:
    """List the candidates of a stage in their order."""
    removed_at = (await find_stage(service, stage_id)).get("candidates_removed_at")
    conditions = {
        "stage_id": ("stage", "id", "$eq", stage_id),
        "verdict": ("candidate", "verdict", "$eq", parameters.verdict),
        "reason_label": ("candidate", "reason_label", "$eq", parameters.reason_label),
    }
    answer = await service.listing("candidates", conditions, parameters.limit, parameters.cursor)
    if removed_at is not None:
        answer["candidates_removed_at"] = removed_at
    return json_response(answer)


@router.get("/v1/stages/{stage_id}/panel", response_model=PanelAnswer, responses={404: {"model": ErrorAnswer}})
async def panel(stage_id: str, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Show a stage's figures, as its type draws them: dicts for Plotly, without colours and sizes."""
    found = await find_stage(service, stage_id)
    made = await panel_of_stage(service, found)
    answer = {"stage_id": stage_id, "type": found.get("type"), "figures": made.figures, "problem": made.problem}
    return json_response(answer)


async def panel_of_stage(service: Service, stage: dict[str, Any]) -> Panel:
    """The figures of a stage; a plugin's code runs beside the event loop.

    Args:
        service: The service.
        stage: The stage's document.
    """
    return await asyncio.to_thread(panel_of, stage, service.plugins, await service.declarations())


async def find_stage(service: Service, stage_id: str) -> dict[str, Any]:
    """One stage.

    Args:
        service: The service.
        stage_id: The stage's id.

    Raises:
        ApiError: There is no such stage.
        StoreError: The data could not be read.
    """
    if is_id(stage_id):
        rows = (await service.ask({"stage": {"id": stage_id}, "limit": 1}))["rows"]
        if rows:
            found: dict[str, Any] = rows[0]
            return found
    raise not_found(f"There is no stage '{stage_id:.100}'.")
