"""Each analysis on a case that was worked out by hand, and its errors."""

from __future__ import annotations

import math

import pytest

from tests.server.analysis.support import Raw, got, row, run_events, sent, uuid
from tests.server.helpers import error_of
from xray_server.analysis.diff import diff
from xray_server.analysis.funnel import funnel
from xray_server.analysis.passport import passport
from xray_server.analysis.record import RunRecord, StageRecord
from xray_server.analysis.statistics import (
    benjamini_hochberg,
    clustered_share_test,
    mann_whitney,
    robust_scale,
)
from xray_server.analysis.whatif import what_if

SEARCH = Raw("search", "retrieval", [row(i, rank=n + 1) for n, i in enumerate("abcde")])
JUDGE = Raw(
    "judge", "filtering",
    [
        row("a", verdict="passed"), row("b", verdict="failed", reason_label="too_dear", reason_text="120 > 100"),
        row("c", verdict="passed"), row("d", verdict="passed"), row("e", verdict="failed", reason_label="too_old"),
    ],
)  # fmt: skip
SCORE = Raw("score", "scoring", [row("a", score=0.9), row("c", score=0.5), row("d", score=0.4)])
PICK = Raw("pick", "selection", [row("a", verdict="selected", score=0.9), row("c", score=0.5), row("d", score=0.4)])
RUN = [SEARCH, JUDGE, SCORE, PICK]


def serving(serve, ask, *runs):
    async def use(client):
        await sent(client, *runs)
        await ask(client)

    serve(use)


def test_a_passport(serve):
    """Verdict, reason, score, distance from the cutoff, and where it was lost."""

    async def ask(client):
        async def why(candidate_id):
            return await got(client, f"/v1/runs/{uuid(1)}/candidates/{candidate_id}")

        b = await why("b")
        assert (b["outcome"], b["lost_at"], b["reason_label"]) == ("lost", "judge", "too_dear")
        assert b["reason_text"] == "120 > 100"
        assert [step["seen"] for step in b["steps"]] == ["yes", "yes", "no", "no"]
        c = await why("c")
        assert (c["outcome"], c["lost_at"]) == ("lost", "pick")
        # Only a was picked, so the cutoff is its score: at the scoring stage, too, whose candidates the pick decided.
        for step in c["steps"][2:]:
            assert step["cutoff"]["score"] == 0.9
            assert step["cutoff"]["best_lost"] == 0.5
            assert step["cutoff"]["distance"] == pytest.approx(-0.4)
            assert step["cutoff"]["decided_by"] == "pick"
        a = await why("a")
        assert (a["outcome"], a["first_seen"]) == ("kept", "search")
        assert (await why("never%2Fheard"))["outcome"] == "never seen"

    serving(serve, ask, run_events(1, RUN))


def test_a_candidate_that_nobody_rejected_and_that_did_not_arrive(serve):
    """Dropped between two stages: both are named, and the funnel flags it."""
    short = Raw("score", "scoring", [row("a", score=0.9), row("c", score=0.5)])

    async def ask(client):
        d = await got(client, f"/v1/runs/{uuid(1)}/candidates/d")
        assert (d["outcome"], d["lost_at"], d["missing_from"]) == ("dropped", "judge", "score")
        told = await got(client, f"/v1/runs/{uuid(1)}/funnel")
        assert told["conserved"] is False
        assert told["stages"][1]["flags"] == [{"flag": "silent_drop", "count": 1, "ids": ["d"]}]

    serving(serve, ask, run_events(1, [SEARCH, JUDGE, short]))


def test_what_is_not_kept_is_said(serve):
    """A stage of which a summary was sent is ``not kept``, and the outcome is not guessed."""
    summary = Raw("judge", "filtering", JUDGE.rows, tier="summary")

    async def ask(client):
        b = await got(client, f"/v1/runs/{uuid(1)}/candidates/b")
        assert b["outcome"] == "unknown"
        assert b["steps"][1]["seen"] == "not kept"
        assert b["steps"][1]["capture"] == {"seen": 5, "kept": 0, "all": False, "why": "summary"}

    serving(serve, ask, run_events(1, [SEARCH, summary]))


def test_a_sample_does_not_tell_whether_a_candidate_arrived(serve):
    """The next stage saw others of the first stage's candidates than those that are kept of it: nobody can say."""
    sample = Raw("search", "retrieval", SEARCH.rows, tier="sampled", kept=(4,))
    judged = Raw("judge", "filtering", [row("a", verdict="passed")])

    async def ask(client):
        e = await got(client, f"/v1/runs/{uuid(1)}/candidates/e")
        assert (e["outcome"], e["steps"][1]["seen"]) == ("unknown", "no")

    serving(serve, ask, run_events(1, [sample, judged]))


