"""``POST /v1/ingest``: taking events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from xray.schema import SCHEMA_VERSION
from xray_server.api import taking
from xray_server.api.answers import Here, Service
from xray_server.api.bodies import Body
from xray_server.api.models import IngestAnswer, RejectedAnswer
from xray_server.api.parameters import Parameters
from xray_server.errors import json_response
from xray_server.prepare import Prepared, batch_of

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


class IngestParameters(Parameters):
    """When the answer is given."""

    ack: Literal["stored", "enqueued"] = Field(
        "stored",
        description="`enqueued`: answer 202 once the events are checked and before they are stored. They are lost if "
        "the service is killed, or ends while its store does not take them.",
    )


@router.post(
    "/v1/ingest",
    response_model=IngestAnswer,
    responses=taking.ERRORS
    | {
        202: {"model": IngestAnswer, "description": "With `ack=enqueued`: the events will be stored."},
        422: {"model": RejectedAnswer, "description": "Some events are bad; the others are stored."},
    },
    openapi_extra=_BODY,
)
async def ingest(request: Request, parameters: Annotated[IngestParameters, Query()], service: Here) -> Response:
    """Store a batch of events.

    Each event stands alone: where some are bad, the others are stored all the same. Events may come in any order and
    more than once. With ``analyze`` each run that ends in the batch is analyzed in the background.
    """
    is_enqueued = parameters.ack == "enqueued"
    with service.intake.batch() as note, service.admission.hold() as hold:
        body = await taking.take_body(request, service, hold)
        with service.telemetry.step("prepare"):
            prepared = await _prepared(service, body)
        if is_enqueued:
            service.queue.put(prepared, len(body.plain))
        else:
            await service.store_batch(prepared)
        note(prepared.result)
    service.telemetry.took(prepared, parameters.ack)
    errors = [{"index": rejected.index, "error": rejected.error.as_dict()} for rejected in prepared.result.errors]
    answer: dict[str, Any] = {"accepted": prepared.result.accepted, "errors": errors}
    if not errors:
        return json_response(answer, 202 if is_enqueued else 200)
    return json_response({"error": errors[0]["error"]} | answer, 422)


async def _prepared(service: Service, body: Body) -> Prepared:
    """What a body brings, made by another process where there is one and that is worth it."""
    prepared = await service.workers.prepare(body.plain) if body.is_msgpack else None
    if prepared is not None:
        return prepared
    return await service.ingest.prepare(batch_of(await body.decoded(), service.settings.max_events_per_batch))
