"""``/health``: whether the service lives."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from xray_server.api.answers import Here
from xray_server.api.models import ErrorAnswer, Health, Parameters
from xray_server.errors import json_response

router = APIRouter(tags=["health"])


@router.get(
    "/health",
    response_model=Health,
    responses={422: {"model": ErrorAnswer}, 503: {"model": ErrorAnswer, "description": "The store cannot be read."}},
)
async def health(request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Say that the service lives and reads its store."""
    await service.store.declarations(service.project)
    tasks = {daemon.name: daemon.state() for daemon in service.daemons}
    store = service.store.describe()
    return json_response({"status": "ok", "version": request.app.version, "store": store, "tasks": tasks})