def test_a_funnel_flags_duplicates_and_changed_ids(serve):
    """An id that comes twice, and ids that go out without having come in."""
    twice = Raw("search", "retrieval", [row("a", rank=1), row("a", rank=2), row("b", rank=3)])
    changed = Raw("score", "scoring", [row("a", score=1), row("b2", score=2)], {"facts": {"unknown_outputs": 1}})

    async def ask(client):
        stages = (await got(client, f"/v1/runs/{uuid(1)}/funnel"))["stages"]
        assert stages[0]["flags"][0] == {"flag": "duplicates", "count": 1, "ids": ["a"]}
        assert {"flag": "changed_ids", "count": 1, "ids": []} in stages[1]["flags"]
        assert (stages[1]["in"], stages[1]["out"], stages[1]["added"], stages[1]["balance"]) == (1, 2, 1, 0)

    serving(serve, ask, run_events(1, [twice, changed]))


def test_a_funnel_of_types_that_the_service_does_not_know(serve):
    """One that gives candidates back out of none brings them up; what another dropped it did for its labels."""
    found = Raw("found", "judged", [row("a"), row("b"), row("c")], {"metrics": {"input_count": 0, "output_count": 3}})
    kept = Raw(
        "kept",
        "guardrail",
        [
            row("a", verdict="passed"),
            row("b", verdict="failed", reason_label="spam"),
            row("c", verdict="failed", reason_label="spam"),
        ],
        {"metrics": {"input_count": 3, "output_count": 1}},
    )
    empty = Raw("none", "filtering", [], {"metrics": {"input_count": 0, "output_count": 4}}, tier="summary")

    async def ask(client):
        funnel = await got(client, f"/v1/runs/{uuid(1)}/funnel")
        first, second = funnel["stages"]
        assert (first["in"], first["out"], first["balance"], first["flags"]) == (None, 3, None, [])
        assert (second["in"], second["dropped"], second["labels"], second["balance"]) == (3, 2, {"spam": 2}, 0)
        assert funnel["conserved"] is True
        # A filter that lets four of none pass is no source.
        assert (await got(client, f"/v1/runs/{uuid(2)}/funnel"))["stages"][0]["in"] == 0

    serving(serve, ask, run_events(1, [found, kept]), run_events(2, [empty]))


def test_nested_stages_belong_to_their_parent(serve):
    """What happens within a stage is no loss between its siblings."""
    inner = Raw("inner", "filtering", [row("a", verdict="failed")], {"parent_id": uuid(1002)})

    async def ask(client):
        told = await got(client, f"/v1/runs/{uuid(1)}/funnel")
        assert told["conserved"] is True
        a = await got(client, f"/v1/runs/{uuid(1)}/candidates/a")
        assert (a["outcome"], a["steps"][4]["lost"]) == ("kept", True)

    serving(serve, ask, run_events(1, [*RUN, inner]))


def test_a_pipeline_over_time(serve):
    """Counts and labels added up by day and stage."""

    async def ask(client):
        rows = (await got(client, "/v1/pipelines/shop/funnel"))["rows"]
        found = [(each["from"][:10], each["path"], each["runs"], each["in"], each["out"]) for each in rows]
        assert found == [
            ("2026-11-01", "judge", 2, 10, 6), ("2026-11-02", "judge", 1, 5, 3), ("2026-11-02", "search", 1, 0, 5),
        ]  # fmt: skip
        assert rows[0]["label_counts"] == {"too_dear": 2, "too_old": 2}
        assert rows[0]["fail_ratio"] == 0.4
        assert (await got(client, "/v1/pipelines/shop/funnel", since="2026-11-02T00:00:00Z"))["rows"] == rows[1:]
        response = await client.get("/v1/pipelines/shop/funnel", params={"bucket": "soon"})
        assert error_of(response, 422)["path"] == "bucket"

    later = {"started_at": "2026-11-02T10:00:00Z"}
    serving(serve, ask, run_events(1, [JUDGE]), run_events(2, [JUDGE]), run_events(3, [JUDGE, SEARCH], **later))


