"""Values that no encoder likes: whatever they are, the user's function does what it would undecorated."""

from __future__ import annotations

# ruff: noqa: DTZ901, DTZ001, PLW0108, F601, E501 - odd values are what this is about
import array
import asyncio
import collections
import ctypes
import datetime as dt
import decimal
import enum
import fractions
import io
import ipaddress
import pathlib
import random
import re
import socket
import tempfile
import threading
import types
import unittest.mock
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest

import xray
from tests.sdk.recording import Recorded
from xray.delivery.memory import MemoryTransport
from xray.plugins import installed
from xray_server.validation import validate_event

pytestmark = pytest.mark.timeout(60)

MARKED = object()
"""The value cannot be kept as it is: the record has to say so."""

ANY = object()
"""What is kept of the value is its readable part, which may be all of it."""

Make = Callable[[ExitStack], Any]
VALUES: dict[str, tuple[Make, Any]] = {}


def add(name: str, make: Callable[[], Any], kept: Any = MARKED) -> None:
    add_open(name, lambda _: make(), kept)


def add_open(name: str, make: Make, kept: Any = MARKED) -> None:
    assert name not in VALUES, name
    VALUES[name] = (make, kept)


def explode(*_: Any, **__: Any) -> Any:
    raise RuntimeError("on purpose")


# --- numbers, texts and bytes ---------------------------------------------------------------------------------------

for number in (float("nan"), float("inf"), float("-inf"), 2**63, -(2**63) - 1, 10**40, 10**5000, -(10**5000)):
    add(f"number {number:.0e}" if abs(number) < 1e300 else f"number {type(number).__name__} {len(VALUES)}",
        lambda number=number: number)  # fmt: skip
add("complex", lambda: 1j)
add("complex nan", lambda: complex("nan"))
add("fraction", lambda: fractions.Fraction(1, 3), "1/3")
add("decimal", lambda: decimal.Decimal("1.10"), "1.10")
for text in ("NaN", "sNaN", "Infinity", "-0", "1E+999999"):
    add(f"decimal {text}", lambda text=text: decimal.Decimal(text), ANY)
add("np nan", lambda: np.float64("nan"))
add("np int", lambda: np.int32(7), 7)
add("np bool", lambda: np.bool_(True), True)
add("np void", lambda: np.zeros(1, dtype=[("a", "i4")])[0], ANY)
add("np datetime", lambda: np.datetime64("2026-01-01"), ANY)
add("np nat", lambda: np.datetime64("NaT"), ANY)
add("np array", lambda: np.arange(3), [0, 1, 2])
add("np array of objects", lambda: np.array([object(), None]))
add("np array 0-d", lambda: np.array(5), 5)
add("np complex array", lambda: np.array([1j]))
add("lone surrogate", lambda: "a\ud800b", ANY)
add("low surrogate", lambda: "\udfff", ANY)
add("surrogate pair apart", lambda: "\ud83d\ude00", ANY)
add("nul", lambda: "a\0b", "a\ufffdb")
add("only nul", lambda: "\0" * 50, "\ufffd" * 50)
add("10 MB text", lambda: "x" * 10_000_000)
add("10 MB of 4-byte text", lambda: "🙂" * 2_500_000)
add("10 MB bytes", lambda: b"\0" * 10_000_000)
add("bytes", lambda: b"\xff\0", MARKED)
add("no bytes", lambda: b"")
add("bytearray", lambda: bytearray(b"abc"))
add("memoryview", lambda: memoryview(b"abc"))
add("memoryview with steps", lambda: memoryview(b"abcdef")[::2])
add("memoryview of ints", lambda: memoryview(array.array("i", [1, 2])))


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


add("memoryview released", released)
add("array", lambda: array.array("d", [1.0, 2.0]), ANY)
add("ctypes int", lambda: ctypes.c_int(3), ANY)
add("ctypes buffer", lambda: ctypes.create_string_buffer(20), ANY)
add("ctypes pointer", lambda: ctypes.pointer(ctypes.c_int(3)), ANY)

