"""``sample_rate`` and ``keep_if``: which runs are kept, under which rate, and what a run says of itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xray
from tests.sdk.recording import Recorded, recording
from xray import ids
from xray.context import current
from xray.delivery.memory import MemoryTransport
from xray.delivery.transport import SendResult

BITS = 2**53


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets runs draw these shares, one after the other; ids are drawn as ever."""

    def these(*shares: float) -> None:
        real, left = ids.draw_bits, iter(shares)
        monkeypatch.setattr(ids, "draw_bits", lambda bits: int(next(left) * BITS) if bits == 53 else real(bits))

    return these


@xray.raw_stage("stage")
def stage(fails: bool = False) -> None:
    if fails:
        raise ValueError("failed")


def starts(recorded: Recorded) -> list[dict[str, Any]]:
    return [event for event in recorded.events if event["type"] == "run.start"]


def through_a_decorator(**options: Any) -> Callable[..., None]:
    @xray.pipeline("job", **options)
    def job(fails: bool = False) -> None:
        stage(fails)

    return job


def through_a_class(**options: Any) -> Callable[..., None]:
    @xray.pipeline("job", **options)
    class Job:
        @xray.entrypoint
        def run(self, fails: bool = False) -> None:
            stage(fails)

    return Job().run


def through_a_block(**options: Any) -> Callable[..., None]:
    def job(fails: bool = False) -> None:
        with xray.run("job", **options) as run, run.stage("stage"):
            if fails:
                raise ValueError("failed")

    return job


def through_settings(**options: Any) -> Callable[..., None]:
    xray.configure(sample_rate=options.pop("sample_rate"))
    return through_a_decorator(**options)


WAYS = [through_a_decorator, through_a_class, through_a_block, through_settings]


def call(job: Callable[..., None], *, fails: bool = False) -> None:
    if fails:
        with pytest.raises(ValueError, match="failed"):
            job(True)
    else:
        job()


@pytest.mark.parametrize("way", WAYS)
def test_the_rate_decides_by_what_is_drawn(way: Callable[..., Callable[..., None]], draw: Callable[..., None]):
    """Below the rate a run is kept whole with its rate, otherwise nothing of it is recorded."""
    with recording() as recorded:
        job = way(sample_rate=0.25)
        draw(0.2, 0.25, 0.9, 0.0)
        for _ in range(4):
            job()
    assert [event["type"] for event in recorded.events] == ["run.start", "stage", "run.end"] * 2
    assert [start["sample_rate"] for start in starts(recorded)] == [0.25, 0.25]
    assert xray.stats().recorded == 6
    assert xray.stats().sampled_out == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("drawn", "fails", "rate"),
    [(0.1, False, 0.5), (0.1, True, 1.0), (0.9, False, None), (0.9, True, 1.0)],
)
def test_keep_if_keeps_at_the_end(
    way: Callable[..., Callable[..., None]], draw: Callable[..., None], drawn: float, fails: bool, rate: float | None
):
    """A run that the condition keeps stands for itself; one that was only drawn for 1 / rate; the rest is counted."""
    with recording() as recorded:
        job = way(sample_rate=0.5, keep_if="failure")
        draw(drawn)
        call(job, fails=fails)
    if rate is None:
        assert recorded.events == []
        assert xray.stats().sampled_out == 3
        return
    assert [event["type"] for event in recorded.events] == ["run.start", "stage", "run.end"]
    assert starts(recorded)[0]["sample_rate"] == rate
    assert xray.stats().sampled_out == 0


