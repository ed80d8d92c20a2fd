"""``POST /v1/query``, ``POST /v1/aggregate`` and ``GET /v1/metrics``: asking questions, and what they may name."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from xray_server.api.answers import Here, whole_list
from xray_server.api.bodies import read_body
from xray_server.api.models import ErrorAnswer, Groups, Metrics, Rows
from xray_server.api.parameters import Parameters
from xray_server.errors import json_response
from xray_server.query.fields import camel

router = APIRouter(tags=["query"])

_EXAMPLE = {
    "pipeline": {"label": "competitor_discovery"},
    "stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}},
    "return": "stages",
    "sort": {"$failRatio": -1},
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The question: MongoDB filters on the pipeline's run, the stage and one candidate.",
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
    }
}


@router.post("/v1/query", response_model=Rows, responses={422: {"model": ErrorAnswer}}, openapi_extra=_BODY)
async def query(request: Request, service: Here) -> Response:
    """Answer a question of the query language."""
    limit = service.settings.max_question_bytes
    question = await read_body(request, max_bytes=limit, max_decompressed_bytes=limit)
    return json_response(await service.ask(question))


_AGGREGATE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The conditions of a question, and what to work out of the stages that satisfy them.",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "stage": {"type": "filtering"},
                    "group_by": ["pipeline.label"],
                    "bucket": {"unit": "day", "timezone": "Europe/Berlin"},
                    "values": {"stages": {"$count": {}}, "median": {"$p50": "$failRatio"}},
                },
            }
        },
    }
}


@router.post(
    "/v1/aggregate", response_model=Groups, responses={422: {"model": ErrorAnswer}}, openapi_extra=_AGGREGATE_BODY
)
async def aggregate(request: Request, service: Here) -> Response:
    """Work out counts, sums and percentiles over the stages that satisfy a question's conditions."""
    limit = service.settings.max_question_bytes
    asked = await read_body(request, max_bytes=limit, max_decompressed_bytes=limit)
    return json_response(await service.aggregate(asked))


@router.get("/v1/metrics", response_model=Metrics, responses={422: {"model": ErrorAnswer}})
async def metrics(_: Annotated[Parameters, Query()], service: Here) -> Response:
    """List the metrics that questions may name."""
    rows: dict[str, dict[str, Any]] = {}
    for stage_type, declared in (await service.declarations()).items():
        for metric in declared:
            row = rows.setdefault(
                metric.name, {**metric.as_dict(), "query_name": camel(metric.name), "stage_types": []}
            )
            row["stage_types"].append(stage_type)
    return json_response(whole_list([rows[name] for name in sorted(rows)]))
