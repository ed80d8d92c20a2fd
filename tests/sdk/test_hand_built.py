"""Runs and stages that are built by hand: what they refuse, what they send, and what the service makes of it."""

from __future__ import annotations

import datetime as dt
import enum
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import xray
from tests.service import Service, start_service
from xray.client import Client
from xray.exceptions import SchemaError, ServiceUnreachable
from xray.hand_built import Run, Stage
from xray.plugins import installed
from xray.recorded import RecordedRun
from xray.stage_types.base import Columns, StageType
from xray_server.validation import validate_event


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@dataclass
class Product:
    sku: str
    price: float


class Verdict(enum.StrEnum):
    PASSED = "passed"


def a_run(**fields: Any) -> Run:
    """A run with two levels of stages."""
    run = Run("shop", key=17, tags=["b", "a", "b"], input={"words": "shoes"}, output=["p1"], **fields)
    search = run.stage("search", "retrieval", facts={"requested": 3}, duration_ms=2)
    search.candidates([{"id": n, "score": 1 / n, "source": "web", "rank": n} for n in (1, 2, 3)])
    search.stage("fetch", llm={"model": "m"}).stage("parse")
    search.stage("fetch", reasoning="again")
    judge = run.stage("judge", "filtering", metadata={"limit": 100})
    judge.candidates(passed=[Product("p1", 5.0)], failed=[(Product("p2", 120.0), "too_dear", "120 > 100")])
    return run


def test_every_event_is_of_the_published_form():
    """The service's own validation takes each event, strictly."""
    events = a_run().events()
    valid = [validate_event(event, "event", installed()) for event in events]
    assert [event.type for event in valid] == ["run.start", *["stage"] * 5, "run.end"]


def test_stages_lie_inside_of_each_other():
    """Order is the order of adding, each before those inside of it; repeated names are numbered."""
    stages = [event for event in a_run().events() if event["type"] == "stage"]
    assert [(stage["order"], stage["path"]) for stage in stages] == [
        (0, "search"), (1, "search/fetch"), (2, "search/fetch/parse"), (3, "search/fetch#2"), (4, "judge"),
    ]  # fmt: skip
    assert [stage.get("parent_id") for stage in stages] == [
        None, stages[0]["id"], stages[1]["id"], stages[0]["id"], None,
    ]  # fmt: skip


def test_the_service_keeps_all_of_it(service: Service):
    """What was sent is there when send returns, with metrics; sending it again changes nothing."""
    run = a_run(version="7", environment="test", started_at="2026-11-01T10:00:00+02:00", duration_ms=1500)
    with service.client() as client:
        for _ in range(2):
            summary = client.send(run)
            assert (summary.run_id, summary.accepted, summary.rejected) == (run.id, 7, ())
            assert summary.is_whole
        found = client.run(run.id)
        assert {name: found[name] for name in ("key", "label", "version", "environment", "tags", "status")} == {
            "key": "17", "label": "shop", "version": "7", "environment": "test", "tags": ["a", "b"],
            "status": "success",
        }  # fmt: skip
        assert (found["started_at"], found["finished_at"]) == ("2026-11-01T08:00:00.000Z", "2026-11-01T08:00:01.500Z")
        assert (found["stage_count"], len(found["stages"])) == (5, 5)
        search, judge = found["stages"][0], found["stages"][4]
        assert search["metrics"]["requested"] == 3
        assert search["metrics"]["sources"] == {"web": 3}
        assert judge["metrics"]["label_counts"] == {"too_dear": 1}
        rows = client.candidates(judge["id"])["rows"]
        assert [(row["candidate_id"], row["verdict"]) for row in rows] == [("p1", "passed"), ("p2", "failed")]
        assert rows[1]["data"] == {"sku": "p2", "price": 120.0}
        assert rows[1]["reason_text"] == "120 > 100"


def test_a_stage_may_be_larger_than_a_request(service: Service):
    """Candidates beyond what one event may weigh travel in several requests and arrive whole."""
    run = Run("large")
    texts = ["x" * 1000 + str(n) for n in range(9000)]
    run.stage("judge", "filtering").candidates({"id": n, "verdict": "passed", "data": t} for n, t in enumerate(texts))
    with service.client() as client:
        assert client.send(run, timeout_s=60).is_whole
        stage = client.run(run.id)["stages"][0]
        assert stage["metrics"]["passed"] == 9000
        assert stage["capture"]["kept"] == 9000


