"""``/metrics``: what the service counts of its own work."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from xray_server.api.answers import Here
from xray_server.api.health import STORE_TIMEOUT_S

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, service: Here) -> Response:
    """The service's own figures, in Prometheus' text format or OpenMetrics."""
    with contextlib.suppress(TimeoutError):  # the store's figures are then those of before
        async with asyncio.timeout(STORE_TIMEOUT_S):
            await service.usage.refresh()
    body, media_type = service.telemetry.shown(request.headers.get("accept", ""))
    return Response(body, media_type=media_type)
