"""Several runs at once, in threads, tasks and pools, and which run a stage belongs to."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import xray
from tests.sdk.recording import Recorded, recording


@xray.filtering_stage("even")
def even(numbers: list[int]) -> list[int]:
    return [number for number in numbers if number % 2 == 0]


@xray.raw_stage("pause")
async def pause(number: int) -> int:
    await asyncio.sleep(0)
    even([number])
    return number


@xray.pipeline("shop", id="name")
class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    @xray.entrypoint
    def run(self, work: Callable[[], Any]) -> Any:
        return work()

    @xray.entrypoint
    async def run_async(self, work: Callable[[], Any]) -> Any:
        return await work()

    @xray.filtering_stage("method")
    def method(self, numbers: list[int]) -> list[int]:
        return even(numbers)

    @xray.raw_stage("outer")
    def outer(self, work: Callable[[], Any]) -> Any:
        return work()


def keys(recorded: Recorded) -> dict[str, Any]:
    """Stage path → the key, or else the label, of its run; for stages whose path is unique."""
    return {stage["path"]: stage["run"].get("key", stage["run"]["label"]) for stage in recorded.stages}


def runs(recorded: Recorded) -> list[str]:
    return sorted(event["run"]["label"] for event in recorded.events if event["type"] == "run.start")


def test_runs_in_many_threads_keep_apart():
    """Sixteen threads at once, each with its own run, in step with each other."""
    barrier = threading.Barrier(16)

    def job(number: int) -> None:
        shop = Shop(str(number))

        def work() -> None:
            for _ in range(5):
                barrier.wait(20)
                shop.method([number, number + 1])

        shop.run(work)

    with recording() as recorded, ThreadPoolExecutor(16) as pool:
        list(pool.map(job, range(16)))
    by_run = Counter((stage["run"]["key"], stage["name"]) for stage in recorded.stages)
    assert by_run == {(str(n), name): 5 for n in range(16) for name in ("method", "even")}
    for stage in recorded.stages:
        number = int(stage["run"]["key"])
        assert stage["columns"]["candidate_id"] == [str(number), str(number + 1)]
        assert stage["path"].startswith("method")


def test_gather_and_task_groups_take_the_stage_along():
    """Each task's stages are below what was current when the task was made."""

    @xray.raw_stage("gathered")
    async def gathered() -> None:
        await asyncio.gather(pause(1), pause(2))

    @xray.raw_stage("grouped")
    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(pause(3))
            group.create_task(pause(4))

    async def work() -> None:
        await gathered()
        await grouped()

    with recording() as recorded:
        asyncio.run(Shop("a").run_async(work))
    assert runs(recorded) == ["shop"]
    assert sorted(stage["path"] for stage in recorded.stages) == [
        "gathered", "gathered/pause", "gathered/pause#2", "gathered/pause#2/even", "gathered/pause/even",
        "grouped", "grouped/pause", "grouped/pause#2", "grouped/pause#2/even", "grouped/pause/even",
    ]  # fmt: skip


def test_to_thread_takes_the_stage_along_and_run_in_executor_with_propagate():
    """asyncio.to_thread copies the context; run_in_executor does not, so propagate does."""

    @xray.raw_stage("outer")
    async def outer() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(even, [1])
        await loop.run_in_executor(None, xray.propagate(even), [2])
        await loop.run_in_executor(None, even, [3])

    with recording() as recorded:
        asyncio.run(Shop("a").run_async(outer))
    assert sorted((stage["run"]["label"], stage["path"]) for stage in recorded.stages) == [
        ("even", "even"), ("shop", "outer"), ("shop", "outer/even"), ("shop", "outer/even#2"),
    ]  # fmt: skip


def test_a_pool_with_propagate():
    """Functions, coroutine functions and methods run where propagate was called, and nothing is left in the threads."""

    async def later(number: int) -> int:
        return even([number])[0]

    with recording() as recorded, ThreadPoolExecutor(2) as pool:

        def work() -> None:
            assert list(pool.map(xray.propagate(even), [[1, 2], [3, 4]])) == [[2], [4]]
            inside = xray.propagate(later)
            assert list(pool.map(lambda number: asyncio.run(inside(number)), [6])) == [6]

        Shop("a").run(lambda: Shop("b").outer(work))
        pool.submit(even, [5]).result()
    assert sorted((stage["run"]["label"], stage["path"]) for stage in recorded.stages) == [
        ("even", "even"), ("shop", "outer"), ("shop", "outer/even"), ("shop", "outer/even#2"), ("shop", "outer/even#3"),
    ]  # fmt: skip


