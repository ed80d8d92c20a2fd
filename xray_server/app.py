"""The service as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from fastapi import FastAPI

from xray.plugins import Plugins, installed
from xray_server import errors
from xray_server.api import health, ingest, query, runs, stages
from xray_server.api import plugins as plugins_api
from xray_server.api.answers import Service
from xray_server.settings import ServerSettings, sqlite_path
from xray_server.stores.base import Store
from xray_server.stores.sqlite import SqliteStore


def open_store(url: str) -> Store:
    """The store that a URL names, not open yet.

    Args:
        url: ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

    Raises:
        ConfigurationError: It is of no store that there is.
    """
    return SqliteStore(sqlite_path(url))


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
    service = Service(used_store, plugins or installed(), settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await used_store.open()
        try:
            yield
        finally:
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
    errors.install(app)
    for resource in (ingest, query, runs, stages, plugins_api, health):
        app.include_router(resource.router)
    return app


def _version() -> str:
    try:
        return version_of("xray-decisions")
    except PackageNotFoundError:
        return "unknown"