def test_more_can_be_added_and_sent_later(service: Service):
    """A run that is still running is sent again with its end."""
    run = Run("slow", status="running")
    with service.client() as client:
        client.send(run)
        assert client.run(run.id)["status"] == "running"
        run.stage("late")
        run.update(status="failure", error=ValueError("no luck"))
        client.send(run)
        found = client.run(run.id)
        assert (found["status"], len(found["stages"])) == ("failure", 1)
        assert found["error"] == {"type": "ValueError", "message": "no luck"}


def test_an_event_that_the_service_does_not_take_is_named(service: Service, monkeypatch: pytest.MonkeyPatch):
    """The others are stored, and the summary says which was not and why."""
    run = Run("partly")
    run.stage("good")
    run.stage("bad")
    events = run.events()
    events[2]["duration_ms"] = "long"
    monkeypatch.setattr(run, "events", lambda: events)
    with service.client() as client:
        summary = client.send(run)
    assert (summary.accepted, summary.is_whole) == (3, False)
    (rejected,) = summary.rejected
    assert (rejected.type, rejected.name, rejected.path) == ("stage", "bad", "events[2].duration_ms")
    assert "finite number" in rejected.message


def test_a_service_that_is_not_there_is_an_error():
    """Unlike decorators, sending by hand raises."""
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceUnreachable, match="xray serve"):
        client.send(Run("any"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Stage("f", "filtering").candidate("a", verdict="pased"), "Did you mean 'passed'"),
        (lambda: Stage("f", "filtering").candidate("a", verdict=True), "A verdict is one of"),
        (lambda: Stage("f", "filtering").candidates([{"id": 1}, {"id": 2, "verdit": "passed"}]), "Did you mean 'verd"),
        (lambda: Stage("f", "filtering").candidates([{"id": 1, "price": 3}]), "belongs into 'data'"),
        (lambda: Stage("f", "filtering").candidates([{"verdict": "passed"}]), "A candidate has no id"),
        (lambda: Stage("f", "filtering").candidates([{"id": 1, "candidate_id": 2}]), "two ids"),
        (lambda: Stage("f", "filtering").candidates([3]), "A candidate is a mapping"),
        (lambda: Stage("f", "filtering").candidates(passed=[object()]), "id='product.id'"),
        (lambda: Stage("f").candidate("a", score="high"), "a finite number"),
        (lambda: Stage("f").candidate("a", score=True), "a finite number"),
        (lambda: Stage("f").candidate("a", rank=-1), "an integer, 0 or more"),
        (lambda: Stage("f").candidate("a", checks=["x"]), "Checks are a mapping"),
        (lambda: Stage("f").candidate("a", scores={"x": "y"}), "a finite number"),
        (lambda: Stage("f").candidate(None), "A candidate has no id"),
        (lambda: Stage("f", "filterng"), "Did you mean 'filtering'"),
        (lambda: Stage("f", "my_own"), "Give metrics="),
        (lambda: Stage("f", outptu=3), "Did you mean 'output'"),
        (lambda: Stage("f", metadata=[1]), "a mapping"),
        (lambda: Stage("f", error={"kind": "x"}), "An error has no field 'kind'"),
        (lambda: Stage("f", id="17"), "An id is a UUID"),
        (lambda: Run("r", status="sucess"), "Did you mean 'success'"),
        (lambda: Run("r", started_at=1700000000.0), "datetime.fromtimestamp"),
        (lambda: Run("r", started_at="yesterday"), "not of ISO 8601"),
        (lambda: Run("r", tags="one"), "a list of strings"),
        (lambda: Run(None), "The value is a string"),
        (lambda: Run("r", started_at="2026-01-02", finished_at="2026-01-01").events(), "ended before it began"),
        (lambda: Run("r", duration_ms=-1).events(), "ended before it began"),
        (lambda: Stage("f", seen=1).candidates(passed=["a", "b"]).event({}, None, 0, "f"), "cannot have seen only 1"),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(make: Any, said: str):
    """The error says what would be right, and where."""
    with pytest.raises(SchemaError, match=re.escape(said)) as caught:
        make()
    assert caught.value.path


def test_nothing_is_added_where_one_of_several_is_wrong():
    """All rows of a call or none; fields likewise."""
    stage = Stage("f", "filtering").candidate("a")
    with pytest.raises(SchemaError):
        stage.candidates([{"id": "b"}, {"id": "c", "verdict": "maybe"}])
    with pytest.raises(SchemaError):
        stage.update(reasoning="so", duration_ms="long")
    assert [row["candidate_id"] for row in stage.rows] == ["a"]
    assert "reasoning" not in stage.event({}, None, 0, "f")


def test_a_stage_has_one_place():
    """Adding it twice, or to itself, would make a run that never ends."""
    run = Run("r")
    outer = run.stage("outer")
    inner = outer.stage("inner")
    fresh = Stage("fresh")
    for parent, stage in ((run, inner), (inner, outer), (fresh, fresh)):
        with pytest.raises(SchemaError, match="cannot be added again"):
            parent.add(stage)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Product("p", 2.5), {"sku": "p", "price": 2.5}),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (dt.datetime(2026, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-01-01T00:00:00.000000Z"),
        (float("nan"), "[xray: nan]"),
        (Verdict.PASSED, "passed"),
        pytest.param((n for n in [1]), "[xray: generator, not consumed]", id="generator"),
    ],
    ids=repr,
)
def test_anything_that_is_passed_becomes_json(given: Any, kept: Any):
    """In every place where a user's value may stand."""
    run = Run("r", input=given, output=given, metadata={"m": given})
    run.stage("f", input=given, output=given).candidate("a", data=given, output=given)
    start, stage, end = run.events()
    assert (start["input"], start["metadata"], end["output"]) == (kept, {"m": kept}, kept)
    assert (stage["input"], stage["output"]) == (kept, kept)
    assert (stage["columns"]["data"], stage["columns"]["output"]) == ([kept], [kept])


