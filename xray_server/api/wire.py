"""``GET /v1/schema``: what ``POST /v1/ingest`` takes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from xray.wire_schema import wire_schema
from xray_server.api.models import ErrorAnswer, Parameters
from xray_server.errors import json_response

router = APIRouter(tags=["ingest"])


@router.get("/v1/schema", responses={422: {"model": ErrorAnswer}})
async def schema(_: Annotated[Parameters, Query()]) -> Response:
    """The wire schema of a batch, as JSON Schema."""
    return json_response(wire_schema())
