"""What the routes that take events have in common: how a body comes in, and what can be wrong with it."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from xray_server.admission import Hold
from xray_server.api.answers import Service
from xray_server.api.bodies import Body, receive_body
from xray_server.api.models import ErrorAnswer

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body is malformed."},
    408: {"model": ErrorAnswer, "description": "The body did not come to its end; send it again."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    415: {"model": ErrorAnswer, "description": "The body is of a type or encoding that is not taken."},
    422: {"model": ErrorAnswer, "description": "A field is wrong; nothing is stored."},
    429: {"model": ErrorAnswer, "description": "Too much is in work; send it again after Retry-After."},
    503: {"model": ErrorAnswer, "description": "The store could not write; send it again."},
}
"""The answers of such a route that are errors, for the description of the API."""


async def take_body(request: Request, service: Service, hold: Hold) -> Body:
    """The body of such a request, within the service's limits, and counted.

    Args:
        request: The request, its body not read yet.
        service: The service.
        hold: What counts the bytes while they are in memory.

    Raises:
        ApiError: As ``receive_body`` says.
    """
    with service.telemetry.step("receive"):
        body = await receive_body(
            request,
            max_bytes=service.settings.max_body_bytes,
            max_decompressed_bytes=service.settings.max_decompressed_bytes,
            hold=hold,
        )
    service.telemetry.received(body.received_bytes, len(body.plain))
    return body
