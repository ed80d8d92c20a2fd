"""What users say from inside a stage."""

from __future__ import annotations

import asyncio
import decimal
import enum
import threading
from typing import Any

import pytest

import xray
from tests.sdk.recording import EVERY_WAY, recording
from xray.delivery.memory import MemoryTransport

pytestmark = EVERY_WAY


def test_outside_of_any_stage_nothing_happens():
    """Nothing is recorded and nothing raises, outside of a run and in a run without a stage."""

    def say_all() -> None:
        xray.reject("a", "x")
        xray.accept({"id": "b"})
        xray.score("a", 0.5)
        xray.note("n")
        xray.llm(model="m")
        stage = xray.current_stage()
        stage.set_input(1)
        stage.set_output(1)
        stage.set_reasoning("r")
        stage.set_metadata(a=1)
        stage.counts(seen=3, passed=1)
        stage.metric("m", 1)
        assert not stage
        assert stage.id is None

    with recording() as recorded:
        say_all()
        with xray.run("job"):
            say_all()
    assert [event["type"] for event in recorded.events] == ["run.start", "run.end"]
    with pytest.raises(AttributeError, match="no 'rejct'"):
        xray.current_stage().rejct("a")


def test_the_innermost_stage_hears_it():
    """Also in coroutines and in functions that are not decorated."""

    def helper(text: str) -> None:
        xray.note(text)

    @xray.raw_stage
    async def inner() -> None:
        await asyncio.sleep(0)
        helper("inner")

    @xray.raw_stage
    async def outer() -> None:
        helper("before")
        await asyncio.gather(inner(), inner())
        helper("after")

    with recording() as recorded:
        asyncio.run(outer())
    assert [stage["reasoning"] for stage in recorded.stages] == ["before\nafter", "inner", "inner"]


class Reason(enum.Enum):
    PRICE = "price_too_high"


class TextReason(str, enum.Enum):  # noqa: UP042 - as in code from before StrEnum
    STOCK = "no_stock"


def test_a_later_verdict_takes_the_place_of_an_earlier_one():
    """Together with its reason; scores stay. Labels may be members of an enumeration."""

    @xray.filtering_stage
    def keep(items: list[str]) -> list[str]:
        xray.reject("a", "old", "text")
        xray.score("a", 0.5)
        xray.accept("a")
        xray.accept("b")
        xray.reject("b", Reason.PRICE)  # type: ignore[arg-type]
        xray.reject("c", TextReason.STOCK)
        return items

    with recording() as recorded:
        keep(["a", "b", "c"])
    rows = {key: {k: v for k, v in row.items() if k != "data"} for key, row in recorded.rows("keep").items()}
    assert rows == {
        "a": {"verdict": "passed", "score": 0.5},
        "b": {"verdict": "failed", "reason_label": "price_too_high"},
        "c": {"verdict": "failed", "reason_label": "no_stock"},
    }


class Thing:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("items", "accessor"),
    [
        ([{"id": 0}, {"id": 1}], None),
        ([{"id": "x"}, {"id": "y"}], "id"),
        ([{"code": 0}, {"code": 1}], "code"),
        ([Thing(sku=3), Thing(sku=4)], None),
        ([Thing(n=3), Thing(n=4)], lambda thing: thing.n),
        ([Thing(n=3), Thing(n=4)], None),
        ([("k", 0.5), ("l", 0.7)], None),
        ([(Thing(id="p"), 0.5), (Thing(id="q"), 0.7)], None),
        ([3, 4], None),
        (["s", "t"], None),
    ],
)
def test_a_candidate_is_found_by_its_id_whatever_it_is(items: list[Any], accessor: Any):
    """What is said of a candidate lands on its row, not on one of its own."""

    @xray.filtering_stage(id=accessor)
    def keep(candidates: list[Any]) -> list[Any]:
        xray.reject(candidates[1], "second")
        return candidates

    with recording() as recorded:
        keep(items)
    rows = list(recorded.rows("keep").values())
    assert [row.get("reason_label") for row in rows] == [None, "second"]
    assert [row["verdict"] for row in rows] == ["passed", "failed"]


