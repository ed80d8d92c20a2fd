"""Passport, funnel, diff, what-if and reverse lookup against a computation over the raw candidates.

What is stored of each stage is drawn: everything, a sample, or nothing. Where an answer says that it knows, it must be
what the raw candidates say.
"""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.analysis.support import TIERS, Raw, got, row, run_events, sent, uuid

LABELS = ("too_dear", "too_old")
SCORES = st.integers(0, 20).map(lambda n: n / 20)


@st.composite
def stages_of_a_run(draw):
    """Retrieval, a filter, a score, an order; between them some candidates get lost without a word."""
    ids = [f"c{n}" for n in range(draw(st.integers(0, 12)))]
    found = Raw("search", "retrieval", [row(i, rank=n + 1) for n, i in enumerate(ids)])
    came = [i for i in ids if draw(st.integers(0, 9)) > 0]
    judged, passed = [], []
    for each in came:
        if draw(st.booleans()):
            passed.append(each)
            judged.append(row(each, verdict="passed"))
        else:
            judged.append(row(each, verdict="failed", reason_label=draw(st.sampled_from((*LABELS, None)))))
    scored = [row(each, score=draw(SCORES)) for each in passed if draw(st.integers(0, 9)) > 0]
    order = sorted(scored, key=lambda each: -each["score"])
    cut = draw(st.integers(0, len(order)))
    ranked = [
        row(each["candidate_id"], rank_before=n + 1, score=each["score"],
            rank=order.index(each) + 1 if order.index(each) < cut else None)
        for n, each in enumerate(scored)
    ]  # fmt: skip
    stages = [
        found,
        Raw("judge", "filtering", judged),
        Raw("score", "scoring", scored),
        Raw("order", "ranking", ranked),
    ]
    for stage in stages:
        stage.tier = draw(st.sampled_from(TIERS))
        stage.kept = tuple(n for n in range(len(stage.rows)) if draw(st.booleans()))
    return stages


def is_whole(stage):
    return len(stage.stored) == len(stage.rows)


def find(rows, candidate_id):
    return next((each for each in rows if each["candidate_id"] == candidate_id), None)


def went_on(stage, each):
    if stage.type == "filtering":
        return each["verdict"] == "passed"
    return stage.type != "ranking" or "rank" in each


def truth_of(stages, candidate_id):
    """What became of a candidate, from the raw rows: the last stage that saw it decides."""
    last = max((n for n, stage in enumerate(stages) if find(stage.rows, candidate_id)), default=None)
    if last is None:
        return "never seen", None
    stage = stages[last]
    if not went_on(stage, find(stage.rows, candidate_id)):
        return "lost", stage.name
    mates = {each["candidate_id"] for each in stage.rows if went_on(stage, each)} - {candidate_id}
    if any(mates & {each["candidate_id"] for each in later.rows} for later in stages[last + 1 :]):
        return "dropped", stage.name
    return "kept", None


def asked(serve, *runs, ask):
    """Send runs to a service and put questions to it."""

    async def use(client):
        await sent(client, *runs)
        await ask(client)

    serve(use)


PROPERTY = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@PROPERTY
@given(stages_of_a_run())
def test_a_passport_says_what_happened_or_that_it_is_not_known(serve, stages):
    """Every id that occurs, and one that does not: the outcome is the raw candidates' or ``unknown``."""

    async def ask(client):
        ids = {each["candidate_id"] for stage in stages for each in stage.rows} | {"nobody"}
        for candidate_id in sorted(ids):
            answer = await got(client, f"/v1/runs/{uuid(1)}/candidates/{candidate_id}")
            for stage, step in zip(stages, answer["steps"], strict=True):
                kept = find(stage.stored, candidate_id)
                assert step["seen"] == ("yes" if kept else "no" if is_whole(stage) else "not kept")
                assert kept is None or step["lost"] == (not went_on(stage, kept))
                assert all(step[name] == value for name, value in (kept or {}).items() if name != "candidate_id")
            told = answer["outcome"], answer["lost_at"]
            if all(map(is_whole, stages)) or told[0] != "unknown":
                assert told == truth_of(stages, candidate_id)

    asked(serve, run_events(1, stages), ask=ask)


@PROPERTY
@given(stages_of_a_run())
def test_a_funnel_counts_what_the_raw_candidates_say(serve, stages):
    """Counts at every tier; where candidates are kept, each one that vanished or came up is named."""

    async def ask(client):
        answer = await got(client, f"/v1/runs/{uuid(1)}/funnel")
        for place, (stage, told) in enumerate(zip(stages, answer["stages"], strict=True)):
            if stage.type != "retrieval":
                assert told["in"] == len(stage.rows)
            on = {each["candidate_id"] for each in stage.rows if went_on(stage, each)}
            assert told["out"] == (sum("rank" in each for each in stage.rows) if stage.type == "ranking" else len(on))
            if told["checked"] is not None and stage.rows:
                assert told["balance"] == 0
                assert told["dropped"] == told["in"] - told["out"]
            if all(map(is_whole, stages)):
                later = set().union(*({each["candidate_id"] for each in s.rows} for s in stages[place + 1 :]))
                own = {each["candidate_id"] for each in stage.rows}
                gone = sorted(on - later) if own & later else []
                named = [flag["ids"] for flag in told["flags"] if flag["flag"] == "silent_drop"]
                assert named == ([gone] if gone else [])
        if all(map(is_whole, stages)):
            flags = [flag["flag"] for told in answer["stages"] for flag in told["flags"]]
            assert answer["conserved"] is (not flags)

    asked(serve, run_events(1, stages), ask=ask)


