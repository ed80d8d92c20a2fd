"""How the analyses show documents."""

from __future__ import annotations

from typing import Any

from xray_server.api.answers import iso_time


def with_times(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with the times of the runs in its head as ISO 8601."""
    for name in ("run", "a", "b"):
        head = answer.get(name)
        if isinstance(head, dict) and "started_at" in head:
            answer[name] = {**head, "started_at": iso_time(head["started_at"])}
    return answer
