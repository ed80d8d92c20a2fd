"""Tests that run over each store: the fixture gives the URL of one of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.service import KEPT
from xray_server.app import create_app
from xray_server.settings import ServerSettings


@pytest.fixture(params=["sqlite", "mongodb"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/xray.sqlite3"
    return request.getfixturevalue("databases").url(tmp_path)


def with_service(store_url, use, **settings):
    """``await use(client)`` with an HTTP client of a service in this process, over the store that the URL names."""

    async def run():
        app = create_app(ServerSettings(store=store_url, **(KEPT | settings)))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://xray") as client,
        ):
            return await use(client)

    return asyncio.run(run())
