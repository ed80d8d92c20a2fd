"""Validation: one event to checked documents, or an error that names the place."""

from __future__ import annotations

import math

import msgspec
import pytest

from tests.server.helpers import RUN, RUN_ID, STAGE_ID, run_end, run_start, stage
from xray.exceptions import SchemaError
from xray.plugins import installed
from xray_server.json_rules import clean, is_clean
from xray_server.validation import RunCheck, validate_event


def valid(event, **options):
    return validate_event(event, "events[3]", installed(), **options)


def refused(event, **options):
    with pytest.raises(SchemaError) as caught:
        valid(event, **options)
    return caught.value


@pytest.mark.parametrize(
    ("event", "code", "path"),
    [
        ("text", "bad_event", "events[3]"),
        ({"run": RUN}, "unknown_event_type", "events[3].type"),
        (run_start(type="run.begin"), "unknown_event_type", "events[3].type"),
        (run_start(type=["run.start"]), "unknown_event_type", "events[3].type"),
        (run_start(run=None), "missing_run_id", "events[3].run"),
        (run_start(run={"label": "x"}), "missing_run_id", "events[3].run.id"),
        (run_start(run=RUN | {"id": "7"}), "bad_value", "events[3].run.id"),
        (run_start(run=RUN | {"lable": "x"}), "unknown_field", "events[3].run.lable"),
        (run_start(id=STAGE_ID), "bad_value", "events[3].id"),
        (run_start(inputs=1), "unknown_field", "events[3].inputs"),
        (run_start(metadata=[]), "bad_value", "events[3].metadata"),
        (run_start(tags=["a", 1]), "bad_value", "events[3].tags[1]"),
        (run_end(status="done"), "bad_value", "events[3].status"),
        (run_end(stage_count=-1), "bad_value", "events[3].stage_count"),
        (run_end(duration_ms=True), "bad_value", "events[3].duration_ms"),
        (run_end(duration_ms=math.nan), "bad_value", "events[3].duration_ms"),
        (run_end(error={"mesage": "x"}), "unknown_field", "events[3].error.mesage"),
        (stage(id=None), "missing_stage_id", "events[3].id"),
        (stage(stage_type=None), "missing_field", "events[3].stage_type"),
        (stage(capture={"kept": "all"}), "bad_value", "events[3].capture.kept"),
        (stage(metrics={"Fail": 1}), "bad_value", "events[3].metrics.Fail"),
        (stage(metric_declarations=[{"name": 1}]), "bad_value", "events[3].metric_declarations[0].name"),
        (stage(candidates={}), "bad_value", "events[3].candidates"),
        (stage(candidates=[{"id": "a"}, 7]), "bad_candidate", "events[3].candidates[1]"),
        (stage(candidates=[{"verdict": "passed"}]), "bad_candidate", "events[3].candidates[0]"),
        (stage(candidates=[{"id": {}}]), "bad_candidate", "events[3].candidates[0].candidate_id"),
        (stage(candidates=[{"id": "a", "verdict": "ok"}]), "bad_candidate", "events[3].candidates[0].verdict"),
        (stage(candidates=[{"id": "a", "price": 1}]), "unknown_field", "events[3].candidates[0].price"),
        (stage(candidates=[{"id": "a", "score": "1"}]), "bad_candidate", "events[3].candidates[0].score"),
        (stage(candidates=[{"id": "a", "rank": 1.5}]), "bad_candidate", "events[3].candidates[0].rank"),
        (stage(columns={"verdict": ["passed"]}), "bad_candidate", "events[3].columns"),
        (stage(columns={"id": ["a"], "score": []}), "bad_candidate", "events[3].columns.score"),
        (stage(columns={"id": ["a", None]}), "bad_candidate", "events[3].columns.candidate_id[1]"),
        (stage(candidates=[], columns={"id": []}), "bad_value", "events[3].columns"),
    ],
)
def test_a_problem_names_its_code_and_place(event, code, path):
    """Each way of being wrong has a code and the path of what is wrong."""
    error = refused(event)
    assert (error.code, error.path) == (code, path)


@pytest.mark.parametrize(
    ("event", "hint"),
    [
        (run_start(type="run.strat"), "'run.start'"),
        (run_start(metdata={}), "'metadata'"),
        (run_start(run=RUN | {"id": RUN_ID.upper().replace("-", "")}), RUN_ID),
        (run_end(status="succes"), "'success'"),
        (stage(type="stage", stagetype="x"), "'stage_type'"),
        (stage(candidates=[{"id": "a", "verdict": "fail"}]), "'failed'"),
        (stage(candidates=[{"id": "a", "reason_lable": "x"}]), "'reason_label'"),
    ],
)
def test_a_near_miss_is_told(event, hint):
    """A misspelt word gets the nearest right one as its hint."""
    assert hint in (refused(event).hint or "")


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        ("2026-11-01T00:00:00Z", 1793491200000),
        ("2026-11-01T02:00:00.0019+02:00", 1793491200001),
        ("1969-12-31T23:59:59.9995Z", -1),
        (1793491200000, 1793491200000),
    ],
)
def test_times_become_milliseconds(given, milliseconds):
    """ISO 8601 with any offset, and whole milliseconds, are kept as milliseconds since 1970, rounded down."""
    assert valid(run_start(run=RUN | {"started_at": given})).run["started_at"] == milliseconds


