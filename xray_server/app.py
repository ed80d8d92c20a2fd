"""The service as an ASGI application."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from fastapi import FastAPI

from xray.plugins import Plugins, installed
from xray_server import errors
from xray_server.alerts.rules import Alerts, read_alerts
from xray_server.alerts.watch import AlertWatch
from xray_server.api import (
    analyses,
    comparisons,
    funnels,
    health,
    ingest,
    passports,
    query,
    questions,
    runs,
    stages,
    steps,
    system,
    telemetry,
    trends,
    whatif,
    wire,
)
from xray_server.api import plugins as plugins_api
from xray_server.api.answers import Service
from xray_server.built_in import with_built_in
from xray_server.daemons.daemon import Daemon, running
from xray_server.daemons.indexer import Indexer
from xray_server.daemons.refresher import Refresher
from xray_server.daemons.retention import Retention, policy_of
from xray_server.dashboard import router as dashboard
from xray_server.exporting import Exporting
from xray_server.settings import ServerSettings
from xray_server.stores.base import Store
from xray_server.stores.opening import open_store
from xray_server.telemetry import Timing

DRAIN_TIMEOUT_S = 10.0
"""How long the end waits for what was answered and is not written yet."""

EXPORT_AT_END_S = 5.0
"""How long a service that ends waits for its exporters."""


def create_app(
    settings: ServerSettings | None = None, store: Store | None = None, plugins: Plugins | None = None
) -> FastAPI:
    """Make the service.

    Args:
        settings: From the environment by default.
        store: Where the data lies; by default what the settings say. The application opens and closes it.
        plugins: The stage types that it has; by default those of the installed packages.

    Raises:
        ConfigurationError: A setting has a value that it cannot have.
    """
    settings = settings or ServerSettings.from_environment()
    known = with_built_in(plugins or installed())
    used_store = store or open_store(settings.store, known)
    if plugins is not None:  # other processes have the installed ones
        settings = dataclasses.replace(settings, ingest_processes=0)
    service = Service(used_store, known, settings, _version())
    alerts = read_alerts(settings.alerts, known) if settings.alerts else Alerts()
    exporting = Exporting(known, settings.exporter_names())
    service.ingest.on_stored = exporting.offer
    asked_for: list[Daemon] = [exporting] if settings.exporters else []
    asked_for += [AlertWatch(alerts, known, service.aggregate)] if alerts.rules else []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await used_store.open()
        try:
            service.daemons = [
                Refresher(used_store),
                Retention(used_store, await policy_of(settings, used_store)),
                Indexer(used_store),
                *asked_for,
            ]
            service.telemetry.watch_tasks(service.daemons)
            async with running(service.daemons):
                yield
        finally:
            # Every answer has been given by now: what was promised with it is done before the store goes.
            await service.queue.drain(DRAIN_TIMEOUT_S)
            await exporting.finish(EXPORT_AT_END_S)
            await service.analyst.close()
            await service.workers.close()
            await used_store.close()

    app = FastAPI(
        title="X-Ray",
        summary="Why did my pipeline decide this?",
        version=_version(),
        lifespan=lifespan,
        # FastAPI's pages load their scripts from a content network; this service needs nothing but itself.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Timing, telemetry=service.telemetry)
    errors.install(app)
    insight = (passports, funnels, comparisons, whatif, analyses, trends)
    asked = (query, questions, runs, stages, *insight)
    for resource in (ingest, steps, wire, *asked, plugins_api, system, health, telemetry):
        app.include_router(resource.router)
    dashboard.install(app)
    return app


def _version() -> str:
    try:
        return version_of("xray-decisions")
    except PackageNotFoundError:
        return "unknown"
