"""The builder makes the JSON that the language has, and prints what it sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.query.catalogs import catalog
from xray import q
from xray_server.query.parser import parse
from xray_server.questions.saved import parse_saved

CATALOG = catalog()


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (q.stage(type="filtering"), {"stage": {"type": "filtering"}}),
        (
            q.stage(type="filtering").metric("fail_ratio") > 0.9,
            {"stage": {"type": "filtering", "metrics.fail_ratio": {"$gt": 0.9}}},
        ),
        (q.metric("$failRatio") <= 0.5, {"stage": {"$failRatio": {"$lte": 0.5}}}),
        (
            q.pipeline(label="a", started_at__gte="2026-11-01", started_at__lt="2026-12-01"),
            {"pipeline": {"label": "a", "started_at": {"$gte": "2026-11-01", "$lt": "2026-12-01"}}},
        ),
        (q.pipeline({"metadata.a.0": 1}, metadata__team="x"), {"pipeline": {"metadata.a.0": 1, "metadata.team": "x"}}),
        (
            q.stage(name="a").stage(name="b"),
            {"stage": {"$and": [{"name": "a"}, {"name": "b"}]}},
        ),
        (
            (q.metric("fail_ratio") > 0.1).metric("fail_ratio") < 0.9,
            {"stage": {"metrics.fail_ratio": {"$gt": 0.1, "$lt": 0.9}}},
        ),
        (
            (q.metric("fail_ratio") != 0.1).metric("fail_ratio") != 0.9,
            {"stage": {"$and": [{"metrics.fail_ratio": {"$ne": 0.1}}, {"metrics.fail_ratio": {"$ne": 0.9}}]}},
        ),
        (
            q.candidate(data__price__lt=50, reason_label__in=["a", "b"]),
            {"candidate": {"data.price": {"$lt": 50}, "reason_label": {"$in": ["a", "b"]}}, "return": "candidates"},
        ),
        (
            q.stage().and_stage(type="filtering").and_stage(name__regex="^a").returning("runs").limit(3),
            {
                "stage": {},
                "stages": [{"type": "filtering"}, {"name": {"$regex": "^a"}}],
                "return": "runs",
                "limit": 3,
            },
        ),
        (
            q.stage(metadata__list__elem_match={"a": 1}).sort("-$failRatio", "name").fields("name").explain(),
            {
                "stage": {"metadata.list": {"$elemMatch": {"a": 1}}},
                "sort": {"$failRatio": -1, "name": 1},
                "fields": ["name"],
                "explain": True,
            },
        ),
        (q.stage().field("pipeline", "metadata.size") == 5, {"stage": {}, "pipeline": {"metadata.size": {"$eq": 5}}}),
        (q.stage(metadata__size__eq=5), {"stage": {"metadata.size": {"$eq": 5}}}),
        (q.metric("label_share.a").exists(), {"stage": {"metrics.label_share.a": {"$exists": True}}}),
        (q.stage().field("stage", "name").one_of("a", "b"), {"stage": {"name": {"$in": ["a", "b"]}}}),
        (q.stage().field("stage", "name").matches("^a"), {"stage": {"name": {"$regex": "^a"}}}),
    ],
)
def test_what_is_built_is_the_question(question: Any, expected: dict[str, Any]) -> None:
    """It is the JSON object, prints as that, and is one that the language takes."""
    assert question == expected
    assert json.loads(str(question)) == expected
    parse(dict(question), CATALOG)


def test_placeholders_are_values() -> None:
    """What stands for a parameter is put together with other conditions as a value is."""
    question = (q.stage(type=q.param("type")).metric("fail_ratio") > q.param("above")).stage(type__ne="raw")
    both = [
        {"type": {"$param": "type"}, "metrics.fail_ratio": {"$gt": {"$param": "above"}}},
        {"type": {"$ne": "raw"}},
    ]
    assert question == {"stage": {"$and": both}}
    body = {"question": question, "parameters": {"type": {"type": "string"}, "above": {"type": "number"}}}
    assert (
        parse_saved("one", body, CATALOG).ask({"type": "ranking", "above": 1})["stage"]["$and"][0]["type"] == "ranking"
    )


def test_a_call_changes_no_question_that_is_there() -> None:
    """Each gives a new one."""
    first = q.stage(type="filtering").and_stage(name="a")
    before = json.dumps(first)
    assert (first.metric("fail_ratio") > 0.5) != first
    for other in (
        first.stage(name="x"),
        first.and_stage(name="b"),
        first.limit(1),
        first.sort("name"),
        first.explain(),
    ):
        assert other != first
    assert json.dumps(first) == before
