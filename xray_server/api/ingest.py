"""``POST /v1/ingest``: taking events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from xray.schema import SCHEMA_VERSION
from xray_server.api.answers import Here
from xray_server.api.bodies import receive_body
from xray_server.api.models import ErrorAnswer, IngestAnswer, RejectedAnswer
from xray_server.errors import json_response
from xray_server.prepare import batch_of

router = APIRouter(tags=["ingest"])

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The events, as JSON or msgpack; plain, or with Content-Encoding gzip or zstd.",
        "content": {
            media_type: {
                "schema": {
                    "type": "object",
                    "required": ["events"],
                    "properties": {
                        "schema": {"type": "integer", "default": SCHEMA_VERSION},
                        "events": {"type": "array", "items": {"type": "object"}},
                        "analyze": {"type": "boolean", "default": False},
                    },
                },
            }
            for media_type in ("application/json", "application/msgpack")
        },
    }
}


@router.post(
    "/v1/ingest",
    response_model=IngestAnswer,
    responses={
        400: {"model": ErrorAnswer, "description": "The body is malformed."},
        413: {"model": ErrorAnswer, "description": "The body is too large."},
        415: {"model": ErrorAnswer, "description": "The body is of a type or encoding that is not taken."},
        422: {"model": RejectedAnswer, "description": "Some events are bad; the others are stored."},
        503: {"model": ErrorAnswer, "description": "The store could not write; send the batch again."},
    },
    openapi_extra=_BODY,
)
async def ingest(request: Request, service: Here) -> Response:
    """Store a batch of events.

    Each event stands alone: where some are bad, the others are stored all the same. Events may come in any order and
    more than once. With ``analyze`` each run that ends in the batch is analyzed in the background.
    """
    settings = service.settings
    with service.intake.batch() as note:
        body = await receive_body(
            request, max_bytes=settings.max_body_bytes, max_decompressed_bytes=settings.max_decompressed_bytes
        )
        prepared = await service.workers.prepare(body.plain) if body.is_msgpack else None
        if prepared is None:
            batch = batch_of(await body.decoded(), settings.max_events_per_batch)
            result = await service.ingest.accept(
                service.project, batch.events, schema_version=batch.schema_version, analyze=batch.analyze
            )
        else:
            result = await service.ingest.take(service.project, prepared)
        note(result)
    for run_id in result.to_analyze:
        service.analyst.analyze_later(service.project, run_id)
    errors = [{"index": rejected.index, "error": rejected.error.as_dict()} for rejected in result.errors]
    answer: dict[str, Any] = {"accepted": result.accepted, "errors": errors}
    if not errors:
        return json_response(answer)
    return json_response({"error": errors[0]["error"]} | answer, 422)
