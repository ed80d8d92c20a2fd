"""The recorder, the assertions and the pytest plugin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xray
from xray import ids
from xray.hand_built import Run
from xray.testing import (
    RecordedRun,
    Recorder,
    assert_label_counts,
    assert_metric,
    assert_rejected,
    assert_survives,
    fixed_ids_and_clock,
)

PRICES = {"p1": 50, "p2": 120, "p3": 90, "p4": 300}


@xray.pipeline("shop", id="request", version="7")
def shop(request: str, limit: int = 100) -> list[dict[str, Any]]:
    return ranked([item for item in judged(found("shoes"), limit) if item["ok"]])


@xray.retrieval_stage("search")
def found(words: str) -> list[dict[str, Any]]:
    return [{"id": name, "price": price} for name, price in PRICES.items()]


@xray.filtering_stage("price_filter", passed="ok", reason_label="why")
def judged(pool: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    return [{**c, "ok": c["price"] <= limit, "why": "too_dear" if c["price"] > limit else None} for c in pool]


@xray.ranking_stage("cheapest_first")
def ranked(pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(pool, key=lambda c: c["price"])[:1]


@pytest.fixture
def run() -> RecordedRun:
    with Recorder() as recorder:
        shop("first")
        return recorder.last_run


def test_a_recorded_run_can_be_read(run: RecordedRun):
    """Its fields, its stages in order, their candidates and metrics."""
    assert (run.label, run.key, run.version, run.status) == ("shop", "first", "7", "success")
    assert [stage.path for stage in run.stages] == ["search", "price_filter", "cheapest_first"]
    stage = run.stage("price_filter")
    assert (stage.type, stage.status, len(stage.rows)) == ("filtering", "success", 4)
    assert stage.row("p2") == {
        "candidate_id": "p2", "verdict": "failed", "reason_label": "too_dear", "data": {"id": "p2", "price": 120},
        "output": {"ok": False, "why": "too_dear"},
    }  # fmt: skip
    assert stage.metrics["fail_ratio"] == 0.5
    assert stage.metrics["label_counts"] == {"too_dear": 2}
    assert stage.metrics["duration_ms"] == stage.duration_ms
    assert repr(run) == "<RecordedRun 'shop' success, 3 stages>"
    assert repr(stage) == "<RecordedStage 'price_filter' filtering, 4 candidates>"


def test_the_way_of_a_candidate(run: RecordedRun):
    """Each stage that looked at it, with what it decided."""
    assert [str(step) for step in run.candidate("p2")] == [
        "search  there, rank 2",
        "price_filter  failed (too_dear)",
    ]
    assert [step.lost for step in run.candidate("p3")] == [False, False, True]
    assert run.candidate("nobody") == []


def test_runs_are_in_the_order_of_their_starts():
    """The last is at hand; clear forgets; nothing recorded is said."""
    with Recorder() as recorder:
        with pytest.raises(LookupError, match="no decorated callable was called"):
            _ = recorder.last_run
        shop("first")
        shop("second")
        assert [run.key for run in recorder.runs] == ["first", "second"]
        assert recorder.last_run.key == "second"
        recorder.clear()
        assert recorder.runs == []
        shop("third")
    assert [run.key for run in recorder.runs] == ["third"]


def test_a_run_that_failed_says_so():
    """Its error and that of the stage."""

    @xray.filtering_stage("broken")
    def broken(pool: list[int]) -> list[int]:
        raise ValueError("no luck")

    with Recorder() as recorder:
        with pytest.raises(ValueError, match="no luck"):
            broken([1])
        run = recorder.last_run
    assert (run.status, run.stage("broken").status) == ("failure", "failure")
    assert "ValueError: no luck" in run.funnel()


def test_settings_are_the_defaults_within_the_block(monkeypatch: pytest.MonkeyPatch):
    """Whatever the environment says; those that the recorder is given count."""
    monkeypatch.setenv("XRAY_ENABLED", "0")
    monkeypatch.setenv("XRAY_VERSION", "from-environment")
    plain = xray.filtering_stage("plain")(lambda pool: pool)
    with Recorder(environment="test") as recorder:
        plain([1])
        assert (recorder.last_run.version, recorder.last_run.environment) == (None, "test")
    with pytest.raises(xray.XRayError, match="Did you mean 'enabled'"), Recorder(enabeld=False):
        pass


def test_what_could_not_be_recorded_fails_the_test(monkeypatch: pytest.MonkeyPatch):
    """A test must not pass because something is missing."""
    with Recorder(buffer_records=1) as recorder:
        shop("first")
        with pytest.raises(AssertionError, match="Not everything"):
            _ = recorder.runs


def test_a_stage_is_found_by_path_or_name():
    """A name that several stages have needs a path; a wrong one names the nearest."""
    built = Run("r")
    for outer in ("a", "b"):
        built.stage(outer).stage("inner")
    built.stage("a")
    run = RecordedRun(built.events())
    assert run.stage("a/inner").path == "a/inner"
    assert run.stage("a").path == "a"
    assert run.stage("a#2").order == 4
    with pytest.raises(LookupError, match="Several stages are named 'inner'"):
        run.stage("inner")
    with pytest.raises(LookupError, match="Did you mean 'a/inner'"):
        run.stage("a/iner")


def test_assertions_that_hold(run: RecordedRun):
    """They say nothing."""
    assert_survives(run, "p1")
    assert_survives(run, "p3", stage="price_filter")
    assert_rejected(run, "p2")
    assert_rejected(run, "p2", stage="price_filter", reason_label="too_dear")
    assert_rejected(run, "p3", stage="cheapest_first")
    assert_metric(run, "price_filter", "fail_ratio", "<", 0.9)
    assert_metric(run, "price_filter", "$failRatio", "==", 0.5)
    assert_metric(run, "price_filter", "label_counts.too_dear", ">=", 2)
    assert_metric(run, "price_filter", "label_counts.too_small", "==", 0)
    assert_label_counts(run, "price_filter", {"too_dear": 2, "too_small": 0})


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda run: assert_survives(run, "p2"),
         ["'p2' does not survive the run", "search  there, rank 2", "price_filter  failed (too_dear)  <- lost here",
          "cheapest_first  not among its 2 candidates"]),
        (lambda run: assert_survives(run, "p3"), ["cheapest_first  not returned, rank_before 2  <- lost here"]),
        (lambda run: assert_survives(run, "p2", stage="cheapest_first"),
         ["does not survive stage 'cheapest_first'", "price_filter  failed (too_dear)  <- lost here"]),
        (lambda run: assert_survives(run, "p11"), ["No stage has a candidate 'p11'. Did you mean 'p1'?"]),
        (lambda run: assert_rejected(run, "p1"), ["'p1' was not rejected in the run", "price_filter  passed"]),
        (lambda run: assert_rejected(run, "p2", stage="cheapest_first"),
         ["'p2' was not rejected in stage 'cheapest_first'", "price_filter  failed (too_dear)  <- lost here"]),
        (lambda run: assert_rejected(run, "p2", reason_label="too_small"),
         ["rejected in the run with 'too_dear', not with 'too_small'"]),
        (lambda run: assert_rejected(run, "p3", reason_label="too_small"), ["with no label, not with 'too_small'"]),
        (lambda run: assert_metric(run, "price_filter", "fail_ratio", "<", 0.5),
         ["fail_ratio of stage 'price_filter' is 0.5, not < 0.5", "label_counts: {'too_dear': 2}"]),
        (lambda run: assert_metric(run, "price_filter", "fial_ratio", "<", 1), ["Did you mean 'fail_ratio'?"]),
        (lambda run: assert_metric(run, "price_filter", "unknown_labels", "==", 0), ["has no value here"]),
        (lambda run: assert_metric(run, "price_filter", "fail_ratio.x", "<", 1), ["has no 'x': it is 0.5"]),
        (lambda run: assert_label_counts(run, "price_filter", {"too_dear": 1, "new": 3}),
         ["  too_dear: 2, not 1", "  new: 0, not 3"]),
    ],
)  # fmt: skip
def test_assertions_that_do_not_hold_tell_what_happened(
    run: RecordedRun, check: Callable[[RecordedRun], None], said: list[str]
):
    """Which stage lost the candidate and why; which metrics there are."""
    with pytest.raises(AssertionError) as caught:
        check(run)
    for words in said:
        assert words in str(caught.value)


def test_an_assertion_that_makes_no_sense_is_an_error(run: RecordedRun):
    """A stage or an operator that does not exist is no failed decision."""
    with pytest.raises(LookupError, match="Did you mean 'price_filter'"):
        assert_survives(run, "p1", stage="pricefilter")
    with pytest.raises(ValueError, match="no operator '=<'"):
        assert_metric(run, "price_filter", "passed", "=<", 3)  # type: ignore[arg-type]


def test_assertions_take_runs_that_were_built_by_hand():
    """Selected or not; generated candidates are others than those that survive."""
    built = Run("r")
    built.stage("pick", "filtering").candidates(selected=["a"]).candidate("b")
    built.stage("write", "generation").candidate("text")
    assert_survives(built, "a")
    assert_rejected(built, "b", stage="pick")


def test_what_a_sample_does_not_hold_is_said():
    """A candidate may be missing only because it was not kept."""
    built = Run("r")
    built.stage("pick", "filtering", seen=500, metrics={}).candidates(passed=["a"])
    with pytest.raises(AssertionError, match="only 1 of 500 are kept"):
        assert_survives(built, "b")


def test_candidates_that_travel_apart_come_together():
    """Events of one stage in any number, as rows or as columns."""
    run = {"id": ids.new_id()}
    stage = {"type": "stage", "id": ids.new_id(), "run": run, "name": "judge", "stage_type": "filtering"}
    more = {"type": "candidates", "id": stage["id"], "run": run}
    found = RecordedRun(
        [
            more | {"from_seq": 2, "columns": {"candidate_id": ["c"], "verdict": ["failed"]}},
            stage | {"candidates": [{"id": 1, "verdict": "passed", "score": None}], "capture": {"seen": 3}},
            more | {"from_seq": 1, "candidates": [{"candidate_id": "b", "verdict": "failed"}]},
        ]
    ).stage("judge")
    assert [row["candidate_id"] for row in found.rows] == ["1", "b", "c"]
    assert found.metrics["failed"] == 2


def test_ids_and_clocks_are_fixed_and_given_back():
    """The same every time, also where the block ends with an exception."""
    real = (ids.draw_bits, ids.clock_ns, ids.monotonic_ns)
    seen = []

    def look() -> None:
        seen.append((ids.new_id(), ids.now_ms(), ids.monotonic_ns(), ids.monotonic_ns()))
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError), fixed_ids_and_clock():
            look()
    assert seen[0] == seen[1]
    assert seen[0][0] == "019b76da-a800-7000-8000-000000000001"
    assert (ids.draw_bits, ids.clock_ns, ids.monotonic_ns) == real


def test_recording_under_fixed_ids_gives_the_same_events(xray_recorder: Recorder):
    """Byte for byte, so that a test may compare with a file."""
    shop("first")
    first = xray_recorder.events
    with fixed_ids_and_clock(), Recorder() as recorder:
        shop("first")
        assert recorder.events == first
    assert first[0]["run"]["started_at"] == 1_767_225_600_000


PLUGIN_TEST = """
import xray