def test_what_was_replaced_is_marked():
    """The stage says where something could not be kept."""
    stage = Stage("f", input={"x": float("inf")}).candidate("a", data={"blob": b"123"})
    markers = stage.event({}, None, 0, "f")["capture"]["markers"]
    assert [(marker["path"], marker["kind"]) for marker in markers] == [
        ("input.x", "not_finite"), ("candidates.0.data.blob", "bytes"),
    ]  # fmt: skip


def test_later_changes_do_not_reach_what_was_given():
    """Values are copied at the call."""
    item = {"id": "a", "price": 1}
    stage = Stage("f", "filtering", input=item).candidates(passed=[item])
    item["price"] = 2
    stage.rows[0]["verdict"] = "failed"
    event = stage.event({}, None, 0, "f")
    assert (event["input"]["price"], event["columns"]["data"][0]["price"]) == (1, 1)
    assert event["columns"]["verdict"] == ["passed"]


def test_verdicts_scores_and_checks_come_in_many_forms():
    """Members of an enumeration, NumPy numbers, flags and pairs; a score that is not finite is none."""
    stage = Stage("f", "filtering")
    stage.candidate(7, verdict=Verdict.PASSED, score=np.float64(0.5), checks={"a": True, "b": (False, "why")})
    stage.candidate("n", score=float("nan"), scores={"x": 1, "y": float("inf")})
    assert stage.rows == [
        {"candidate_id": "7", "verdict": "passed", "score": 0.5,
         "checks": {"a": {"passed": True}, "b": {"passed": False, "detail": "why"}}},
        {"candidate_id": "n", "scores": {"x": 1}},
    ]  # fmt: skip


def test_items_are_read_by_what_id_says():
    """A path, an index, a callable; by default the first name that all have; a text is its own id."""
    pairs = [("x", 1), ("y", 2)]
    nested = [{"product": {"nr": 5}}]
    read = [
        Stage("f").candidates(selected=["a", 3]),
        Stage("f").candidates(passed=pairs, id=0),
        Stage("f").candidates(failed=[(nested[0], "dear")], id="product.nr"),
        Stage("f").candidates(passed=nested, id=lambda item: item["product"]["nr"]),
        Stage("f").candidates(passed=[Product("s", 1.0)]),
    ]
    assert [[row["candidate_id"] for row in stage.rows] for stage in read] == [
        ["a", "3"], ["x", "y"], ["5"], ["5"], ["s"],
    ]  # fmt: skip
    assert read[2].rows[0]["reason_label"] == "dear"