def test_numbers_of_other_kinds_and_what_is_none():
    """Decimals, NumPy numbers and flags become numbers; text and None are counted, not stored."""
    numpy = pytest.importorskip("numpy")

    @xray.raw_stage
    def measure() -> None:
        stage = xray.current_stage()
        stage.metric("decimal", decimal.Decimal("1.5"))
        stage.metric("numpy", numpy.float32(0.25))
        stage.metric("flag", True)
        stage.metric("text", "12")
        stage.metric("none", None)

    transport = MemoryTransport()
    xray.configure(transport=transport)
    measure()
    assert xray.flush(10)
    stage = next(event for event in transport.events if event["type"] == "stage")
    assert stage["metrics"] == {"decimal": 1.5, "numpy": 0.25, "flag": 1}
    assert xray.stats().failures == {"a call from inside a stage": 2}


def test_hostile_values_are_harmless():
    """Candidates, labels and texts that raise when they are looked at."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no attribute")

    @xray.filtering_stage
    def keep() -> str:
        hostile: Any = Hostile()
        xray.reject(hostile, "label")
        xray.reject("a", hostile, hostile)
        xray.score("a", hostile)
        xray.note(hostile)
        xray.llm(model=hostile)
        xray.current_stage().set_output(hostile)
        return "reached"

    transport = MemoryTransport()
    xray.configure(transport=transport)
    assert keep() == "reached"
    assert xray.flush(10)
    assert [event["type"] for event in transport.events] == ["run.start", "stage", "run.end"]


def test_what_is_said_too_late_is_counted():
    """By a thread that outlives its stage, whether or not anything was said in time; nothing is raised."""
    transport = MemoryTransport()
    xray.configure(transport=transport)
    ended = threading.Event()
    threads: list[threading.Thread] = []

    @xray.raw_stage
    def hasty(*, speaks: bool) -> None:
        def late() -> None:
            ended.wait(20)
            xray.note("late")

        if speaks:
            xray.note("in time")
        threads.append(threading.Thread(target=xray.propagate(late)))
        threads[-1].start()

    hasty(speaks=True)
    hasty(speaks=False)
    ended.set()
    for thread in threads:
        thread.join()
    assert xray.flush(10)
    assert xray.stats().failures == {"recording of what was said after the end of a stage": 2}
    assert [event.get("reasoning") for event in transport.events if event["type"] == "stage"] == ["in time", None]


def test_many_threads_say_all_of_it():
    """Nothing is lost where the threads of a stage speak at once, the very first word included."""

    @xray.filtering_stage
    def judge(numbers: list[int]) -> None:
        barrier = threading.Barrier(8)

        def work(part: int) -> None:
            barrier.wait(20)
            for number in numbers[part::8]:
                xray.reject(number, f"label{number % 3}")

        threads = [threading.Thread(target=xray.propagate(work), args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with recording() as recorded:
        judge(list(range(400)))
    rows = recorded.rows("judge")
    assert {key: row["reason_label"] for key, row in rows.items()} == {str(n): f"label{n % 3}" for n in range(400)}


def test_what_is_said_is_bounded_and_says_so():
    """Beyond the limits verdicts, notes and values are left out and counted; the run is truncated."""

    @xray.filtering_stage
    def judge() -> None:
        for number in range(100):
            xray.reject({"id": number, "text": "x" * 200})
        for _ in range(3000):
            xray.note("n")

    with recording(max_candidates=50, max_stage_bytes=20_000) as recorded:
        judge()
    stage = recorded.stage("judge")
    assert len(stage["columns"]["candidate_id"]) == 50
    # 50 candidates too many, and 2,000 lines too many
    assert stage["facts"]["said_too_late_or_too_much"] == 2050
    assert recorded.events[-1]["completeness"] == "truncated"


def test_what_is_said_does_not_change_later():
    """Candidates, inputs, outputs and model calls are taken when they are said."""
    candidate, value = {"id": "a", "price": 1}, {"n": [1]}

    @xray.filtering_stage
    def judge() -> None:
        xray.reject(candidate, "x")
        xray.llm(messages=value)
        xray.current_stage().set_input(value)
        candidate["price"] = 2
        value["n"].append(2)

    with recording() as recorded:
        judge()
    stage = recorded.stage("judge")
    assert recorded.rows("judge")["a"]["data"] == {"id": "a", "price": 1}
    assert (stage["input"], stage["llm"]) == ({"n": [1]}, {"messages": {"n": [1]}})