def test_a_diff(serve):
    """The first stage that differs, the flip, the order, the metric and the input."""
    other = Raw(
        "judge", "filtering", [*JUDGE.rows[:2], row("c", verdict="failed", reason_label="new"), *JUDGE.rows[3:]]
    )
    turned = Raw("score", "scoring", [row("a", score=0.1), row("c", score=0.5), row("d", score=0.4)])

    async def ask(client):
        told = await got(client, f"/v1/diff/{uuid(1)}/{uuid(2)}")
        assert told["first_divergent"] == "judge"
        assert told["input"] == [{"path": "q.words[1]", "a": "red", "b": "blue"}]
        (flip,) = told["flips"]
        assert (flip["candidate_id"], flip["verdict"]) == ("c", ["passed", "failed"])
        assert flip["reason_label"] == [None, "new"]
        # Of the pairs (a,c), (a,d), (c,d) the first two turned round: tau = (1 - 2) / 3.
        assert told["stages"][2]["rank_correlation"]["kendall_tau"] == pytest.approx(-1 / 3)
        changed = {each["name"]: each["change"] for each in told["stages"][1]["metrics"]}
        assert changed["failed"] == 1
        assert told["only_in_a"] == ["pick"]
        assert (await got(client, f"/v1/diff/{uuid(1)}/{uuid(1)}"))["first_divergent"] is None

    first = run_events(1, RUN, input={"q": {"words": ["shoe", "red"]}})
    second = run_events(2, [SEARCH, other, turned], input={"q": {"words": ["shoe", "blue"]}})
    serving(serve, ask, first, second)


def test_a_what_if(serve):
    """Who would pass at 0.45, the nearest misses, and what each label costs."""

    async def ask(client):
        told = await got(client, f"/v1/runs/{uuid(1)}/whatif/pick", threshold=0.45, near=1)
        found = told["threshold"]
        assert (found["passes"], found["now"], found["decided_by"]) == (2, 1, "pick")
        assert [each["candidate_id"] for each in found["gained"]] == ["c"]
        assert [each["candidate_id"] for each in found["near"]] == ["c", "d"]
        assert (await got(client, f"/v1/stages/{uuid(1004)}/whatif", threshold=0.45, near=1)) == told
        labels = (await got(client, f"/v1/runs/{uuid(1)}/whatif/judge", without="too_dear"))["labels"]
        assert labels == [{"label": "too_dear", "more": 1, "exact": True, "at_most": True}]
        assert error_of(await client.get(f"/v1/runs/{uuid(1)}/whatif/none"), 404)["hint"].startswith("It has search")

    serving(serve, ask, run_events(1, RUN))


def test_without_a_check_only_those_survive_that_fail_no_other(serve):
    """With an evaluation table a candidate that breaks two rules does not survive without one of them."""
    table = [
        row("a", verdict="failed", reason_label="price", checks={"price": {"passed": False}, "age": {"passed": True}}),
        row("b", verdict="failed", reason_label="price", checks={"price": {"passed": False}, "age": {"passed": False}}),
    ]

    async def ask(client):
        labels = (await got(client, f"/v1/runs/{uuid(1)}/whatif/judge"))["labels"]
        assert labels == [{"label": "price", "more": 1, "exact": True, "at_most": False}]

    serving(serve, ask, run_events(1, [Raw("judge", "filtering", table)]))


def test_a_reverse_lookup(serve):
    """How often, for what, and in which runs; narrowed by time and pipeline."""

    async def ask(client):
        told = await got(client, "/v1/lost/b")
        judge = told["rows"][0]
        assert (judge["path"], judge["seen"], judge["lost"], judge["reasons"]) == ("judge", 2, 2, {"too_dear": 2})
        assert judge["runs"] == [uuid(2), uuid(1)]
        assert told["complete"] is True
        assert (await got(client, "/v1/lost/b", since="2026-11-02T00:00:00Z"))["rows"][0]["seen"] == 1
        assert (await got(client, "/v1/lost/b", label="other"))["rows"] == []
        assert (await got(client, "/v1/lost/b", limit=1))["complete"] is False
        assert error_of(await client.get("/v1/lost/b", params={"since": "soon"}), 422)["path"] == "since"

    later = {"started_at": "2026-11-02T10:00:00Z"}
    serving(serve, ask, run_events(1, RUN), run_events(2, RUN, **later))