# --- times and well-known values ------------------------------------------------------------------------------------

for place, moment in enumerate(
    (
        dt.datetime.min,
        dt.datetime.max,
        dt.datetime.min.replace(tzinfo=dt.UTC),
        dt.datetime.max.replace(tzinfo=dt.UTC),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-12))),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=53, seconds=28))),
        dt.datetime(2026, 1, 1, 12, fold=1),
        dt.date.min,
        dt.date.max,
        dt.time.max,
        dt.time(1, tzinfo=dt.UTC),
        dt.timedelta.max,
        dt.timedelta.min,
        dt.timedelta(microseconds=1),
        pd.Timestamp("2026-01-01", tz="Asia/Kathmandu"),
        pd.NaT,
        pd.NA,
        pd.Timedelta("1s"),
    )
):
    add(f"moment {place} {moment!r}"[:60], lambda moment=moment: moment, ANY)


class BadZone(dt.tzinfo):
    utcoffset = dst = tzname = explode


add("moment of a broken zone", lambda: dt.datetime(2026, 1, 1, tzinfo=BadZone()))
add("path", lambda: pathlib.Path("/tmp/x"), "/tmp/x")
add("pure windows path", lambda: pathlib.PureWindowsPath("c:/x"), "c:\\x")
add("path of surrogates", lambda: pathlib.Path("/tmp/\udcff"), ANY)
add("uuid", lambda: uuid.UUID(int=7), str(uuid.UUID(int=7)))
add("ip address", lambda: ipaddress.ip_address("10.0.0.1"), "10.0.0.1")
add("ip network", lambda: ipaddress.ip_network("fe80::/64"), "fe80::/64")
add("regex", lambda: re.compile("a+"), ANY)
add("match", lambda: re.match("a", "abc"), ANY)
add("range", lambda: range(3), [0, 1, 2])
add("huge range", lambda: range(10**12))
add("slice", lambda: slice(1, 2))
add("ellipsis", lambda: ...)
add("not implemented", lambda: NotImplemented)


class Colour(enum.Enum):
    RED = "red"
    ODD = object()


class Bits(enum.Flag):
    A = 1
    B = 2


add("enum", lambda: Colour.RED, "red")
add("enum of an object", lambda: Colour.ODD)
add("flag", lambda: Bits.A | Bits.B, 3)

# --- containers -----------------------------------------------------------------------------------------------------

add("deque", lambda: collections.deque([1, 2]), [1, 2])
add("defaultdict", lambda: collections.defaultdict(list, a=[1]), {"a": [1]})
add("ordered dict", lambda: collections.OrderedDict(a=1), {"a": 1})
add("chain map", lambda: collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2})
add("counter", lambda: collections.Counter("aab"), {"a": 2, "b": 1})
add("user dict", lambda: collections.UserDict(a=1), {"a": 1})
add("user list", lambda: collections.UserList([1]), [1])
add("mapping proxy", lambda: types.MappingProxyType({"a": 1}), {"a": 1})
add("namespace", lambda: types.SimpleNamespace(a=1), {"a": 1})
add("frozenset", lambda: frozenset({1}), [1])
add("set of hostile", lambda: {1, "a", None, (1, 2), 1j})
add("dict keys", lambda: {"a": 1}.keys(), ["a"])
add("dict values", lambda: {"a": 1}.values(), ANY)
add("odd keys", lambda: {1: "a", None: "b", (1, 2): "c", 1.5: "d", b"e": "e", True: "f"}, ANY)
add("keys that become equal", lambda: {1: "a", "1": "b"}, ANY)
add("key of a surrogate", lambda: {"\ud800": 1}, ANY)
add("key of nul", lambda: {"\0": 1}, ANY)
add("key nan", lambda: {float("nan"): 1}, ANY)
add("key huge", lambda: {"k" * 1_000_000: 1}, ANY)
add("key enum", lambda: {Colour.RED: 1}, ANY)
add("key huge integer", lambda: {10**5000: 1}, ANY)


