"""The dashboard's pages as one router, and how they are put into an application."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from xray_server.dashboard import assets, candidate, compare, problems, query, run, runs, stage, system, trends

PAGES = (runs, run, candidate, stage, query, trends, compare, system)
"""The modules of pages, each with a ``router`` that is made with ``include_in_schema=False``."""


def install(app: FastAPI) -> None:
    """Put the dashboard into an application whose API and error handlers are in place."""
    router = APIRouter()
    for page in (*PAGES, assets):
        router.include_router(page.router)
    app.include_router(router)
    problems.install(app)
