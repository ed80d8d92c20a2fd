"""The service as an ASGI application."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from fastapi import FastAPI

from xray.exceptions import ConfigurationError
from xray.plugins import Plugins, installed
from xray_server import errors
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
    telemetry,
    whatif,
    wire,
)
from xray_server.api import plugins as plugins_api
from xray_server.api.answers import Service
from xray_server.daemons.daemon import running
from xray_server.daemons.refresher import Refresher
from xray_server.daemons.retention import Retention, policy_of
from xray_server.settings import PREFIX, ServerSettings, sqlite_path
from xray_server.stores.base import Store
from xray_server.stores.sqlite import SqliteStore
from xray_server.telemetry import Timing

DRAIN_TIMEOUT_S = 10.0
"""How long the end waits for what was answered and is not written yet."""


def open_store(url: str) -> Store:
    """The store that a URL names, not open yet.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, ``mongodb://host:port/database`` or
            ``mongodb+srv://host/database``.

    Raises:
        ConfigurationError: It is of no store that there is, or what the store needs is not installed.
    """
    if not url.startswith(("mongodb://", "mongodb+srv://")):
        return SqliteStore(sqlite_path(url))
    try:
        from xray_server.stores.mongo import MongoStore
    except ImportError as error:
        raise ConfigurationError(
            f"MongoDB needs {error.name}, which is not installed.",
            code="bad_store",
            path=f"{PREFIX}STORE",
            hint="pip install 'xray-decisions[mongo]'",
        ) from None
    return MongoStore(url)


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
    used_store = store or open_store(settings.store)
    if plugins is not None:  # other processes have the installed ones
        settings = dataclasses.replace(settings, ingest_processes=0)
    service = Service(used_store, plugins or installed(), settings, _version())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await used_store.open()
        try:
            service.daemons = [Refresher(used_store), Retention(used_store, await policy_of(settings, used_store))]
            service.telemetry.watch_tasks(service.daemons)
            async with running(service.daemons):
                yield
        finally:
            # Every answer has been given by now: what was promised with it is done before the store goes.
            await service.queue.drain(DRAIN_TIMEOUT_S)
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
    insight = (passports, funnels, comparisons, whatif, analyses)
    for resource in (ingest, steps, wire, query, questions, runs, stages, *insight, plugins_api, health, telemetry):
        app.include_router(resource.router)
    return app


def _version() -> str:
    try:
        return version_of("xray-decisions")
    except PackageNotFoundError:
        return "unknown"
