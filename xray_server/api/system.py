"""``/v1/system``: what the service holds, takes in, refuses and keeps, with what it is made of and how it is doing."""

from __future__ import annotations

import dataclasses
import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from xray.ids import now_ms
from xray.plugin_info import described
from xray_server.api.answers import Here, Service, iso_time
from xray_server.api.models import ErrorAnswer
from xray_server.api.parameters import Parameters
from xray_server.daemons.retention import Retention
from xray_server.errors import json_response
from xray_server.settings import PREFIX, ServerSettings

router = APIRouter(tags=["health"])


class System(BaseModel):
    """The service as a whole."""

    version: str
    python: str
    started_at: str
    uptime_ms: int
    store: dict[str, Any] = Field(description="Its kind, and where the data lies.")
    holds: dict[str, Any] = Field(description="Runs, stages, candidate pages and bytes; large counts are estimates.")
    disk: dict[str, Any] | None = Field(description="The disk of the embedded store; null for others.")
    intake: dict[str, Any] = Field(description="What came in since the service started, and what was refused and why.")
    retention: dict[str, Any] | None = Field(description="What is kept; null before the service has started.")
    tasks: dict[str, dict[str, Any]] = Field(description="The background tasks: what they did, and their errors.")
    model: str | None = Field(description="The language model that is asked about analyses, where one is set up.")
    plugins: list[dict[str, Any]] = Field(description="In short; /v1/plugins has all of it.")
    calls: list[dict[str, Any]] = Field(description="What became of the calls of what plugins bring.")
    settings: list[dict[str, Any]] = Field(description="The settings in force; a password in one is not shown.")


@router.get("/v1/system", response_model=System, responses={422: {"model": ErrorAnswer}})
async def system(request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Say what the service holds, its rates, what it refused, what it keeps, its plugins and settings."""
    return json_response(await system_answer(service, request.app.version))


async def system_answer(service: Service, version: str) -> dict[str, Any]:
    """The service as a whole, ready to be sent.

    Args:
        service: The service.
        version: The application's version.

    Raises:
        StoreError: The store could not be asked.
    """
    store = service.store.describe()
    usage = await service.store.usage()
    plugins = described(service.plugins)
    return {
        "version": version,
        "python": platform.python_version(),
        "started_at": iso_time(service.started_at),
        "uptime_ms": max(0, now_ms() - service.started_at),
        "store": {"kind": store["kind"], "location": store["location"]},
        "holds": {
            "runs": usage.run_count,
            "stages": usage.stage_count,
            "candidate_pages": usage.page_count,
            "size_bytes": usage.size_bytes,
        },
        "disk": _disk(store),
        "intake": service.intake.as_dict(),
        "retention": _retention(service),
        "tasks": {daemon.name: daemon.state() for daemon in service.daemons},
        "model": service.analyst.model_name,
        "plugins": [_in_short(plugin) for plugin in plugins["plugins"]],
        "calls": plugins["calls"],
        "settings": _settings(service.settings, store),
    }


def _disk(store: dict[str, Any]) -> dict[str, Any] | None:
    if store["kind"] != "sqlite":
        return None
    disk = shutil.disk_usage(Path(store["location"]).parent)
    return {"free_bytes": disk.free, "total_bytes": disk.total}


def _retention(service: Service) -> dict[str, Any] | None:
    for daemon in service.daemons:
        if isinstance(daemon, Retention):
            return {"text": str(daemon.policy), **dataclasses.asdict(daemon.policy)}
    return None


def _in_short(plugin: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "origin", "version", "redactors", "samplers", "problems", "load_ms")
    return {name: plugin[name] for name in names} | {"stage_types": [each["name"] for each in plugin["stage_types"]]}


def _settings(settings: ServerSettings, store: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name == "store" and "://" in str(store["location"]):
            shown: Any = store["location"]  # without the password that the URL may have
        else:
            shown = value
        variable = f"{PREFIX}{field.name.upper()}"
        rows.append({"name": field.name, "value": shown, "is_default": value == field.default, "variable": variable})
    return rows
