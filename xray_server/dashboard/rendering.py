"""From a template and what it shows to a response, with the headers that every page has."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse

from xray.ids import now_ms
from xray_server.dashboard import colours, figures, filters, jsonview, links
from xray_server.dashboard.assets import PLOTLY_URL, asset_url

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    # Plotly writes style attributes and elements; a style can neither run anything nor load from elsewhere here.
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

NAVIGATION = (
    ("Runs", "/"),
    ("Query", "/query"),
    ("Trends", "/trends"),
    ("Compare", "/compare"),
    ("System", "/system"),
)
"""The pages of the bar at the top: name, path."""


def render(
    request: Request,
    template: str,
    shown: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A page, or a part of one that a script puts in its place.

    Beside what is shown a template has ``path`` and ``parameters`` of the request, ``here(name=value)`` (the address
    of this page with other parameters), ``now_ms``, and the functions of ``links``, ``colours`` and ``filters``.

    Args:
        request: The request.
        template: The template's file name.
        shown: What it shows, by name.
        status: The HTTP status.
        headers: Headers on top of those of every page.
    """
    path = request.url.path
    parameters = given_parameters(request)
    context: dict[str, Any] = {
        "path": path,
        "parameters": parameters,
        "here": functools.partial(links.changed, _quoted_path(request), parameters),
        "version": request.app.version,
        "now_ms": now_ms(),
        **(shown or {}),
    }
    html = environment().get_template(template).render(context)
    return HTMLResponse(html, status, HEADERS | dict(headers or {}))


def given_parameters(request: Request) -> dict[str, Any]:
    """The parameters of a request, in their order: a text, or a list where one was given several times."""
    found: dict[str, Any] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        found[name] = values[0] if len(values) == 1 else values
    return found


def _quoted_path(request: Request) -> str:
    raw: bytes | None = request.scope.get("raw_path")
    return raw.split(b"?")[0].decode("ascii", "replace") if raw else request.url.path


@functools.cache
def environment() -> Environment:
    """The templates, with everything escaped that is not marked as markup, and what they may call."""
    made = Environment(
        loader=FileSystemLoader(Path(str(files("xray_server.dashboard"))) / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(
        navigation=NAVIGATION,
        asset_url=asset_url,
        plotly_url=PLOTLY_URL,
        figure_json=figures.as_json,
        json_text=jsonview.json_text,
        block_text=jsonview.block_text,
        run_url=links.run_url,
        runs_url=links.runs_url,
        stage_url=links.stage_url,
        trace_url=links.trace_url,
        candidate_url=links.candidate_url,
        with_parameters=links.with_parameters,
    )
    made.filters.update(
        shown=filters.shown,
        plain=filters.plain,
        number=filters.number,
        change=filters.change,
        time=filters.time,
        ago=filters.ago,
        short_id=filters.short_id,
        verdict=filters.verdict,
        status=filters.status,
        label=filters.label,
        percent=lambda value: filters.number(value, "ratio"),
        duration=lambda value: filters.number(value, "ms"),
        bytes=lambda value: filters.number(value, "bytes"),
        label_number=colours.label_number,
        verdict_name=colours.verdict_name,
    )
    return made
