"""Questions that would take long, many of them at once: they are cut at their budget, and the service goes on."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import httpx
import pytest

from tests.server.helpers import in_service
from xray_server.api import answers
from xray_server.query.run import answer

QUESTIONS = 50
STAGES = 200
CANDIDATES = 256
LONG: dict[str, Any] = {
    "candidate": {"data.text": {"$regex": "(a|b)*c.*x$"}},
    "stage": {"$or": [{"metadata.a.b": {"$regex": f"{n}$"}} for n in range(5)] + [{"type": "filtering"}]},
    "return": "candidates",
}


def an_event(number: int, *, candidates: int = CANDIDATES) -> dict[str, Any]:
    run = {"id": f"01890000-0000-7000-8000-{number:012d}", "label": "long", "started_at": "2026-11-01T00:00:00Z"}
    rows = [{"id": f"c{n}", "verdict": "passed", "data": {"text": "ab" * 20 + str(n)}} for n in range(candidates)]
    return {
        "type": "stage", "id": f"01890000-0000-7000-9000-{number:012d}", "run": run, "name": "keep", "order": 0,
        "stage_type": "filtering", "metadata": {"a": [{"b": "text"}] * 5}, "candidates": rows,
    }  # fmt: skip


def test_fifty_long_questions_leave_the_service_alive(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health and ingest answer while all of them are under way; each ends with a cursor to go on."""
    monkeypatch.setattr(answers, "answer", functools.partial(answer, time_budget_s=4))

    async def use(client: httpx.AsyncClient) -> None:
        for start in range(0, STAGES, 20):
            body = {"events": [an_event(number) for number in range(start, start + 20)]}
            assert (await client.post("/v1/ingest", json=body)).status_code == 200
        long = [asyncio.create_task(client.post("/v1/query", json=LONG, timeout=120)) for _ in range(QUESTIONS)]
        alive = 0
        while not any(task.done() for task in long):
            health, ingest = await asyncio.gather(
                client.get("/health", timeout=120),
                client.post("/v1/ingest", json={"events": [an_event(10_000 + alive, candidates=1)]}, timeout=120),
            )
            assert (health.status_code, ingest.status_code) == (200, 200)
            alive += 1
        for answered in await asyncio.gather(*long):
            assert answered.status_code == 200, answered.text
            found = answered.json()
            assert found["cursor"] is not None
            assert found["coverage"]["complete"] is False
        assert alive >= 2

    in_service(tmp_path, use)


def test_a_question_that_was_cut_comes_to_its_end(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any time it still goes one step further with each cursor, and finds everything."""
    monkeypatch.setattr(answers, "answer", functools.partial(answer, time_budget_s=0))

    async def use(client: httpx.AsyncClient) -> None:
        body = {"events": [an_event(number, candidates=30) for number in range(12)]}
        assert (await client.post("/v1/ingest", json=body)).status_code == 200
        asked = LONG | {"candidate": {"data.text": {"$regex": "(a|b)*7$"}}}
        found, steps, cursor = [], 0, None
        while steps == 0 or cursor is not None:
            page = (await client.post("/v1/query", json=asked | {"cursor": cursor})).json()
            found += [(row["stage_id"], row["seq"]) for row in page["rows"]]
            cursor, steps = page["cursor"], steps + 1
            assert steps < 100
        assert len(found) == len(set(found)) == 12 * 3
        assert steps >= 12

    in_service(tmp_path, use)