@pytest.mark.parametrize("given", ["2026-11-01T00:00:00", "2026-11-01", "yesterday", 1.5, True, 2**60])
def test_a_time_without_a_zone_is_refused(given):
    """A naive time, a date, and what is no moment at all are errors."""
    assert refused(run_start(run=RUN | {"started_at": given})).path == "events[3].run.started_at"


def test_statuses_have_defaults():
    """A run is running until its end; an end is a success, or a failure where there is an error."""
    assert valid(run_start()).run["status"] == "running"
    assert valid(run_end()).run["status"] == "success"
    assert valid(run_end(error={"type": "KeyError"})).run["status"] == "failure"
    assert valid(run_end(error={"type": "KeyError"}, status="success")).run["status"] == "success"
    found = valid(stage(error={"message": "x"}))
    assert found.stage is not None
    assert (found.run["status"], found.stage["status"]) == ("running", "failure")


def test_integers_are_strings_to_us():
    """Integer ids and labels become strings; rows and columns give the same."""
    by_row = valid(stage(candidates=[{"id": 7, "reason_label": 3}, {"candidate_id": "b"}])).columns
    by_column = valid(stage(columns={"id": [7, "b"], "reason_label": [3, None]})).columns
    assert by_row == by_column
    assert by_row is not None
    assert (by_row.candidate_id, by_row.values) == (["7", "b"], {"reason_label": ["3", None]})


def test_a_type_of_the_senders_has_any_columns():
    """Candidates of a type that the service does not have may carry columns of their own, but no reserved names."""
    found = valid(stage(stage_type="audit", candidates=[{"id": "a", "auditor": "x"}])).columns
    assert found is not None
    assert found.values == {"auditor": ["x"]}
    assert refused(stage(stage_type="audit", candidates=[{"id": "a", "seq": 1}])).code == "unknown_field"


def test_a_newer_schema_may_say_more():
    """Unknown fields of a newer version of the schema are left out, not refused."""
    event = run_start(mood="good", run=RUN | {"planet": "earth"})
    assert "mood" not in valid(event, schema_version=2).run


def test_what_json_cannot_keep_is_replaced():
    """NaN, infinities, integers beyond 64 bits, NUL, lone surrogates and bytes become markers; the rest stays."""
    given = {"a": math.nan, "b": [-math.inf, 2**63, -(2**63)], "c\0": "x\0y", "d": "\ud800", "e": b"12", "f": None}
    kept = clean(given)
    assert kept == {
        "a": "[xray: nan]",
        "b": ["[xray: -inf]", "[xray: integer of 64 bits]", -(2**63)],
        "c\ufffd": "x\ufffdy",
        "d": "\ufffd",
        "e": "[xray: 2 bytes]",
        "f": None,
    }
    assert is_clean(kept)
    assert clean(kept) is kept
    assert msgspec.json.decode(msgspec.json.encode(kept)) == kept


def test_what_is_nested_too_deep_is_cut():
    """A value that is nested deeper than any store takes is cut with a marker."""
    deep: object = "bottom"
    for _ in range(300):
        deep = [deep]
    assert b"too deep" in msgspec.json.encode(clean(deep))


def test_an_event_is_not_changed():
    """Validation leaves what it was given as it was."""
    event = stage(candidates=[{"id": 7, "data": {"x": math.inf}}], metadata={"a": "\0"})
    copied = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
    valid(event)
    assert event == copied


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "running"),
        ({"name": "f", "output": 1}, "running"),
        ({"status": "running", "duration_ms": 3}, "running"),
        ({"duration_ms": 3}, "success"),
        ({"error": {"type": "E"}}, "failure"),
        ({"error": {"type": "E"}, "status": "success"}, "success"),
    ],
)
def test_an_update_of_a_stage_says_how_it_stands(fields, status):
    """A stage that was begun goes on until something says that it has ended, and how."""
    event = {"type": "stage.update", "id": STAGE_ID, "run": RUN, **fields}
    assert valid(event).stage["status"] == status


def test_what_several_events_say_of_a_run_is_checked_each_time():
    """Events that say the same share the check; equal values of another type, or more that is wrong, are found."""
    check = RunCheck()
    first, again = (valid(run_start(), run_check=check).run for _ in range(2))
    assert first == again == valid(run_start()).run
    first["label"] = "changed by its owner"
    assert valid(run_start(), run_check=check).run == again
    at = RUN | {"started_at": 1_795_275_705_272}
    assert valid(run_start(run=at), run_check=check).run["started_at"] == 1_795_275_705_272
    wrong = run_start(run=at | {"started_at": 1_795_275_705_272.0})
    for _ in range(2):
        assert refused(wrong, run_check=check).path == "events[3].run.started_at"
    assert refused(run_start(run=RUN | {"lable": "x"}), run_check=check).path == "events[3].run.lable"
    assert valid(run_start(run=at), run_check=check).run["started_at"] == 1_795_275_705_272
