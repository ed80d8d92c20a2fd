"""What the tests of ingest and the API share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx

from tests.service import KEPT
from xray.plugins import installed
from xray_server.app import create_app
from xray_server.ingest import Ingest
from xray_server.pages import join_columns
from xray_server.settings import ServerSettings
from xray_server.stores.sqlite import SqliteStore
from xray_server.testing_data import PROJECT, documents

RUN_ID = "01890000-0000-7000-8000-000000000001"
STAGE_ID = "01890000-0000-7000-8000-000000000002"
OTHER_STAGE_ID = "01890000-0000-7000-8000-000000000003"

RUN = {
    "id": RUN_ID,
    "key": "request 1",
    "label": "competitor_discovery",
    "version": "2026.11",
    "started_at": "2026-11-01T00:00:00.000Z",
}


def run_start(**fields):
    return {"type": "run.start", "run": RUN} | fields


def run_end(**fields):
    return {"type": "run.end", "run": RUN, "duration_ms": 12.5} | fields


def stage(**fields):
    return {
        "type": "stage", "id": STAGE_ID, "run": RUN, "name": "price_filter", "stage_type": "filtering", "order": 0,
        "started_at": "2026-11-01T00:00:01Z", "duration_ms": 3,
    } | fields  # fmt: skip


def candidates(from_seq, rows, **fields):
    return {"type": "candidates", "id": STAGE_ID, "run": RUN, "from_seq": from_seq, "candidates": rows} | fields


def row(number):
    """A candidate: every third one passes, the others fail for one of two reasons."""
    if number % 3 == 0:
        return {"id": f"c{number}", "verdict": "passed"}
    label = "price_too_high" if number % 3 == 1 else "rating_too_low"
    return {"id": f"c{number}", "verdict": "failed", "reason_label": label, "data": {"price": number}}


def in_service(folder, use, *, plugins=None, **settings):
    """Use a service in this process: ``await use(client)`` with an HTTP client of it."""

    async def run():
        given = {"store": f"sqlite:///{folder}/xray.sqlite3"} | KEPT | settings
        app = create_app(ServerSettings(**given), plugins=plugins)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://xray") as client,
        ):
            return await use(client)

    return asyncio.run(run())


@asynccontextmanager
async def open_ingest(folder, plugins=None):
    """An ingest over a store of its own."""
    store = SqliteStore(folder / "xray.sqlite3")
    await store.open()
    try:
        yield Ingest(store, plugins or installed()), store
    finally:
        await store.close()


async def everything(store):
    """All that a store has: runs, stages, and the candidates of each stage with their places."""
    runs, stages = await documents(store, "runs"), await documents(store, "stages")
    kept = {}
    for stage_id in stages:
        pages = [page async for page in store.pages(PROJECT, stage_id)]
        seqs = [seq for page in pages for seq in page.seqs]
        kept[stage_id] = list(zip(seqs, join_columns(pages).rows(), strict=True))
    return runs, stages, kept


def error_of(response, status):
    """The error of a response, held to the one shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "path", "hint"}
    assert isinstance(error["code"], str)
    assert isinstance(error["message"], str)
    return error