def test_groups_of_runs(serve):
    """A filter that became stricter moved; one that did not, did not."""
    strict = Raw("judge", "filtering", [row(str(n), verdict="failed", reason_label="too_dear") for n in range(10)])
    mild = Raw("judge", "filtering", [row(str(n), verdict="passed") for n in range(10)])
    mixed = Raw("judge", "filtering", [*mild.rows[:8], *strict.rows[8:]])
    before = [run_events(n, [SEARCH, mixed if n % 2 else mild], version="1") for n in range(1, 9)]
    after = [run_events(n, [SEARCH, strict if n % 2 else mixed], version="2") for n in range(11, 19)]

    async def ask(client):
        for body in (
            {"by": "version", "label": "shop"},
            {"by": "version", "label": "shop", "values": ["1", "2"]},
            {"a": {"version": "1"}, "b": {"version": "2"}},
        ):
            told = (await client.post("/v1/compare", json=body)).json()
            assert told["runs"] == [8, 8]
            of_metric = {(each["path"], each["metric"]): each for each in told["metrics"]}
            ratio = of_metric["judge", "fail_ratio"]
            assert ratio["median"] == [0.1, 0.6]
            # Of 64 pairs: 16 of (0, 0.2), 16 of (0, 1), 16 of (0.2, 1) are greater and 16 of (0.2, 0.2) equal.
            assert ratio["effect"] == pytest.approx(48 / 64)
            assert ratio["moved"] is True
            assert of_metric["search", "returned"]["moved"] is False
            (label,) = told["labels"]
            assert label["share"] == [0.1, 0.6]
            assert label["count"] == [8, 48]

        for body, path in (
            ({"by": "colour"}, "by"), ({"a": {}}, "b"), ({"c": 1}, "c"), ({"a": {"$nix": 1}, "b": {}}, "a.$nix"),
            ({"by": "version", "values": ["1"]}, "values"), ({"by": "key", "level": 2}, "level"),
        ):  # fmt: skip
            assert error_of(await client.post("/v1/compare", json=body), 422)["path"] == path

    serving(serve, ask, *before, *after)


def test_the_statistics():
    """Values that were worked out by hand."""
    p, delta = mann_whitney([1, 2, 3], [4, 5, 6])
    # U = 9 of 9; mean 4.5, variance 3 * 3 / 12 * 7 = 5.25; z = (4.5 - 0.5) / sqrt(5.25).
    assert delta == 1
    assert p == pytest.approx(math.erfc(4 / math.sqrt(5.25) / math.sqrt(2)))
    assert mann_whitney([1, 1], [1, 1]) == (1.0, 0.0)
    # Without clustering: 10 of 100 against 30 of 100, chi-square = 0.04 / (0.2 * 0.8 * 0.02) = 12.5.
    singles = [[(1.0, 1.0)] * hits + [(0.0, 1.0)] * (100 - hits) for hits in (10, 30)]
    p, h, first, second = clustered_share_test(*singles)
    assert (first, second) == (0.1, 0.3)
    # The sample's variance has n - 1 below it, so that the design effect is 100 / 99.
    assert p == pytest.approx(math.erfc(math.sqrt(12.5 * 99 / 100 / 2)))
    assert h == pytest.approx(2 * math.asin(math.sqrt(0.3)) - 2 * math.asin(math.sqrt(0.1)))
    # All candidates of a run alike: as many observations as there are runs, and nothing is proved.
    clusters = [[(10.0, 10.0)] * hits + [(0.0, 10.0)] * (10 - hits) for hits in (1, 3)]
    assert clustered_share_test(*clusters)[0] > 0.2
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert robust_scale([1, 2, 3, 4, 100]) == (3, pytest.approx(1.2533 * (2 + 1 + 0 + 1 + 97) / 5))


def test_runs_that_are_not_there(serve):
    """Each path says 404 in the one shape."""

    async def ask(client):
        for path in (
            f"/v1/runs/{uuid(9)}/candidates/a", f"/v1/runs/{uuid(9)}/funnel", f"/v1/diff/{uuid(9)}/{uuid(9)}",
            f"/v1/stages/{uuid(9)}/whatif", f"/v1/runs/{uuid(9)}/analysis", "/v1/runs/mine/funnel",
        ):  # fmt: skip
            assert error_of(await client.get(path), 404)["code"] == "not_found"

    serving(serve, ask)


def test_removed_candidates_are_not_kept():
    """Retention leaves a stage's metrics and takes its candidates: nothing is concluded from their absence."""
    document = {"id": "1", "run_id": "r", "name": "judge", "path": "judge", "type": "filtering", "order": 0}
    document |= {"capture": {"mode": "full", "seen": 2, "kept": 2}, "metrics": {"input_count": 2, "output_count": 1}}
    document["metrics"] |= {"passed": 1, "failed": 1, "label_counts": {"too_dear": 1}}
    removed = StageRecord(document | {"candidates_removed_at": 1})
    run = RunRecord({"id": "r"}, [removed])
    step = passport(run, "a")["steps"][0]
    assert (step["seen"], step["capture"]["why"], passport(run, "a")["outcome"]) == ("not kept", "removed", "unknown")
    assert funnel(run)["stages"][0]["checked"] == "metrics"
    told = what_if(run, removed, threshold=0.5)
    assert (told["exact"], told["labels"][0]["more"], told["threshold"]["now"]) == (False, 1, None)
    assert diff(run, run)["stages"][0]["only_in_a"] is None
