"""What the parser makes of questions, and what it says about wrong ones."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.query.catalogs import catalog
from xray.exceptions import QueryError
from xray_server.query import ast
from xray_server.query.cursor import encode_cursor
from xray_server.query.parser import parse
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.query.values import MAX_CONDITIONS, MAX_LIST, MAX_STRING

CATALOG = catalog()
RUN_ID = "01900000-0000-7000-8000-00000000000a"
NOON_MS = 1793534400000  # 2026-11-01T12:00:00Z

QUESTIONS: list[dict[str, Any]] = [
    {},
    {
        "pipeline": {"label": "competitor_discovery", "started_at": {"$gte": "2026-11-01T00:00:00Z"}},
        "stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}},
        "candidate": {"reason_label": "price_too_high", "data.price": {"$lt": 50}},
        "return": "stages",
        "sort": {"$failRatio": -1},
        "limit": 50,
        "cursor": None,
    },
    {
        "pipeline": {"$or": [{"status": "failure"}, {"metadata.tier": {"$in": ["gold", None, 3]}}]},
        "return": "pipelines",
        "sort": [{"label": 1}, {"started_at": -1}],
    },
    {
        "stage": {
            "$nor": [{"pipeline.environment": "dev"}, {"duration_ms": {"$not": {"$gte": 5, "$lt": 1e6}}}],
            "metrics.label_share.a.b": {"$exists": True, "$ne": 0},
            "capture": {"mode": "full", "markers": [{"path": "x"}]},
            "started_at": {"$nin": ["2026-11-01", NOON_MS]},
            "run_id": RUN_ID,
        },
        "candidate": {"verdict": {"$in": ["failed", "selected"]}, "own_column.x": [1, {"y": None}], "id": "#12"},
        "return": "candidates",
        "limit": 1,
    },
]


def condition_of(part: str, filter_: Any) -> ast.Condition:
    parsed = parse({part: filter_}, CATALOG)
    condition = getattr(parsed, part)
    assert condition is not None
    return condition


def eq(name: str, value: Any) -> ast.Test:
    return ast.Test(ast.Field(tuple(name.split("."))), ast.Compare("eq", value))


def test_an_empty_question_asks_for_the_latest_stages() -> None:
    assert parse({}, CATALOG) == ast.Question(sort=DEFAULT_SORT)
    assert parse(dict.fromkeys(["pipeline", "stage", "candidate", "sort", "limit", "cursor"]), CATALOG) == parse(
        {}, CATALOG
    )


def test_the_question_of_the_design() -> None:
    assert parse(QUESTIONS[1], CATALOG) == ast.Question(
        pipeline=ast.And(
            (
                eq("label", "competitor_discovery"),
                ast.Test(ast.Field(("started_at",)), ast.Compare("gte", NOON_MS - 12 * 3_600_000)),
            )
        ),
        stage=ast.And((eq("type", "filtering"), ast.Test(ast.Metric("fail_ratio"), ast.Compare("gt", 0.9)))),
        candidate=ast.And(
            (eq("reason_label", "price_too_high"), ast.Test(ast.Field(("data", "price")), ast.Compare("lt", 50)))
        ),
        sort=(ast.SortKey(ast.Metric("fail_ratio"), descending=True), ast.SortKey(ast.Field(("id",)), descending=True)),
    )


@pytest.mark.parametrize(
    "word",
    ["$failRatio", "$fail_ratio", "$FAILRATIO", "$Fail_Ratio", "$failratio", "metrics.fail_ratio", "metrics.failRatio"],
)
def test_a_metric_has_many_spellings(word: str) -> None:
    assert condition_of("stage", {word: 1}) == ast.Test(ast.Metric("fail_ratio"), ast.Compare("eq", 1))


@pytest.mark.parametrize("word", ["$labelShare.a.b", "$label_share.a.b", "metrics.label_share.a.b"])
def test_all_behind_the_first_dot_is_one_key(word: str) -> None:
    assert condition_of("stage", {word: 1}) == ast.Test(ast.Metric("label_share", "a.b"), ast.Compare("eq", 1))


@pytest.mark.parametrize(
    ("part", "filter_", "expected"),
    [
        ("pipeline", {"_id": RUN_ID.upper()}, eq("id", RUN_ID)),
        ("candidate", {"_id": "7"}, eq("candidate_id", "7")),
        ("candidate", {"id": "7"}, eq("candidate_id", "7")),
        ("stage", {"pipeline._id": RUN_ID}, eq("pipeline.id", RUN_ID)),
        ("pipeline", {"tags": ["a", "b"]}, eq("tags", ["a", "b"])),
        ("pipeline", {"label": None}, eq("label", None)),
        ("pipeline", {"metadata.x": {}}, eq("metadata.x", {})),
        ("pipeline", {"label": {"$ne": "a"}}, ast.Not(eq("label", "a"))),
        ("pipeline", {"label": {"$nin": ["a"]}}, ast.Not(ast.Test(ast.Field(("label",)), ast.In(("a",))))),
        ("pipeline", {"$nor": [{"label": "a"}]}, ast.Not(ast.Or((eq("label", "a"),)))),
        ("pipeline", {"label": {"$exists": False}}, ast.Test(ast.Field(("label",)), ast.Exists(wanted=False))),
        ("candidate", {}, ast.EVERYTHING),
    ],
)
def test_forms(part: str, filter_: Any, expected: ast.Condition) -> None:
    assert condition_of(part, filter_) == expected


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-11-01T12:00:00Z", NOON_MS),
        ("2026-11-01T12:00Z", NOON_MS),
        ("2026-11-01t12:00:00z", NOON_MS),
        ("2026-11-01 13:00:00+01:00", NOON_MS),
        ("2026-11-01T12:00:00.1239Z", NOON_MS + 123),
        ("2026-11-01", NOON_MS - 12 * 3_600_000),
        ("1969-12-31T23:59:59.999Z", -1),
        (NOON_MS, NOON_MS),
    ],
)
def test_times(text: Any, milliseconds: int) -> None:
    for part in ("pipeline", "stage"):
        assert condition_of(part, {"started_at": text}) == eq("started_at", milliseconds)
    assert condition_of("stage", {"pipeline.started_at": {"$in": [text, None]}}) == ast.Test(
        ast.Field(("pipeline", "started_at")), ast.In((milliseconds, None))
    )


@pytest.mark.parametrize(
    ("sort", "returns", "expected"),
    [
        ({"name": 1}, "stages", [("name", False), ("id", False)]),
        ({"name": -1}, "stages", [("name", True), ("id", True)]),
        ({"name": -1, "order": 1}, "stages", [("name", True), ("order", False), ("id", False)]),
        ([{"name": -1}, {"_id": 1}, {"order": 1}], "candidates", [("name", True), ("id", False)]),
        ({"pipeline.started_at": 1}, "stages", [("pipeline.started_at", False), ("id", False)]),
        ({"sample_rate": 1}, "runs", [("sample_rate", False), ("id", False)]),
        ({"$labelShare.x": 1}, "stages", [("metrics.label_share.x", False), ("id", False)]),
        ({}, "runs", [("started_at", True), ("id", True)]),
        ([], "candidates", [("started_at", True), ("id", True)]),
    ],
)
def test_sorts(sort: Any, returns: str, expected: list[tuple[str, bool]]) -> None:
    parsed = parse({"sort": sort, "return": returns}, CATALOG)
    assert [(str(key.reference), key.descending) for key in parsed.sort] == expected


def deep(levels: int) -> dict[str, Any]:
    filter_: dict[str, Any] = {"label": "a"}
    for _ in range(levels):
        filter_ = {"$and": [filter_]}
    return filter_


# The question, the path that the error names, what its message or hint says.
ERRORS: list[tuple[Any, str | None, str]] = [
    ([], None, "JSON object"),
    ({"stag": {}}, "stag", "'stage'"),
    ({7: {}}, "int", "It has pipeline"),
    ({"stage": []}, "stage", "JSON object"),
    ({"stage": {"nmae": "x"}}, "stage.nmae", "'name'"),
    ({"stage": {"fail_ratio": 1}}, "stage.fail_ratio", "'$failRatio'"),
    ({"stage": {"$failRato": 1}}, "stage.$failRato", "'$failRatio'"),
    ({"stage": {"$orr": []}}, "stage.$orr", "'$or'"),
    ({"stage": {"metrics.fail_rato": 1}}, "stage.metrics.fail_rato", "'$failRatio'"),
    ({"stage": {"metrics": {}}}, "stage.metrics", "$failRatio"),
    ({"stage": {"$failRatio.x": 1}}, "stage.$failRatio.x", "Write $failRatio"),
    ({"stage": {"$labelShare": 1}}, "stage.$labelShare", "$labelShare.<key>"),
    ({"stage": {"$labelShare.": 1}}, "stage.$labelShare.", "$labelShare.<key>"),
    ({"stage": {"$histogram": 1}}, "stage.$histogram", "shown, not searched"),
    ({"stage": {"$failRatio": {"$gt": "0.9"}}}, "stage.$failRatio.$gt", "is a number"),
    ({"stage": {"$failRatio": {"$gtt": 1}}}, "stage.$failRatio.$gtt", "'$gt'"),
    ({"stage": {"$gt": 1}}, "stage.$gt", "below a field"),
    ({"stage": {"pipeline": {}}}, "stage.pipeline", "pipeline.label"),
    ({"stage": {"pipeline.lable": "x"}}, "stage.pipeline.lable", "'label'"),
    ({"stage": {"name.x": 1}}, "stage.name.x", "one value"),
    ({"pipeline": {"$failRatio": 1}}, "pipeline.$failRatio", "under 'stage'"),
    ({"pipeline": {"verdict": "failed"}}, "pipeline.verdict", "under 'candidate'"),
    ({"pipeline": {"status": "failed"}}, "pipeline.status", "'failure'"),
    ({"pipeline": {"completeness": {"$in": ["complete", "partly"]}}}, "pipeline.completeness.$in[1]", "'partial'"),
    ({"candidate": {"verdict": "pass"}}, "candidate.verdict", "'passed'"),
    ({"candidate": {"verdict": "zzz"}}, "candidate.verdict", "passed, failed, selected"),
    ({"candidate": {"candidate_id": 12}}, "candidate.candidate_id", 'Write "12"'),
    ({"pipeline": {"id": "request-7"}}, "pipeline.id", "'key'"),
    ({"pipeline": {"label": ["a"]}}, "pipeline.label", "is text"),
    ({"pipeline": {"label": {"a": 1}}}, "pipeline.label", "is text"),
    ({"pipeline": {"tags": [1]}}, "pipeline.tags", "list of strings"),
    ({"pipeline": {"tags.0": "a"}}, "pipeline.tags.0", "one value"),
    ({"pipeline": {"duration_ms": True}}, "pipeline.duration_ms", "a boolean never matches"),
    ({"pipeline": {"started_at": "2026-11-01T00:00:00"}}, "pipeline.started_at", "2026-11-01T00:00:00Z"),
    ({"pipeline": {"started_at": "2026-13-01"}}, "pipeline.started_at", "no time"),
    ({"pipeline": {"started_at": "2026-W44-7"}}, "pipeline.started_at", "no time"),
    ({"pipeline": {"started_at": {"$gt": 1.5}}}, "pipeline.started_at.$gt", "milliseconds"),
    ({"pipeline": {"started_at": {"$date": 1}}}, "pipeline.started_at.$date", "ISO 8601"),
    ({"pipeline": {"$where": "1"}}, "pipeline.$where", "never run code"),
    ({"pipeline": {"label": {"$function": {}}}}, "pipeline.label.$function", "never run code"),
    ({"pipeline": {"label": {"$regex": "(a)\\1"}}}, "pipeline.label.$regex", "no back-reference"),
    ({"pipeline": {"label": {"$regex": "(?=a)"}}}, "pipeline.label.$regex", "no look-ahead"),
    ({"pipeline": {"label": {"$regex": "(?<!a)b"}}}, "pipeline.label.$regex", "no look-behind"),
    ({"pipeline": {"label": {"$regex": "a++"}}}, "pipeline.label.$regex", "possessive"),
    ({"pipeline": {"label": {"$regex": "a{1001}"}}}, "pipeline.label.$regex", "Repeat less"),
    ({"pipeline": {"label": {"$regex": "(a{500}){500}"}}}, "pipeline.label.$regex", "Repeat less"),
    ({"pipeline": {"label": {"$regex": "["}}}, "pipeline.label.$regex", "not valid"),
    ({"pipeline": {"label": {"$regex": "a" * 2000}}}, "pipeline.label.$regex", "at most 1000"),
    ({"pipeline": {"label": {"$regex": 5}}}, "pipeline.label.$regex", "as a string"),
    ({"pipeline": {"label": {"$regex": "\ud800"}}}, "pipeline.label.$regex", "surrogate"),
    ({"pipeline": {"label": {"$regex": "a", "$options": "x"}}}, "pipeline.label.$options", "It has i"),
    ({"pipeline": {"label": {"$regex": "a", "$options": 1}}}, "pipeline.label.$options", "as a string"),
    ({"pipeline": {"label": {"$options": "i"}}}, "pipeline.label.$options", "beside '$regex'"),
    ({"pipeline": {"label": {"$regx": "a"}}}, "pipeline.label.$regx", "'$regex'"),
    ({"stage": {"$failRatio": {"$regex": "a"}}}, "stage.$failRatio.$regex", "for text"),
    ({"pipeline": {"label": {"$ne": {"$regex": "a"}}}}, "pipeline.label.$ne.$regex", "inner field"),
    ({"pipeline": {"label": {"$in": [{"$regex": "a"}]}}}, "pipeline.label.$in[0].$regex", "inner field"),
    ({"pipeline": {"metadata.x": {"$mod": [0, 0]}}}, "pipeline.metadata.x.$mod[0]", "divide by 0"),
    ({"pipeline": {"metadata.x": {"$mod": [0.5, 0]}}}, "pipeline.metadata.x.$mod[0]", "divide by 0"),
    ({"pipeline": {"metadata.x": {"$mod": [4]}}}, "pipeline.metadata.x.$mod", "a remainder"),
    ({"pipeline": {"metadata.x": {"$mod": [True, 0]}}}, "pipeline.metadata.x.$mod", "a remainder"),
    ({"pipeline": {"metadata.x": {"$mod": [2**64, 0]}}}, "pipeline.metadata.x.$mod", "64 bits"),
    ({"pipeline": {"label": {"$mod": [4, 0]}}}, "pipeline.label.$mod", "for a number"),
    ({"pipeline": {"metadata.x": {"$size": -1}}}, "pipeline.metadata.x.$size", "from 0 on"),
    ({"pipeline": {"metadata.x": {"$size": 1.5}}}, "pipeline.metadata.x.$size", "from 0 on"),
    ({"pipeline": {"metadata.x": {"$size": True}}}, "pipeline.metadata.x.$size", "from 0 on"),
    ({"pipeline": {"label": {"$size": 1}}}, "pipeline.label.$size", "for a list"),
    ({"pipeline": {"metadata.x": {"$type": "strng"}}}, "pipeline.metadata.x.$type", "'string'"),
    ({"pipeline": {"metadata.x": {"$type": ["string", "date"]}}}, "pipeline.metadata.x.$type[1]", "ISO 8601"),
    ({"pipeline": {"metadata.x": {"$type": 5}}}, "pipeline.metadata.x.$type", "of the type '5'"),
    ({"pipeline": {"metadata.x": {"$type": True}}}, "pipeline.metadata.x.$type", "of the type"),
    ({"pipeline": {"metadata.x": {"$type": 10**5000}}}, "pipeline.metadata.x.$type", "of the type"),
    ({"pipeline": {"metadata.x": {"$type": []}}}, "pipeline.metadata.x.$type", "at least one"),
    ({"stage": {"$failRatio": {"$type": "double"}}}, "stage.$failRatio.$type", "'number'"),
    ({"pipeline": {"metadata.x": {"$all": 5}}}, "pipeline.metadata.x.$all", "takes a list"),
    ({"pipeline": {"metadata.x": {"$all": [1, {"$elemMatch": {}}]}}}, "pipeline.metadata.x.$all[0]", "not both"),
    ({"pipeline": {"label": {"$all": ["a", 1]}}}, "pipeline.label.$all[1]", "is text"),
    ({"pipeline": {"metadata.x": {"$elemMatch": 5}}}, "pipeline.metadata.x.$elemMatch", "takes an object"),
    ({"pipeline": {"label": {"$elemMatch": {"$eq": "a"}}}}, "pipeline.label.$elemMatch", "for a list"),
    ({"pipeline": {"tags": {"$elemMatch": {"a": 1}}}}, "pipeline.tags.$elemMatch", "no fields"),
    ({"pipeline": {"tags": {"$elemMatch": {"$eq": 1}}}}, "pipeline.tags.$elemMatch.$eq", "is text"),
    ({"pipeline": {"metadata.x": {"$elemMatch": {"a..b": 1}}}}, "pipeline.metadata.x.$elemMatch.a..b", "empty segment"),
    (
        {"pipeline": {"metadata.x": {"$elemMatch": {"a": {"$gtt": 1}}}}},
        "pipeline.metadata.x.$elemMatch.a.$gtt",
        "'$gt'",
    ),
    ({"pipeline": {"metadata.x": {"$elemMatch": {"a": 1, "$gt": 1}}}}, "pipeline.metadata.x.$elemMatch.$gt", "a field"),
    ({"pipeline": {"metadata.x": {"$elemMatch": {"$gt": 1, "a": 1}}}}, "pipeline.metadata.x.$elemMatch.a", "not both"),
    (
        {"pipeline": {"metadata.x": {"$elemMatch": {"$where": "1"}}}},
        "pipeline.metadata.x.$elemMatch.$where",
        "run code",
    ),
    ({"stages": []}, "stages", "at least one"),
    ({"stages": {"type": "filtering"}}, "stages", "a list"),
    ({"stages": [{"type": "filtering"}, {"nmae": "x"}]}, "stages[1].nmae", "'name'"),
    ({"stages": [{}] * 11}, "stages", "at most 10"),
    ({"explain": 1}, "explain", "true or false"),
    ({"fields": "id"}, "fields", "list of paths"),
    ({"fields": []}, "fields", "1 to 50"),
    ({"fields": ["nmae"]}, "fields[0]", "'name'"),
    ({"fields": [3]}, "fields[0]", "as a string"),
    ({"fields": {"name": 0}}, "fields.name", "left out"),
    ({"fields": {"name": [1]}}, "fields.name", "left out"),
    ({"stage": {"$expr": {}}}, "stage.$expr", "not supported"),
    ({"pipeline": {"$not": {"label": 1}}}, "pipeline.$not", "$nor"),
    ({"pipeline": {"label": {"$not": "a"}}}, "pipeline.label.$not", "object of operators"),
    ({"pipeline": {"label": {"$not": {}}}}, "pipeline.label.$not", "object of operators"),
    ({"pipeline": {"label": {"$not": {"a": 1}}}}, "pipeline.label.$not.a", "not both"),
    ({"pipeline": {"label": {"$gt": "a", "b": 1}}}, "pipeline.label.b", "not both"),
    ({"pipeline": {"label": {"$GT": "a"}}}, "pipeline.label.$GT", "'$gt'"),
    ({"pipeline": {"label": {"$exists": 1}}}, "pipeline.label.$exists", "true or false"),
    ({"pipeline": {"label": {"$in": "a"}}}, "pipeline.label.$in", "takes a list"),
    ({"pipeline": {"$and": []}}, "pipeline.$and", "at least one"),
    ({"pipeline": {"$or": [{"label": "a"}, 3]}}, "pipeline.$or[1]", "JSON object"),
    ({"pipeline": {"metadata.x": {"a": {"$gt": 1}}}}, "pipeline.metadata.x.a.$gt", "path to the inner field"),
    ({"pipeline": {"metadata..x": 1}}, "pipeline.metadata..x", "empty segment"),
    ({"pipeline": {"": 1}}, "pipeline.", "empty segment"),
    ({"pipeline": {"metadata.$x": 1}}, "pipeline.metadata.$x", "starts with '$'"),
    ({"pipeline": {3: 1}}, "pipeline.int", "strings"),
    ({"pipeline": {"metadata.x": {3: 1}}}, "pipeline.metadata.x.int", "strings"),
    ({"pipeline": {"metadata.x": float("nan")}}, "pipeline.metadata.x", "NaN"),
    ({"pipeline": {"duration_ms": {"$lt": float("inf")}}}, "pipeline.duration_ms.$lt", "infinities"),
    ({"pipeline": {"metadata.x": 2**63}}, "pipeline.metadata.x", "64 bits"),
    ({"pipeline": {"metadata.x": 10**5000}}, "pipeline.metadata.x", "64 bits"),
    ({"pipeline": {"metadata.x": object()}}, "pipeline.metadata.x", "no JSON value"),
    ({"pipeline": {"metadata.x": "\ud800"}}, "pipeline.metadata.x", "surrogate"),
    ({"pipeline": {"metadata.\0": "a"}}, "pipeline.metadata.\0", "NUL"),
    ({"pipeline": {"metadata.x": "a" * (MAX_STRING + 1)}}, "pipeline.metadata.x", "characters"),
    ({"pipeline": {"label": {"$in": ["a"] * (MAX_LIST + 1)}}}, "pipeline.label.$in", "at most"),
    ({"pipeline": {"metadata.x": ["a"] * (MAX_LIST + 1)}}, "pipeline.metadata.x", "at most"),
    ({"pipeline": deep(30)}, None, "nested"),
    ({"pipeline": {"$and": [{"label": "a"}] * (MAX_CONDITIONS + 1)}}, None, "conditions"),
    ({"pipeline": {"metadata" + ".a" * 30: 1}}, None, "segments"),
    ({"pipeline": {"metadata.x": [[["a"] * 1000] * 1000]}}, None, "values"),
    ({"return": "run"}, "return", "'runs'"),
    ({"return": ["runs"]}, "return", "stages, runs or candidates"),
    ({"limit": 0}, "limit", "1 to 1000"),
    ({"limit": 1001}, "limit", "1 to 1000"),
    ({"limit": True}, "limit", "1 to 1000"),
    ({"limit": 5.0}, "limit", "1 to 1000"),
    ({"sort": "name"}, "sort", "object"),
    ({"sort": {"name": "asc"}}, "sort.name", "1 (ascending)"),
    ({"sort": {"name": True}}, "sort.name", "1 (ascending)"),
    ({"sort": [{"name": 1, "type": 1}]}, "sort[0]", "one key"),
    ({"sort": [{"name": 1}, {"name": -1}]}, "sort[1].name", "twice"),
    ({"sort": {"metadata.x": 1}}, "sort.metadata.x", "no single value"),
    ({"sort": {"$histogram": 1}}, "sort.$histogram", "shown"),
    ({"sort": {"$failRatio": 1}, "return": "runs"}, "sort.$failRatio", "Return stages"),
    ({"sort": {"tags": 1}, "return": "runs"}, "sort.tags", "no single value"),
    ({"sort": {"score": 1}, "return": "candidates"}, "sort.score", "of the stage"),
    ({"sort": {3: 1}}, "sort.int", "strings"),
    ({"cursor": 5}, "cursor", "Ask again"),
    ({"cursor": "xyz"}, "cursor", "Ask again"),
]


@pytest.mark.parametrize(("question", "path", "said"), ERRORS, ids=range(len(ERRORS)))
def test_errors_name_the_place_and_what_would_be_right(question: Any, path: str | None, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(question, CATALOG)
    error = caught.value
    assert said in f"{error.message} {error.hint}"
    if path is None:
        assert question == [] or error.path
    else:
        assert error.path == path
    json.dumps(error.as_dict()).encode()


def test_a_question_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["$and"] = [loop]
    value: list[Any] = []
    value += [value, value]
    for question in ({"stage": loop}, {"stage": {"metadata.x": value}}):
        with pytest.raises(QueryError):
            parse(question, CATALOG)


def test_the_parsed_values_are_a_copy() -> None:
    value = {"x": [1]}
    condition = condition_of("stage", {"metadata.a": value})
    value["x"].append(2)
    assert condition == eq("metadata.a", {"x": [1]})


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_good_questions(question: dict[str, Any]) -> None:
    before = copy.deepcopy(question)
    assert isinstance(parse(question, CATALOG), ast.Question)
    assert question == before


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=2),
        st.sampled_from(["$gt", "$failRatio", "$labelShare.x", "id", "started_at", "$and", "\ud800", "2026-11-01", -1]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=4), st.sampled_from(["$gt", "$in", "$or", "$not", "metadata.x"]), st.integers()),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=3000, deadline=None)
@given(question=st.sampled_from(QUESTIONS), data=st.data())
def test_a_mutated_question_is_a_question_or_a_query_error(question: dict[str, Any], data: st.DataObject) -> None:
    question = {**copy.deepcopy(question), "cursor": None}
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(question, data)
    try:
        parsed = parse(question, CATALOG)
    except QueryError as error:
        json.dumps(error.as_dict(), ensure_ascii=False).encode()
    else:
        assert isinstance(parsed, ast.Question)
        encode_cursor(parsed, ("x",))


def mutate(node: Any, data: st.DataObject) -> None:
    """Replace, delete, rename or add something at a random place of a question."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        action = data.draw(st.sampled_from(["replace", "delete", "rename"]))
        if action == "delete":
            del node[key]
        elif action == "rename" and isinstance(node, dict):
            new = data.draw(st.one_of(st.text(max_size=6), st.sampled_from(["$in", "$not", "$failRatio", "id"])))
            node[new] = node.pop(key)
        else:
            node[key] = data.draw(anything)
        return


@settings(max_examples=1000, deadline=None)
@given(question=anything)
def test_whatever_comes_is_a_question_or_a_query_error(question: Any) -> None:
    for asked in (question, {"pipeline": question}, {"stage": question}, {"candidate": question}, {"sort": question}):
        try:
            parse(asked, CATALOG)
        except QueryError as error:
            json.dumps(error.as_dict(), ensure_ascii=False).encode()
