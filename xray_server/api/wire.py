"""``GET /v1/schema``: what ``POST /v1/ingest`` takes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from xray.wire_schema import wire_schema
from xray_server.api.models import ErrorAnswer
from xray_server.api.parameters import Parameters
from xray_server.errors import json_response

router = APIRouter(tags=["ingest"])


class WireSchema(BaseModel):
    """A JSON Schema of a batch of events."""

    model_config = ConfigDict(extra="allow")

    title: str
    type: str
    properties: dict[str, Any]


@router.get("/v1/schema", response_model=WireSchema, responses={422: {"model": ErrorAnswer}})
async def schema(_: Annotated[Parameters, Query()]) -> Response:
    """The wire schema of a batch, as JSON Schema."""
    return json_response(wire_schema())
