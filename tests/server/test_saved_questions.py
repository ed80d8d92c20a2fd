"""Questions under a name: what is refused when it is saved, what is put in when it is asked, and over HTTP."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.helpers import STAGE_ID, error_of, in_service, row, run_end, run_start, stage
from tests.server.query.catalogs import catalog
from tests.server.test_api_language import closed, mutated
from xray.exceptions import QueryError
from xray.ids import now_ms
from xray.metrics import Metric
from xray_server.query.fields import MetricCatalog
from xray_server.query.parser import parse
from xray_server.query.values import parse_time
from xray_server.questions.parameters import SAMPLES
from xray_server.questions.saved import MAX_NAME, SavedQuestion, parse_saved, save
from xray_server.stores.sqlite import SqliteStore

CATALOG = catalog()

STRICT: dict[str, Any] = {
    "description": "Filters that drop nearly everything.",
    "question": {
        "pipeline": {"started_at": {"$gte": {"$param": "since"}}},
        "stage": {"name": {"$in": {"$param": "names"}}, "$failRatio": {"$gt": {"$param": "above"}}},
        "limit": {"$param": "rows"},
    },
    "parameters": {
        "since": {"type": "time", "default": "3650d"},
        "names": {"type": "strings", "default": ["price_filter"], "description": "Of stages."},
        "above": {"type": "number"},
        "rows": {"type": "integer", "default": 10},
    },
}
FIGURES: dict[str, Any] = {
    "aggregate": {
        "stage": {"type": {"$param": "type"}},
        "group_by": [{"$param": "by"}],
        "bucket": {"unit": {"$param": "unit"}, "timezone": "Europe/Berlin"},
        "values": {"worst": {"$max": {"$param": "metric"}}, "stages": {"$count": {}}},
    },
    "parameters": {
        "type": {"type": "string", "default": "filtering"},
        "by": {"type": "string"},
        "unit": {"type": "string"},
        "metric": {"type": "string"},
    },
}


def saved(body: Any, name: str = "one") -> SavedQuestion:
    return parse_saved(name, body, CATALOG)


def refused(body: Any, name: str = "one") -> QueryError:
    with pytest.raises(QueryError) as caught:
        saved(body, name)
    return caught.value


def at(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The body with another value at a path; None removes what is there."""
    changed = copy.deepcopy(body)
    *way, last = path.split("/")
    inner = changed
    for step in way:
        inner = inner[step]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return changed