@pytest.mark.parametrize(
    ("given", "started", "finished", "took"),
    [
        ({"started_at": "2026-01-01T00:00:00", "finished_at": "2026-01-01T00:00:02"}, 0, 2000, 2000),
        ({"started_at": "2026-01-01T00:00:00Z", "duration_ms": 1500.4}, 0, 1500, 1500.4),
        ({"finished_at": "2026-01-01T00:00:02Z", "duration_ms": 500}, 1500, 2000, 500),
        ({"started_at": dt.datetime(2026, 1, 1)}, 0, None, None),  # noqa: DTZ001 - that is the point
        (
            {"started_at": "2026-01-01T02:00:00+02:00", "finished_at": "2026-01-01T00:00:09Z", "duration_ms": 3},
            0,
            9000,
            3,
        ),
    ],
)
def test_times_follow_from_each_other(given: Any, started: int, finished: int | None, took: float | None):
    """What is not given is worked out where it can be; a time without a zone is UTC."""
    first = 1_767_225_600_000
    *_, end = Run("r", **given).events()
    assert end["run"]["started_at"] == first + started
    assert end.get("finished_at") == (None if finished is None else first + finished)
    assert end.get("duration_ms") == took


def test_a_run_without_times_began_when_it_was_made(monkeypatch: pytest.MonkeyPatch):
    """And its stages with it."""
    monkeypatch.setattr("xray.ids.clock_ns", lambda: 5_000_000_000)
    run = Run("r")
    run.stage("s")
    monkeypatch.undo()
    assert [event["run"]["started_at"] for event in run.events()] == [5000] * 3
    assert run.events()[1]["started_at"] == 5000


def test_settings_fill_what_is_not_given():
    """Version, environment and repository, as for decorated pipelines."""
    xray.configure(version="9", environment="staging", repository="git://x")
    start = Run("r").events()[0]
    assert (start["run"]["version"], start["run"]["environment"], start["repository"]) == ("9", "staging", "git://x")
    start = Run("r", version="1", repository="mine").events()[0]
    assert (start["run"]["version"], start["repository"]) == ("1", "mine")


def test_a_stage_whose_candidates_are_not_all_given_says_so(service: Service):
    """Its own metrics stand, and the run is not called complete."""
    run = Run("r")
    run.stage("judge", "filtering", seen=1000, metrics={"passed": 10, "failed": 990, "fail_ratio": 0.99}).candidate("a")
    with service.client() as client:
        client.send(run)
        found = client.run(run.id)
    assert found["completeness"] == "sampled"
    stage = found["stages"][0]
    assert (stage["metrics"]["fail_ratio"], stage["capture"]["seen"], stage["capture"]["kept"]) == (0.99, 1000, 1)
    assert Stage("s", seen=3).event({}, None, 0, "s")["capture"]["mode"] == "summary"


def test_a_type_that_nobody_else_knows_brings_its_metrics(service: Service):
    """Its candidates may have any columns."""
    run = Run("r")
    run.stage("dedupe", "deduplication", metrics={"clusters": 3}).candidate("a", cluster=1)
    with service.client() as client:
        assert client.send(run).is_whole
        rows = client.query({"stage": {"$clusters": 3}})["rows"]
    assert [row["name"] for row in rows] == ["dedupe"]


def test_a_plugins_type_is_measured_here(monkeypatch: pytest.MonkeyPatch):
    """The service need not have the plugin: metrics travel with their declarations."""

    class Odd(StageType):
        name = "odd"
        meaning = "Counts."
        metrics = ()

        def compute(self, columns: Columns) -> dict[str, Any]:
            return {"input_count": len(columns)}

    monkeypatch.setitem(installed()._stage_types, "odd", Odd())
    event = Stage("s", "odd").candidate("a").event({}, None, 0, "s")
    assert event["metrics"] == {"input_count": 1}
    assert event["metric_declarations"] == []


def test_redaction_applies_before_anything_leaves():
    """In fields and candidates alike; metrics are those of the values before it."""
    xray.configure(redact=["email", "why"])
    secret = {"email": "a@example.org"}
    run = Run("r", input=secret, output=secret, metadata=secret)
    run.stage("f", "filtering", input=secret, llm=secret, metadata=secret).candidates(
        failed=[({"id": 1} | secret, "x")]
    )
    events = run.events()
    assert "example.org" not in repr(events)
    assert events[1]["metrics"]["label_counts"] == {"x": 1}


def test_what_is_read_back_is_what_was_given():
    """The events lead to the same run, its stages, and the way of a candidate."""
    found = RecordedRun(a_run().events())
    assert (found.label, found.key, found.tags, found.output) == ("shop", "17", ["a", "b"], ["p1"])
    assert found.stage("judge").metrics["label_counts"] == {"too_dear": 1}
    assert [str(step) for step in found.candidate("p2")] == ["judge  failed (too_dear: 120 > 100)"]
