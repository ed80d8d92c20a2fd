"""Every example of an operator in the guide to the language finds what the guide says, on each store."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.judge import judge
from tests.mongodb import Databases
from xray_server.query.fields import MetricCatalog
from xray_server.query.operators import FIELD_OPERATORS, LOGICAL_OPERATORS
from xray_server.query.parser import parse
from xray_server.query.run import answer
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.sqlite import SqliteStore

PAGE = Path(__file__).parents[2] / "docs" / "query-language.md"
KINDS = ("sqlite", "mongodb")


def cells() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


RUNS = {
    row[0].strip("`"): json.loads(row[1].strip("`")) for row in cells() if re.fullmatch(r"`r\d`", row[0])
}
EXAMPLES = [
    (json.loads(row[1].strip("`")), re.findall(r"`(r\d)`", row[2]))
    for row in cells()
    if len(row) == 3 and row[1].startswith("`{") and re.match(r"`r\d`", row[2])
]


def test_every_operator_has_an_example() -> None:
    """The page has the data, and an example for each operator of the language."""
    assert len(RUNS) == 4
    used = json.dumps([filter_ for filter_, _ in EXAMPLES])
    assert {word for word in (*FIELD_OPERATORS, *LOGICAL_OPERATORS) if f'"{word}"' not in used} == set()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each store in turn, not open yet."""
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "xray.sqlite3")
    databases: Databases = request.getfixturevalue("databases")
    return MongoStore(databases.url(tmp_path))


def test_each_example_finds_what_the_page_says(store: Store) -> None:
    """By the answer of the store, and by the judge."""

    async def ask(store: Store) -> None:
        ids = {key: str(uuid.UUID(int=0x0190 << 112 | 7 << 76 | 2 << 62 | n)) for n, key in enumerate(RUNS)}
        runs: dict[str, dict[str, Any]] = {
            ids[key]: {"id": ids[key], "key": key, "metadata": metadata} for key, metadata in RUNS.items()
        }
        await store.open()
        try:
            await store.write("default", WriteBatch(runs=runs))
            for filter_, expected in EXAMPLES:
                question = parse({"pipeline": filter_, "return": "runs", "sort": {"key": 1}}, MetricCatalog())
                found = [row["key"] for row in (await answer(store, "default", question)).rows]
                assert found == expected, filter_
                assert [run["key"] for run in runs.values() if judge(filter_, run)] == expected, filter_
        finally:
            await store.close()

    asyncio.run(ask(store))