# --- saving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [STRICT, FIGURES, {"question": {}}, {"aggregate": {}}])
def test_what_is_kept_is_what_was_given(body: dict[str, Any]) -> None:
    """Placeholders, defaults and descriptions included; saving what is kept once more is the same."""
    document = saved(body).document()
    assert document == {"parameters": {}, **body}
    assert saved(document).document() == document


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("question/stage/naem", "x", "question.stage.naem", "Did you mean 'name'?"),
        ("question/stage/$failRatoi", 1, "question.stage.$failRatoi", "Did you mean '$failRatio'?"),
        ("question/stage/$failRatio", {"$gtt": {"$param": "above"}}, "question.stage.$failRatio.$gtt", "'$gt'"),
        ("question/stage/type", {"$param": "above"}, "question.stage.type", "is text"),
        ("question/stage/type", {"$param": "abvoe"}, "question.stage.type", "Did you mean 'above'?"),
        ("question/stage/type", {"$param": "above", "$gt": 1}, "question.stage.type", "A placeholder is"),
        ("question/stage/type", {"$param": 3}, "question.stage.type", "A placeholder is"),
        ("question/cursor", "abc", "question.cursor", "first row"),
        ("question/stage/type", {"$where": "1"}, "question.stage.type.$where", "never run code"),
        ("question", [], "question", "A question is a JSON object"),
        ("aggregate", {}, "aggregate", "either"),
        ("question", None, None, "either"),
        ("parameters/above/type", "nubmer", "parameters.above.type", "Did you mean 'number'?"),
        ("parameters/above/type", None, "parameters.above.type", "has a type"),
        ("parameters/above/typ", "number", "parameters.above.typ", "Did you mean 'type'?"),
        ("parameters/above", "number", "parameters.above", "declared by an object"),
        ("parameters/above/default", "high", "parameters.above.default", "is a number"),
        ("parameters/above/default", True, "parameters.above.default", "is a number"),
        ("parameters/rows/default", 1.5, "parameters.rows.default", "whole number"),
        ("parameters/rows/default", 0, "parameters.rows.default", "'limit' is an integer from 1"),
        ("parameters/since/default", "yesterday", "parameters.since.default", "7d"),
        ("parameters/names/default", ["a", 1], "parameters.names.default", "list of texts"),
        ("parameters/names/default", ["a\0"], "parameters.names.default[0]", "NUL"),
        ("parameters/unused", {"type": "string"}, "parameters.unused", "Nothing in the question"),
        ("parameters/a b", {"type": "string"}, "parameters.a b", "cannot have the name"),
        ("parameters", [], "parameters", "is an object"),
        ("description", 5, "description", "is text"),
        ("descripton", "x", "descripton", "Did you mean 'description'?"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(path: str, value: Any, where: str | None, says: str) -> None:
    """In the question, at a parameter, or beside both."""
    error = refused(at(STRICT, path, value))
    assert error.path == where
    assert says in str(error)


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_what_is_no_object_is_refused(body: Any) -> None:
    """Whatever it is."""
    assert "JSON object" in str(refused(body))


@pytest.mark.parametrize("name", ["", " ", "a/b", "a ", ".a", "-", "a\n", "a\0", "x" * (MAX_NAME + 1), "a%b", "a?"])
def test_bad_names_are_refused(name: str) -> None:
    """Those that an address could not hold, or nobody could tell from another."""
    error = refused({"question": {}}, name)
    assert (error.code, error.path) == ("bad_name", "name")


@pytest.mark.parametrize("name", ["a", "7", "Worst filters", "größte", "日本", "a.b-c_d+e", "x" * MAX_NAME])
def test_good_names_are_taken(name: str) -> None:
    """Words of any language."""
    assert saved({"question": {}}, name).name == name


@pytest.mark.parametrize(
    ("asked", "type_"),
    [
        ({"pipeline": {"id": {"$param": "p"}}}, "string"),
        ({"pipeline": {"status": {"$param": "p"}}}, "string"),
        ({"candidate": {"verdict": {"$in": {"$param": "p"}}}}, "strings"),
        ({"pipeline": {"started_at": {"$lt": {"$param": "p"}}}}, "time"),
        ({"pipeline": {"started_at": {"$lt": {"$param": "p"}}}}, "string"),
        ({"stage": {"name": {"$exists": {"$param": "p"}}}}, "boolean"),
        ({"pipeline": {"metadata.a": {"$mod": {"$param": "p"}}}}, "numbers"),
        ({"sort": {"$failRatio": {"$param": "p"}}}, "integer"),
        ({"fields": {"$param": "p"}}, "strings"),
        ({"return": {"$param": "p"}}, "string"),
        ({"stage": {"name": {"$regex": "a", "$options": {"$param": "p"}}}}, "string"),
    ],
)
def test_a_parameter_without_a_default_may_stand_wherever_a_value_of_its_type_does(asked: Any, type_: str) -> None:
    """For each place there is a value to try it with."""
    found = saved({"question": asked, "parameters": {"p": {"type": type_}}})
    with pytest.raises(QueryError, match="has to be given"):
        found.ask({})


def test_two_parameters_are_tried_together() -> None:
    """One's value does not fit, then the other's; and where none fits, the first problem is told."""
    asked = {"pipeline": {"id": {"$param": "a"}, "status": {"$param": "b"}}}
    declared = {"a": {"type": "string"}, "b": {"type": "string"}}
    assert saved({"question": asked, "parameters": declared}).form == "question"
    error = refused({"question": asked, "parameters": declared | {"b": {"type": "number"}}})
    assert error.path == "question.pipeline.status"


def test_nesting_beyond_all_bounds_is_refused() -> None:
    """As deep as JSON can be read."""
    deep: Any = {}
    for _ in range(600):
        deep = {"a": [deep]}
    assert refused({"question": deep}).code == "too_large"


# --- asking -----------------------------------------------------------------------------------------------------


def test_values_and_defaults_are_put_in() -> None:
    """What is asked is a question of the language; a stretch of time is so long ago."""
    before = now_ms()
    asked = saved(STRICT).ask({"above": 0.5, "rows": None})
    since = asked["pipeline"]["started_at"].pop("$gte")
    asked["pipeline"] = {}
    assert asked == {
        "pipeline": {},
        "stage": {"name": {"$in": ["price_filter"]}, "$failRatio": {"$gt": 0.5}},
        "limit": 10,
    }
    ago = 3650 * 86_400_000
    assert before - ago <= (parse_time(since) or 0) <= now_ms() - ago
    parse(asked, CATALOG)


def test_asking_changes_nothing_that_is_saved() -> None:
    """The lists and objects of an answer are its own."""
    found = saved(STRICT)
    asked = found.ask({"above": 1})
    asked["stage"]["name"]["$in"].append("other")
    asked["stage"].clear()
    assert found.ask({"above": 1})["stage"]["name"]["$in"] == ["price_filter"]
    assert found.document() == STRICT


@pytest.mark.parametrize(
    ("given", "code", "path", "says"),
    [
        ({}, "missing_parameter", "parameters.above", "has to be given"),
        ({"above": 1, "abov": 1}, "unknown_parameter", "parameters.abov", "Did you mean 'above'?"),
        ({"above": 1, "qqq": 1}, "unknown_parameter", "parameters.qqq", "There are since, names, above, rows."),
        ({"above": "1"}, "wrong_type", "parameters.above", "is a number"),
        ({"above": {"$gt": 1}}, "bad_query", "parameters.above.$gt", "operator"),
        ({"above": None}, "missing_parameter", "parameters.above", "has to be given"),
        ({"above": float("nan")}, "bad_query", "parameters.above", "NaN"),
        ({"above": 1, "names": "a"}, "wrong_type", "parameters.names", "list of texts"),
        ({"above": 1, "since": "soon"}, "wrong_type", "parameters.since", "7d"),
    ],
)
def test_bad_values_are_refused_by_their_names(given: Any, code: str, path: str, says: str) -> None:
    """A value never becomes an operator."""
    with pytest.raises(QueryError) as caught:
        saved(STRICT).ask(given)
    assert (caught.value.code, caught.value.path) == (code, path)
    assert says in str(caught.value)


@pytest.mark.parametrize("type_", SAMPLES)
def test_each_type_takes_its_own_values_only(type_: str) -> None:
    """Those that are tried are of the type; true is no number, a number no text."""
    asked = {"question": {"pipeline": {"metadata.a": {"$in": [{"$param": "p"}]}}}}
    found = saved(asked | {"parameters": {"p": {"type": type_}}})
    others = {
        "string": 1,
        "number": True,
        "integer": True,
        "boolean": 1,
        "time": 1.5,
        "strings": "a",
        "numbers": [True],
    }
    for value in SAMPLES[type_]:
        assert found.ask({"p": value})["pipeline"]["metadata.a"]["$in"] == [value]
    with pytest.raises(QueryError):
        found.ask({"p": others[type_]})


def test_a_question_is_asked_with_a_placeholder_only_by_its_name() -> None:
    """The language itself has none; the error says where it belongs."""
    for part in ({"type": {"$param": "x"}}, {"$param": 1}, {"$failRatio": {"$gt": {"$param": "x"}}}):
        with pytest.raises(QueryError) as caught:
            parse({"stage": part}, CATALOG)
        assert caught.value.path is not None
    with pytest.raises(QueryError, match="saved question"):
        parse({"stage": {"type": {"$param": "x"}}}, CATALOG)


# --- over HTTP --------------------------------------------------------------------------------------------------

EVENTS = [run_start(), stage(candidates=[row(n) for n in range(30)]), run_end()]


def asking(folder, use):
    async def run(client):
        assert (await client.post("/v1/ingest", json={"events": EVENTS})).status_code == 200
        await use(client)

    in_service(folder, run)


def test_a_question_is_saved_listed_asked_and_deleted(tmp_path):
    """By its name, which an address may have to encode."""

    async def use(client):
        url = "/v1/questions/Strict%20filters"
        kept = (await client.put(url, json=STRICT)).json()
        assert {key: kept[key] for key in ("name", *STRICT)} == {"name": "Strict filters", **STRICT}
        assert kept["created_at"] == kept["updated_at"]
        assert (await client.put(url, json=STRICT)).json() == kept
        assert (await client.get(url)).json() == kept
        await client.put("/v1/questions/figures", json=FIGURES)
        rows = (await client.get("/v1/questions")).json()["rows"]
        assert [each["name"] for each in rows] == ["Strict filters", "figures"]

        found = (await client.post(f"{url}/run", json={"parameters": {"above": 0.5}})).json()
        assert [each["id"] for each in found["rows"]] == [STAGE_ID]
        again = (await client.post("/v1/query", json=found["question"])).json()
        assert again["rows"] == found["rows"]
        assert (await client.post(f"{url}/run", json={"parameters": {"above": 0.9}})).json()["rows"] == []

        figures = {"parameters": {"by": "pipeline.label", "unit": "day", "metric": "$failRatio"}}
        found = (await client.post("/v1/questions/figures/run", json=figures)).json()
        assert found["rows"] == [
            {
                "group": {"pipeline.label": "competitor_discovery"},
                "bucket": "2026-11-01T00:00:00+01:00",
                "values": {"worst": 2 / 3, "stages": 1},
            }
        ]
        assert found["aggregate"]["group_by"] == ["pipeline.label"]

        assert (await client.delete(url)).json() == {"deleted": "Strict filters"}
        assert error_of(await client.delete(url), 404)["code"] == "unknown_question"
        assert error_of(await client.get(url), 404)["code"] == "unknown_question"

    asking(tmp_path, use)


def test_pages_go_on_with_the_question_as_it_was_asked(tmp_path):
    """Also where a parameter is a stretch of time, which is another moment each time it is asked."""

    async def use(client):
        body = {
            "question": {
                "pipeline": {"started_at": {"$gte": {"$param": "since"}}},
                "candidate": {},
                "return": "candidates",
            },
            "parameters": {"since": {"type": "time", "default": "9000d"}},
        }
        await client.put("/v1/questions/all", json=body)
        found = (await client.post("/v1/questions/all/run", json={"limit": 20})).json()
        await asyncio.sleep(0.002)
        more = (await client.post("/v1/query", json=found["question"] | {"cursor": found["cursor"]})).json()
        assert [each["seq"] for each in found["rows"] + more["rows"]] == list(range(30))

    asking(tmp_path, use)


def test_explaining_a_saved_question(tmp_path):
    """Says how the question with its values is read; of figures too."""

    async def use(client):
        await client.put("/v1/questions/strict", json=STRICT)
        await client.put("/v1/questions/figures", json=FIGURES)
        asked = {"parameters": {"above": 0.25}, "explain": True}
        found = (await client.post("/v1/questions/strict/run", json=asked)).json()
        assert "$failRatio is above 0.25" in found["explanation"]["question"]
        assert "explain" not in found["question"]
        given = {"by": "name", "unit": "day", "metric": "$failRatio"}
        found = (await client.post("/v1/questions/figures/run", json={"parameters": given, "explain": True})).json()
        assert found["explanation"]["question"].startswith("max of $failRatio, count over stages whose type is")

    asking(tmp_path, use)


def test_errors_over_http_name_the_place(tmp_path):
    """Of what is saved, of what is given, and of a name that is nearly right."""

    async def use(client):
        bad = at(STRICT, "question/stage/naem", "x")
        assert error_of(await client.put("/v1/questions/strict", json=bad), 422)["path"] == "question.stage.naem"
        assert error_of(await client.get("/v1/questions/strict"), 404)["hint"] is None
        await client.put("/v1/questions/strict", json=STRICT)
        assert error_of(await client.get("/v1/questions/strct"), 404)["hint"] == "Did you mean 'strict'?"
        url = "/v1/questions/strict/run"
        for body, path in (
            ({}, "parameters.above"),
            ({"parameters": []}, "parameters"),
            ({"parameters": {"above": 1, "rows": 5000}}, "parameters.rows"),
            ({"parameters": {"above": 1}, "limit": 5000}, "limit"),
            ({"parameters": {"above": 1}, "limit": "x"}, "limit"),
            ({"parameters": {"above": 1}, "explain": 1}, "explain"),
            ({"paramters": {}}, "paramters"),
            ([], None),
        ):
            assert error_of(await client.post(url, json=body), 422)["path"] == path, body

    asking(tmp_path, use)


def test_the_place_of_a_question_that_is_no_longer_one(tmp_path):
    """A metric that is gone, with its plugin, is named where it stands in what was saved."""
    body = {"question": {"stage": {"$oddness": {"$gte": {"$param": "p"}}}}, "parameters": {"p": {"type": "number"}}}

    async def keep():
        store = SqliteStore(tmp_path / "xray.sqlite3")
        await store.open()
        await save(store, "default", "odd", body, MetricCatalog({"odd": [Metric("oddness", "ratio", "How odd.")]}))
        await store.close()

    async def use(client):
        response = await client.post("/v1/questions/odd/run", json={"parameters": {"p": 1}})
        error = error_of(response, 422)
        assert (error["code"], error["path"]) == ("unknown_metric", "question.stage.$oddness")

    asyncio.run(keep())
    asking(tmp_path, use)


def test_there_are_so_many_and_no_more(tmp_path, monkeypatch):
    """One that is there already can be changed all the same."""
    monkeypatch.setattr("xray_server.questions.saved.MAX_QUESTIONS", 2)

    async def use(client):
        for name, status in (("a", 200), ("b", 200), ("c", 422), ("a", 200)):
            assert (await client.put(f"/v1/questions/{name}", json={"question": {}})).status_code == status

    asking(tmp_path, use)


# --- whatever else comes ----------------------------------------------------------------------------------------


async def saved_or_refused(client: httpx.AsyncClient, body: bytes) -> int:
    """The status of saving; what is saved is also asked, with what stands in for parameters."""
    headers = {"Content-Type": "application/json"}
    response = await client.put("/v1/questions/one", content=body, headers=headers)
    if response.status_code == 400:
        assert error_of(response, 400)["code"] == "malformed_json"
    elif response.status_code == 422:
        error = error_of(response, 422)
        assert (
            error["path"] is not None or "either a 'question'" in error["message"] or "JSON object" in error["message"]
        )
    else:
        assert response.status_code == 200, (body, response.text)
        declared = response.json()["parameters"]
        given = {name: SAMPLES[each["type"]][0] for name, each in declared.items() if "default" not in each}
        asked = await client.post("/v1/questions/one/run", json={"parameters": given})
        assert asked.status_code in (200, 422), (body, asked.text)
        if asked.status_code == 422:
            assert error_of(asked, 422)["path"].startswith("parameters."), (body, asked.text)
    return response.status_code


@pytest.mark.parametrize("body", [STRICT, FIGURES])
def test_every_prefix_of_what_is_saved_is_saved_or_refused(tmp_path, body):
    """As text, and as JSON that ends early and is closed again; the whole of it is saved."""

    async def use(client):
        text = json.dumps(body)
        for end in range(len(text)):
            assert await saved_or_refused(client, text[:end].encode()) in (400, 422)
            await saved_or_refused(client, closed(text[:end]).encode())
        assert await saved_or_refused(client, text.encode()) == 200

    asking(tmp_path, use)


def test_mutated_bodies_are_saved_or_refused(tmp_path):
    """What is saved can be asked, but for values that do not fit."""
    statuses = []

    async def use(client):
        loop = asyncio.get_running_loop()

        @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
        @given(body=st.sampled_from([STRICT, FIGURES]), times=st.integers(1, 2), data=st.data())
        def check(body, times, data):
            for _ in range(times):
                body = mutated(body, data)
            sent = saved_or_refused(client, json.dumps(body).encode())
            statuses.append(asyncio.run_coroutine_threadsafe(sent, loop).result(60))

        await asyncio.to_thread(check)

    asking(tmp_path, use)
    assert 200 in statuses
    assert statuses.count(422) > 100
