"""``/v1/runs/{run_id}/candidates/{candidate_id}`` and ``/v1/lost/{candidate_id}``: what became of a candidate."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from xray_server.analysis.lost import lost
from xray_server.analysis.passport import passport
from xray_server.analysis.reading import Reader
from xray_server.api.answers import Here, Service, iso_time
from xray_server.api.insight_models import LostAnswer, LostParameters, Passport
from xray_server.api.models import ErrorAnswer
from xray_server.api.moments import moment_ms
from xray_server.api.parameters import Parameters
from xray_server.api.shown import with_times
from xray_server.errors import json_response

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
    reader = Reader(service.store, service.project)
    label = parameters.label
    found = await reader.sightings(candidate_id, label=label, since=since, until=until, limit=parameters.limit)
    without_all, looked_at = await reader.without_all(label=label, since=since, until=until)
    rows = lost(candidate_id, found.rows)
    for row in rows:
        row |= {name: iso_time(row[name]) for name in ("first_at", "last_at")}
    answer = {"candidate_id": candidate_id, "rows": rows, "complete": found.complete}
    answer |= {"sightings": len(found.rows)}
    return answer | {"coverage": {"stages_looked_at": looked_at, "without_all_candidates": without_all}}
