"""Runs and stages as ``with`` blocks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

import xray
from tests.sdk.recording import recording
from xray.context import current
from xray.delivery.memory import MemoryTransport
from xray.exceptions import XRayError

POOL = [{"id": f"p{n}", "price": n} for n in range(4)]


def test_a_run_and_its_stages():
    """Label, key, input, output, metadata and tags of the run; candidates and verdicts of the stage."""
    with recording() as recorded:
        with xray.run("shop", key=7, input={"words": "red"}, version="3", tags=["a"], metadata={"team": "x"}) as run:
            with run.stage("cheap", "filtering") as stage:
                stage.candidates(POOL, "products", limit=2)
                stage.result([item for item in POOL if item["price"] < 2])
            run.set_metadata(found=2)
            run.set_output(["p0", "p1"])
        run_id = run.id
    start, event, end = recorded.events
    assert start["run"] | {"started_at": 0} == {
        "id": run_id,
        "key": "7",
        "label": "shop",
        "version": "3",
        "started_at": 0,
    }
    assert (start["input"], start["tags"], start["metadata"]) == ({"words": "red"}, ["a"], {"team": "x"})
    assert (end["output"], end["status"], end["metadata"]) == (["p0", "p1"], "success", {"found": 2})
    assert (event["input"], event["facts"]["candidates_from"]) == ({"limit": 2}, "products")
    assert {key: row["verdict"] for key, row in recorded.rows("cheap").items()} == {
        "p0": "passed", "p1": "passed", "p2": "failed", "p3": "failed",
    }  # fmt: skip


def test_blocks_and_decorated_callables_nest_in_each_other():
    """A block inside of a block, of a decorated callable, and the other way round, is its child."""

    @xray.raw_stage("decorated")
    def decorated(run: Any) -> None:
        with run.stage("innermost"):
            pass

    with recording() as recorded, xray.run("job") as run:
        with run.stage("outer") as outer, run.stage("inner"):
            decorated(run)
        with run.stage("outer"):
            pass
        assert outer.path == "outer"
    assert [stage["path"] for stage in recorded.stages] == [
        "outer", "outer/inner", "outer/inner/decorated", "outer/inner/decorated/innermost", "outer#2",
    ]  # fmt: skip
    ids = {stage["path"]: stage["id"] for stage in recorded.stages}
    assert [stage.get("parent_id") for stage in recorded.stages][1:4] == [
        ids["outer"], ids["outer/inner"], ids["outer/inner/decorated"],
    ]  # fmt: skip
    assert current.get() is None


def test_async_blocks_at_once_are_told_apart_by_their_task():
    """The same with ``async with``; siblings in gather have the run, not each other, above them."""

    async def job(label: str) -> None:
        async with xray.run(label) as run:

            async def ask(shop: str) -> None:
                async with run.stage(f"ask_{shop}", "retrieval") as stage:
                    await asyncio.sleep(0)
                    xray.note(f"{label} {shop}")
                    stage.result([f"{label}-{shop}"])

            await asyncio.gather(ask("north"), ask("south"))

    async def jobs() -> None:
        await asyncio.gather(job("a"), job("b"))

    with recording() as recorded:
        asyncio.run(jobs())
    found = sorted((stage["run"]["label"], stage["path"], stage["reasoning"]) for stage in recorded.stages)
    assert found == [(label, f"ask_{shop}", f"{label} {shop}") for label in "ab" for shop in ("north", "south")]


def test_exceptions_pass_and_fail_the_stage_and_the_run():
    """The same object; an exception that is caught in the run fails the stage alone."""
    error = KeyError("x")
    with recording() as recorded:
        with pytest.raises(KeyError) as caught, xray.run("fails") as run, run.stage("a"), run.stage("b"):
            raise error
        with xray.run("recovers") as run:
            try:
                with run.stage("c"):
                    raise error
            except KeyError:
                pass
    assert caught.value is error
    ends = {event["run"]["label"]: event for event in recorded.events if event["type"] == "run.end"}
    assert (ends["fails"]["status"], ends["fails"]["error"]["stage"]) == ("failure", "a/b")
    assert ends["recovers"]["status"] == "success"
    assert {stage["name"]: stage["status"] for stage in recorded.stages} == dict.fromkeys("abc", "failure")


def test_an_exception_of_the_run_is_not_blamed_on_a_stage_that_failed_earlier():
    """Even where the new exception lies at the place in memory of the one that was caught and freed."""

    def job() -> None:
        with xray.run("job") as run:
            try:
                with run.stage("early"):
                    raise KeyError("a")
            except KeyError:
                pass
            raise KeyError("b")

    with recording() as recorded:
        for _ in range(20):
            with pytest.raises(KeyError):
                job()
    ends = [event for event in recorded.events if event["type"] == "run.end"]
    assert [end["error"].get("stage") for end in ends] == [None] * 20


def test_a_stage_block_outside_of_its_run_opens_one():
    """Made before the run is entered, it belongs to the run that is current, else to one of its own."""
    block = xray.run("never").stage("alone", "scoring")
    with recording() as recorded:
        with block as stage:
            stage.result([{"id": "a", "score": 0.5}])
        with xray.run("job"), block:
            pass
        with pytest.raises(ValueError, match="x"), block:
            raise ValueError("x")
    assert [event["run"]["label"] for event in recorded.stages] == ["alone", "job", "alone"]
    ends = [(event["run"]["label"], event["status"]) for event in recorded.events if event["type"] == "run.end"]
    assert ends == [("alone", "success"), ("job", "success"), ("alone", "failure")]


def test_a_filtering_block_with_only_verdicts_said():
    """Candidates and rejects without a result: what was said holds, the others have no verdict."""
    with recording() as recorded, xray.run("job") as run:
        with run.stage("said", "filtering") as stage:
            stage.candidates(POOL)
            stage.reject(POOL[0], "too_cheap", "0 < 1")
            stage.accept("p1")
        with run.stage("only_said", "filtering") as stage:
            stage.reject({"id": "x", "price": 1}, "no_stock")
            stage.accept({"id": "y", "price": 2})
    said = recorded.rows("said")
    assert {key: row.get("verdict") for key, row in said.items()} == {
        "p0": "failed", "p1": "passed", "p2": None, "p3": None,
    }  # fmt: skip
    assert (said["p0"]["reason_label"], said["p0"]["reason_text"]) == ("too_cheap", "0 < 1")
    only_said = recorded.rows("only_said")
    assert only_said["x"] == {"verdict": "failed", "reason_label": "no_stock", "data": {"id": "x", "price": 1}}
    assert recorded.metrics("only_said")["fail_ratio"] == 0.5


def test_everything_that_can_be_said_to_a_block():
    """Input, output, reasoning, model calls, metadata, counts and metrics."""
    with recording() as recorded, xray.run("job") as run, run.stage("all", "filtering") as stage:
        stage.set_input({"a": 1})
        stage.set_output({"b": 2})
        stage.note("lost")
        stage.set_reasoning("because")
        stage.note("and more")
        stage.llm(model="m", input_tokens=3)
        stage.llm(output_tokens=4)
        stage.set_metadata(team="x")
        stage.counts(seen=10, passed=4)
        stage.metric("my_metric", 1.5)
        stage.score("c", 0.25)
        stage.score("c", 0.75, name="clarity")
    event = recorded.stage("all")
    assert (event["input"], event["output"], event["reasoning"]) == ({"a": 1}, {"b": 2}, "because\nand more")
    assert event["llm"] == {"model": "m", "input_tokens": 3, "output_tokens": 4}
    assert event["metadata"] == {"team": "x"}
    assert event["metrics"]["my_metric"] == 1.5
    assert event["metrics"]["fail_ratio"] == 0.6
    assert recorded.rows("all")["c"] == {"score": 0.25, "scores": {"clarity": 0.75}}


def test_what_was_said_does_not_change_later():
    """Candidates, result, and the run's output are those of the moment when they were said."""
    pool = [{"id": "a", "price": 1}]
    with recording() as recorded, xray.run("job") as run:
        with run.stage("keep", "filtering") as stage:
            stage.candidates(pool)
            stage.result(pool)
            pool[0]["price"] = 2
        output = {"price": 1}
        run.set_output(output)
        output["price"] = 2
    assert recorded.rows("keep")["a"] == {"verdict": "passed", "data": {"id": "a", "price": 1}}
    assert recorded.events[-1]["output"] == {"price": 1}


