"""Errors on pages are pages; the API's keep their JSON."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from xray.exceptions import XRayError
from xray_server.dashboard.rendering import NAVIGATION, render

_Handler = Callable[[Request, Exception], Awaitable[Response]]
_TITLES = {
    404: "Not found",
    405: "That cannot be done here",
    422: "The question is not right",
    503: "The data cannot be read right now",
}
_API = ("/v1/", "/health", "/ready", "/metrics", "/openapi.json", "/static/")


def install(app: FastAPI) -> None:
    """Make errors on pages pages; called after the API's own handlers are there."""
    for kind in (XRayError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _as_page(app.exception_handlers[kind]))


def _as_page(inner: Any) -> _Handler:
    handle: _Handler = inner

    async def handler(request: Request, error: Exception) -> Response:
        response = await handle(request, error)
        if not is_page(request):
            return response
        problem = msgspec.json.decode(bytes(response.body))["error"]
        if response.status_code == 404 and isinstance(error, HTTPException):
            problem["hint"] = _nearest_page(request.url.path)
        elif problem.get("hint"):
            problem["hint"] = problem["hint"].replace("/v1/runs?", "/?")
        title = _TITLES.get(response.status_code, "Something went wrong")
        kept = {name: response.headers[name] for name in ("Retry-After", "Allow") if name in response.headers}
        shown = {"problem": problem, "status": response.status_code, "title": title}
        return render(request, "problem.html", shown, status=response.status_code, headers=kept)

    return handler


def _nearest_page(path: str) -> str | None:
    words = [address.strip("/") for _, address in NAVIGATION]
    near = difflib.get_close_matches(path.strip("/").partition("/")[0][:50], [*words, "runs", "stages"], n=1)
    return f"Did you mean '/{near[0]}'?" if near else None


def is_page(request: Request) -> bool:
    """Whether a request is for a page: of a route of the dashboard, or of none, by somebody who reads HTML."""
    endpoint = request.scope.get("endpoint")
    if endpoint is not None:
        return str(getattr(endpoint, "__module__", "")).startswith("xray_server.dashboard.")
    return not request.url.path.startswith(_API) and "text/html" in request.headers.get("accept", "")
