"""Cursors go on where an answer stopped, belong to their question, and break nothing when forged."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.query.catalogs import catalog
from xray.exceptions import QueryError
from xray_server.query import ast
from xray_server.query.cursor import decode_cursor, encode_cursor
from xray_server.query.parser import parse

CATALOG = catalog()
STAGES = parse({"stage": {"type": "filtering"}, "sort": {"$failRatio": -1, "name": 1}}, CATALOG)
CANDIDATES = replace(STAGES, returns="candidates")


def forge(*content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def fingerprint(question: ast.Question) -> str:
    cursor = encode_cursor(question, ("x",))
    return str(json.loads(base64.urlsafe_b64decode(cursor + "=="))[1])


@pytest.mark.parametrize(
    ("question", "after"),
    [
        (STAGES, (0.5, "n", "id")),
        (STAGES, (None, None, "id")),
        (STAGES, (1, "é\U0001f600", "id")),
        (CANDIDATES, (0.1 + 0.2, "n", "id", 7)),
        (CANDIDATES, (-(2**63), "n", "id", None)),
    ],
)
def test_a_cursor_comes_back_as_it_was(question: ast.Question, after: tuple[Any, ...]) -> None:
    cursor = encode_cursor(question, after)
    assert cursor.isascii()
    assert "=" not in cursor
    assert decode_cursor(question, cursor) == after
    assert decode_cursor(replace(question, limit=3, after=after), cursor) == after


def test_the_parser_reads_it() -> None:
    question = {"stage": {"$fail_ratio": {"$gt": 0.5}}, "limit": 3}
    cursor = encode_cursor(parse(question, CATALOG), (5, "id"))
    same = {"stage": {"metrics.failRatio": {"$gt": 0.5}}, "limit": 4, "cursor": cursor}
    assert parse(same, CATALOG).after == (5, "id")


@pytest.mark.parametrize(
    "other",
    [
        {"stage": {"type": "scoring"}, "sort": {"$failRatio": -1, "name": 1}},
        {"stage": {"type": "filtering"}, "sort": {"$failRatio": 1, "name": 1}},
        {"stage": {"type": "filtering"}, "sort": {"$failRatio": -1, "name": 1}, "return": "candidates"},
        {"stage": {"type": "filtering"}, "candidate": {}, "sort": {"$failRatio": -1, "name": 1}},
    ],
)
def test_a_cursor_belongs_to_its_question(other: dict[str, Any]) -> None:
    with pytest.raises(QueryError) as caught:
        decode_cursor(parse(other, CATALOG), encode_cursor(STAGES, (0.5, "n", "id")))
    assert caught.value.code == "bad_cursor"


@pytest.mark.parametrize(
    ("question", "after"),
    [
        (STAGES, []),
        (STAGES, [0.5, "n"]),
        (STAGES, [0.5, "n", "id", 3]),
        (STAGES, [0.5, "n", None]),
        (STAGES, [0.5, 7, "id"]),
        (STAGES, ["0.5", "n", "id"]),
        (STAGES, [True, "n", "id"]),
        (STAGES, [2**70, "n", "id"]),
        (STAGES, [[1], "n", "id"]),
        (STAGES, [{}, "n", "id"]),
        (STAGES, "abc"),
        (CANDIDATES, [0.5, "n", "id"]),
        (CANDIDATES, [0.5, "n", "id", -1]),
        (CANDIDATES, [0.5, "n", "id", True]),
        (CANDIDATES, [0.5, "n", "id", 1.5]),
        (CANDIDATES, [0.5, "n", "id", "1"]),
    ],
)
def test_forged_values_are_refused(question: ast.Question, after: Any) -> None:
    with pytest.raises(QueryError) as caught:
        decode_cursor(question, forge(1, fingerprint(question), after))
    assert caught.value.code == "bad_cursor"


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "a",
        "====",
        "é",
        "\ud800",
        5,
        None,
        b"",
        [],
        True,
        "A" * 200_000,
        forge(),
        forge(2, fingerprint(STAGES), [0.5, "n", "id"]),
        forge(1, "0" * 16, [0.5, "n", "id"]),
        forge(1, fingerprint(STAGES), [0.5, "n", "id"], 4),
        base64.urlsafe_b64encode(b"[" * 50_000).decode(),
        base64.urlsafe_b64encode(b'[1,"\xff",[]]').decode(),
        base64.urlsafe_b64encode(b'[1,"' + fingerprint(STAGES).encode() + b'",[NaN,"n","id"]]').decode(),
        base64.urlsafe_b64encode(b'[1,"' + fingerprint(STAGES).encode() + b'",[1e999,"n","id"]]').decode(),
    ],
    ids=lambda cursor: repr(cursor)[:20],
)
def test_what_is_no_cursor(cursor: Any) -> None:
    with pytest.raises(QueryError) as caught:
        decode_cursor(STAGES, cursor)
    assert caught.value.code == "bad_cursor"
    assert caught.value.path == "cursor"


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_a_cursor_with_a_few_characters_changed(data: st.DataObject) -> None:
    characters = list(encode_cursor(CANDIDATES, (0.5, "n", "id", 7)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(characters) - 1))
        characters[place] = data.draw(st.characters())
    codes = []
    try:
        assert len(decode_cursor(CANDIDATES, "".join(characters))) == 4
    except QueryError as error:
        codes.append(error.code)
    assert codes in ([], ["bad_cursor"])
