"""Every stage type, on every kind of callable, with every kind of candidate: one matrix.

Left out are only the cells that nobody can write: a generator yields candidates one by one, so it yields no frame.
"""

from __future__ import annotations

# ruff: noqa: PLW0108 - each call needs a function of its own
import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import attrs
import numpy as np
import pandas as pd
import polars as pl
import pydantic
import pytest

import xray
from tests.sdk.recording import recording

Row = tuple[str, float, bool, str | None]
FIELDS = ("id", "score", "passed", "reason_label")
ROWS: list[Row] = [("a", 3.0, True, None), ("b", 1.0, False, "low"), ("c", 2.0, True, None)]


@dataclasses.dataclass
class Data:
    id: str
    score: float
    passed: bool
    reason_label: str | None


@dataclasses.dataclass(slots=True)
class Slots:
    id: str
    score: float
    passed: bool
    reason_label: str | None


@attrs.define
class Attrs:
    id: str
    score: float
    passed: bool
    reason_label: str | None


class Model(pydantic.BaseModel):
    id: str
    score: float
    passed: bool
    reason_label: str | None


class Typed(TypedDict):
    id: str
    score: float
    passed: bool
    reason_label: str | None


class Named(NamedTuple):
    id: str
    score: float
    passed: bool
    reason_label: str | None


class Plain:
    def __init__(self, id: str, score: float, passed: bool, reason_label: str | None) -> None:
        self.id, self.score, self.passed, self.reason_label = id, score, passed, reason_label


class Properties:
    def __init__(self, *values: Any) -> None:
        self._values = values

    id = property(lambda self: self._values[0])
    score = property(lambda self: self._values[1])
    passed = property(lambda self: self._values[2])
    reason_label = property(lambda self: self._values[3])


def _dict(*values: Any) -> dict[str, Any]:
    return dict(zip(FIELDS, values, strict=True))


def _numpy(id: str, score: float, passed: bool, label: str | None) -> dict[str, Any]:
    return _dict(np.str_(id), np.float32(score), np.bool_(passed), label and np.str_(label))


def _each(make: Callable[..., Any]) -> Callable[[list[Row]], Any]:
    return lambda rows: [make(*row) for row in rows]


FRAMES = ("pandas", "polars")
VALUES: dict[str, Callable[[list[Row]], Any]] = {
    "dict": _each(_dict),
    "dataclass": _each(Data),
    "slots": _each(Slots),
    "attrs": _each(Attrs),
    "pydantic": _each(lambda *values: Model(**_dict(*values))),
    "TypedDict": _each(lambda *values: Typed(**_dict(*values))),  # type: ignore[typeddict-item]
    "NamedTuple": _each(Named),
    "object": _each(Plain),
    "properties": _each(Properties),
    "tuple": list,
    "pandas": lambda rows: pd.DataFrame(rows, columns=list(FIELDS)),
    "polars": lambda rows: pl.DataFrame(rows, schema=list(FIELDS), orient="row"),
    "NumPy fields": _each(_numpy),
}

CALLABLES = ("function", "method", "classmethod", "staticmethod", "async function", "async method", "generator",
             "async generator", "inherited", "overridden")  # fmt: skip

TYPES: dict[str, tuple[list[str], dict[str, int]]] = {
    # The ids that go out, in order; and the accessors besides id, as places in a row.
    "filtering": (["a", "b", "c"], {"passed": 2, "reason_label": 3}),
    "scoring": (["a", "b", "c"], {"score": 1}),
    "ranking": (["a", "c", "b"], {"score": 1}),
    "retrieval": (["a", "b", "c"], {"score": 1}),
    "generation": (["a", "b", "c"], {}),
    "selection": (["a"], {"score": 1}),
    "raw": (["a", "b", "c"], {}),
}

CELLS = [
    (stage_type, kind, value)
    for stage_type in TYPES
    for kind in CALLABLES
    for value in VALUES
    if not ("generator" in kind and value in FRAMES)
]


def picked(pool: Any, ids: list[str]) -> Any:
    """What the stage gives back: of a list the objects themselves, of a frame a new frame."""
    places = [[row[0] for row in ROWS].index(id) for id in ids]
    if isinstance(pool, pd.DataFrame):
        return pool.iloc[places]
    if isinstance(pool, pl.DataFrame):
        return pool[places]
    return [pool[place] for place in places]