class NoText:
    __str__ = __repr__ = explode


add("key without a text", lambda: {NoText(): 1})


def cycle_in_list() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def cycle_in_dict() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def cycle_through_both() -> Any:
    inner: dict[str, Any] = {}
    outer = [inner]
    inner["outer"] = outer
    return inner


class Node:
    def __init__(self) -> None:
        self.peers: Any = []


def cycle_of_objects() -> Any:
    a, b = Node(), Node()
    a.peers, b.peers = b, a
    return a


def cycle_in_tuple() -> Any:
    value: Any = ([],)
    value[0].append(value)
    return value


def cycle_in_slots() -> Any:
    class Slot:
        __slots__ = ("me",)

    value = Slot()
    value.me = value  # type: ignore[attr-defined]
    return value


def connected() -> Any:
    """Thirty objects that all know each other: more paths than there is time for."""
    nodes = [Node() for _ in range(30)]
    for node in nodes:
        node.peers = nodes
    return nodes[0]


def linked() -> Any:
    head: Any = None
    for _ in range(5000):
        node = Node()
        node.peers = head
        head = node
    return head


def deep_list() -> Any:
    value: Any = 1
    for _ in range(20_000):
        value = [value]
    return value


def deep_dict() -> Any:
    value: Any = 1
    for _ in range(20_000):
        value = {"a": value}
    return value


def deep_tuple() -> Any:
    value: Any = 1
    for _ in range(2000):
        value = (value,)
    return value


for make in (cycle_in_list, cycle_in_dict, cycle_through_both, cycle_of_objects, cycle_in_tuple, cycle_in_slots,
             connected, linked, deep_list, deep_dict, deep_tuple):  # fmt: skip
    add(make.__name__, make)
add("wide", lambda: list(range(200_000)), ANY)
add("wide objects", lambda: [Node() for _ in range(3000)], ANY)
add("wide of lists", lambda: [[[]] * 50] * 50, ANY)

# --- resources, code and things that are lazy -----------------------------------------------------------------------


async def coroutine() -> int:
    return 1


async def async_generator() -> Any:
    yield 1


def closing(make: Callable[[], Any]) -> Make:
    def made(stack: ExitStack) -> Any:
        value = make()
        stack.callback(value.close)
        return value

    return made


add_open("generator", closing(lambda: (n for n in range(3))))
add_open("coroutine", closing(coroutine))
add("async generator", async_generator)
add("iterator", lambda: iter([1, 2]))
add("endless iterator", lambda: iter(int, 1))
add("zip", lambda: zip([1], [2], strict=True))
add("map", lambda: map(str, [1]))
add("enumerate", lambda: enumerate([1]))
add("lock", threading.Lock)
add("rlock", threading.RLock)
add("condition", threading.Condition)
add("event", threading.Event)
add("semaphore", threading.Semaphore)
add("local", threading.local)
add("thread", lambda: threading.Thread(target=print))
add_open("socket", closing(socket.socket))
add_open("file", closing(lambda: tempfile.TemporaryFile()))  # noqa: SIM115 - closed by the stack
add_open("text file", closing(lambda: io.StringIO("abc")))
add_open("bytes file", closing(lambda: io.BytesIO(b"abc")))
add_open("event loop", closing(asyncio.new_event_loop))
add("module", lambda: threading)
add("class", lambda: Node)
add("builtin class", lambda: int)
add("function", lambda: explode)
add("lambda", lambda: lambda: 1)
add("builtin", lambda: len)
add("bound method", lambda: Node().__init__)
add("partial", lambda: __import__("functools").partial(int, base=2), ANY)
add("property", lambda: property(explode), ANY)
add("code", lambda: explode.__code__)
add("frame", lambda: __import__("sys")._getframe())
add("object", object)
add("super", lambda: super(Node, Node()), ANY)
add("generic alias", lambda: list[int])
add("union type", lambda: int | None)
add("weakref", lambda: weakref.ref(Node))
add("dead weakref", lambda: weakref.ref(Node()))
add("proxy", lambda: weakref.proxy(Node), ANY)
add("dead proxy", lambda: weakref.proxy(Node()))
add("weak dict", lambda: weakref.WeakValueDictionary(), ANY)
add("exception", lambda: ValueError("x"), ANY)
add("random", lambda: random.Random(1), ANY)
add("mock", unittest.mock.Mock, ANY)
add("magic mock", unittest.mock.MagicMock, ANY)
add("mock of a dict", lambda: unittest.mock.MagicMock(spec=dict), ANY)
add("mock of a list", lambda: unittest.mock.MagicMock(spec=list), ANY)
add("mock with id", lambda: unittest.mock.MagicMock(id="m1"), ANY)
add("async mock", unittest.mock.AsyncMock, ANY)
add("mock sentinel", lambda: unittest.mock.sentinel.x, ANY)
add("mock any", lambda: unittest.mock.ANY, ANY)

