"""``/v1/runs/{run_id}/funnel`` and ``/v1/pipelines/{label}/funnel``: what went in and what came out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from xray_server.analysis.funnel import funnel, over_time
from xray_server.analysis.reading import Reader, all_of, equals
from xray_server.api.answers import Here, iso_time
from xray_server.api.insight_models import FunnelParameters, PipelineFunnel, RunFunnel
from xray_server.api.models import ErrorAnswer
from xray_server.api.moments import moment_ms, stretch_ms
from xray_server.api.parameters import Parameters
from xray_server.api.shown import with_times
from xray_server.errors import json_response
from xray_server.query.ast import Compare, Field, SortKey, Test

MAX_STAGES = 50_000

router = APIRouter(tags=["insight"], responses={422: {"model": ErrorAnswer}})


@router.get("/v1/runs/{run_id}/funnel", response_model=RunFunnel, responses={404: {"model": ErrorAnswer}})
async def run_funnel(run_id: str, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Show the funnel of a run, and whether every candidate is accounted for."""
    return json_response(with_times(funnel(await Reader(service.store, service.project).run(run_id))))


@router.get("/v1/pipelines/{label:path}/funnel", response_model=PipelineFunnel)
async def pipeline_funnel(label: str, parameters: Annotated[FunnelParameters, Query()], service: Here) -> Response:
    """Show the funnels of a pipeline's runs, added up by time and stage."""
    bucket_ms = stretch_ms(parameters.bucket, "bucket")
    since, until = moment_ms(parameters.since, "since"), moment_ms(parameters.until, "until")
    started = Field(("started_at",))
    stages = await Reader(service.store, service.project).stages(
        pipeline=all_of(
            equals("label", label),
            None if parameters.version is None else equals("version", parameters.version),
            None if since is None else Test(started, Compare("gte", since)),
            None if until is None else Test(started, Compare("lt", until)),
        ),
        sort=(SortKey(Field(("pipeline", "started_at")), descending=True),),
        limit=MAX_STAGES,
    )
    rows = over_time(stages, bucket_ms)
    for row in rows:
        row["from"] = iso_time(row["from"])
    complete = len(stages) < MAX_STAGES
    return json_response({"label": label, "bucket": parameters.bucket, "rows": rows, "complete": complete})
