"""What the list of runs shows while there is none: what to install, what to paste, and a look every second."""

from __future__ import annotations

from typing import Any

from fastapi import Request

EXAMPLE = """\
import xray

@xray.pipeline("lunch", version="1")
def choose(dishes):
    return cheapest(affordable(dishes))[0]

@xray.filtering_stage("affordable")
def affordable(dishes):
    return [dish for dish in dishes if dish["price"] <= 9]

@xray.ranking_stage("cheapest", score="price")
def cheapest(dishes):
    return sorted(dishes, key=lambda dish: dish["price"])

choose([{"id": "soup", "price": 6}, {"id": "pasta", "price": 9}, {"id": "lobster", "price": 48}])
"""
"""Twelve lines that record a first run."""

DEFAULT_URL = "http://127.0.0.1:7350"
"""Where programs send to unless they are told otherwise."""


def shown(request: Request) -> dict[str, Any]:
    """What the template shows.

    Args:
        request: The request; the address that it came to is where programs have to send.
    """
    server = str(request.base_url).rstrip("/")
    command = "python lunch.py"
    if server not in (DEFAULT_URL, DEFAULT_URL.replace("127.0.0.1", "localhost")):
        command = f"XRAY_SERVER_URL={server} {command}"
    return {"example": EXAMPLE, "command": command, "server": server}