# --- frames ---------------------------------------------------------------------------------------------------------

add("pandas frame", lambda: pd.DataFrame({"id": [1, 2]}), [{"id": 1}, {"id": 2}])
add("pandas frame with a column twice", lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]), [{"a": 1, "a#2": 2}])
add("pandas frame with nothing", pd.DataFrame, [])
add("pandas frame of objects", lambda: pd.DataFrame({"a": [object(), 1j]}))
add("large pandas frame", lambda: pd.DataFrame({"a": range(200_000)}))
add("pandas series", lambda: pd.Series([1, 2]), [1, 2])
add("pandas index", lambda: pd.Index([1, 2]), [1, 2])
add("pandas group by", lambda: pd.DataFrame({"a": [1]}).groupby("a"), ANY)
add("polars frame", lambda: pl.DataFrame({"id": [1, 2]}), [{"id": 1}, {"id": 2}])
add("polars lazy frame", lambda: pl.DataFrame({"id": [1]}).lazy())
add("polars series", lambda: pl.Series([1, 2]), [1, 2])
add("polars expression", lambda: pl.col("a"))

# --- objects that raise ---------------------------------------------------------------------------------------------

METHODS = ("__getattr__", "__getattribute__", "__repr__", "__len__", "__iter__", "__eq__", "__hash__", "__bool__",
           "__getitem__", "__contains__", "__fspath__", "__array__", "__reduce_ex__", "__sizeof__", "__dir__")  # fmt: skip
ATTRIBUTES = ("id", "_id", "uuid", "tolist", "dtype", "item", "ndim", "_fields", "__dict__", "__class__",
              "__attrs_attrs__", "__dataclass_fields__", "__struct_fields__", "model_dump", "keys", "items", "columns",
              "shape", "passed", "reason_label", "code", "__module__")  # fmt: skip
for method in METHODS:
    add(f"raises in {method}", type("Raises", (), {method: explode, "__init__": lambda self: None}), ANY)
    add(f"claims {method}", type("Claims", (), {method: lambda self, *_: self}), ANY)
for attribute in ATTRIBUTES:
    add(f"raises at .{attribute}", type("Raises", (), {attribute: property(explode)}), ANY)
    add(f"nonsense at .{attribute}", type("Nonsense", (), {attribute: property(lambda self: -1)}), ANY)

for base, of, methods in (
    (dict, {"id": "h"}, ("items", "keys", "get", "__getitem__", "__iter__", "__len__", "__contains__", "__eq__")),
    (list, [1], ("__iter__", "__len__", "__getitem__", "__eq__")),
    (tuple, (1,), ("__iter__", "__len__", "__getitem__", "__eq__", "_fields")),
    (str, "s", ("encode", "__str__", "__len__", "__eq__", "__hash__", "split", "strip", "replace", "__contains__")),
    (int, 5, ("__index__", "__int__", "__eq__", "__le__", "__ge__", "bit_length", "__str__", "__repr__")),
    (float, 0.5, ("__float__", "__eq__", "__ne__", "__repr__")),
    (set, {1}, ("__iter__", "__len__")),
    (bytes, b"b", ("__len__", "__iter__", "__bytes__")),
):
    for method in methods:
        kind = type(f"Bad{base.__name__}", (base,), {method: explode, "__hash__": base.__hash__})
        add(f"{base.__name__} that raises in {method}", lambda kind=kind, of=of: kind(of), ANY)