@xray.filtering_stage("judge", passed="ok", reason_label="why")
def judge(pool):
    return [{"id": n, "ok": n > 1, "why": None if n > 1 else "too_small"} for n in pool]

def test_good(xray_recorder):
    judge([1, 2])
    assert xray_recorder.last_run.id == "019b76da-a800-7000-8000-000000000001"

def test_bad(xray_recorder):
    judge([1, 2, 3])
    assert xray_recorder.last_run.stage("judge").metrics["failed"] == 2

def test_nothing_recorded(xray_recorder):
    assert xray_recorder.runs

def test_without(request):
    assert False
"""


def run_pytest(folder: Path, *arguments: str) -> str:
    (folder / "test_it.py").write_text(PLUGIN_TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments, "test_it.py"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_the_plugin_brings_the_fixture_and_shows_the_funnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installed like any plugin; the environment does not matter; only a failure with a run has a funnel."""
    monkeypatch.setenv("XRAY_ENABLED", "0")
    output = run_pytest(tmp_path)
    assert "3 failed, 1 passed" in output
    (section,) = re.findall(r"-+ X-Ray: the last run -+\n((?:.+\n){2})", output)
    assert re.sub(r"\d+\.\d ms", "… ms", section) == (
        "judge  success  … ms\n  judge  filtering  3 → 2  fail 33.3%  too_small 1\n"
    )


def test_the_plugin_can_be_left_out(tmp_path: Path):
    """-p no:xray, as for every plugin."""
    assert "fixture 'xray_recorder' not found" in run_pytest(tmp_path, "-p", "no:xray")


def test_the_plugin_is_light_where_it_is_not_used(tmp_path: Path):
    """It starts no thread and loads neither the testing module nor a client."""
    (tmp_path / "test_light.py").write_text(
        "import sys, threading\n"
        "def test_light():\n"
        "    assert 'xray.pytest_plugin' in sys.modules\n"
        "    assert not {'xray.testing', 'xray.client', 'urllib3', 'xray.recorded'} & set(sys.modules)\n"
        "    assert threading.active_count() == 1\n"
    )
    # Alone: what other plugins load is theirs.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xray.pytest_plugin"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)


def test_threads_are_recorded_too():
    """Reading waits for what other threads recorded before."""
    with Recorder() as recorder:
        threads = [threading.Thread(target=shop, args=(str(n),)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(run.key or "" for run in recorder.runs) == [str(n) for n in range(8)]
