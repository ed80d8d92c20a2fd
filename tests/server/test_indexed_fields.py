"""``index=``: questions about declared fields open only pages that can match, and never miss a candidate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mongodb import Databases
from tests.server.helpers import error_of
from tests.server.query.random_filters import Maker
from tests.service import KEPT
from xray.stage_types.base import Columns
from xray_server.app import create_app
from xray_server.pages import PAGE_SIZE, merge_pages, paginate
from xray_server.query import ast
from xray_server.query.evaluate import compile_condition
from xray_server.query.fields import MetricCatalog
from xray_server.query.parser import parse_condition
from xray_server.settings import ServerSettings
from xray_server.tables import as_table
from xray_server.zones import MAX_MARKS, declared_fields, may_match, zones_of

Use = Callable[[httpx.AsyncClient], Awaitable[Any]]


@pytest.fixture(params=["sqlite", "mongodb"])
def in_either_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Use], Any]:
    """Use a service in this process on each of the stores."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/xray.sqlite3"
    else:
        databases: Databases = request.getfixturevalue("databases")
        url = databases.url(tmp_path)

    def run(use: Use) -> Any:
        async def running() -> Any:
            app = create_app(ServerSettings(store=url, **KEPT))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://xray") as client,
            ):
                return await use(client)

        return asyncio.run(running())

    return run


def stage_id(number: int) -> str:
    return f"01890000-0000-7000-8000-{number:012d}"


def event(number: int, rows: list[dict[str, Any]], indexed: Any = None, **fields: Any) -> dict[str, Any]:
    run = {"id": stage_id(999_999), "label": "shop", "started_at": "2026-11-01T00:00:00Z"}
    facts = {} if indexed is None else {"facts": {"indexed": indexed}}
    return {
        "type": "stage", "id": stage_id(number), "run": run, "name": "price_filter", "stage_type": "filtering",
        "order": number, "started_at": "2026-11-01T00:00:01Z", "candidates": rows,
    } | facts | fields  # fmt: skip


PRICE = [{"name": "price", "path": "data.price"}]
BOTH = [*PRICE, {"name": "data.brand", "path": "data.brand"}]


def products(low: int, count: int, brand: str = "acme") -> list[dict[str, Any]]:
    """Candidates with ascending prices."""
    return [
        {"id": f"p{low + n}", "verdict": "passed", "data": {"price": low + n, "brand": brand}} for n in range(count)
    ]


async def send(client: httpx.AsyncClient, *events: dict[str, Any]) -> None:
    response = await client.post("/v1/ingest", json={"events": list(events)})
    assert response.status_code == 200, response.text


async def ask(client: httpx.AsyncClient, candidate: dict[str, Any], **more: Any) -> tuple[list[str], dict[str, Any]]:
    """The ids of all candidates that satisfy a condition, and the coverage of the answer."""
    question = {"candidate": candidate, "return": "candidates", "limit": 1000} | more
    response = await client.post("/v1/query", json=question)
    assert response.status_code == 200, response.text
    answer = response.json()
    return sorted(row["candidate_id"] for row in answer["rows"]), answer["coverage"]


@pytest.mark.parametrize("name", ["data.price", "price"])
def test_only_pages_that_can_match_are_opened(in_either_store, name):
    """Of ten stages and of one stage's four pages, by the path and by the declared name."""

    async def use(client):
        await send(client, *(event(n, products(n * 100, 50), BOTH) for n in range(10)))
        await send(client, event(50, products(10_000, 4 * PAGE_SIZE), BOTH))
        for condition, expected, opened in (
            ({name: {"$lt": 50}}, range(50), 1),
            ({name: {"$gte": 149, "$lt": 201}}, (149, 200), 2),
            ({name: 320}, (320,), 1),
            ({name: {"$in": [5, 905]}}, (5, 905), 2),
            ({name: {"$gt": 10_000 + 4 * PAGE_SIZE}}, (), 0),
            ({name: {"$gte": 10_000 + 4 * PAGE_SIZE - 1}}, (10_000 + 4 * PAGE_SIZE - 1,), 1),
            ({name: {"$gt": "a"}}, (), 0),
            ({"$or": [{name: {"$lt": 1}}, {name: 10_000}]}, (0, 10_000), 2),
        ):
            found, coverage = await ask(client, condition)
            assert found == sorted(f"p{price}" for price in expected), condition
            assert coverage["pages_opened"] == opened, condition

    in_either_store(use)