# --- objects that lie -----------------------------------------------------------------------------------------------


class Lies:
    def __init__(self, kind: Any) -> None:
        self._kind = kind

    @property
    def __class__(self) -> Any:
        return self._kind

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


for kind in (dict, list, str, int, tuple, float, bytes, type, dt.datetime, Mapping, types.GeneratorType, None):
    add(f"says to be a {getattr(kind, '__name__', kind)}", lambda kind=kind: Lies(kind), ANY)


class Growing(list[Any]):
    """Each look at an item adds another one."""

    def __iter__(self) -> Iterator[Any]:
        at = 0
        while True:
            self.append(at)
            yield at
            at += 1

    def __reduce__(self) -> Any:
        explode()


class Endless(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return Endless()

    def __iter__(self) -> Iterator[str]:
        return (f"k{n}" for n in iter(int, 1))

    def __len__(self) -> int:
        return 2**62


class Nesting(Mapping[str, Any]):
    """Each value is another of these, three at a time: 3^40 of them within the depth."""

    def __getitem__(self, key: str) -> Any:
        return Nesting()

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __len__(self) -> int:
        return 3


class EndlessObject:
    def __getattr__(self, name: str) -> Any:
        return EndlessObject()


class Meta(type):
    """A class of classes whose names cannot be read."""

    __module__ = property(explode)  # type: ignore[assignment]
    __mro__ = property(explode)  # type: ignore[assignment]
    __instancecheck__ = __subclasscheck__ = __getattribute__ = explode  # type: ignore[assignment]


OfMeta = type.__call__(Meta, "OfMeta", (), {})

add("growing list", Growing, ANY)
add("growing list inside", lambda: [Growing([1])], ANY)
add("endless mapping", Endless)
add("nesting mapping", Nesting)
add("object of endless attributes", EndlessObject, ANY)
add("object of a hostile metaclass", lambda: object.__new__(OfMeta), ANY)
add("hostile metaclass", lambda: OfMeta, ANY)


def restless(make: Callable[[], Any], change: Callable[[Any, int], None]) -> Make:
    """A container that another thread changes all the time."""

    def made(stack: ExitStack) -> Any:
        value, stop = make(), threading.Event()

        def run() -> None:
            step = 0
            while not stop.is_set():
                step += 1
                change(value, step)

        thread = threading.Thread(target=run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        return value

    return made


def change_dict(value: dict[Any, Any], step: int) -> None:
    value[str(step % 100)] = step
    value.pop(str((step * 7) % 100), None)


def change_list(value: list[Any], step: int) -> None:
    value.append({"n": step})
    if len(value) > 50:
        del value[:]


def change_object(value: Node, step: int) -> None:
    setattr(value, f"a{step % 50}", step)
    value.__dict__.pop(f"a{(step * 7) % 50}", None)


add_open("restless dict", restless(dict, change_dict), ANY)
add_open("restless list", restless(list, change_list), ANY)
add_open("restless object", restless(Node, change_object), ANY)
add_open("restless set", restless(set, lambda value, step: (value.add(step), value.discard(step - 20))), ANY)


# --- the tests ------------------------------------------------------------------------------------------------------


class Carrying(Exception):  # noqa: N818 - it carries, it is no error of its own
    def __init__(self, value: Any) -> None:
        super().__init__("carried")
        self.value = self.code = value


@xray.filtering_stage("candidate")
def as_candidate(pool: list[Any]) -> list[Any]:
    return pool


@xray.filtering_stage("inside")
def inside(pool: list[Any]) -> list[Any]:
    return pool


@xray.scoring_stage("argument")
def as_argument(pool: list[Any], value: Any) -> list[Any]:
    return pool


@xray.raw_stage("raw")
def as_result(value: Any) -> Any:
    return value


@xray.generation_stage("generated")
def generated(value: Any) -> Any:
    return value


@xray.selection_stage("selected")
def selected(value: Any) -> Any:
    return value


@xray.ranking_stage("ranked")
def ranked(pool: Any) -> Any:
    return pool


@xray.raw_stage("raised")
def as_exception(value: Any) -> Any:
    raise Carrying(value)


NAMES = ("candidate", "inside", "argument", "raw", "generated", "selected", "ranked", "raised")


def record(value: Any) -> Recorded:
    """The value at each place, and what was recorded; what the user's code sees is checked on the way."""
    transport = MemoryTransport()
    xray.configure(transport=transport, buffer_bytes=1 << 30)
    recorded = Recorded(transport)
    pool = [value, {"id": "x"}]
    assert as_candidate(pool) is pool
    assert pool[0] is value
    pool = [{"id": "x", "value": value}]
    assert inside(pool) is pool
    assert pool[0]["value"] is value
    pool = [{"id": "x", "score": 1}]
    assert as_argument(pool, value) is pool
    assert as_result(value) is value
    assert generated(value) is value
    assert selected(value) is value
    assert ranked(value) is value
    with pytest.raises(Carrying) as caught:
        as_exception(value)
    assert caught.value.value is value
    return recorded


@pytest.mark.parametrize("name", VALUES)
def test_the_users_function_and_the_service_are_spared(name: str):
    """At each place the value goes through untouched; the record is sent, valid, and says what it lacks."""
    make, kept = VALUES[name]
    with ExitStack() as stack:
        recorded = record(make(stack))
        assert xray.flush(timeout_s=30), xray.stats()
    stats = xray.stats()
    assert stats.failures == {}
    assert stats.dropped == {}
    assert tuple(stage["name"] for stage in recorded.stages) == NAMES
    stored = {}
    for event in recorded.events:
        assert len(msgspec.msgpack.encode(event)) < 6_000_000
        stored[event.get("name")] = validate_event(event, "events[0]", installed())
    stage = recorded.stage("inside")
    assert stored["inside"].columns is not None
    (row,) = stored["inside"].columns.rows()
    assert row["candidate_id"] == "x"
    assert "extract_error" not in stage.get("facts", {})
    if kept is MARKED:
        assert b"[xray: " in msgspec.json.encode(row["data"]), row
    elif kept is not ANY:
        assert row["data"] == {"id": "x", "value": kept}


def test_there_are_at_least_200_of_them():
    """As many values as are promised."""
    assert len(VALUES) >= 200


def test_lazy_values_are_not_consumed():
    """Generators and iterators arrive at their reader with everything that they had."""
    values = [iter([1, 2]), (n for n in (1, 2)), map(int, "12"), (n for n, _ in zip("12", "ab", strict=True))]
    for value in values:
        record(value)
        assert [int(item) for item in value] == [1, 2]
    assert xray.flush(timeout_s=20)


def test_a_candidate_that_cannot_be_read_does_not_spoil_the_others():
    """Beside a hostile candidate the others keep their ids, data and verdicts."""

    class Hostile:
        __getattribute__ = explode

    hostile = Hostile()

    @xray.filtering_stage("mixed", passed="ok")
    def mixed(pool: list[Any]) -> list[Any]:
        return [candidate if candidate is hostile else {**candidate, "ok": candidate["n"] > 1} for candidate in pool]

    transport = MemoryTransport()
    xray.configure(transport=transport)
    mixed([{"id": "a", "n": 1}, hostile, {"id": "b", "n": 2}])
    assert xray.flush(timeout_s=20)
    (stage,) = transport.of_type("stage")
    data = stage["columns"]["data"]
    assert [data[0], data[2]] == [{"id": "a", "n": 1}, {"id": "b", "n": 2}]
    assert stage["columns"]["verdict"][0] == "failed"
    assert stage["columns"]["verdict"][2] == "passed"
