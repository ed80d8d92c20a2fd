"""``/v1/runs/{run_id}/candidates/{candidate_id}`` and ``/v1/lost/{candidate_id}``: what became of a candidate."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from xray_server.analysis.lost import lost
from xray_server.analysis.passport import passport
from xray_server.analysis.reading import Reader, all_of
from xray_server.api.answers import Here, Service, iso_time
from xray_server.api.insight_models import LostAnswer, LostParameters, Passport
from xray_server.api.models import ErrorAnswer, Parameters
from xray_server.api.moments import moment_ms
from xray_server.api.shown import with_times
from xray_server.errors import json_response
from xray_server.query.ast import Compare, Field, Test

router = APIRouter(tags=["insight"], responses={422: {"model": ErrorAnswer}})


@router.get(
    "/v1/runs/{run_id}/candidates/{candidate_id:path}",
    response_model=Passport,
    responses={404: {"model": ErrorAnswer}},
)
async def why(run_id: str, candidate_id: str, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Follow a candidate through every stage of a run: what was decided, why, and where it was lost."""
    run = await Reader(service.store, service.project).run(run_id)
    return json_response(with_times(passport(run, candidate_id)))


@router.get("/v1/lost/{candidate_id:path}", response_model=LostAnswer)
async def lost_where(candidate_id: str, parameters: Annotated[LostParameters, Query()], service: Here) -> Response:
    """Say across runs and pipelines which stages dropped a candidate, how often, and for what reasons."""
    return json_response(await lost_answer(service, candidate_id, parameters))


async def lost_answer(service: Service, candidate_id: str, parameters: LostParameters) -> dict[str, Any]:
    """Which stages dropped a candidate.

    Args:
        service: The service.
        candidate_id: The candidate's id.
        parameters: Where to look.

    Raises:
        SchemaError: A time is none.
        StoreError: The data could not be read.
    """
    since, until = moment_ms(parameters.since, "since"), moment_ms(parameters.until, "until")
    started = Field(("started_at",))
    condition = all_of(
        None if since is None else Test(started, Compare("gte", since)),
        None if until is None else Test(started, Compare("lt", until)),
        None if parameters.label is None else Test(Field(("label",)), Compare("eq", parameters.label)),
    )
    found = await Reader(service.store, service.project).sightings(candidate_id, condition, parameters.limit)
    rows = lost(candidate_id, found.rows)
    for row in rows:
        row |= {name: iso_time(row[name]) for name in ("first_at", "last_at")}
    answer = {"candidate_id": candidate_id, "rows": rows, "complete": found.complete}
    return answer | {"sightings": len(found.rows), "without_all_candidates": found.without_all}