def test_texts_are_found_by_their_marks(in_either_store):
    """A brand that a page does not have opens it not, but for one text in some hundreds that has the same mark."""

    async def use(client):
        await send(client, *(event(n, products(n * 10, 10, f"brand {n}"), BOTH) for n in range(20)))
        found, coverage = await ask(client, {"data.brand": "brand 7"})
        assert found == [f"p{70 + n}" for n in range(10)]
        assert 1 <= coverage["pages_opened"] <= 2
        assert (await ask(client, {"data.brand": {"$regex": "^brand 1"}}))[0] == sorted(
            f"p{n}" for n in (*range(10, 20), *range(100, 200))
        )
        assert (await ask(client, {"data.brand": {"$lt": 5}}))[1]["pages_opened"] == 0

    in_either_store(use)


def test_stages_that_do_not_declare_the_field_are_opened(in_either_store):
    """Some declare it and others do not: all candidates are found, and the undeclared cost a look."""

    async def use(client):
        await send(client, *(event(n, products(n * 100, 10), PRICE if n % 2 else None) for n in range(8)))
        found, coverage = await ask(client, {"price": {"$lt": 205}})
        assert found == sorted(f"p{n}" for n in (*range(10), *range(100, 110), *range(200, 205)))
        assert coverage["pages_opened"] == 4 + 1

    in_either_store(use)


def test_candidates_that_come_apart_from_their_stage(in_either_store):
    """Before it or after it, in one page or several; with the declaration in each event only what can match opens."""

    async def use(client):
        rows = products(0, 2 * PAGE_SIZE)
        part = {"type": "candidates", "id": stage_id(1), "run": event(1, [])["run"], "facts": {"indexed": PRICE}}
        await send(client, part | {"from_seq": 300, "candidates": rows[300:]})
        await send(client, event(1, rows[:100], PRICE, capture={"mode": "full", "seen": 512, "kept": 512}))
        await send(client, part | {"from_seq": 100, "candidates": rows[100:300]})
        found, coverage = await ask(client, {"price": {"$lt": 3}})
        assert found == ["p0", "p1", "p2"]
        assert coverage["pages_opened"] == 1
        # Without a declaration: a part of the first page has none, which changes what is kept of the whole page only.
        await send(client, {**part, "facts": None, "from_seq": 0, "candidates": [
            {"id": "late", "data": {"price": -5}}, *rows[1:3],
        ]})  # fmt: skip
        assert (await ask(client, {"price": {"$lt": 3}}))[0] == ["p0", "p1", "p2"]

    in_either_store(use)


def test_a_name_that_stands_for_two_paths_is_refused(in_either_store):
    """The error names both; the paths themselves go on working, and a near name is suggested."""

    async def use(client):
        await send(client, event(1, products(0, 3), PRICE))
        response = await client.post("/v1/query", json={"candidate": {"prise": 1}})
        assert error_of(response, 422)["hint"] == "Did you mean 'price'?"
        other = [{"name": "price", "path": "output.price"}]
        await send(client, event(2, products(10, 3), other, stage_type="scoring"))
        error = error_of(await client.post("/v1/query", json={"candidate": {"price": 1}}), 422)
        assert error["code"] == "ambiguous_field"
        assert error["path"] == "candidate.price"
        assert "data.price, output.price" in error["hint"]
        assert (await ask(client, {"data.price": 1}))[0] == ["p1"]

    in_either_store(use)


