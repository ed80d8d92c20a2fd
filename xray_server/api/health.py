"""``/health``: whether the service lives; ``/ready``: whether requests should be sent to it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from xray_server.api.answers import Here
from xray_server.api.models import ErrorAnswer, Health, Readiness
from xray_server.api.parameters import Parameters
from xray_server.errors import ApiError, json_response

router = APIRouter(tags=["health"])

STORE_TIMEOUT_S = 5.0
"""A store that takes longer over a small look is as good as away."""


@router.get("/health", response_model=Health, responses={422: {"model": ErrorAnswer}})
async def health(request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Say that the service lives, whatever its store does: to start it anew would not mend that."""
    tasks = {daemon.name: daemon.state() for daemon in service.daemons}
    store = service.store.describe()
    return json_response({"status": "ok", "version": request.app.version, "store": store, "tasks": tasks})


@router.get(
    "/ready",
    response_model=Readiness,
    responses={
        422: {"model": ErrorAnswer},
        503: {"model": ErrorAnswer, "description": "The store cannot be read, or the service is about to end."},
    },
)
async def ready(_: Annotated[Parameters, Query()], service: Here) -> Response:
    """Say whether requests should be sent here: the store can be read, and the service is not about to end."""
    if service.is_draining:
        raise ApiError("The service is about to end.", status=503, code="draining")
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            await service.store.declarations(service.project)
    except TimeoutError:
        raise ApiError("The store does not answer.", status=503, code="store_timeout") from None
    return json_response({"status": "ready"})
