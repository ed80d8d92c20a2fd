"""``/v1/plugins``: the plugins that the service has."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from xray.plugin_info import described
from xray_server.api.answers import Here
from xray_server.api.models import ErrorAnswer
from xray_server.api.parameters import Parameters
from xray_server.errors import json_response

router = APIRouter(tags=["plugins"])


class PluginList(BaseModel):
    """The plugins of the service's process."""

    plugins: list[dict[str, Any]] = Field(description="A row each: origin, version, hooks, what it brings, problems.")
    calls: list[dict[str, Any]] = Field(description="What became of the calls of what plugins bring.")


@router.get("/v1/plugins", response_model=PluginList, responses={422: {"model": ErrorAnswer}})
async def plugins(_: Annotated[Parameters, Query()], service: Here) -> Response:
    """List the service's plugins, what they bring, what could not be loaded, and what became of their calls."""
    return json_response(described(service.plugins))
