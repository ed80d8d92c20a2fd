"""``/v1/stages/{stage_id}/whatif`` and the same by a run's stage: who would have passed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from xray.ids import is_id
from xray_server.analysis.reading import MAX_CANDIDATES, Reader, equals, one_stage
from xray_server.analysis.record import RunRecord, StageRecord
from xray_server.analysis.whatif import what_if
from xray_server.api.answers import Here, Service
from xray_server.api.insight_models import WhatIf, WhatIfParameters
from xray_server.api.models import ErrorAnswer
from xray_server.api.shown import with_times
from xray_server.errors import json_response, not_found

router = APIRouter(tags=["insight"], responses={404: {"model": ErrorAnswer}, 422: {"model": ErrorAnswer}})


@router.get("/v1/stages/{stage_id}/whatif", response_model=WhatIf)
async def whatif(stage_id: str, parameters: Annotated[WhatIfParameters, Query()], service: Here) -> Response:
    """Say who would have passed a stage under another threshold, or without a rule."""
    found = (
        await Reader(service.store, service.project).stages(stage=equals("id", stage_id), limit=1)
        if is_id(stage_id)
        else []
    )
    if not found:
        raise not_found(f"There is no stage '{stage_id:.100}'.")
    return await _answer(service, found[0]["run_id"], stage_id, parameters)


@router.get("/v1/runs/{run_id}/whatif/{stage:path}", response_model=WhatIf)
async def whatif_of_run(
    run_id: str, stage: str, parameters: Annotated[WhatIfParameters, Query()], service: Here
) -> Response:
    """The same, for the stage of a run by its path or name."""
    return await _answer(service, run_id, stage, parameters)


async def _answer(service: Service, run_id: str, stage: str, parameters: WhatIfParameters) -> Response:
    run, found = await read_from(service, run_id, stage)
    return json_response(with_times(what_if(run, found, **parameters.model_dump())))


async def read_from(service: Service, run_id: str, stage: str) -> tuple[RunRecord, StageRecord]:
    """A run and one of its stages, with the candidates of that stage and of the siblings that began after it.

    Who went on from a stage is decided by itself or by these; the other stages are without candidates.

    Args:
        service: The service.
        run_id: The run's id.
        stage: The stage's id, path or name.

    Raises:
        ApiError: There is no such run or stage, or several have the name.
        StoreError: The data could not be read.
    """
    reader = Reader(service.store, service.project)
    run = await reader.run(run_id, candidates=False)
    wanted = one_stage(run, stage)
    needed = {wanted.id, *(later.id for later in run.later_siblings(wanted))}
    left = MAX_CANDIDATES
    stages = []
    for each in run.stages:
        record = await reader.stage(each.document, left) if each.id in needed else each
        left -= len(record.rows)
        stages.append(record)
    whole = RunRecord(run.document, stages)
    return whole, one_stage(whole, wanted.id)
