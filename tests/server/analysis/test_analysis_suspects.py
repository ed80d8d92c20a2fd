"""The statistical analysis: it finds what was planted, says why, and is silent where it must be."""

from __future__ import annotations

import random

import pytest

from tests.server.analysis.support import Raw, got, row, run_events, sent
from tests.server.helpers import in_service
from xray_server.analysis.features import profiles
from xray_server.analysis.reading import Reader
from xray_server.testing_data import PROJECT


def a_run(number, *, strict=False, shifted=False, slow=None, lost=None, words=("red shoe", "boots")):
    """A run of four stages over some thirty products that are drawn; what is wrong with it is said."""
    rng = random.Random(number)
    ids = [f"p{n}" for n in rng.sample(range(60), round(min(max(rng.gauss(28, 4), 15), 45)))]
    made = Raw("words", "generation", [row(word, data=word, length=len(word)) for word in words])
    source = ("east", "west", "north")
    found = [row(i, rank=n + 1, source=source[hash_of(i) % 3]) for n, i in enumerate(ids)]
    found = [each for each in found if each["source"] != lost]
    passed = [each["candidate_id"] for each in found if hash_of(each["candidate_id"]) % 4 and not strict]
    judged = [row(each["candidate_id"], verdict="passed" if each["candidate_id"] in passed else "failed",
                  reason_label=None if each["candidate_id"] in passed else "too_dear") for each in found]  # fmt: skip
    factor = 10 if shifted else 1
    scored = [row(i, score=factor * (0.3 + hash_of(i) % 50 / 100 + rng.random() / 50)) for i in passed]
    stages = [
        made,
        Raw("search", "retrieval", found),
        Raw("judge", "filtering", judged),
        Raw("score", "scoring", scored),
    ]
    for stage in stages:
        took = rng.lognormvariate(2, 0.3) * (30 if stage.name == slow else 1)
        stage.fields["duration_ms"] = took
    return run_events(number, stages, input={"query": "red shoe and boots"})


def hash_of(text):
    return sum(text.encode()) * 7919 % 1009


HISTORY = [a_run(number) for number in range(100, 160)]


def analyzed(folder, *runs, history=HISTORY, **parameters):
    answers = []

    async def use(client):
        await sent(client, [event for events in (*history, *runs) for event in events])
        ids = [events[0]["run"]["id"] for events in runs]
        answers.extend([await got(client, f"/v1/runs/{run_id}/analysis", **parameters) for run_id in ids])

    in_service(folder, use)
    return answers


@pytest.mark.parametrize(
    ("fault", "stage", "feature"),
    [
        ({"strict": True}, "judge", "passed_of_expected"),
        ({"shifted": True}, "score", "score.mean"),
        ({"slow": "search"}, "search", "duration_per_candidate_ms"),
        ({"lost": "west"}, "search", "sources.west"),
        ({"words": ()}, "words", "made_nothing"),
        ({"words": ("phone case", "boots")}, "words", "least_grounded"),
    ],
)
def test_a_planted_fault_is_found_with_its_evidence(tmp_path, fault, stage, feature):
    """The stage is the first suspect, and the feature that gives it away is among the evidence."""
    (answer,) = analyzed(tmp_path, a_run(1, **fault))
    assert (answer["suspicious"], answer["faulty_stage"], answer["history"]) == (True, stage, 60)
    evidence = {each["feature"]: each for each in answer["suspects"][0]["evidence"]}
    assert feature in evidence
    assert evidence[feature]["excess"] > 1
    assert evidence[feature]["text"].startswith(feature)
    assert 0 < answer["confidence"] <= 1


def test_healthy_runs_are_seldom_called_suspicious(tmp_path):
    """Of forty healthy runs no more than a few; the share that is promised is 4 %."""
    answers = analyzed(tmp_path, *(a_run(number) for number in range(1, 41)))
    assert sum(answer["suspicious"] for answer in answers) <= 5
    assert all((answer["faulty_stage"] is None) == (not answer["suspicious"]) for answer in answers)


def test_a_short_history_says_nothing(tmp_path):
    """Seven runs are too few; the answer says how many there are."""
    (answer,) = analyzed(tmp_path, a_run(1, strict=True), history=HISTORY[:7])
    assert (answer["suspicious"], answer["faulty_stage"]) == (None, None)
    assert answer["reason"] == "Only 7 other runs to compare with; it takes 8."


def test_a_stage_that_raised_needs_no_history(tmp_path):
    """What it raised is the evidence."""
    events = a_run(1)
    failed = next(event for event in events if event.get("name") == "judge")
    failed |= {"status": "failure", "error": {"type": "ValueError", "message": "no price"}}
    (answer,) = analyzed(tmp_path, events, history=[])
    assert (answer["suspicious"], answer["faulty_stage"], answer["reason"]) == (True, "judge", "ValueError: no price")


def test_a_stage_that_did_not_run_is_missing(tmp_path):
    """It is a suspect, after whatever came before it."""
    events = [event for event in a_run(1) if event.get("name") != "score"]
    (answer,) = analyzed(tmp_path, events)
    assert answer["suspicious"] is True
    assert "missing" in {each["feature"] for each in answer["suspects"][0]["evidence"]}
    assert answer["faulty_stage"] == "score"


def test_a_version_is_compared_with_itself_where_it_has_enough_runs(tmp_path):
    """Forty runs of its own are; fewer are not, unless that is asked for."""
    old = [[{**event, "run": {**event["run"], "version": "1"}} for event in events] for events in HISTORY]
    new = [[{**event, "run": {**event["run"], "version": "2"}} for event in events]
           for events in (a_run(number) for number in range(200, 240))]  # fmt: skip
    mine = [{**event, "run": {**event["run"], "version": "2"}} for event in a_run(1)]
    history = [*old, *new]
    assert analyzed(tmp_path, mine, history=history)[0]["history"] == 40
    (tmp_path / "b").mkdir()
    assert analyzed(tmp_path / "b", mine, history=[*old, *new[:39]])[0]["history"] == 99
    (tmp_path / "c").mkdir()
    assert analyzed(tmp_path / "c", mine, history=history, version="1")[0]["history"] == 60


def test_what_is_read_of_the_history_is_what_its_features_are_made_of(serve):
    """Columns that no feature needs are left out; every profile is that of the whole run."""
    runs = [a_run(number) for number in range(1, 6)]

    async def use(client):
        await sent(client, *runs)
        reader = Reader(client._transport.app.state.service.store, PROJECT)
        ids = [events[0]["run"]["id"] for events in runs]
        whole = {run_id: await reader.run(run_id) for run_id in ids}
        past = await reader.history_of(whole[ids[0]].document, limit=10)
        assert {run.id for run in past} == set(ids[1:])
        for run in past:
            assert profiles(run) == profiles(whole[run.id])
            assert "source" not in run.stages[1].columns.values
            assert all(stage.has_all for stage in run.stages)

    serve(use)
