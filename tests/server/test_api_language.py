"""The query language over HTTP: explaining, selecting, aggregating, conditions in URLs, and whatever else comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.helpers import (
    OTHER_STAGE_ID,
    RUN_ID,
    STAGE_ID,
    candidates,
    error_of,
    in_service,
    row,
    run_end,
    run_start,
    stage,
)
from tests.service import KEPT
from xray_server.app import create_app
from xray_server.query.run import answer
from xray_server.settings import ServerSettings

EVENTS = [
    run_start(metadata={"team": "ads", "list": [{"a": 1}, {"a": 2}]}, tags=["x"]),
    stage(candidates=[row(n) for n in range(10)]),
    candidates(10, [row(n) for n in range(10, 30)]),
    stage(id=OTHER_STAGE_ID, stage_type="ranking", name="rank", order=1, started_at="2026-11-01T23:30:00Z"),
    run_end(),
]


def asking(folder, use, *events):
    async def run(client):
        response = await client.post("/v1/ingest", json={"events": [*EVENTS, *events]})
        assert response.status_code == 200, response.text
        await use(client)

    in_service(folder, run)


def test_a_question_is_explained_and_not_answered(tmp_path):
    """The answer says in English how the question was read, what is done, and which index serves it."""

    async def use(client):
        question = {
            "pipeline": {"label": {"$regex": "^comp"}, "started_at": {"$gte": "2026-11-01"}},
            "stage": {"type": "filtering", "$failRatio": {"$gt": 0.5}},
            "candidate": {"reason_label": "price_too_high"},
            "explain": True,
        }
        answer = (await client.post("/v1/query", json=question)).json()
        assert answer["rows"] == []
        explanation = answer["explanation"]
        assert explanation["question"] == (
            'Stages whose type is "filtering" and $failRatio is above 0.5 with a candidate whose reason_label is '
            '"price_too_high", of runs whose label has text that matches /^comp/ and started_at is at or after '
            "2026-11-01T00:00:00.000Z, the latest first, 50 at a time."
        )
        assert any("$regex" in step for step in explanation["steps"])
        assert explanation["indexed"] is True
        assert "the metric fail_ratio" in explanation["plan"]

    asking(tmp_path, use)


def test_rows_have_the_selected_fields(tmp_path):
    """And their ids; the cursor of an answer goes on with other fields too."""

    async def use(client):
        question = {"fields": ["name", "pipeline.label", "started_at"], "limit": 1, "sort": {"order": 1}}
        first = (await client.post("/v1/query", json=question)).json()
        assert first["rows"] == [
            {
                "id": STAGE_ID,
                "name": "price_filter",
                "pipeline": {"label": "competitor_discovery"},
                "started_at": "2026-11-01T00:00:01.000Z",
            }
        ]
        more = question | {"cursor": first["cursor"], "fields": ["type"]}
        assert (await client.post("/v1/query", json=more)).json()["rows"] == [{"id": OTHER_STAGE_ID, "type": "ranking"}]

    asking(tmp_path, use)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/stages?fail_ratio__gt=0.5", [STAGE_ID]),
        ("/v1/stages?failRatio__gt=0.9", []),
        ("/v1/stages?label_share.price_too_high__gte=0.3", [STAGE_ID]),
        ("/v1/stages?name__in=rank,other", [OTHER_STAGE_ID]),
        ("/v1/stages?name__ne=rank&type=filtering", [STAGE_ID]),
        ("/v1/stages?name__regex=^ra", [OTHER_STAGE_ID]),
        ("/v1/stages?fail_ratio__exists=false", [OTHER_STAGE_ID]),
        ("/v1/stages?order__lt=1", [STAGE_ID]),
        ("/v1/stages?pipeline.label=competitor_discovery&order=1", [OTHER_STAGE_ID]),
        ("/v1/stages?version=2026.11&order=1", [OTHER_STAGE_ID]),
        ("/v1/stages?metadata.none__exists=true", []),
        ("/v1/stages?started_at__gt=2026-11-01T12:00:00%2B00:00", [OTHER_STAGE_ID]),
        ("/v1/stages?pipeline.status=success&order=0", [STAGE_ID]),
        ("/v1/runs?duration_ms__gt=12", [RUN_ID]),
        ("/v1/runs?duration_ms__gt=13", []),
        ("/v1/runs?metadata.team=ads", [RUN_ID]),
        ("/v1/runs?metadata.list.a=2", [RUN_ID]),
        ("/v1/runs?tags=x", [RUN_ID]),
        ("/v1/runs?label__nin=a,b&status__ne=failure", [RUN_ID]),
    ],
)
def test_any_field_or_metric_may_stand_in_a_url(tmp_path, path, found):
    """With an operator behind ``__``, or for equality without one."""

    async def use(client):
        response = await client.get(path)
        assert response.status_code == 200, response.text
        assert [each["id"] for each in response.json()["rows"]] == found

    asking(tmp_path, use)


@pytest.mark.parametrize(
    ("path", "at", "said"),
    [
        ("/v1/stages?fail_rati__gt=1", "fail_rati__gt", "There is no parameter"),
        ("/v1/stages?nam=x", "nam", "'name'"),
        ("/v1/stages?fail_ratio__gtt=1", "fail_ratio__gtt", "'gt'"),
        ("/v1/stages?fail_ratio__gt=much", "fail_ratio__gt", "is a number"),
        ("/v1/stages?fail_ratio__gt=", "fail_ratio__gt", "is a number"),
        ("/v1/stages?started_at__gt=yesterday", "started_at__gt", "no time"),
        ("/v1/stages?name__exists=1", "name__exists", "true or false"),
        ("/v1/stages?name__regex=(", "name__regex", "not valid"),
        ("/v1/runs?status__in=success,broken", "status__in", "never 'broken'"),
        ("/v1/runs?fail_ratio__gt=1", "fail_ratio__gt", "There is no parameter"),
        ("/v1/runs?__gt=1", "__gt", "empty segment"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path, path, at, said):
    """With what would be right."""

    async def use(client):
        error = error_of(await client.get(path), 422)
        assert error["path"] == at, error
        assert said in f"{error['message']} {error['hint']}"

    asking(tmp_path, use)


QUESTIONS: list[dict[str, Any]] = [
    {
        "pipeline": {"label": {"$regex": "^comp", "$options": "i"}, "started_at": {"$gte": "2026-11-01T00:00:00Z"}},
        "stage": {
            "type": {"$in": ["filtering", None]},
            "$failRatio": {"$gt": 0.1},
            "$labelShare.x": {"$exists": False},
        },
        "candidate": {"verdict": "failed", "data.price": {"$mod": [4, 0], "$lt": 5e1}},
        "return": "candidates",
        "sort": {"$failRatio": -1},
        "fields": ["data", "score"],
        "limit": 5,
    },
    {
        "stages": [{"type": "filtering"}, {"$or": [{"name": "rank"}, {"order": {"$not": {"$gte": 1}}}]}],
        "pipeline": {
            "metadata.list": {"$all": [{"$elemMatch": {"a": 1}}], "$size": 2},
            "tags": {"$type": ["string", "array"]},
        },
        "return": "runs",
        "explain": False,
    },
]
AGGREGATIONS: list[dict[str, Any]] = [
    {
        "stage": {"type": "filtering"},
        "group_by": ["pipeline.label", "name"],
        "bucket": {"unit": "day", "timezone": "Europe/Berlin"},
        "values": {"n": {"$count": {}}, "p": {"$p90": "$failRatio"}, "s": {"$sum": "$labelCounts.price_too_high"}},
        "sort": {"n": -1},
        "limit": 10,
    }
]
ASKED = [("/v1/query", question) for question in QUESTIONS] + [("/v1/aggregate", each) for each in AGGREGATIONS]


async def result_or_422(client: httpx.AsyncClient, path: str, body: bytes) -> int:
    response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    if response.status_code == 400:
        assert error_of(response, 400)["code"] == "malformed_json"
    elif response.status_code == 422:
        error = error_of(response, 422)
        assert error["path"] is not None or error["message"] == "A question is a JSON object."
    else:
        assert response.status_code == 200, (body, response.text)
        assert set(response.json()) - {"explanation"} == {"rows", "cursor", "coverage"}
    return response.status_code


@pytest.mark.parametrize(("path", "question"), ASKED)
def test_every_prefix_of_a_question_has_an_answer_or_an_error(tmp_path, path, question):
    """As text, and as JSON that ends early and is closed again; the whole of it is answered."""

    async def use(client):
        text = json.dumps(question)
        statuses = set()
        for end in range(len(text)):
            prefix = text[:end]
            statuses.add(await result_or_422(client, path, prefix.encode()))
            await result_or_422(client, path, closed(prefix).encode())
        assert 200 not in statuses
        assert await result_or_422(client, path, text.encode()) == 200

    asking(tmp_path, use)


def closed(prefix: str) -> str:
    """A prefix of a JSON text with what is open in it closed."""
    stack, inside = [], False
    for character in prefix:
        if character == '"':
            inside = not inside
        elif not inside and character in "{[":
            stack.append("}" if character == "{" else "]")
        elif not inside and character in "}]":
            stack.pop()
    text = prefix + ('"' if inside else "")
    text = text.rstrip().removesuffix(",")
    if text.rstrip().endswith(":"):
        text += "null"
    return text + "".join(reversed(stack))


WORDS = [
    *("$gt", "$in", "$nin", "$not", "$and", "$or", "$nor", "$all", "$elemMatch", "$size", "$regex", "$options", "$mod"),
    *("$type", "$exists", "$where", "$failRatio", "$labelShare.x", "metrics.fail_ratio", "pipeline", "stage", "stages"),
    *("candidate", "return", "sort", "limit", "cursor", "fields", "explain", "name", "id", "started_at", "tags"),
    *("metadata.a.0.b", "metadata", "data", "seq", "score", "runs", "2026-11-01", "^a", "(?=a)", "[", "\0", "\ud800"),
    *("group_by", "bucket", "values", "$p50", "$sum", "day", "count", "unit", "timezone", "Europe/Berlin", "../x", "é"),
]
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, -(2**63), 1e308, 0.5, 10**25]),
    st.sampled_from(WORDS),
    st.text(max_size=4),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=8,
)


def mutated(node: Any, data: st.DataObject) -> Any:
    """A copy of a value with something replaced, left out, renamed, doubled or put in at a random place."""
    if isinstance(node, dict | list) and node and data.draw(st.integers(0, 3)):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        copy: Any = dict(node) if isinstance(node, dict) else list(node)
        action = data.draw(st.sampled_from(["into", "into", "into", "delete", "rename", "add"]))
        if action == "delete":
            del copy[key]
        elif action == "rename" and isinstance(copy, dict):
            copy[data.draw(st.sampled_from(WORDS))] = copy.pop(key)
        elif action == "add" and isinstance(copy, dict):
            copy[data.draw(st.sampled_from(WORDS))] = data.draw(anything)
        else:
            copy[key] = mutated(node[key], data)
        return copy
    return data.draw(anything)


def test_mutated_questions_have_an_answer_or_an_error(tmp_path):
    """Over a service with data, so that what is let through is also run."""
    app = create_app(ServerSettings(store=f"sqlite:///{tmp_path}/xray.sqlite3", **KEPT))
    answered = []

    async def run() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://xray") as client,
        ):
            assert (await client.post("/v1/ingest", json={"events": EVENTS})).status_code == 200
            loop = asyncio.get_running_loop()

            @settings(max_examples=1200, deadline=None, suppress_health_check=list(HealthCheck))
            @given(asked=st.sampled_from(ASKED), times=st.integers(1, 3), data=st.data())
            def check(asked: tuple[str, Any], times: int, data: st.DataObject) -> None:
                path, question = asked
                for _ in range(times):
                    question = mutated(question, data)
                body = json.dumps(question).encode()
                future = asyncio.run_coroutine_threadsafe(result_or_422(client, path, body), loop)
                answered.append(future.result(60))

            await asyncio.to_thread(check)

    asyncio.run(run())
    assert answered.count(200) > 50
    assert answered.count(422) > 300


def test_many_heavy_questions_leave_the_service_alive(tmp_path):
    """While fifty questions open every page of candidates, health is answered and events are stored."""

    async def use(client):
        many = [
            stage(id=f"01890000-0000-7000-8000-0000000002{number:02d}", candidates=[row(n) for n in range(600)])
            for number in range(40)
        ]
        assert (await client.post("/v1/ingest", json={"events": many})).status_code == 200
        heavy = {"candidate": {"data.price": {"$regex": "never"}}, "return": "candidates"}
        questions = [asyncio.create_task(client.post("/v1/query", json=heavy)) for _ in range(50)]
        await asyncio.sleep(0)
        assert (await client.get("/health")).json()["status"] == "ok"
        late = run_start(run={"id": "01890000-0000-7000-8000-000000000300"})
        assert (await client.post("/v1/ingest", json={"events": [late]})).json() == {"accepted": 1, "errors": []}
        assert not all(question.done() for question in questions), "the questions were too easy"
        for question in questions:
            answer = (await question).json()
            assert answer["rows"] == []
            assert answer["coverage"]["pages_opened"] > 100

    asking(tmp_path, use)


def test_a_question_beyond_its_budget_is_cut_with_a_cursor_that_leads_on(tmp_path, monkeypatch):
    """Each page of the answer says that it is not complete; together they are all of it."""
    monkeypatch.setattr("xray_server.query.run.answer.__kwdefaults__", {**answer.__kwdefaults__, "page_budget": 2})

    async def use(client):
        many = [
            stage(id=f"01890000-0000-7000-8000-0000000002{number:02d}", candidates=[row(n) for n in range(300)])
            for number in range(5)
        ]
        assert (await client.post("/v1/ingest", json={"events": many})).status_code == 200
        question = {"candidate": {"data.price": {"$in": [1, 298]}}, "return": "candidates", "cursor": None}
        found, cut = [], 0
        for _ in range(50):
            page = (await client.post("/v1/query", json=question)).json()
            found += page["rows"]
            cut += not page["coverage"]["complete"]
            question["cursor"] = page["cursor"]
            if page["cursor"] is None:
                break
        assert len(found) == 6 * 1 + 5
        assert cut >= 4

    asking(tmp_path, use)