def test_generators_with_propagate():
    """Generators of both kinds run in the place that was taken along, at each step; their consumer never is in it."""

    def some(numbers: list[int]) -> Iterator[Any]:
        told = []
        try:
            for number in numbers:
                answer = yield even([number])
                told += [answer]
        except KeyError:
            yield even([8])
        return told

    async def later(numbers: list[int]) -> AsyncIterator[Any]:
        for number in numbers:
            await asyncio.sleep(0)
            yield even([number])

    async def consume(inside: Any) -> list[Any]:
        found = []
        async for item in inside([1, 2]):
            even([100])
            found.append(item)
        return found

    def drive(inside: Any) -> list[Any]:
        generator = inside([1, 2, 3])
        found = [next(generator)]
        even([100])
        found += [generator.send("a"), generator.throw(KeyError("k"))]
        with pytest.raises(StopIteration) as stop:
            next(generator)
        return [*found, stop.value.value]

    with recording() as recorded, ThreadPoolExecutor(1) as pool:

        def work() -> None:
            assert pool.submit(drive, xray.propagate(some)).result() == [[], [2], [8], ["a"]]
            inside = xray.propagate(later)
            assert pool.submit(lambda: asyncio.run(consume(inside))).result() == [[], [2]]

        Shop("a").run(lambda: Shop("b").outer(work))
    paths = [(stage["run"]["label"], stage["path"]) for stage in recorded.stages]
    assert paths.count(("even", "even")) == 3  # the consumers' own
    assert sum(label == "shop" and path.startswith("outer/even") for label, path in paths) == 5


def test_propagate_passes_exceptions_results_and_names():
    """The function stays what it was."""

    def fails(number: int, *, key: str = "k") -> None:
        """Says so."""
        raise KeyError(number, key)

    wrapped = xray.propagate(fails)
    assert (wrapped.__name__, wrapped.__doc__) == ("fails", "Says so.")
    with pytest.raises(KeyError, match="3, 'x'"):
        wrapped(3, key="x")


def test_a_method_in_a_pool_finds_its_instances_run():
    """Without propagate a method belongs to the one run that its instance has under way; so does what it calls."""
    with recording() as recorded, ThreadPoolExecutor(2) as pool:
        shop = Shop("a")
        shop.run(lambda: list(pool.map(shop.method, [[1, 2], [3, 4]])))
        pool.submit(shop.method, [5]).result()
    assert runs(recorded) == ["shop", "shop"]
    ends = [event["stage_count"] for event in recorded.events if event["type"] == "run.end"]
    assert ends == [4, 2]


def test_two_runs_of_one_instance_are_not_guessed():
    """A method in a pool's thread then opens a run of its own rather than joining the wrong one."""
    shop = Shop("both")
    begun, done = threading.Barrier(3), threading.Event()

    def wait() -> None:
        begun.wait(20)
        done.wait(20)

    with recording() as recorded, ThreadPoolExecutor(3) as pool:
        both = [pool.submit(shop.run, wait) for _ in range(2)]
        begun.wait(20)
        pool.submit(shop.method, [1]).result()
        done.set()
        for future in both:
            future.result()
    assert runs(recorded) == ["shop"] * 3
    counts = sorted(event["stage_count"] for event in recorded.events if event["type"] == "run.end")
    assert counts == [0, 0, 2]


def test_an_entry_point_inside_of_a_run_opens_a_run_of_its_own():
    """Of another instance or of the same one; the outer run goes on where it was."""
    first, second = Shop("first"), Shop("second")

    def inner() -> None:
        second.run(lambda: even([1]))
        first.run(lambda: first.method([2]))
        even([3])

    with recording() as recorded:
        first.run(lambda: first.outer(inner))
    assert runs(recorded) == ["shop"] * 3
    placed = [(stage["run"]["key"], stage["path"]) for stage in recorded.stages]
    assert sorted(placed) == [
        ("first", "method"), ("first", "method/even"), ("first", "outer"), ("first", "outer/even"), ("second", "even"),
    ]  # fmt: skip
    by_run = Counter(stage["run"]["id"] for stage in recorded.stages)
    assert sorted(by_run.values()) == [1, 2, 2]


def test_recursion_nests_stages_and_runs():
    """A stage that calls itself is its own child; a pipeline that calls itself opens a run each time."""

    @xray.raw_stage("count")
    def count(number: int) -> int:
        return 0 if number == 0 else 1 + count(number - 1)

    @xray.pipeline("job")
    def job(number: int) -> int:
        return count(number) if number == 1 else job(number - 1) + count(number)

    with recording() as recorded:
        assert job(3) == 6
    assert runs(recorded) == ["job"] * 3
    by_run: dict[str, list[str]] = {}
    for stage in recorded.stages:
        by_run.setdefault(stage["run"]["id"], []).append(stage["path"])
    deepest = sorted(max(paths, key=len) for paths in by_run.values())
    assert deepest == ["count/count", "count/count/count", "count/count/count/count"]


def test_a_task_that_outlives_its_run_still_belongs_to_it():
    """Stages of a task that was left running are recorded under the run that started it."""

    async def both() -> None:
        tasks: list[asyncio.Task[int]] = []

        async def work() -> None:
            tasks.append(asyncio.create_task(pause(1)))

        await Shop("a").run_async(work)
        await tasks[0]

    with recording() as recorded:
        asyncio.run(both())
    assert runs(recorded) == ["shop"]
    assert keys(recorded) == {"pause": "a", "pause/even": "a"}


def test_orders_and_paths_are_unique_under_contention():
    """Many threads in one run: every stage has its own order and path."""
    with recording() as recorded, ThreadPoolExecutor(8) as pool:
        shop = Shop("a")
        shop.run(lambda: list(pool.map(xray.propagate(even), [[n] for n in range(400)])))
    assert sorted(stage["order"] for stage in recorded.stages) == list(range(400))
    assert len({stage["path"] for stage in recorded.stages}) == 400
    assert recorded.events[-1]["stage_count"] == 400