@pytest.mark.parametrize("seed", range(3))
def test_random_questions_have_the_answers_of_brute_force(in_either_store, seed):
    """Over hostile values, of stages that declare some of the fields, in pages that were put together."""
    maker, rng = Maker(seed), random.Random(seed)
    fields = [{"name": name, "path": name} for name in ("data.a", "data.b", "data.a.b", "data.c.0")]
    everything: dict[str, list[dict[str, Any]]] = {}

    async def use(client):
        for number in range(40):
            rows = [{"id": f"{number}.{n}"} | maker.candidate() for n in range(rng.choice((1, 3, 12)))]
            everything[stage_id(number)] = rows
            declared = rng.sample(fields, rng.randint(0, len(fields)))
            cut = rng.randint(0, len(rows))
            capture = {"mode": "full", "seen": len(rows), "kept": len(rows)}
            late = {"type": "candidates", "id": stage_id(number), "run": event(1, [])["run"], "from_seq": cut,
                    "candidates": rows[cut:]}  # fmt: skip
            if rng.random() < 0.5:
                late["facts"] = {"indexed": rng.sample(fields, 2)}
            batches = [[event(number, rows[:cut], declared, capture=capture)], [late]]
            rng.shuffle(batches)
            for batch in batches:
                await send(client, *batch)
        answer = (await client.post("/v1/query", json={"candidate": {}, "return": "candidates", "limit": 1000})).json()
        stored = answer["rows"]
        assert len(stored) == sum(map(len, everything.values()))
        asked = matched = 0
        for _ in range(60):
            filter_ = maker.filter(stored, {"verdict": ("passed", "failed")}, "data")
            response = await client.post(
                "/v1/query", json={"candidate": filter_, "return": "candidates", "limit": 1000}
            )
            if response.status_code == 422:
                continue  # the maker makes some that are not of the language
            holds = compile_condition(parse_condition("candidate", filter_, MetricCatalog()))
            expected = sorted(row["candidate_id"] for row in stored if holds(row))
            assert sorted(row["candidate_id"] for row in response.json()["rows"]) == expected, filter_
            asked += 1
            matched += bool(expected)
        assert asked > 30
        assert matched > 10

    in_either_store(use)


# --- zones ------------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from(["", "a", "b", "é"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=2),
    max_leaves=6,
)
paths = st.lists(st.sampled_from(["a", "b", "0", "1"]), max_size=2).map(lambda way: ".".join(["data", "a", *way]))
operators = st.one_of(
    st.builds(ast.Compare, st.sampled_from(["eq", "gt", "gte", "lt", "lte"]), values),
    st.builds(ast.In, st.lists(values, max_size=3).map(tuple)),
    st.builds(ast.Exists, st.booleans()),
)


@settings(max_examples=500, deadline=None)
@given(candidates=st.lists(values, max_size=4), path=paths, operator=operators, by_field=st.booleans())
def test_a_zone_never_denies_what_a_page_holds(candidates, path, operator, by_field):
    """Whatever the values, the path and the operator: where the evaluator finds one, the zone lets the page through."""
    data: Any = [{"a": value} for value in candidates]
    test = ast.Test(ast.Field(tuple(path.split("."))), operator)
    holds = compile_condition(test)
    zones = zones_of({"data": (as_table(data) if by_field else None) or data}, [path])
    if any(holds({"data": row}) for row in data):
        assert may_match(test, zones)
        assert may_match(ast.And((test, ast.Not(ast.Not(test)))), zones)
        assert may_match(ast.Or((ast.NOTHING, test)), zones)


def test_more_texts_than_a_page_keeps_marks_of_count_as_any():
    page = [{"words": [f"w{n}" for n in range(MAX_MARKS + 1)]}]
    (zone,) = zones_of({"data": page}, ["data.words"]).values()
    assert zone.marks is None
    assert zone.may_hold(ast.Compare("eq", "nowhere"))
    assert not zone.may_hold(ast.Compare("eq", 1))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (None, {}), ({}, {}), ({"indexed": 3}, {}), ({"indexed": [3, {"path": 4}, {"path": "a..b"}, {"path": ""}]}, {}),
        ({"indexed": [{"path": "data.a"}]}, {"data.a": "data.a"}),
        ({"indexed": [{"path": "data.a", "name": 5}]}, {"data.a": "data.a"}),
        ({"indexed": [{"path": "data." + "x" * 300}]}, {}),
    ],
)  # fmt: skip
def test_what_a_sender_declares_is_not_trusted(facts, expected):
    """Any service takes events from any sender: what is malformed is no declaration."""
    assert declared_fields(facts) == expected


def test_a_sender_cannot_declare_without_bound():
    fields = [{"path": f"data.f{n}", "name": f"f{n}"} for n in range(1000)]
    assert len(declared_fields({"indexed": fields})) == 16


def test_merging_makes_zones_anew_only_where_something_is_new():
    """The same candidates with the same declarations are the same page, which no store writes again."""
    columns = Columns(["a", "b"], {"data": [{"x": 1}, {"x": 2}]})
    (page,) = paginate("r", "s", 1, columns, indexed=["data.x"])
    (again,) = paginate("r", "s", 1, columns)
    assert merge_pages(page, again) is page
    merged = merge_pages(again, page)
    assert merged is not again
    assert (merged.zones, merged) == (page.zones, page)
