"""``POST /v1/ingest``: taking events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response

from xray.exceptions import SchemaError, did_you_mean
from xray.ids import is_id
from xray.schema import SCHEMA_VERSION
from xray_server.api.answers import Here
from xray_server.api.bodies import read_body
from xray_server.api.models import ErrorAnswer, IngestAnswer, RejectedAnswer
from xray_server.errors import json_response

router = APIRouter(tags=["ingest"])

_BATCH_KEYS = ("analyze", "events", "schema")
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
    body = await read_body(
        request, max_bytes=settings.max_body_bytes, max_decompressed_bytes=settings.max_decompressed_bytes
    )
    events, schema_version = _batch(body, settings.max_events_per_batch)
    result = await service.ingest.accept(service.project, events, schema_version=schema_version)
    if body.get("analyze"):
        for run_id in dict.fromkeys(_ended(events)):
            service.analyst.analyze_later(service.project, run_id)
    errors = [{"index": rejected.index, "error": rejected.error.as_dict()} for rejected in result.errors]
    answer: dict[str, Any] = {"accepted": result.accepted, "errors": errors}
    if not errors:
        return json_response(answer)
    return json_response({"error": errors[0]["error"]} | answer, 422)


def _ended(events: list[Any]) -> Iterator[str]:
    """The runs that a batch ends."""
    for event in events:
        run = event.get("run") if isinstance(event, dict) and event.get("type") == "run.end" else None
        if isinstance(run, dict) and is_id(run.get("id")):
            yield run["id"]


def _batch(body: Any, max_events: int) -> tuple[list[Any], int]:
    if not isinstance(body, dict):
        raise SchemaError("A batch is an object.", code="bad_batch", hint='Send {"events": […]}.')
    schema_version = body.get("schema", SCHEMA_VERSION)
    if not isinstance(schema_version, int) or isinstance(schema_version, bool) or schema_version < 1:
        raise SchemaError("'schema' is the version of the wire schema, from 1.", code="bad_value", path="schema")
    for name in body:
        if name not in _BATCH_KEYS and schema_version <= SCHEMA_VERSION:
            raise SchemaError(
                f"A batch has no field '{name}'.",
                code="unknown_field",
                path=str(name),
                hint=did_you_mean(str(name), _BATCH_KEYS),
            )
    events = body.get("events")
    if not isinstance(events, list):
        raise SchemaError("A batch has a list of events.", code="bad_batch", path="events")
    if len(events) > max_events:
        raise SchemaError(
            f"A batch has at most {max_events} events.",
            code="too_many_events",
            path="events",
            hint="Send them in several batches.",
        )
    return events, schema_version
