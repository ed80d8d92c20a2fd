"""Whole questions, random in every part: both stores give the answer of a naive one, page by page.

The naive store narrows by nothing and knows no index, so that its answer is what the evaluator says of every document;
that the evaluator has MongoDB's meaning is held by the tests of filters.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.mongodb import Databases
from tests.server.query.catalogs import catalog
from tests.server.query.memory_store import MemoryStore
from tests.server.query.random_filters import LABELS, STARTED, Maker
from xray.exceptions import QueryError
from xray.stage_types.base import Columns
from xray_server.pages import CandidatePage, paginate
from xray_server.query.cursor import encode_cursor
from xray_server.query.parser import parse
from xray_server.query.run import answer
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.sqlite import SqliteStore

CATALOG = catalog()
QUESTIONS = 100
RATIOS: tuple[Any, ...] = (0, 0.25, 0.5, 1, 1.0)
OF_RUNS: dict[str, tuple[Any, ...]] = {
    "label": LABELS,
    "version": ("1", "2"),
    "tags": ("a", "ab", "é"),
    "duration_ms": (0, 1, 1.5, 12),
    "started_at": STARTED,
}
OF_STAGES: dict[str, tuple[Any, ...]] = {
    "type": ("filtering", "scoring"),
    "name": ("x", "y", "é"),
    "order": (0, 1, 2),
    "pipeline.label": LABELS,
    "started_at": STARTED,
    "$failRatio": RATIOS,
    "$passed": (0, 1, 7),
    "$labelShare.a": RATIOS,
    "metrics.label_share.b.c": RATIOS,
}
OF_CANDIDATES: dict[str, tuple[Any, ...]] = {
    "candidate_id": ("c0", "c1", "c3"),
    "verdict": ("passed", "failed"),
    "reason_label": ("cheap", "dear", "é"),
    "score": (0, 0.5, 1, -2.5),
}
SORTS: dict[str, tuple[str, ...]] = {
    "runs": ("label", "started_at", "duration_ms", "key", "id"),
    "stages": ("name", "order", "started_at", "$failRatio", "$labelShare.a", "pipeline.label", "id"),
}
SORTS["candidates"] = SORTS["stages"]


def name(number: int) -> str:
    return str(uuid.UUID(int=0x0190 << 112 | 7 << 76 | 2 << 62 | number))


class Case:
    """The data and the questions that a seed names."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._maker = Maker(seed)
        self._candidates: list[dict[str, Any]] = []
        self.batch = WriteBatch()
        for number in range(10):
            self._add_run(name(number), number)
        self.questions: list[dict[str, Any]] = []
        while len(self.questions) < QUESTIONS:
            made = self._question()
            try:
                parse(made, CATALOG)
            except QueryError:
                continue
            self.questions.append(made)

    def _add_run(self, run_id: str, number: int) -> None:
        draw = self._draw
        run = {"id": run_id, **self._maker.run()}
        if draw.random() < 0.7:
            run["version"] = draw.choice(OF_RUNS["version"])
        self.batch.runs[run_id] = run
        copy = {key: run[key] for key in ("id", "label", "version", "started_at") if key in run}
        for place in range(draw.choice((0, 1, 2, 3))):
            stage: dict[str, Any] = {"id": name(1000 + number * 10 + place), "run_id": run_id, "pipeline": copy}
            stage |= {"order": place, "type": draw.choice(OF_STAGES["type"]), "metadata": self._maker.object()}
            for field in ("name", "started_at"):
                if draw.random() < 0.8:
                    stage[field] = draw.choice(OF_STAGES[field])
            if draw.random() < 0.9:
                share = {key: draw.choice(RATIOS) for key in ("a", "b.c") if draw.random() < 0.7}
                metrics = {
                    "fail_ratio": draw.choice((*RATIOS, None)),
                    "passed": draw.choice((0, 1, 7)),
                    "label_share": share,
                }
                stage["metrics"] = {key: value for key, value in metrics.items() if draw.random() < 0.8}
            self.batch.stages[stage["id"]] = stage
            rows = [{"candidate_id": f"c{seq}", **self._maker.candidate()} for seq in range(draw.choice((0, 1, 4)))]
            self._candidates += rows
            self.batch.pages += (
                paginate(run_id, stage["id"], run.get("started_at"), Columns.from_rows(rows)) if rows else []
            )

    def _question(self) -> dict[str, Any]:
        draw, made = self._draw, dict[str, Any]()
        runs, stages = list(self.batch.runs.values()), list(self.batch.stages.values())
        returns = draw.choice(("stages", "runs", "candidates"))
        if draw.random() < 0.4:
            made["pipeline"] = self._maker.filter(runs, OF_RUNS, "metadata")
        if draw.random() < 0.4:
            made["stage"] = self._maker.filter(stages, OF_STAGES, "metadata")
        if draw.random() < 0.3:
            made["candidate"] = self._maker.filter(self._candidates, OF_CANDIDATES, "data")
        if draw.random() < 0.15:
            made["stages"] = [self._maker.filter(stages, OF_STAGES, "metadata") for _ in range(draw.randint(1, 2))]
        keys = draw.sample(SORTS[returns], draw.choice((0, 1, 2)))
        return made | {
            "return": returns,
            "sort": {key: draw.choice((1, -1)) for key in keys},
            "limit": draw.choice((2, 7, 1000)),
        }

    def naive(self) -> MemoryStore:
        pages: dict[str, list[CandidatePage]] = {}
        for page in self.batch.pages:
            pages.setdefault(page.stage_id, []).append(page)
        return MemoryStore(list(self.batch.runs.values()), list(self.batch.stages.values()), pages)


async def whole_answer(store: Store, asked: dict[str, Any]) -> list[Any]:
    """The ids of every row, page after page."""
    found: list[Any] = []
    cursor = None
    while True:
        question = parse(asked | {"cursor": cursor}, CATALOG)
        page = await answer(store, "default", question)
        found += [row["id"] if "id" in row else (row["stage_id"], row["seq"]) for row in page.rows]
        if page.next is None:
            return found
        cursor = encode_cursor(question, page.next)
        assert len(found) < 1000


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["sqlite", "mongodb"])
def test_a_store_gives_the_answer_of_the_naive_one(
    kind: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In the same order, whatever the size of a page."""
    case = Case(seed)
    if kind == "sqlite":
        store: Store = SqliteStore(tmp_path / "xray.sqlite3")
    else:
        databases: Databases = request.getfixturevalue("databases")
        store = MongoStore(databases.url(tmp_path))

    async def use() -> int:
        telling = 0
        await store.open()
        try:
            await store.write("default", case.batch)
            for asked in case.questions:
                expected = await whole_answer(case.naive(), asked)
                assert await whole_answer(store, asked) == expected, asked
                telling += bool(expected)
        finally:
            await store.close()
        return telling

    assert asyncio.run(use()) > QUESTIONS / 5
