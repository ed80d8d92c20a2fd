"""The server itself as a judge: the query language has MongoDB's meaning, so MongoDB has to agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bson.codec_options import CodecOptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.collection import Collection

from tests.server.query.test_query_judge import CATALOG, documents, filters
from tests.server.query.test_query_semantics import CASES, NOTHING, below_metadata
from xray_server.query.evaluate import compile_condition
from xray_server.query.parser import parse_condition


@pytest.fixture(scope="module")
def collection(mongodb_uri: str) -> Iterator[Collection[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        database = client.get_database("xray_test_judge", codec_options=CodecOptions(document_class=dict))
        yield database["documents"]
        client.drop_database("xray_test_judge")


def found(collection: Collection[dict[str, Any]], filter_: dict[str, Any], some: list[dict[str, Any]]) -> list[int]:
    collection.delete_many({})
    collection.insert_many([{"_id": number, **document} for number, document in enumerate(some)])
    return sorted(document["_id"] for document in collection.find(filter_))


def test_the_cases_worked_out_by_hand_are_the_servers(collection: Collection[dict[str, Any]]) -> None:
    """Every case of the semantics tests, asked of the server."""
    wrong = []
    for value, filter_, expected in CASES:
        document = {"metadata": {} if value is NOTHING else {"a": value}}
        if (found(collection, below_metadata(filter_), [document]) == [0]) is not expected:
            wrong.append((value, filter_, expected))
    assert wrong == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(filter_=filters, some=st.lists(documents, min_size=1, max_size=5))
def test_evaluator_and_server_agree(
    collection: Collection[dict[str, Any]], filter_: dict[str, Any], some: list[dict[str, Any]]
) -> None:
    """Random filters over random documents."""
    holds = compile_condition(parse_condition("pipeline", filter_, CATALOG))
    assert found(collection, filter_, some) == [number for number, document in enumerate(some) if holds(document)]
