"""Questions that name candidates by their ids: the index over ids gives the same answers as going through stages."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tests.mongodb import Databases
from tests.server.query.catalogs import catalog
from xray.stage_types.base import Columns
from xray_server.pages import paginate
from xray_server.query import ast, sighted
from xray_server.query.explain import explain
from xray_server.query.parser import parse
from xray_server.query.run import answer
from xray_server.query.sorting import BY_REMOVAL
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.sqlite import SqliteStore

PROJECT = "default"
RUNS = 40
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"candidate": {"id": "often"}},
    {"candidate": {"id": "once"}},
    {"candidate": {"id": "nowhere"}},
    {"candidate": {"id": {"$in": ["once", "c3", "nowhere"]}}},
    {"candidate": {"id": "often", "verdict": "failed"}},
    {"candidate": {"$and": [{"id": {"$in": ["c3", "c4"]}}, {"id": "c4"}]}},
    {"candidate": {"$or": [{"id": "c3"}, {"id": "once"}]}},
    {"candidate": {"id": "c5"}, "pipeline": {"label": "a"}},
    {"candidate": {"id": "c5"}, "pipeline": {"status": "success"}},
    {"candidate": {"id": "often"}, "stage": {"name": "second", "$failRatio": 1}, "sort": {"started_at": 1}},
    {"candidate": {"id": "c6"}, "stages": [{"name": "first"}, {"name": "second"}]},
    {"candidate": {"id": {"$ne": "often"}}},
    {"candidate": {"$or": [{"id": "c3"}, {"verdict": "failed"}]}},
)


class Watched:
    """A mixin that notes the scans that a store is asked for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.scans: list[ast.Scan] = []

    async def scan(self, project: str, scan: ast.Scan) -> Any:
        self.scans.append(scan)
        return await super().scan(project, scan)  # type: ignore[misc]


class WatchedSqlite(Watched, SqliteStore):
    """SQLite, watched."""


class WatchedMongo(Watched, MongoStore):
    """MongoDB, watched."""


def make_batch() -> WriteBatch:
    """Runs of two stages, whose candidates are few ids again and again; some stages have no candidates."""
    draw = random.Random(4)
    batch = WriteBatch()
    for number in range(RUNS):
        run_id = f"01890000-0000-7000-8000-{number:012d}"
        run = {"id": run_id, "label": draw.choice("ab"), "started_at": 1_793_000_000_000 + draw.randrange(1000)}
        batch.runs[run_id] = run | {"status": draw.choice(("success", "failure"))}
        for name in ("first", "second"):
            stage_id = f"01890000-0000-7000-9{'0' if name == 'first' else '1'}00-{number:012d}"
            batch.stages[stage_id] = {
                "id": stage_id, "run_id": run_id, "pipeline": run, "name": name, "type": "filtering",
                "started_at": run["started_at"] + draw.randrange(50), "metrics": {"fail_ratio": draw.choice((0.1, 1))},
            }  # fmt: skip
            ids = draw.sample([f"c{n}" for n in range(12)], draw.randrange(5))
            ids += ["often"] if draw.random() < 0.7 else []
            ids += ["once"] if number == 17 and name == "second" else []
            if ids:
                columns = Columns(ids, {"verdict": [draw.choice(("passed", "failed")) for _ in ids]})
                batch.pages += paginate(run_id, stage_id, run["started_at"], columns)
    return batch


@pytest.fixture(params=["sqlite", "mongodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return WatchedSqlite(tmp_path / "xray.sqlite3")
    databases: Databases = request.getfixturevalue("databases")
    return WatchedMongo(databases.url(tmp_path))


async def all_pages(store: Store, asked: dict[str, Any], returns: str, limit: int) -> list[Any]:
    """What tells the rows of an answer apart, page by page."""
    found: list[Any] = []
    after = None
    while True:
        parsed = parse(asked | {"return": returns, "limit": limit}, catalog())
        question = ast.Question(
            parsed.pipeline, parsed.stage, parsed.candidate, parsed.stages, parsed.returns, parsed.sort, limit, after
        )
        one = await answer(store, PROJECT, question)
        found += [(row["stage_id"], row["seq"]) if returns == "candidates" else row["id"] for row in one.rows]
        if one.next is None:
            return found
        after = one.next


def test_the_index_over_ids_gives_the_same_answers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is returned, page by page, before the ids are indexed and after it, for few stages and for many."""

    async def use() -> None:
        await store.open()
        try:
            await store.write(PROJECT, make_batch())
            for is_indexed in (False, True):
                while is_indexed and await store.index_candidates(PROJECT):
                    pass
                for asked in QUESTIONS:
                    for returns in ("stages", "runs", "candidates"):
                        monkeypatch.setattr(sighted, "MOST_PAGES", -1)
                        expected = await all_pages(store, asked, returns, 7)
                        for most in (200, 5):
                            monkeypatch.setattr(sighted, "MOST_PAGES", most)
                            assert await all_pages(store, asked, returns, 7) == expected, (asked, returns, most)
        finally:
            await store.close()

    asyncio.run(use())


@pytest.mark.parametrize("returns", ["stages", "runs", "candidates"])
def test_only_stages_that_have_the_candidate_are_asked_for(tmp_path: Path, returns: str) -> None:
    """A question that names an id asks the store for the stages, or runs, that the index gives, and for no others."""
    store = WatchedSqlite(tmp_path / "xray.sqlite3")

    async def use() -> None:
        await store.open()
        try:
            await store.write(PROJECT, make_batch())
            question = parse({"candidate": {"id": "once"}, "return": returns}, catalog())
            found = await answer(store, PROJECT, question)
            assert (len(found.rows), found.coverage.complete) == (1, True)
            number = 17
            only = f"01890000-0000-7000-{'8000' if returns == 'runs' else '9100'}-{number:012d}"
            asked = ast.Test(ast.Field(("id",)), ast.In((only,)))
            conditions = [scan.pipeline if returns == "runs" else scan.stage for scan in store.scans]
            (scan,) = [
                scan
                for scan, condition in zip(store.scans, conditions, strict=True)
                if isinstance(condition, ast.And) and asked in condition.conditions
            ]
            plan = await store.explain(PROJECT, scan)
            assert plan.indexed
            assert "found by id" in plan.detail
            # Beside it only stages whose candidates were removed are looked for, and the stages of that run.
            for other in store.scans:
                assert other is scan or other.sort == BY_REMOVAL or "run_id" in str(other.stage)
            said = await explain(store, PROJECT, question)
            assert any("index over candidate ids" in step for step in said.steps)
        finally:
            await store.close()

    asyncio.run(use())
