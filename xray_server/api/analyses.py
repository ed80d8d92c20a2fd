"""``/v1/runs/{run_id}/analysis``: which step of a run is at fault, by statistics and, if set up, by a model."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from xray_server.analysis.reading import Reader
from xray_server.analysis.suspects import analyze
from xray_server.api.answers import Here, Service
from xray_server.api.insight_models import Analysis, AnalysisParameters, StoreParameters
from xray_server.api.models import ErrorAnswer
from xray_server.api.shown import with_times
from xray_server.errors import json_response

router = APIRouter(tags=["insight"], responses={404: {"model": ErrorAnswer}, 422: {"model": ErrorAnswer}})


@router.get("/v1/runs/{run_id}/analysis", response_model=Analysis)
async def analysis(run_id: str, parameters: Annotated[AnalysisParameters, Query()], service: Here) -> Response:
    """Compare each stage of a run with its own history, and rank the suspects with the evidence."""
    return json_response(with_times(await analyzed(service, run_id, parameters)))


@router.post("/v1/runs/{run_id}/analysis", response_model=Analysis)
async def analyze_and_store(run_id: str, parameters: Annotated[StoreParameters, Query()], service: Here) -> Response:
    """Analyze a run and store what was found on it, to be asked for: ``{"pipeline": {"analysis.faulty_stage": …}}``.

    Where a model is set up it is asked in the background; its answer takes the place of this one when it is there.
    """
    answer = await analyzed(service, run_id, parameters)
    answer["stored"] = await service.analyst.store(service.project, run_id, answer)
    answer["asked_model"] = service.analyst.ask_later(service.project, run_id) if parameters.ask_model else "not asked"
    return json_response(with_times(answer))


async def analyzed(service: Service, run_id: str, parameters: AnalysisParameters) -> dict[str, Any]:
    """What the statistics say of a run, and as ``stored`` what was found earlier.

    Args:
        service: The service.
        run_id: The run's id.
        parameters: What to compare it with.

    Raises:
        ApiError: There is no such run.
        StoreError: The data could not be read.
    """
    reader = Reader(service.store, service.project)
    run = await reader.run(run_id)
    past = await reader.history_of(run.document, limit=parameters.history, version=parameters.version)
    answer = await asyncio.to_thread(analyze, run, past)
    answer |= await service.analyst.others(run, past)
    stored = run.document.get("analysis")
    answer["stored"] = stored if isinstance(stored, dict) else None
    return answer
