"""What the tests of writers at once and of crashes send, and how they look at what is then stored."""

from __future__ import annotations

import json
import uuid
from typing import Any

import urllib3

from tests.server.helpers import everything
from xray_server.rollups import read_rollups, refresh, roll_up
from xray_server.stores.base import Store
from xray_server.testing_data import PROJECT, documents

STARTED_MS = 1_793_491_200_000
FAR_FUTURE_MS = 2**41
CANDIDATES = 300
"""More than one page holds."""


def run_events(number: int, name: str) -> list[dict[str, Any]]:
    """A run as senders of several kinds would send it: what comes apart overlaps, and not every event says all."""
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{number}/{part}")) for part in ("run", "filter", "score")]
    run = {
        "id": ids[0],
        "key": f"{name} {number}",
        "label": f"pipeline_{number % 3}",
        "version": str(number % 2),
        "environment": "test",
        "started_at": STARTED_MS + number * 900_000,
    }
    rows = [_candidate(number, place) for place in range(CANDIDATES)]
    about_filter = {"id": ids[1], "run": {"id": ids[0]}}
    cuts = [(0, 120), (100, 220), (200, CANDIDATES)]
    recorded = {"input": {"question": "why? " * 100}, "metadata": {"team": "search", "n": number}}
    return [
        {"type": "run.start", "run": run, **recorded},
        *(
            {"type": "candidates", **about_filter, "from_seq": start, "candidates": rows[start:stop]}
            for start, stop in cuts
        ),
        {
            "type": "stage", **about_filter, "stage_type": "filtering", "name": "price_filter", "order": 0,
            "started_at": STARTED_MS + number * 900_000 + 5, "duration_ms": 2.5, "status": "success",
        },
        {
            "type": "stage", "id": ids[2], "run": run, "stage_type": "scoring", "name": "score", "order": 1,
            "started_at": STARTED_MS + number * 900_000 + 9, "duration_ms": 1,
            "candidates": [{"id": f"c{place}", "score": place / 8} for place in range(20)],
        },
        {"type": "run.end", "run": {"id": ids[0]}, "status": "success", "duration_ms": 12.5, "stage_count": 2},
    ]  # fmt: skip


def _candidate(number: int, place: int) -> dict[str, Any]:
    if (place + number) % 3 == 0:
        return {"id": f"c{place}", "verdict": "passed", "data": {"price": place}}
    label = "price_too_high" if place % 2 else "rating_too_low"
    return {"id": f"c{place}", "verdict": "failed", "reason_label": label, "data": {"price": place}}


class Sender:
    """Posts batches; never retries by itself."""

    def __init__(self) -> None:
        self.last_answer = ""
        self._pool = urllib3.PoolManager(maxsize=4, retries=False, timeout=urllib3.Timeout(60))

    def post(self, url: str, events: list[dict[str, Any]]) -> bool | None:
        """Whether the service acknowledged the batch; None where nothing listens, so that nothing was sent."""
        body = json.dumps({"events": events}).encode()
        try:
            answer = self._pool.request(
                "POST", f"{url}/v1/ingest", body=body, headers={"Content-Type": "application/json"}
            )
        except urllib3.exceptions.NewConnectionError:
            return None
        except urllib3.exceptions.HTTPError:
            return False
        self.last_answer = answer.data.decode()
        assert answer.status == 503 or answer.json()["errors"] == [], self.last_answer
        return answer.status == 200


async def whole_content(store: Store) -> Any:
    """Runs, stages and candidates; and that the rollups are what the stages say."""
    expected = roll_up((await documents(store, "stages")).values())
    assert await read_rollups(store, PROJECT, since=0, until=FAR_FUTURE_MS) == expected
    await refresh(store, PROJECT, until=FAR_FUTURE_MS)
    assert await read_rollups(store, PROJECT, since=0, until=FAR_FUTURE_MS) == expected
    return await everything(store)