def test_an_iterator_is_the_users_to_consume():
    """candidates() of an iterator, a set, a dict of candidates and a text."""
    iterator = iter(POOL)
    with recording() as recorded, xray.run("job") as run:
        for name, given in (("iterator", iterator), ("set", {"a"}), ("dict", {1: {"id": "v"}}), ("text", "abc")):
            with run.stage(name, "filtering") as stage:
                stage.candidates(given)
    assert list(iterator) == POOL
    assert {stage["name"]: list(recorded.rows(stage["name"])) for stage in recorded.stages} == {
        "iterator": [], "set": ["a"], "dict": ["v"], "text": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    "given", [{"type": "filterign"}, {"type": "filtering", "pased": "x"}, {"capture": "everything"}]
)
def test_a_wrong_stage_is_counted_and_harmless(given: dict[str, Any]):
    """An unknown type, field or tier: the block runs, the run is recorded, the mistake is in the stats."""
    transport = MemoryTransport()
    xray.configure(transport=transport)
    with xray.run("job") as run, run.stage("wrong", **given) as stage:
        stage.candidates(POOL)
        stage.reject(POOL[0], "x")
        stage.result([])
        reached = True
    assert reached
    assert xray.flush(10)
    assert [event["type"] for event in transport.events] == ["run.start", "run.end"]
    assert xray.stats().failures == {"beginning of a stage": 1}
    xray.configure(strict=True)
    with xray.run("job") as run, pytest.raises(XRayError), run.stage("wrong", **given):
        pass