@PROPERTY
@given(stages_of_a_run(), stages_of_a_run())
def test_a_diff_finds_the_flips_of_the_raw_candidates(serve, a, b):
    """All flips among stored candidates and no other; what only one run has where the other can tell."""

    async def ask(client):
        answer = await got(client, f"/v1/diff/{uuid(1)}/{uuid(2)}")
        for x, y, told in zip(a, b, answer["stages"], strict=True):
            of_x = {each["candidate_id"]: each for each in x.stored}
            of_y = {each["candidate_id"]: each for each in y.stored}
            both = [i for i in of_x if i in of_y]
            flips = [
                i for i in both
                if of_x[i].get("verdict") != of_y[i].get("verdict") or went_on(x, of_x[i]) != went_on(y, of_y[i])
            ]  # fmt: skip
            assert [flip["candidate_id"] for flip in told["flips"]] == flips
            assert told["common"] == len(both)
            for mine, other, name, side in ((of_x, of_y, "only_in_a", y), (of_y, of_x, "only_in_b", x)):
                expected = [i for i in mine if i not in other]
                assert (told[name] is None) == (not is_whole(side))
                assert told[name] is None or told[name]["ids"] == expected
        whole = all(map(is_whole, (*a, *b)))
        same = [x.rows == y.rows for x, y in zip(a, b, strict=True)]
        if whole:
            first = next((x.name for x, equal in zip(a, same, strict=True) if not equal), None)
            assert answer["first_divergent"] == first

    asked(serve, run_events(1, a), run_events(2, b), ask=ask)


@PROPERTY
@given(stages_of_a_run(), SCORES, st.booleans())
def test_a_what_if_counts_the_stored_scores(serve, stages, threshold, below):
    """Who would pass by the stored scores; what a label costs is exact at every tier."""

    async def ask(client):
        answer = await got(client, f"/v1/runs/{uuid(1)}/whatif/order", threshold=threshold, below=below, near=1000)
        ranking = stages[3]
        scores = {each["candidate_id"]: each["score"] for each in ranking.stored}
        passes = {i for i, score in scores.items() if (score <= threshold if below else score >= threshold)}
        told = answer["threshold"]
        assert answer["exact"] is is_whole(ranking)
        assert (told["passes"], told["fails"]) == (len(passes), len(scores) - len(passes))
        assert {each["candidate_id"] for each in told["near"] if each["passes"]} == passes
        if is_whole(ranking) and told["now"] is not None:
            now = {each["candidate_id"] for each in ranking.rows if "rank" in each}
            assert {each["candidate_id"] for each in told["gained"]} == passes - now
            assert {each["candidate_id"] for each in told["lost"]} == now - passes
        labels = (await got(client, f"/v1/runs/{uuid(1)}/whatif/judge"))["labels"]
        counted = Counter(each["reason_label"] for each in stages[1].rows if "reason_label" in each)
        assert {each["label"]: each["more"] for each in labels} == counted
        assert all(each["exact"] for each in labels)

    asked(serve, run_events(1, stages), ask=ask)


@PROPERTY
@given(st.lists(stages_of_a_run(), min_size=1, max_size=4))
def test_a_reverse_lookup_counts_what_is_stored(serve, runs):
    """Over all runs: how often each stage saw the candidate and lost it, and why."""

    async def ask(client):
        for candidate_id in ("c0", "c3", "nobody"):
            answer = await got(client, f"/v1/lost/{candidate_id}")
            seen, lost, reasons = Counter(), Counter(), Counter()
            for stage in itertools.chain(*runs):
                each = find(stage.stored, candidate_id)
                if each is not None:
                    seen[stage.name] += 1
                    if not went_on(stage, each):
                        lost[stage.name] += 1
                        reasons[stage.name, each.get("reason_label") or ""] += 1
            assert {told["path"]: told["seen"] for told in answer["rows"]} == seen
            assert Counter({told["path"]: told["lost"] for told in answer["rows"]}) == lost
            told_reasons = {(told["path"], why): n for told in answer["rows"] for why, n in told["reasons"].items()}
            assert told_reasons == reasons
            assert answer["sightings"] == sum(seen.values())
            hidden = sum(not is_whole(stage) for stage in itertools.chain(*runs))
            every = sum(1 for _ in itertools.chain(*runs))
            assert answer["coverage"] == {"stages_looked_at": every, "without_all_candidates": hidden}

    asked(serve, *(run_events(number + 1, stages) for number, stages in enumerate(runs)), ask=ask)
