"""The whole thread, with real parts: decorated code → worker → HTTP → service → store → query."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xray
from tests.service import Service, start_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(autouse=True)
def _sending(service: Service, fresh_runtime: None) -> None:
    xray.configure(server_url=service.url)


def one_stage(service: Service, label: str) -> dict[str, Any]:
    (stage,) = service.client().query({"pipeline": {"label": label}})["rows"]
    return stage


def all_candidates(service: Service, stage_id: str, **filters: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = service.client().candidates(stage_id, limit=1000, cursor=cursor, **filters)
        rows += page["rows"]
        cursor = page["cursor"]
        if cursor is None:
            return rows


def test_five_thousand_candidates_are_complete_once_flush_is_true(service: Service):
    """Every candidate with its verdict, label and fields, and the metrics over all of them."""
    pool = [{"id": f"sku-{n}", "title": f"Product {n}", "price": n * 0.37, "tags": ["a", str(n)]} for n in range(5000)]

    @xray.filtering_stage("five_thousand", passed="ok", reason_label="why")
    def judge(products: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**p, "ok": n % 50 == 0, "why": None if n % 50 == 0 else ("too_odd" if n % 2 else "too_even")}
            for n, p in enumerate(products)
        ]

    judge(pool)
    assert xray.flush(timeout_s=60)
    stage = one_stage(service, "five_thousand")
    assert stage["metrics"]["input_count"] == 5000
    assert stage["metrics"]["output_count"] == 100
    assert stage["metrics"]["fail_ratio"] == 0.98
    assert stage["metrics"]["label_counts"] == {"too_odd": 2500, "too_even": 2400}
    rows = all_candidates(service, stage["id"])
    assert [row["candidate_id"] for row in rows] == [p["id"] for p in pool]
    assert [row["data"] for row in rows] == pool
    assert [row["verdict"] for row in rows] == ["passed" if n % 50 == 0 else "failed" for n in range(5000)]
    assert len(all_candidates(service, stage["id"], reason_label="too_odd")) == 2500


def test_a_stage_too_heavy_for_one_event_arrives_whole(service: Service):
    """Candidates that travel in several events are put together, with metrics over all of them."""
    generator = random.Random(7)
    pool = [{"id": n, "text": "".join(generator.choices("abcdefghij ", k=2000))} for n in range(6000)]

    @xray.scoring_stage("heavy")
    def score(documents: list[dict[str, Any]]) -> list[float]:
        return [n / 10 for n in range(len(documents))]

    score(pool)
    assert xray.flush(timeout_s=60), xray.stats()
    stage = one_stage(service, "heavy")
    assert stage["metrics"]["score"]["max"] == 599.9
    assert stage["metrics"]["input_count"] == 6000
    rows = all_candidates(service, stage["id"])
    assert [row["data"] for row in rows] == pool


def test_a_run_reads_back_with_nested_stages_errors_and_text(service: Service):
    """An async run that fails inside a nested stage: order, paths, parents, statuses and unicode."""

    @xray.pipeline("nested", id="request", version="v2", environment="test")
    class Nested:
        request = "anfrage-ß-漢字"

        @xray.entrypoint
        async def go(self, text: str) -> None:
            await self.outer(["ä", "ß"])

        @xray.filtering_stage("outer")
        async def outer(self, pool: list[str]) -> list[str]:
            await asyncio.sleep(0)
            self.words("x")
            return self.inner(pool)

        @xray.generation_stage("words")
        def words(self, text: str) -> list[str]:
            return [text, "🙂"]

        @xray.raw_stage("inner")
        def inner(self, pool: list[str]) -> list[str]:
            raise RuntimeError("boom \ud800")

    with pytest.raises(RuntimeError):
        asyncio.run(Nested().go("hallo"))
    assert xray.flush(timeout_s=30), xray.stats()
    client = service.client()
    (found,) = client.runs(key=Nested.request)["rows"]
    run = client.run(found["id"])
    assert {name: run[name] for name in ("label", "version", "environment", "status", "stage_count")} == {
        "label": "nested", "version": "v2", "environment": "test", "status": "failure", "stage_count": 3,
    }  # fmt: skip
    assert run["error"]["type"] == "RuntimeError"
    assert run["error"]["stage"] == "outer/inner"
    assert run["input"] == {"text": "hallo"}
    assert [(s["path"], s["order"], s["status"]) for s in run["stages"]] == [
        ("outer", 0, "failure"), ("outer/words", 1, "success"), ("outer/inner", 2, "failure"),
    ]  # fmt: skip
    assert [s.get("parent_id") for s in run["stages"]] == [None, run["stages"][0]["id"], run["stages"][0]["id"]]
    assert [row["candidate_id"] for row in all_candidates(service, run["stages"][1]["id"])] == ["x", "🙂"]
    assert run["started_at"].endswith("Z")
    assert run["duration_ms"] >= 0


def test_a_service_that_starts_late_gets_everything(tmp_path: Path):
    """What was recorded while nothing listened is stored once the service is there; nothing twice."""
    with start_service(tmp_path) as first:
        url = first.url
    xray.configure(server_url=url)

    @xray.filtering_stage("late")
    def keep(pool: list[int]) -> list[int]:
        return pool[:1]

    for _ in range(20):
        keep([1, 2, 3])
    assert not xray.flush(timeout_s=0.3)
    with start_service(tmp_path, "--port", url.rpartition(":")[2]) as second:
        assert xray.flush(timeout_s=60), xray.stats()
        assert len(second.client().query({"pipeline": {"label": "late"}, "limit": 100})["rows"]) == 20
        stats = xray.stats()
    assert (stats.recorded, stats.acknowledged, stats.dropped) == (60, 60, {})


def test_data_outlives_the_service(tmp_path: Path):
    """What was acknowledged is there after a restart."""
    with start_service(tmp_path) as first:
        xray.configure(server_url=first.url)
        xray.filtering_stage("kept")(lambda pool: pool[1:])([1, 2])
        assert xray.flush(timeout_s=30)
    with start_service(tmp_path) as second:
        assert one_stage(second, "kept")["metrics"]["fail_ratio"] == 0.5


def test_the_question_of_the_readme_finds_the_strict_filters(service: Service):
    """$failRatio over all pipelines, strictest first."""
    for label, keep in (("strict", 1), ("very_strict", 0), ("lenient", 50)):
        xray.filtering_stage(f"readme_{label}")(lambda pool, keep=keep: pool[:keep])(list(range(100)))
    assert xray.flush(timeout_s=30)
    ours = [f"readme_{label}" for label in ("strict", "very_strict", "lenient")]
    condition = {"type": "filtering", "$failRatio": {"$gt": 0.9}, "name": {"$in": ours}}
    answer = service.client().query({"stage": condition, "sort": {"$failRatio": -1}})
    assert [(s["name"], s["metrics"]["fail_ratio"]) for s in answer["rows"]] == [
        ("readme_very_strict", 1.0),
        ("readme_strict", 0.99),
    ]