@pytest.mark.parametrize(
    "given",
    [{"sample_rate": 7}, {"keep_if": "sometimes"}, {"capture": "everything"}, {"capture": "all", "redact": ["x"]}],
)
def test_a_wrong_run_is_counted_and_recorded_as_the_settings_say(given: dict[str, Any]):
    """Nothing is raised but in strict mode; where something was to be redacted only a summary is kept."""
    transport = MemoryTransport()
    xray.configure(transport=transport)
    with xray.run("job", **given) as run, run.stage("keep", "filtering") as stage:
        stage.candidates(POOL)
        stage.result(POOL)
    assert xray.flush(10)
    assert xray.stats().failures == {"reading of what a run was given": 1}
    event = next(event for event in transport.events if event["type"] == "stage")
    assert event["capture"]["mode"] == ("summary" if "redact" in given else "full")
    xray.configure(strict=True)
    with pytest.raises(XRayError):
        xray.run("job", **given)


def test_blocks_do_nothing_while_disabled():
    """Everything can still be called; misspelt names are still errors."""
    with recording(enabled=False) as recorded, xray.run("job") as run, run.stage("a", "filtering") as stage:
        stage.candidates(POOL)
        stage.reject("p0", "x")
        stage.result(POOL)
        run.set_output(1)
        run.set_metadata(a=1)
        assert (run.id, stage.id, bool(xray.current_stage())) == (None, None, False)
        with pytest.raises(AttributeError, match="no 'rejct'"):
            stage.rejct("p0")
    assert recorded.events == []


def test_what_is_said_after_the_end_is_counted():
    """To a block that has ended, in every way; the record stays as it was."""
    transport = MemoryTransport()
    xray.configure(transport=transport)
    with xray.run("job") as run, run.stage("a", "filtering") as stage:
        stage.result(POOL)
    stage.result([])
    stage.candidates([])
    stage.note("late")
    stage.reject("p0", "late")
    stage.metric("late", 1)
    assert xray.flush(10)
    assert xray.stats().failures == {"recording of what was said after the end of a stage": 5}
    event = next(event for event in transport.events if event["type"] == "stage")
    assert len(event["columns"]["candidate_id"]) == 4
    assert "reasoning" not in event


def test_a_block_may_be_used_again():
    """Each time it is entered it is another run, with nothing left of the one before."""
    block = xray.run("job")
    with recording() as recorded:
        for output in (1, None):
            with block as run:
                if output:
                    run.set_output(output)
                with run.stage("a"):
                    pass
    ends = [event for event in recorded.events if event["type"] == "run.end"]
    assert [end.get("output") for end in ends] == [1, None]
    assert len({end["id"] for end in ends}) == 2
    assert {stage["run"]["id"] for stage in recorded.stages} == {end["id"] for end in ends}


def test_a_block_left_in_another_context_disturbs_nobody():
    """Entered in one context and left in others, as fixtures and dependencies with ``yield`` are."""
    here, elsewhere = contextvars.copy_context(), contextvars.copy_context()
    first, second, other = xray.run("first"), xray.run("second"), xray.run("other")
    with recording() as recorded:
        here.run(first.__enter__)
        here.run(second.__enter__)
        inherited = here.copy()
        elsewhere.run(other.__enter__)
        elsewhere.run(second.__exit__, None, None, None)
        assert elsewhere.run(current.get).run.info["label"] == "other"
        elsewhere.run(other.__exit__, None, None, None)
        assert elsewhere.run(current.get) is None
        inherited.run(first.__exit__, None, None, None)
        assert inherited.run(current.get).run.info["label"] == "second"
    assert [event["type"] for event in recorded.events].count("run.end") == 3


def test_a_copy_of_a_context_is_left_for_what_was_before():
    """Left in a copy of the context that it was entered in, a run makes way for the one around it."""
    here = contextvars.copy_context()
    outer, inner = xray.run("outer"), xray.run("inner")
    with recording():
        here.run(outer.__enter__)
        here.run(inner.__enter__)
        copy = here.copy()
        copy.run(inner.__exit__, None, None, None)
        assert copy.run(current.get).run.info["label"] == "outer"
        here.run(outer.__exit__, None, None, None)


def test_a_stage_of_a_run_in_another_thread_needs_nothing_else():
    """run.stage() knows its run, whatever the thread's context is."""
    with recording() as recorded, xray.run("job") as run:

        def work() -> None:
            with run.stage("there"):
                pass

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with xray.run("another"), run.stage("explicit"):
            pass
    assert [(stage["run"]["label"], stage["path"]) for stage in recorded.stages] == [
        ("job", "there"),
        ("job", "explicit"),
    ]
