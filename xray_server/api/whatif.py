"""``/v1/stages/{stage_id}/whatif`` and the same by a run's stage: who would have passed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from xray.ids import is_id
from xray_server.analysis.reading import Reader, equals, one_stage
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
    run = await Reader(service.store, service.project).run(run_id)
    asked = parameters.model_dump()
    return json_response(with_times(what_if(run, one_stage(run, stage), **asked)))
