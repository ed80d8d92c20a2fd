"""What is taken from candidates of every kind, and that it is taken at the moment of the call."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import socket
import threading
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xray
from tests.sdk.recording import EVERY_WAY, recording
from xray.capture.snapshot import restore, snapshot, to_json

pytestmark = EVERY_WAY


@dataclasses.dataclass
class Judged:
    id: str
    price: float
    passed: bool = True
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    id: str
    price: float
    passed: bool = True
    reason: str | None = None


class Named(NamedTuple):
    id: str
    price: float
    passed: bool = True
    reason: str | None = None


class Plain:
    def __init__(self, id: str, price: float, passed: bool = True, reason: str | None = None) -> None:
        self.id, self.price, self.passed, self.reason = id, price, passed, reason


class Computed:
    """Its verdict is a property, which no snapshot holds."""

    def __init__(self, id: str, price: float, passed: bool = True, reason: str | None = None) -> None:
        self.id, self.price, self._passed, self._reason = id, price, passed, reason

    @property
    def passed(self) -> bool:
        return self._passed

    @property
    def reason(self) -> str | None:
        return self._reason


KINDS: dict[str, Any] = {
    "dict": lambda **fields: {"passed": True, "reason": None} | fields,
    "dataclass": Judged,
    "slots": Slotted,
    "namedtuple": Named,
    "object": Plain,
    "property": Computed,
}


@pytest.mark.parametrize("kind", KINDS)
def test_flags_and_labels_of_every_kind_of_candidate(kind: str):
    """Dicts, dataclasses, named tuples, objects and properties give the same columns."""
    make = KINDS[kind]

    @xray.filtering_stage("judge", passed="passed", reason_label="reason")
    def judge(pool: list[Any]) -> list[Any]:
        judged = []
        for n, _ in enumerate(pool):
            ok = n % 2 == 0
            judged.append(make(id=f"c{n}", price=float(n), passed=ok, reason=None if ok else "odd"))
        return judged

    with recording() as recorded:
        judge([make(id=f"c{n}", price=float(n)) for n in range(4)])
    rows = recorded.rows("judge")
    assert {key: (row["verdict"], row.get("reason_label")) for key, row in rows.items()} == {
        "c0": ("passed", None), "c1": ("failed", "odd"), "c2": ("passed", None), "c3": ("failed", "odd"),
    }  # fmt: skip
    assert rows["c3"]["data"]["price"] == 3.0
    assert recorded.stage("judge")["facts"]["shape"] == "flags"
    assert recorded.stage("judge")["facts"]["id_from"] == "id"


def test_later_changes_do_not_reach_the_record():
    """Candidates that came in are recorded as they came; those that went out as they went."""
    pool = [{"id": n, "tags": ["new"]} for n in range(3)]

    @xray.filtering_stage("mark", passed="ok")
    def mark(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for candidate in candidates:
            candidate["ok"] = candidate["id"] != 1
            candidate["tags"].append("seen")
        return candidates

    with recording() as recorded:
        result = mark(pool)
        for candidate in result:
            candidate.clear()
    rows = recorded.rows("mark")
    assert [row["data"] for row in rows.values()] == [{"id": n, "tags": ["new"]} for n in range(3)]
    assert [row["output"] for row in rows.values()] == [{"ok": n != 1, "tags": ["new", "seen"]} for n in range(3)]
    assert [row["verdict"] for row in rows.values()] == ["passed", "failed", "passed"]


@pytest.mark.parametrize("accessor", ["product.id", lambda c: c["product"]["id"]])
def test_paths_and_callables_as_accessors(accessor: Any):
    """A dotted path and a callable read the same id."""

    @xray.scoring_stage("score", id=accessor, score=lambda c: c["value"] * 2)
    def score(pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**candidate, "value": n} for n, candidate in enumerate(pool)]

    with recording() as recorded:
        score([{"product": {"id": f"x{n}"}} for n in range(3)])
    assert {key: row["score"] for key, row in recorded.rows("score").items()} == {"x0": 0, "x1": 2, "x2": 4}


def test_tuples_by_index():
    """Rows of a database as candidates."""

    @xray.filtering_stage("rows", id=0, passed=2)
    def rows(pool: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(*row[:2], row[1] > 1) for row in pool]

    with recording() as recorded:
        rows([("a", 1, None), ("b", 2, None)])
    assert {key: (row["verdict"], row["data"]) for key, row in recorded.rows("rows").items()} == {
        "a": ("failed", ["a", 1, None]),
        "b": ("passed", ["b", 2, None]),
    }


def test_objects_without_an_id_are_known_by_identity_through_the_run():
    """The same object in and out is the same candidate, under one number in all stages."""

    class Thing:
        def __init__(self, size: int) -> None:
            self.size = size

    @xray.filtering_stage
    def first(pool: list[Thing]) -> list[Thing]:
        return [thing for thing in pool if thing.size > 0]

    @xray.ranking_stage
    def second(pool: list[Thing]) -> list[Thing]:
        return sorted(pool, key=lambda thing: -thing.size)

    @xray.pipeline
    def job() -> None:
        second(first([Thing(n) for n in range(4)]))

    with recording() as recorded:
        job()
    assert {key: row["verdict"] for key, row in recorded.rows("first").items()} == {
        "#1": "failed", "#2": "passed", "#3": "passed", "#4": "passed",
    }  # fmt: skip
    assert {key: row["rank"] for key, row in recorded.rows("second").items()} == {"#2": 3, "#3": 2, "#4": 1}
    assert recorded.stage("first")["facts"]["id_from"] == "identity"


@given(ids=st.lists(st.sampled_from("abcd"), max_size=12), data=st.data())
def test_survivors_with_repeated_ids(ids: list[str], data: st.DataObject):
    """With an id twice among the candidates, as many fail as are missing, and the repetition is said."""
    pool = [{"id": key, "n": n} for n, key in enumerate(ids)]
    kept = [candidate for candidate in pool if data.draw(st.booleans())]

    @xray.filtering_stage("keep", id="id")
    def keep(candidates: list[Any]) -> list[Any]:
        return kept

    with recording() as recorded:
        keep(pool)
    metrics = recorded.metrics("keep")
    assert (metrics["passed"], metrics["failed"]) == (len(kept), len(pool) - len(kept))
    assert recorded.stage("keep")["facts"].get("duplicate_ids", 0) == len(ids) - len(set(ids))


class Exploding:
    def __init__(self) -> None:
        self.id = "boom"

    @property
    def price(self) -> float:
        raise RuntimeError("no price today")

    def __repr__(self) -> str:
        raise RuntimeError("no text either")


class Hostile(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")

    def get(self, *_: Any) -> Any:
        raise RuntimeError("no get")


def _cycle() -> dict[str, Any]:
    value: dict[str, Any] = {"id": "cycle"}
    value["self"] = value
    return value


def _deep() -> Any:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    return value


HOSTILE: dict[str, Any] = {
    "cycle": _cycle(),
    "deep": _deep(),
    "nan": float("nan"),
    "infinity": float("inf"),
    "huge integer": 10**40,
    "bytes": b"\x00\xff" * 50,
    "lone surrogate": "a\ud800b",
    "nul": "a\0b",
    "lock": threading.Lock(),
    "module": threading,
    "class": Exploding,
    "function": _deep,
    "exploding": Exploding(),
    "hostile mapping": Hostile(id="h"),
    "set": {1, 2, 3},
    "decimal": decimal.Decimal("1.10"),
    "uuid": uuid.UUID(int=7),
    "datetime": dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "complex": 1j,
    "keys": {1: "a", None: "b", (1, 2): "c"},
    "exception": ValueError("x"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_reach_the_user_untouched(name: str):
    """Whatever the value: the function returns what it would undecorated, and the stage is recorded."""
    value = HOSTILE[name]
    candidates = [value, {"id": "x", "value": value}]

    @xray.filtering_stage("hostile")
    def hostile(pool: list[Any], extra: Any) -> list[Any]:
        return [pool[0], extra]

    with recording() as recorded:
        result = hostile(candidates, value)
    assert result[0] is value
    assert result[1] is value
    assert recorded.stage("hostile")["capture"]["seen"] >= 2
    assert "extract_error" not in recorded.stage("hostile")["facts"]


def test_sockets_are_not_looked_into():
    """A resource is named, not read."""
    with socket.socket() as resource:
        assert restore(snapshot({"connection": resource})) == {"connection": "[xray: socket]"}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_as_it_went_in(value: Any):
    """A snapshot of JSON is that JSON, without a marker."""
    markers: list[dict[str, Any]] = []
    assert to_json(restore(snapshot(value)), markers) == value
    assert markers == []


def test_what_json_has_no_word_for_is_written_down():
    """Datetimes in UTC, decimals as text; the rest leaves a marker with path, kind and size."""
    markers: list[dict[str, Any]] = []
    moment = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    value = {"at": moment, "price": decimal.Decimal("1.10"), "x": [float("nan")], "raw": b"abc"}
    assert to_json(restore(snapshot(value)), markers) == {
        "at": "2026-01-01T10:00:00.000000Z",
        "price": "1.10",
        "x": ["[xray: nan]"],
        "raw": "[xray: 3 bytes: YWJj…]",
    }
    assert markers == [
        {"path": "x.0", "kind": "not_finite", "size": 8},
        {"path": "raw", "kind": "bytes", "size": 3},
    ]


def test_objects_that_hold_nothing_are_told_apart():
    """Objects without a field are known by identity, not by a text that they share."""

    class Empty:
        __slots__ = ()

    @xray.filtering_stage
    def first_two(pool: list[Empty]) -> list[Empty]:
        return pool[:2]

    with recording() as recorded:
        first_two([Empty(), Empty(), Empty()])
    assert {key: row["verdict"] for key, row in recorded.rows("first_two").items()} == {
        "#1": "passed",
        "#2": "passed",
        "#3": "failed",
    }


def test_a_long_text_is_known_by_its_beginning_and_a_hash():
    """Ids stay bearable, distinct, and the same in and out."""
    texts = ["x" * 100_000 + ending for ending in "abc"]

    @xray.filtering_stage
    def keep(pool: list[str]) -> list[str]:
        return pool[1:]

    with recording() as recorded:
        keep(texts)
    rows = recorded.rows("keep")
    assert len(rows) == 3
    assert all(len(key) < 200 for key in rows)
    assert [row["verdict"] for row in rows.values()] == ["failed", "passed", "passed"]
    assert [row["data"] for row in rows.values()] == texts
