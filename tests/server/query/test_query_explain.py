"""Questions in English, and what a store says of how it would find the documents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.query.catalogs import catalog
from tests.server.query.memory_store import MemoryStore
from xray_server.query import ast
from xray_server.query.describe import describe
from xray_server.query.explain import explain
from xray_server.query.parser import parse
from xray_server.stores.base import ScanPlan

CATALOG = catalog()


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "Stages, the latest first, 50 at a time."),
        (
            {"return": "runs", "pipeline": {"status": "failure"}, "limit": 3},
            'Runs whose status is "failure", the latest first, 3 at a time.',
        ),
        (
            {"return": "runs", "stage": {"type": "filtering"}, "candidate": {"verdict": "failed"}},
            (
                'Runs with a stage whose type is "filtering" with a candidate whose verdict is '
                '"failed", the latest first, '
                "50 at a time."
            ),
        ),
        (
            {"return": "candidates", "candidate": {"data.price": {"$lt": 5}}, "stage": {"name": {"$ne": "a"}}},
            'Candidates whose data.price is below 5, of stages whose name is not "a", the latest first, 50 at a time.',
        ),
        (
            {"stage": {"$or": [{"type": "a"}, {"name": None, "order": {"$gte": 2}}]}, "sort": {"$failRatio": -1}},
            (
                'Stages whose type is "a" or (name is null or missing and order is at least 2), ordered by $failRatio '
                "(highest first), 50 at a time."
            ),
        ),
        (
            {"stage": {"metadata.a": {"$not": {"$mod": [4, 1]}, "$nin": [1, "b"], "$exists": False}}},
            (
                "Stages whose not (metadata.a leaves 1 when divided by 4) and metadata.a is none of "
                '1, "b" and metadata.a '
                "is not there, the latest first, 50 at a time."
            ),
        ),
        (
            {"stage": {"metadata.a": {"$elemMatch": {"b": 1}, "$size": 1}, "metadata.c": {"$elemMatch": {"$gt": 2}}}},
            (
                "Stages whose (metadata.a is a list with an element whose b is 1 and metadata.a is "
                "a list of 1 element) "
                "and metadata.c is a list with an element for which it is above 2, the latest first, 50 at a time."
            ),
        ),
        (
            {"stages": [{"type": "a"}, {"$labelShare.x": {"$gt": 0.5}}], "return": "runs"},
            (
                "Runs, the latest first, 50 at a time. Of these runs each has, for every one of "
                "these, a stage of which it "
                'holds: (1) type is "a"; (2) $labelShare.x is above 0.5.'
            ),
        ),
        (
            {"pipeline": {"started_at": {"$lt": 0}, "label": {"$type": "string"}}},
            (
                "Stages, of runs whose started_at is before 1970-01-01T00:00:00.000Z and label is "
                "text, the latest first, "
                "50 at a time."
            ),
        ),
    ],
)
def test_a_question_in_english(question: dict[str, Any], said: str) -> None:
    """In the order of what is returned, its conditions, its order and its size."""
    assert describe(parse(question, CATALOG)) == said


class PlanningStore(MemoryStore):
    """A store that says how it would run a scan."""

    def __init__(self) -> None:
        super().__init__([], [], {})
        self.asked: list[ast.Scan] = []

    async def explain(self, project: str, scan: ast.Scan) -> ScanPlan:
        self.asked.append(scan)
        return ScanPlan(indexed=True, detail=f"an index over {scan.of} of {project}")


def test_a_store_may_say_how_it_would_find_them() -> None:
    """It is given the scan that the question would begin with; without such a store nothing is said."""
    question = parse({"stage": {"name": {"$regex": "^ab"}}, "limit": 7}, CATALOG)
    store = PlanningStore()
    told = asyncio.run(explain(store, "default", question)).as_dict()
    assert (told["indexed"], told["plan"]) == (True, "an index over stages of default")
    (scan,) = store.asked
    assert (scan.of, scan.limit) == ("stages", 8)
    assert scan.stage == ast.And(
        (
            ast.Test(ast.Field(("name",)), ast.Compare("gte", "ab")),
            ast.Test(ast.Field(("name",)), ast.Compare("lt", "ac")),
        )
    )
    assert store.scans == [], "the question itself was asked"
    silent = asyncio.run(explain(MemoryStore([], [], {}), "default", question)).as_dict()
    assert (silent["indexed"], silent["plan"]) == (None, "not known")