def build(kind: str, decorate: Callable[[Any], Any], work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A callable of that kind, decorated; called with a pool it gives the list or frame that came out."""
    if kind == "function":
        return decorate(lambda pool: work(pool))
    if kind == "async function":

        async def function(pool: Any) -> Any:
            await asyncio.sleep(0)
            return work(pool)

        decorated = decorate(function)
        assert inspect.iscoroutinefunction(decorated)
        return lambda pool: asyncio.run(decorated(pool))
    if kind == "generator":

        def generator(pool: Any) -> Any:
            yield from work(pool)

        decorated = decorate(generator)
        return lambda pool: list(decorated(pool))
    if kind == "async generator":

        async def async_generator(pool: Any) -> Any:
            for item in work(pool):
                yield item

        decorated = decorate(async_generator)

        async def collect(pool: Any) -> Any:
            return [item async for item in decorated(pool)]

        return lambda pool: asyncio.run(collect(pool))

    class Base:
        @decorate
        def method(self, pool: Any) -> Any:
            assert type(self) in (Base, Derived)
            return work(pool)

        @classmethod
        @decorate
        def of_class(cls, pool: Any) -> Any:
            assert cls is Base
            return work(pool)

        @staticmethod
        @decorate
        def static(pool: Any) -> Any:
            return work(pool)

        @decorate
        async def async_method(self, pool: Any) -> Any:
            return work(pool)

    class Derived(Base): ...

    if kind == "overridden":

        class Derived2(Base):
            def method(self, pool: Any) -> Any:
                return super().method(pool)

        Derived = Derived2  # type: ignore[misc] # noqa: N806 - the class that the assertion allows
    calls: dict[str, Callable[[Any], Any]] = {
        "method": Base().method,
        "classmethod": Base.of_class,
        "staticmethod": Base.static,
        "async method": lambda pool: asyncio.run(Base().async_method(pool)),
        "inherited": Derived().method,
        "overridden": Derived().method,
    }
    return calls[kind]


def expected(stage_type: str) -> dict[str, dict[str, Any]]:
    """Candidate id → the columns that matter, from the rows alone."""
    ids, _ = TYPES[stage_type]
    rows: dict[str, dict[str, Any]] = {}
    for place, (id, score, passed, label) in enumerate(ROWS):
        rows[id] = {
            "filtering": {"verdict": "passed" if passed else "failed", "reason_label": label},
            "scoring": {"score": score},
            "ranking": {"rank": ["a", "c", "b"].index(id) + 1, "rank_before": place + 1, "score": score},
            "retrieval": {"rank": place + 1, "score": score},
            "selection": {"verdict": "selected" if id in ids else None, "score": score},
        }.get(stage_type, {})
    return rows


@pytest.mark.parametrize(("stage_type", "kind", "value"), CELLS)
def test_a_cell(stage_type: str, kind: str, value: str):
    """What comes out is what the undecorated callable gives; type, ids and columns are recorded."""
    ids, accessors = TYPES[stage_type]
    pool = VALUES[value](ROWS)
    wanted = picked(pool, ids)
    given: dict[str, Any] = {}
    if value == "tuple":
        given = {"id": 0, **accessors} if stage_type != "raw" else {}
    decorate = xray.stage(stage_type, "cell", **given)
    call = build(kind, decorate, lambda candidates: picked(candidates, ids))
    with recording() as recorded:
        result = call(pool)
    assert type(result) is type(wanted)
    if value in FRAMES:
        assert result.equals(wanted)
    else:
        assert len(result) == len(wanted)
        assert all(found is item for found, item in zip(result, wanted, strict=True))
    stage = recorded.stage("cell")
    assert (stage["stage_type"], stage["status"]) == (stage_type, "success")
    if stage_type == "raw":
        assert "columns" not in stage
        assert len(stage["output"]) == len(wanted)
        return
    rows = recorded.rows("cell")
    assert list(rows) == [row[0] for row in ROWS]
    for id, columns in expected(stage_type).items():
        assert {name: rows[id].get(name) for name in columns} == columns, id
    if stage_type not in ("retrieval", "generation"):
        assert stage["facts"].get("unknown_outputs", 0) == 0
