"""Random filters over random documents: the evaluator, both stores, the judge and MongoDB give the same ids.

Each seed is a batch of documents and of filters; every filter is put to all of them.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from tests.judge import judge
from tests.mongodb import Databases
from tests.server.query.random_filters import LABELS, STARTED, Maker, smaller
from xray.exceptions import QueryError
from xray.stage_types.base import Columns
from xray_server.pages import paginate
from xray_server.query import ast
from xray_server.query.describe import describe_condition
from xray_server.query.evaluate import compile_condition
from xray_server.query.fields import MetricCatalog
from xray_server.query.parser import parse, parse_condition
from xray_server.query.run import answer
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.sqlite import SqliteStore

CATALOG = MetricCatalog()
SEEDS = range(20)
FILTERS = 1000
DOCUMENTS = 16
OWN_OF_RUNS: dict[str, tuple[Any, ...]] = {
    "label": LABELS,
    "tags": ("a", "ab", "é"),
    "duration_ms": (0, 1, 1.0, 1.5, 12),
    "started_at": STARTED,
}
OWN_OF_CANDIDATES: dict[str, tuple[Any, ...]] = {
    "verdict": ("passed", "failed"),
    "reason_label": ("cheap", "dear", "é"),
    "score": (0, 0.5, 1, -2.5),
}
Case = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def batch_of(seed: int) -> Case:
    """The documents and the filters that a seed names; filters that the language refuses are not among them."""
    maker = Maker(seed)
    documents = [maker.run() for _ in range(DOCUMENTS)]
    filters: list[dict[str, Any]] = []
    while len(filters) < FILTERS:
        made = maker.filter(documents, OWN_OF_RUNS, "metadata")
        try:
            parse_condition("pipeline", made, CATALOG)
        except QueryError:
            continue
        filters.append(made)
    return documents, filters


def name(number: int) -> str:
    return str(uuid.UUID(int=0x0190 << 112 | 7 << 76 | 2 << 62 | number))


def shrunk(filter_: Any, document: Any, differs: Callable[[Any, Any], bool]) -> tuple[Any, Any]:
    """The smallest filter and document, by leaving parts out, of which two answers still differ."""

    def fails(one: Any, other: Any) -> bool:
        try:
            return differs(one, other)
        except (QueryError, ValueError, TypeError, IndexError):
            return False

    while True:
        for less, same in ((less, document) for less in smaller(filter_)):
            if fails(less, same):
                filter_ = less
                break
        else:
            for less in smaller(document):
                if fails(filter_, less):
                    document = less
                    break
            else:
                return filter_, document


def evaluated(filter_: dict[str, Any], document: dict[str, Any]) -> bool:
    return compile_condition(parse_condition("pipeline", filter_, CATALOG))(document)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_evaluator_and_the_judge_agree(seed: int) -> None:
    """On every filter and every document; and a fair part of the filters matches something, not everything."""
    documents, filters = batch_of(seed)
    telling = 0
    for filter_ in filters:
        holds = compile_condition(parse_condition("pipeline", filter_, CATALOG))
        found = [holds(document) for document in documents]
        for document, verdict in zip(documents, found, strict=True):
            if judge(filter_, document) is not verdict:
                pytest.fail(f"{shrunk(filter_, document, lambda f, d: judge(f, d) is not evaluated(f, d))}")
        telling += 0 < sum(found) < len(found)
    assert telling > FILTERS / 4


CORE = {ast.Compare, ast.In, ast.Exists}


def each_test_of(condition: ast.Condition) -> Iterator[ast.Test]:
    match condition:
        case ast.And(conditions) | ast.Or(conditions):
            for inner in conditions:
                yield from each_test_of(inner)
        case ast.Not(inner):
            yield from each_test_of(inner)
        case ast.Test():
            yield condition


@pytest.mark.parametrize("seed", SEEDS)
def test_what_stores_are_asked_is_of_the_core_and_never_too_little(seed: int) -> None:
    """A weakened condition holds wherever the condition does, negated or not; and it is not merely true everywhere."""
    documents, filters = batch_of(seed)
    narrowed = 0
    for filter_ in filters:
        parsed = parse_condition("pipeline", filter_, CATALOG)
        for condition in (parsed, ast.Not(parsed)):
            weaker = ast.weakened(condition)
            assert {type(test.operator) for test in each_test_of(weaker)} <= CORE
            holds, may_hold = compile_condition(condition), compile_condition(weaker)
            for document in documents:
                assert may_hold(document) or not holds(document), (filter_, document)
            if weaker != condition:
                narrowed += not all(map(may_hold, documents))
    assert narrowed > FILTERS / 10


@pytest.mark.parametrize("seed", range(3))
def test_every_filter_can_be_said_in_english(seed: int) -> None:
    """Whatever it holds; and different filters are mostly said differently."""
    _, filters = batch_of(seed)
    said = {describe_condition(parse_condition("pipeline", filter_, CATALOG)) for filter_ in filters}
    assert all(text.strip() and "Test(" not in text for text in said)
    assert len(said) > 0.9 * len({str(filter_) for filter_ in filters})


Make = Callable[[Path], Store]


def sqlite(folder: Path) -> Store:
    return SqliteStore(folder / "xray.sqlite3")


@pytest.fixture
def mongodb(databases: Databases) -> Make:
    """What makes a store on the server, over the wire."""
    return lambda folder: MongoStore(databases.url(folder))


async def hold_to_the_evaluator(store: Store, seed: int) -> None:
    """The pages of an answer together are the runs of which the evaluator says that the filter holds."""
    documents, filters = batch_of(seed)
    runs = {name(number): {"id": name(number)} | document for number, document in enumerate(documents)}
    await store.open()
    try:
        await store.write("default", WriteBatch(runs=runs))
        for filter_ in filters:
            question = parse({"pipeline": filter_, "return": "runs", "sort": {"id": 1}, "limit": 1000}, CATALOG)
            found = [row["id"] for row in (await answer(store, "default", question)).rows]
            assert found == [key for key, run in runs.items() if evaluated(filter_, run)], filter_
    finally:
        await store.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sqlite_store_agrees(seed: int, tmp_path: Path) -> None:
    """With the evaluator, which agrees with the judge."""
    asyncio.run(hold_to_the_evaluator(sqlite(tmp_path), seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mongodb_store_agrees(seed: int, tmp_path: Path, mongodb: Make) -> None:
    """Likewise, over the wire."""
    asyncio.run(hold_to_the_evaluator(mongodb(tmp_path), seed))


@pytest.fixture(scope="module")
def collection(mongodb_uri: str) -> Iterator[Collection[dict[str, Any]]]:
    """A collection of plain documents on a MongoDB server, dropped at the end."""
    with MongoClient(mongodb_uri, tz_aware=True) as client:
        database = client[f"xray_test_{uuid.uuid4().hex[:12]}"]
        try:
            yield database["plain"]
        finally:
            client.drop_database(database.name)


def moment(milliseconds: Any) -> Any:
    """The schema's own times are dates in MongoDB."""
    if isinstance(milliseconds, list):
        return [moment(item) for item in milliseconds]
    if isinstance(milliseconds, int) and not isinstance(milliseconds, bool):
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)
    return milliseconds


