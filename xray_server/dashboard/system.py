"""The page of the service itself: what it holds, takes in, refuses and keeps, its plugins, settings and tasks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from xray.ids import now_ms
from xray_server.api.answers import Here, iso_time
from xray_server.api.system import system_answer
from xray_server.dashboard import filters
from xray_server.dashboard.figures import Figure
from xray_server.dashboard.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/system")
async def system(request: Request, service: Here) -> Response:
    """The service as a whole."""
    answer = await system_answer(service, request.app.version)
    calls: list[dict[str, Any]] = answer["calls"]
    shown = {
        "answer": answer,
        "task_facts": {name: _facts(state) for name, state in answer["tasks"].items()},
        "call_heads": list(calls[0]) if calls else [],
        "call_rows": [list(call.values()) for call in calls],
        "uptime": str(dt.timedelta(seconds=answer["uptime_ms"] // 1000)),
        "figures": [_per_minute(answer["intake"])] if answer["intake"]["events_last_hour"] else [],
        "settings": [{**row, "shown": _setting(row["name"], row["value"])} for row in answer["settings"]],
        "healthy": not any(state.get("errors") for state in answer["tasks"].values()),
        "outside": [each for each in answer["plugins"] if each["origin"] != "built-in"],
        "built_in": [
            name for each in answer["plugins"] if each["origin"] == "built-in" for name in each["stage_types"]
        ],
    }
    return render(request, "system.html", shown)


def _setting(name: str, value: Any) -> Markup:
    """A setting's value; a size in bytes in the unit that suits it."""
    size = value.removesuffix("B") if isinstance(value, str) and name == "max_disk" else value
    if (name.endswith("_bytes") or name == "max_disk") and str(size).isdecimal():
        return filters.number(int(size), "bytes")
    if isinstance(value, int | float) and not isinstance(value, bool) and name != "port":
        return filters.number(value, "s" if name.endswith("_s") else "")
    return filters.shown(value)


def _facts(state: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The state of a task as terms and values: ``runs removed``, 0."""
    shown = {True: "yes", False: "no"}
    return [
        (name.replace("_", " "), shown[value] if isinstance(value, bool) else value)
        for name, value in state.items()
        if value is not None
    ]


def _per_minute(intake: Mapping[str, Any]) -> Figure:
    """The events of each of the last minutes."""
    counts: list[int] = intake["per_minute"]
    now = now_ms() // 60_000 * 60_000
    times = [iso_time(now - 60_000 * back) for back in range(len(counts) - 1, -1, -1)]
    trace = {
        "type": "bar",
        "x": times,
        "y": counts,
        "marker": {"color": "var(--accent)"},
        "hovertemplate": "%{x|%H:%M} UTC<br>%{y:,} events<extra></extra>",
    }
    return Figure(
        "per-minute", "Events of the last hour, by minute", [trace],
        {"yaxis": {"rangemode": "tozero", "title": {"text": "events"}}, "bargap": 0.1},
        height=200,
    )  # fmt: skip
