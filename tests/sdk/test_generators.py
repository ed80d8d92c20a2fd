"""Generators as stages and pipelines: they behave as if undecorated, and what they yield is recorded as it was."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xray
from tests.sdk.recording import recording
from xray.context import current
from xray.delivery.memory import MemoryTransport

ERRORS = {"value": ValueError, "stop": StopIteration, "stop_async": StopAsyncIteration, "exit": GeneratorExit}


@dataclass
class Product:
    id: str
    price: float


# --- the same behaviour -------------------------------------------------------------------------------------------


def scripted(reactions: list[str], log: list[str]) -> Any:
    """A generator that reacts to what it is sent and to what is thrown at it as a list of words says."""
    log.append("began")
    steps = iter(reactions)
    given_value: Any = None
    while True:
        reaction = next(steps, "return")
        try:
            if reaction == "raise":
                raise LookupError("of its own")
            if reaction == "return":
                return ("result", given_value)
            if reaction == "stop":
                raise StopIteration
            given_value = yield {"id": len(log), "given": repr(given_value)}
            log.append(f"got {given_value!r}")
        except (ValueError, GeneratorExit) as error:
            log.append(f"caught {type(error).__name__}")
            if reaction == "swallow":
                given_value = yield {"id": "swallowed"}
            elif reaction == "answer":
                return "answered"
            elif reaction == "other":
                raise KeyError("in its place") from error
            else:
                raise
        finally:
            log.append("step")


async def scripted_async(reactions: list[str], log: list[str]) -> Any:
    """The same as an async generator."""
    log.append("began")
    given_value: Any = None
    steps = iter(reactions)
    while True:
        reaction = next(steps, "return")
        try:
            await asyncio.sleep(0)
            if reaction == "raise":
                raise LookupError("of its own")
            if reaction in ("return", "answer"):
                return
            if reaction == "stop":
                raise StopAsyncIteration
            given_value = yield {"id": len(log), "given": repr(given_value)}
            log.append(f"got {given_value!r}")
        except (ValueError, GeneratorExit) as error:
            log.append(f"caught {type(error).__name__}")
            if reaction == "swallow":
                given_value = yield {"id": "swallowed"}
            elif reaction == "other":
                raise KeyError("in its place") from error
            else:
                raise
        finally:
            log.append("step")


def described(error: BaseException) -> Any:
    parts: list[Any] = []
    seen: BaseException | None = error
    while seen is not None and len(parts) < 10:
        parts.append((type(seen).__name__, str(getattr(seen, "value", seen))))
        seen = seen.__cause__
    return "raised", parts, type(error.__context__).__name__


def drive(generator: Any, operations: list[tuple[str, Any]]) -> list[Any]:
    seen: list[Any] = []
    # In the end it is closed until it gives in: what is left to the garbage collector complains to nobody.
    for operation, value in [*operations, *[("close", None)] * 8]:
        try:
            if operation == "next":
                seen.append(next(generator))
            elif operation == "send":
                seen.append(generator.send(value))
            elif operation == "throw":
                seen.append(generator.throw(ERRORS[value]()))
            else:
                seen.append(generator.close())
        except BaseException as error:
            seen.append(described(error))
    return seen


async def drive_async(generator: Any, operations: list[tuple[str, Any]]) -> list[Any]:
    seen: list[Any] = []
    for operation, value in operations:
        try:
            if operation == "next":
                seen.append(await anext(generator))
            elif operation == "send":
                seen.append(await generator.asend(value))
            elif operation == "throw":
                seen.append(await generator.athrow(ERRORS[value]()))
            else:
                seen.append(await generator.aclose())
        except BaseException as error:
            seen.append(described(error))
    return seen


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("next"), st.none()),
        st.tuples(st.just("send"), st.sampled_from([None, 1, "x"])),
        st.tuples(st.just("throw"), st.sampled_from(sorted(ERRORS))),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=8,
)
REACTIONS = st.lists(st.sampled_from(["yield", "raise", "return", "stop", "swallow", "answer", "other"]), max_size=6)
DECORATORS: dict[str, Callable[[Any], Any]] = {
    "raw": xray.raw_stage("scripted"),
    "retrieval": xray.retrieval_stage("scripted"),
    "pipeline": xray.pipeline("scripted"),
}


@pytest.mark.parametrize("kind", sorted(DECORATORS))
@settings(max_examples=150, deadline=None)
@given(reactions=REACTIONS, operations=OPERATIONS)
def test_a_generator_answers_as_if_undecorated(kind: str, reactions: list[str], operations: list[tuple[str, Any]]):
    """Any script of next, send, throw and close gives the same values, exceptions and steps inside."""
    decorated = DECORATORS[kind](scripted)
    transport = MemoryTransport()
    xray.configure(transport=transport)
    plain_log: list[str] = []
    log: list[str] = []
    expected = drive(scripted(reactions, plain_log), operations)
    assert drive(decorated(reactions, log), operations) == expected
    assert log == plain_log
    assert current.get() is None
    assert xray.flush(10)
    assert xray.stats().failures == {}
    starts = [event for event in transport.events if event["type"] == "run.start"]
    assert len(starts) == bool(log)


@pytest.mark.parametrize("kind", sorted(DECORATORS))
@settings(max_examples=150, deadline=None)
@given(reactions=REACTIONS, operations=OPERATIONS)
def test_an_async_generator_answers_as_if_undecorated(
    kind: str, reactions: list[str], operations: list[tuple[str, Any]]
):
    """The same for async generators, abandoned ones closed by the loop included."""
    decorated = DECORATORS[kind](scripted_async)
    transport = MemoryTransport()
    xray.configure(transport=transport)

    def run(function: Any) -> tuple[list[Any], list[str], list[Any]]:
        log: list[str] = []
        problems: list[Any] = []

        async def go() -> list[Any]:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: problems.append(context["message"][:50])
            )
            # What swallows being closed once would complain at the very end: it goes on until it returns.
            rest = [("next", None)] * 12 if "swallow" in reactions else []
            found = await drive_async(function(reactions, log), [*operations, *rest])
            assert current.get() is None
            return found

        return asyncio.run(go()), log, problems

    expected = run(scripted_async)
    assert run(decorated) == expected
    assert xray.flush(10)
    assert xray.stats().failures == {}
    starts = [event for event in transport.events if event["type"] == "run.start"]
    assert len(starts) == bool(expected[1])


def test_the_exception_that_leaves_is_the_one_that_was_raised():
    """By identity, both ways through the decorator."""
    error, caught = ValueError("x"), []

    @xray.raw_stage
    def gives() -> Iterator[int]:
        try:
            yield 1
        except ValueError as found:
            caught.append(found)
            raise

    with recording() as recorded:
        generator: Any = gives()
        next(generator)
        with pytest.raises(ValueError, match="x") as raised:
            generator.throw(error)
    assert raised.value is error is caught[0]
    assert (error.__context__, error.__cause__) == (None, None)
    assert recorded.stage("gives")["error"]["type"] == "ValueError"


# --- what is recorded ---------------------------------------------------------------------------------------------


def test_the_consumer_is_not_inside_of_the_stage():
    """Stages that the consumer calls between two items are siblings; those that the generator calls are children."""

    @xray.raw_stage("helper")
    def helper(by: str) -> str:
        return by

    @xray.retrieval_stage("source")
    def source() -> Iterator[int]:
        for number in range(2):
            helper("generator")
            xray.note(f"gives {number}")
            yield number

    @xray.pipeline("job")
    def job() -> None:
        for _ in source():
            helper("consumer")
            assert not xray.current_stage()

    with recording() as recorded:
        job()
    assert [(stage["path"], stage.get("output")) for stage in recorded.stages] == [
        ("source", None),
        ("source/helper", "generator"),
        ("helper", "consumer"),
        ("source/helper#2", "generator"),
        ("helper#2", "consumer"),
    ]
    assert recorded.stage("source")["reasoning"] == "gives 0\ngives 1"


def test_two_generators_interleaved_keep_apart():
    """Steps of one do not happen inside of the other."""

    @xray.retrieval_stage
    def source(name: str) -> Iterator[str]:
        for number in range(3):
            xray.note(name)
            yield f"{name}{number}"

    with recording() as recorded, xray.run("job"):
        assert list(zip(source("a"), source("b"), strict=True)) == [("a0", "b0"), ("a1", "b1"), ("a2", "b2")]
    assert [(stage["reasoning"], "parent_id" in stage) for stage in recorded.stages] == [
        ("a\na\na", False),
        ("b\nb\nb", False),
    ]


def test_a_block_inside_of_a_generator_stays_open_over_a_yield():
    """What is said after the yield still goes to the block."""

    @xray.raw_stage
    def outer() -> Iterator[int]:
        with xray.run("inner").stage("block") as block:
            yield 1
            xray.note("after")
            assert xray.current_stage().path == block.path
        xray.note("outside of the block")

    with recording() as recorded:
        assert list(outer()) == [1]
    assert recorded.stage("block")["reasoning"] == "after"
    assert recorded.stage("block")["path"] == "outer/block"
    assert recorded.stage("outer")["reasoning"] == "outside of the block"


KINDS: dict[str, Callable[[str, float], Any]] = {
    "dict": lambda key, price: {"id": key, "price": price},
    "dataclass": Product,
    "object": lambda key, price: type(
        "Thing", (), {"__init__": lambda self: self.__dict__.update(id=key, price=price)}
    )(),
}


def change(item: Any) -> None:
    if isinstance(item, dict):
        item["price"] = -1
        item["id"] = "changed"
    else:
        item.price, item.id = -1, "changed"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("accessor", ["id", lambda item: item["id"] if isinstance(item, dict) else item.id])
def test_changing_an_item_after_the_yield_does_not_reach_the_record(kind: str, accessor: Any):
    """Ids, fields and data are those of the moment of the yield, whatever the item is and however it is read."""

    @xray.retrieval_stage("source", id=accessor)
    def source() -> Iterator[Any]:
        for number in range(4):
            yield KINDS[kind](f"p{number}", float(number))

    with recording() as recorded:
        for item in source():
            change(item)
    rows = recorded.rows("source")
    assert {key: row["data"]["price"] for key, row in rows.items()} == {"p0": 0, "p1": 1, "p2": 2, "p3": 3}
    assert {row["data"]["id"] for row in rows.values()} == {"p0", "p1", "p2", "p3"}


@given(st.lists(st.floats(0, 1), unique=True, max_size=30), st.sampled_from(sorted(KINDS)))
@settings(max_examples=40, deadline=None)
def test_a_generator_is_recorded_as_the_list_of_its_items(prices: list[float], kind: str):
    """Ids, verdicts, data and metrics equal those of the same filter that returns a list."""
    pool = [KINDS[kind](f"p{place}", price) for place, price in enumerate(prices)]

    def price_of(item: Any) -> float:
        return item["price"] if isinstance(item, dict) else item.price

    @xray.filtering_stage("lazy")
    def lazy(candidates: list[Any]) -> Iterator[Any]:
        yield from (item for item in candidates if price_of(item) < 0.5)

    @xray.filtering_stage("eager")
    def eager(candidates: list[Any]) -> list[Any]:
        return [item for item in candidates if price_of(item) < 0.5]

    with recording() as recorded:
        assert list(lazy(pool)) == eager(pool)
    assert recorded.rows("lazy") == recorded.rows("eager")
    assert recorded.metrics("lazy") == recorded.metrics("eager")
    assert recorded.stage("lazy")["facts"].pop("yielded") == recorded.metrics("eager")["passed"]


def test_items_without_an_id_are_told_apart_by_identity():
    """The same object in and out is the same candidate, also where it comes out of a generator."""

    class Thing:
        def __init__(self, size: int) -> None:
            self.size = size

    @xray.filtering_stage
    def big(things: list[Thing]) -> Iterator[Thing]:
        yield from (thing for thing in things if thing.size > 1)

    with recording() as recorded:
        list(big([Thing(1), Thing(2), Thing(3)]))
    assert {key: row["verdict"] for key, row in recorded.rows("big").items()} == {
        "#1": "failed", "#2": "passed", "#3": "passed",
    }  # fmt: skip


def test_items_of_several_kinds_and_fields_read_live():
    """Accessors that are callables read each item when it is yielded; an item that has no such field has none."""

    @xray.retrieval_stage("mixed", score=lambda item: item.price)
    def mixed() -> Iterator[Any]:
        yield {"id": "a"}
        product = Product("b", 2.0)
        yield product
        product.price = 99
        yield Product("c", 3.0)

    with recording() as recorded:
        list(mixed())
    assert {key: row.get("score") for key, row in recorded.rows("mixed").items()} == {"a": None, "b": 2.0, "c": 3.0}


def test_an_abandoned_generator_records_what_came_out_until_then():
    """By break, close or the garbage collector; the stage succeeds and says that it was abandoned."""

    @xray.retrieval_stage
    def source() -> Iterator[int]:
        yield from range(100)

    with recording() as recorded:
        for number in source():
            if number == 2:
                break
        generator = source()
        next(generator)
        generator.close()  # type: ignore[attr-defined]
        forgotten = source()
        next(forgotten)
        del forgotten
        gc.collect()
    assert [len(stage["columns"]["candidate_id"]) for stage in recorded.stages] == [3, 1, 1]
    assert {stage["status"] for stage in recorded.stages} == {"success"}
    assert all(stage["facts"]["abandoned"] for stage in recorded.stages)


def test_a_generator_that_is_never_started_is_not_recorded():
    """Neither plain nor async."""

    @xray.retrieval_stage
    def source() -> Iterator[int]:
        yield 1

    @xray.retrieval_stage
    async def source_async() -> AsyncIterator[int]:
        yield 1

    with recording() as recorded:
        source()
        source().close()  # type: ignore[attr-defined]
        source_async()
        asyncio.run(source_async().aclose())  # type: ignore[attr-defined]
        gc.collect()
    assert recorded.events == []


def test_a_generator_that_fails_says_so_and_how_far_it_came():
    """What came out is counted; what came in is kept without verdicts, for nobody knows what the rest had been."""

    @xray.filtering_stage
    def keep(numbers: list[int]) -> Iterator[int]:
        yield numbers[0]
        raise OSError("disk")

    with recording() as recorded, pytest.raises(OSError, match="disk"):
        list(keep([1, 2, 3]))
    stage = recorded.stage("keep")
    assert (stage["status"], stage["error"]["type"], stage["facts"]["yielded"]) == ("failure", "OSError", 1)
    assert {row.get("verdict") for row in recorded.rows("keep").values()} == {None}


def test_an_unfinished_async_generator_ends_when_the_loop_collects_it():
    """Garbage-collected while the loop runs, or left behind when it ends: recorded once, without a complaint."""
    closed: list[str] = []

    @xray.retrieval_stage
    async def source(name: str) -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    problems: list[Any] = []
    left: list[Any] = []

    async def go() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async for number in source("collected"):
            if number == 1:
                break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert closed == ["collected"]
        left.append(source("left"))
        await anext(left[0])

    with recording() as recorded:
        asyncio.run(go())
    assert (closed, problems) == (["collected", "left"], [])
    assert [len(stage["columns"]["candidate_id"]) for stage in recorded.stages] == [2, 1]


def test_an_async_generator_that_is_cancelled_fails():
    """A cancellation while it waits passes through it."""

    @xray.retrieval_stage
    async def source() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)
        yield 2

    async def go() -> None:
        async def consume() -> None:
            async for _ in source():
                pass

        task = asyncio.create_task(consume())
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with recording() as recorded:
        asyncio.run(go())
    assert recorded.stage("source")["error"]["type"] == "CancelledError"


def test_an_async_consumer_is_not_inside_either():
    """Context is the generator's during a step, the consumer's between two."""

    @xray.raw_stage("helper")
    async def helper(by: str) -> str:
        await asyncio.sleep(0)
        return by

    @xray.retrieval_stage("source")
    async def source() -> AsyncIterator[int]:
        for number in range(2):
            await helper("generator")
            yield number

    @xray.pipeline("job")
    async def job() -> None:
        async for _ in source():
            await helper("consumer")

    with recording() as recorded:
        asyncio.run(job())
    assert [stage["path"] for stage in recorded.stages] == [
        "source", "source/helper", "helper", "source/helper#2", "helper#2",
    ]  # fmt: skip


def test_memory_is_bounded_and_what_was_left_out_is_said():
    """Beyond max_stage_bytes items still reach the consumer; the stage and its run say truncated."""

    @xray.retrieval_stage
    def source() -> Iterator[dict[str, Any]]:
        for number in range(1000):
            yield {"id": number, "text": "x" * 100}

    @xray.pipeline("job")
    def job() -> int:
        return sum(1 for _ in source())

    with recording(max_stage_bytes=20_000) as recorded:
        assert job() == 1000
    stage, end = recorded.stage("source"), recorded.events[-1]
    kept = len(stage["columns"]["candidate_id"])
    assert 100 < kept < 200
    assert stage["facts"]["yielded"] == 1000
    assert stage["facts"]["yielded_beyond_limit"] == 1000 - kept
    assert {"path": "candidates", "kind": "candidates", "size": 1000} in stage["capture"]["markers"]
    assert end["completeness"] == "truncated"


def test_what_a_generator_returns_is_the_output_beside_its_candidates():
    """``return value`` of a generator, for stages and pipelines."""

    @xray.retrieval_stage
    def source() -> Any:
        yield "a"
        return {"pages": 3}

    @xray.pipeline("job")
    def job() -> Any:
        return (yield from source())

    @xray.raw_stage
    def steps() -> Iterator[str]:
        yield "one"
        yield "two"

    with recording() as recorded:
        assert list(job()) == ["a"]
        assert list(steps()) == ["one", "two"]
    assert recorded.stage("source")["output"] == {"pages": 3}
    assert recorded.stage("source")["columns"]["candidate_id"] == ["a"]
    assert recorded.stage("steps")["output"] == ["one", "two"]
    ends = {event["run"]["label"]: event for event in recorded.events if event["type"] == "run.end"}
    assert ends["job"]["output"] == {"pages": 3}


@pytest.mark.parametrize(("count", "output"), [(3, [0, 1, 2]), (80, "[xray: generator of 80 items]")])
def test_what_a_pipeline_yields_is_its_output(count: int, output: Any):
    """A few items whole, of many only how many there were; stages between two steps belong to the consumer."""

    @xray.pipeline("numbers")
    def numbers() -> Iterator[int]:
        yield from range(count)

    with recording() as recorded:
        assert list(numbers()) == list(range(count))
    assert recorded.events[-1]["output"] == output
    assert recorded.events[-1]["status"] == "success"


def test_steps_in_several_threads_belong_to_one_stage():
    """A generator that is handed from thread to thread leaves nothing behind in any of them."""
    from concurrent.futures import ThreadPoolExecutor

    @xray.retrieval_stage
    def source() -> Iterator[int]:
        for number in range(6):
            xray.note(str(number))
            yield number

    with recording() as recorded, ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        generator = source()
        for pool in (first, second) * 3:
            pool.submit(next, generator).result()
            assert pool.submit(current.get).result() is None
        assert list(generator) == []
    assert recorded.stage("source")["reasoning"] == "0\n1\n2\n3\n4\n5"


def test_a_generator_of_a_run_that_was_sampled_out_opens_no_run_below():
    """Neither as pipeline nor as a stage outside of any."""

    @xray.raw_stage
    def helper() -> int:
        assert not xray.current_stage()
        return 1

    @xray.pipeline("numbers", sample_rate=0.0)
    def numbers() -> Iterator[int]:
        yield helper()

    @xray.raw_stage
    def stage() -> Iterator[int]:
        yield helper()

    with recording() as recorded:
        assert list(numbers()) == [1]
        xray.configure(sample_rate=0.0)
        assert list(stage()) == [1]
        assert current.get() is None
    assert recorded.events == []


def test_a_filter_that_was_abandoned_judges_only_what_it_gave():
    """Whoever was not reached when the consumer went away did not fail."""

    @xray.filtering_stage("first")
    def first(pool: list[int]) -> Iterator[int]:
        for number in pool:
            if number > 1:
                yield number

    with recording() as recorded:
        assert next(iter(first([1, 2, 3]))) == 2
        gc.collect()
    assert {key: row.get("verdict") for key, row in recorded.rows("first").items()} == {
        "1": None,
        "2": "passed",
        "3": None,
    }