def with_dates(filter_: Any) -> Any:
    """The filter as MongoDB takes it: operands of ``started_at`` as dates."""

    def operand(condition: Any) -> Any:
        if not isinstance(condition, dict):
            return moment(condition)
        return {
            key: operand(item) if key == "$not" else item if key in ("$exists", "$type", "$mod") else moment(item)
            for key, item in condition.items()
        }

    return {
        key: [with_dates(item) for item in value]
        if key in ("$and", "$or", "$nor")
        else operand(value)
        if key == "started_at"
        else value
        for key, value in filter_.items()
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_mongodbs_own_find_agrees(seed: int, collection: Collection[dict[str, Any]]) -> None:
    """``find`` on the plain documents gives those of which the judge says that the filter holds."""
    documents, filters = batch_of(seed)
    collection.delete_many({})
    collection.insert_many(
        {"_id": number}
        | document
        | ({"started_at": moment(document["started_at"])} if "started_at" in document else {})
        for number, document in enumerate(documents)
    )
    asked = [filter_ for filter_ in filters if not needs_null_in_element(filter_)]
    assert len(asked) > 0.97 * len(filters)
    for filter_, found in zip(asked, found_by_mongodb(collection, list(map(with_dates, asked))), strict=True):
        expected = [number for number, document in enumerate(documents) if judge(filter_, document)]
        assert sorted(found) == expected, filter_


def found_by_mongodb(collection: Collection[dict[str, Any]], filters: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """For each filter the ids that it finds: many a round trip, and each fiftieth by a ``find`` of its own."""
    for start in range(0, len(filters), 50):
        part = filters[start : start + 50]
        facets = {f"f{place}": [{"$match": each}, {"$project": {"_id": 1}}] for place, each in enumerate(part)}
        (found,) = collection.aggregate([{"$facet": facets}])
        ids = [[document["_id"] for document in found[f"f{place}"]] for place in range(len(part))]
        assert [document["_id"] for document in collection.find(part[0], {"_id": 1})] == ids[0]
        yield from ids


def needs_null_in_element(filter_: Any, *, inside: bool = False) -> bool:
    """Whether a filter orders by null inside ``$elemMatch``.

    DocumentDB, which may stand in for MongoDB in these tests, does not let a missing field equal null there, although
    it does everywhere else.
    """
    if isinstance(filter_, list):
        return any(needs_null_in_element(item, inside=inside) for item in filter_)
    if not isinstance(filter_, dict):
        return False
    return any(
        (inside and key in ("$gte", "$lte") and value is None)
        or needs_null_in_element(value, inside=inside or key == "$elemMatch")
        for key, value in filter_.items()
    )


def candidates_of(seed: int) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """The candidates of some stages, and filters on one candidate."""
    maker = Maker(1000 + seed)
    stages = [[maker.candidate() for _ in range(5)] for _ in range(4)]
    for rows in stages:
        for seq, row in enumerate(rows):
            row["candidate_id"] = f"c{seq}"
    everything = [row for rows in stages for row in rows]
    filters: list[dict[str, Any]] = []
    while len(filters) < 400:
        made = maker.filter(everything, OWN_OF_CANDIDATES, "data")
        try:
            parse_condition("candidate", made, CATALOG)
        except QueryError:
            continue
        filters.append(made)
    return stages, filters


async def found_candidates(
    store: Store, stages: list[list[dict[str, Any]]], filters: list[dict[str, Any]]
) -> list[set[tuple[str, int]]]:
    """For each filter the stages and places of the candidates that a store's answer holds."""
    batch = WriteBatch(runs={name(0): {"id": name(0)}})
    for number, rows in enumerate(stages, 1):
        batch.stages[name(number)] = {"id": name(number), "run_id": name(0), "type": "filtering"}
        batch.pages += paginate(name(0), name(number), None, Columns.from_rows(rows))
    await store.open()
    try:
        await store.write("default", batch)
        found = []
        for filter_ in filters:
            question = parse({"candidate": filter_, "return": "candidates", "limit": 1000}, CATALOG)
            rows = (await answer(store, "default", question)).rows
            found.append({(row["stage_id"], row["seq"]) for row in rows})
        return found
    finally:
        await store.close()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["sqlite", "mongodb"])
def test_candidates_are_found_as_the_judge_says(
    kind: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every candidate of which the judge says that the filter holds, and no other."""
    stages, filters = candidates_of(seed)
    make: Make = sqlite if kind == "sqlite" else request.getfixturevalue("mongodb")
    found = asyncio.run(found_candidates(make(tmp_path), stages, filters))
    for filter_, places in zip(filters, found, strict=True):
        expected = {
            (name(number), seq)
            for number, rows in enumerate(stages, 1)
            for seq, row in enumerate(rows)
            if judge(filter_, row)
        }
        assert places == expected, filter_


@pytest.mark.parametrize("seed", range(5))
def test_candidates_are_found_as_mongodb_finds_them(
    seed: int, tmp_path: Path, collection: Collection[dict[str, Any]]
) -> None:
    """As a raw ``find`` over one document per candidate finds them."""
    stages, filters = candidates_of(seed)
    filters = [filter_ for filter_ in filters if not needs_null_in_element(filter_)]
    collection.delete_many({})
    collection.insert_many(
        {"_id": {"stage": name(number), "seq": seq}} | row
        for number, rows in enumerate(stages, 1)
        for seq, row in enumerate(rows)
    )
    found = asyncio.run(found_candidates(sqlite(tmp_path), stages, filters))
    for filter_, places, raw in zip(filters, found, found_by_mongodb(collection, filters), strict=True):
        assert places == {(key["stage"], key["seq"]) for key in raw}, filter_