@given(rate=st.floats(0.01, 0.99), shares=st.lists(st.floats(0, 0.999), min_size=1, max_size=30), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weighted_counts_are_exact_for_kept_runs_and_unbiased_for_the_rest(
    monkeypatch: pytest.MonkeyPatch, rate: float, shares: list[float], data: st.DataObject
):
    """Which runs are kept, and under which rate, equals a count by hand for any draws and any outcomes."""
    fails = data.draw(st.lists(st.booleans(), min_size=len(shares), max_size=len(shares)))
    left = iter(shares)
    real = ids.draw_bits
    transport = MemoryTransport()
    xray.configure(transport=transport)
    job = through_a_decorator(sample_rate=rate, keep_if=lambda outcome: outcome.status == "failure")
    before = xray.stats().sampled_out
    with monkeypatch.context() as patch:
        patch.setattr(ids, "draw_bits", lambda bits: int(next(left) * BITS) if bits == 53 else real(bits))
        for each in fails:
            call(job, fails=each)
    assert xray.flush(10)
    found = [event["sample_rate"] for event in transport.events if event["type"] == "run.start"]
    pairs = list(zip(shares, fails, strict=True))
    assert found == [1.0 if failed else rate for share, failed in pairs if failed or int(share * BITS) < rate * BITS]
    assert xray.stats().sampled_out - before == 3 * (len(pairs) - len(found))


def test_what_the_condition_is_given():
    """Label, key, status, error, duration and the number of stages."""
    seen: list[xray.RunOutcome] = []

    def look(outcome: xray.RunOutcome) -> bool:
        seen.append(outcome)
        return False

    def job() -> None:
        with xray.run("job", key=3, sample_rate=0.0, keep_if=look) as run:
            with run.stage("one"):
                pass
            stage(True)

    with recording() as recorded, pytest.raises(ValueError, match="failed"):
        job()
    (outcome,) = seen
    assert (outcome.label, outcome.key, outcome.status, outcome.stage_count) == ("job", "3", "failure", 2)
    assert outcome.error == {"type": "ValueError", "message": "failed", "stage": "stage"}
    assert outcome.duration_ms >= 0
    assert recorded.events == []


def test_a_condition_that_fails_keeps_the_run():
    """It is counted, the user's call is not touched, and the run stands for itself."""

    def broken(outcome: xray.RunOutcome) -> bool:
        raise RuntimeError("broken")

    transport = MemoryTransport()
    xray.configure(transport=transport)
    through_a_decorator(sample_rate=0.0, keep_if=broken)()
    assert xray.flush(10)
    assert [event["type"] for event in transport.events] == ["run.start", "stage", "run.end"]
    assert transport.events[0]["sample_rate"] == 1.0
    assert xray.stats().failures == {"keep_if": 1}


@pytest.mark.parametrize("drawn", [0.1, 0.9])
def test_a_run_that_outgrows_what_may_be_held_is_kept(draw: Callable[..., None], drawn: float):
    """Whatever was drawn and whatever the condition would say: it stands for itself, and nothing is counted out."""
    asked: list[Any] = []

    @xray.pipeline("job", sample_rate=0.5, keep_if=lambda outcome: bool(asked.append(outcome)))
    def job() -> None:
        for _ in range(20):
            stage()

    with recording(hold_bytes=5000) as recorded:
        draw(drawn)
        job()
    assert [event["type"] for event in recorded.events] == ["run.start", *["stage"] * 20, "run.end"]
    assert starts(recorded)[0]["sample_rate"] == 1.0
    assert (asked, xray.stats().sampled_out) == ([], 0)


def test_what_comes_after_the_decision_follows_it():
    """A task that outlives a held run: its stages are kept or counted out with the run."""

    async def both(keep: bool) -> None:
        tasks: list[asyncio.Task[None]] = []

        async def late() -> None:
            await asyncio.sleep(0)
            stage()

        @xray.pipeline("job", sample_rate=0.0, keep_if=lambda _: keep)
        async def job() -> None:
            tasks.append(asyncio.create_task(late()))

        await job()
        await tasks[0]

    with recording() as recorded:
        asyncio.run(both(False))
        asyncio.run(both(True))
    assert [event["type"] for event in recorded.events] == ["run.start", "run.end", "stage"]
    assert xray.stats().sampled_out == 3


def test_without_a_rate_nothing_is_held():
    """At rate 1 every run is kept: the condition is not asked, and records go on at once."""
    with recording() as recorded:
        through_a_decorator(keep_if=lambda outcome: 1 / 0)()
    assert len(recorded.events) == 3
    assert "sample_rate" not in starts(recorded)[0]


def test_below_a_run_that_was_sampled_out_no_run_is_opened():
    """Stages in it, in its tasks, threads and generators, and blocks, open no run of their own."""

    @xray.raw_stage("outer")
    def outer() -> None:
        stage()
        assert not xray.current_stage()
        with xray.run("never").stage("block"):
            stage()

    @xray.raw_stage("outer_async")
    async def outer_async() -> None:
        await asyncio.gather(asyncio.to_thread(stage), asyncio.to_thread(outer))

    @xray.pipeline("job", sample_rate=0.0)
    class Job:
        @xray.entrypoint
        def run(self, pool: ThreadPoolExecutor) -> None:
            outer()
            asyncio.run(outer_async())
            pool.submit(self.method).result()
            pool.submit(xray.propagate(outer)).result()

        @xray.raw_stage("method")
        def method(self) -> None:
            outer()

    with recording() as recorded, ThreadPoolExecutor(1) as pool:
        Job().run(pool)
        assert pool.submit(current.get).result() is None
        with xray.run("job", sample_rate=0.0) as run:
            assert run.id is None
            thread = threading.Thread(target=lambda: run.stage("there").__enter__() and stage())
            thread.start()
            thread.join()
    assert recorded.events == []
    assert current.get() is None


@pytest.mark.parametrize("drawn", [(0.9, 0.0, 0.0, 0.0, 0.0), (0.1, 0.9, 0.9, 0.9, 0.9)])
def test_a_stage_outside_of_any_run_is_drawn_once(draw: Callable[..., None], drawn: tuple[float, ...]):
    """With everything below it: what it calls shares its fate, plain, async, block or generator, also when it fails."""

    @xray.raw_stage("outer")
    def outer(fails: bool) -> None:
        stage()
        with xray.run("never").stage("block"):
            stage(fails)

    with recording(sample_rate=0.5) as recorded:
        draw(*drawn)
        call(outer, fails=True)
        assert current.get() is None
    names = [event["name"] for event in recorded.events if event["type"] == "stage"]
    assert names == ([] if drawn[0] > 0.5 else ["stage", "stage", "block", "outer"])
    assert [start["run"]["label"] for start in starts(recorded)] == ([] if drawn[0] > 0.5 else ["outer"])


def test_a_block_outside_of_any_run_is_drawn_once(draw: Callable[..., None]):
    """The same for a stage block."""
    with recording(sample_rate=0.5) as recorded:
        draw(0.9, 0.0, 0.0)
        with xray.run("never").stage("block") as block:
            assert block.id is None
            stage()
        assert current.get() is None
        stage()
    assert [start["run"]["label"] for start in starts(recorded)] == ["stage"]


# --- completeness -------------------------------------------------------------------------------------------------


@xray.filtering_stage("small", capture="summary")
def small(numbers: list[int]) -> list[int]:
    return numbers


@xray.filtering_stage("whole", capture="full")
def whole(numbers: list[int]) -> list[int]:
    return numbers


@pytest.mark.parametrize(
    ("setting", "work", "completeness"),
    [
        ("full", lambda: whole([1]), "complete"),
        ("full", lambda: small([1]), "sampled"),
        ("full", lambda: (small([1]), whole([1])), "sampled"),
        ("summary", lambda: whole([1]), "complete"),
        ("summary", lambda: small([1]), "sampled"),
        ("sampled", stage, "complete"),
        ("top(1)", lambda: xray.run("never").stage("x", "filtering").__enter__().__exit__(None, None, None), "sampled"),
    ],
)
def test_a_run_says_whether_all_of_it_is_kept(setting: str, work: Callable[[], Any], completeness: str):
    """By the tiers of the stages that it had: the pipeline or the settings count where a stage says nothing."""
    with recording(capture=setting) as recorded, xray.run("job"):
        work()
    assert recorded.events[-1]["completeness"] == completeness


class Refusing(MemoryTransport):
    """Does not take stages of one name."""

    def send(self, events: Sequence[dict[str, Any]]) -> SendResult:
        super().send(events)
        return SendResult(
            "stored", {place: "not this one" for place, event in enumerate(events) if event.get("name") == "refused"}
        )


def test_a_stage_that_the_service_refused_makes_its_run_partial():
    """What is lost after the call, while the run goes on, is said at the run's end; other runs are complete."""
    transport = Refusing()
    xray.configure(transport=transport)
    for name in ("taken", "refused"):
        with xray.run(name):
            xray.filtering_stage(name)(lambda numbers: numbers)([1])
            xray.flush(timeout_s=10)
    xray.flush(timeout_s=10)
    assert xray.stats().dropped == {"rejected": 1}
    ends = {end["run"]["label"]: end["completeness"] for end in transport.of_type("run.end")}
    assert ends == {"taken": "complete", "refused": "partial"}


def test_a_held_run_that_does_not_fit_is_partial():
    """Records that a run with ``keep_if`` held until its end, and for which there was no room then, are missed."""

    @xray.raw_stage
    def heavy(text: str) -> int:
        return len(text)

    @xray.pipeline(keep_if=lambda outcome: True)
    def job() -> None:
        heavy("x" * 200_000)

    transport = MemoryTransport()
    xray.configure(transport=transport, buffer_bytes=50_000)
    job()
    xray.flush(timeout_s=10)
    assert xray.stats().dropped == {"buffer_full": 1}
    assert [end["completeness"] for end in transport.of_type("run.end")] == ["partial"]
