"""Every built-in stage type: its shapes and metrics, against references that share no code with them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xray
from tests.sdk.recording import EVERY_WAY, recording
from xray import metrics
from xray.exceptions import PluginError
from xray.metrics import Metric, describe_scores, kendall_tau
from xray.plugins import BUILT_IN, Plugins
from xray.stage_types.base import Columns, StageType, check_stage_type
from xray.testing import StageTypeContract

pytestmark = EVERY_WAY

LABELS = ["price_too_high", "rating_too_low", "out_of_stock"]


@pytest.mark.parametrize("module", BUILT_IN)
class TestEveryBuiltInType(StageTypeContract):
    """Each built-in type keeps the shipped contract."""

    @pytest.fixture(autouse=True)
    def _module(self, module: str) -> None:
        self.module = module

    def make_stage_type(self) -> StageType:
        import importlib

        (stage_type,) = importlib.import_module(self.module).xray_stage_types()
        return stage_type


judgements = st.lists(
    st.tuples(st.booleans(), st.sampled_from([None, *LABELS])), max_size=40
)  # fmt: skip


@given(judged=judgements, shape=st.sampled_from(["flags", "survivors", "mask", "pair"]))
def test_filtering_in_every_shape(judged: list[tuple[bool, str | None]], shape: str):
    """Verdicts and metrics equal a plain count, whichever way the callable says them."""
    pool = [{"id": f"c{n}"} for n in range(len(judged))]

    @xray.filtering_stage("f")
    def judge(candidates: list[Any]) -> Any:
        kept = [c for c, (ok, _) in zip(pool, judged, strict=True) if ok]
        if shape == "survivors":
            return kept
        if shape == "mask":
            return [ok for ok, _ in judged]
        if shape == "pair":
            return kept, [(c, why) for c, (ok, why) in zip(pool, judged, strict=True) if not ok]
        return [{**c, "passed": ok, "reason_label": why} for c, (ok, why) in zip(pool, judged, strict=True)]

    with recording() as recorded:
        judge(pool)
    failed = [why for ok, why in judged if not ok]
    metrics = recorded.metrics("f")
    assert metrics["passed"] == len(judged) - len(failed)
    assert metrics["failed"] == len(failed)
    assert metrics.get("fail_ratio") == (len(failed) / len(judged) if judged else None)
    if shape in ("flags", "pair"):
        counts = Counter(why for why in failed if why)
        assert metrics["label_counts"] == dict(counts)
        assert metrics["label_share"] == {why: count / len(failed) for why, count in counts.items()}
        assert metrics["unlabelled"] == failed.count(None)
    if judged and shape != "mask":
        assert recorded.stage("f")["facts"]["shape"] == shape
    rows = recorded.rows("f")
    assert [rows[c["id"]]["verdict"] for c in pool] == ["passed" if ok else "failed" for ok, _ in judged]


def test_filtering_counts_what_was_dropped_silently_and_what_came_from_nowhere():
    """A flagged list that leaves inputs out, or brings new ones, says so."""

    @xray.filtering_stage("f", passed="ok", labels=["a"], reason_label="why")
    def judge(pool: list[Any]) -> list[Any]:
        return [{"id": 1, "ok": True}, {"id": 9, "ok": False, "why": "b"}]

    with recording() as recorded:
        judge([{"id": 1}, {"id": 2}])
    facts = recorded.stage("f")["facts"]
    assert (facts["dropped_silently"], facts["unknown_outputs"]) == (1, 1)
    metrics = recorded.metrics("f")
    assert (metrics["input_count"], metrics["failed"], metrics["unknown_labels"]) == (2, 2, 1)


scores = st.lists(st.none() | st.floats(-1e6, 1e6) | st.integers(-50, 50), max_size=60)


@given(scores)
def test_score_metrics_equal_those_of_the_standard_library(values: list[float | None]):
    """Mean, population standard deviation, quantiles, ties and margin."""
    described = describe_scores(values)
    given_scores = sorted(v for v in values if v is not None)
    assert described["nulls"] == len(values) - len(given_scores)
    if not given_scores:
        assert "score" not in described
        return
    score = described["score"]
    assert (score["min"], score["max"]) == (given_scores[0], given_scores[-1])
    assert score["mean"] == pytest.approx(statistics.fmean(given_scores), abs=1e-6)
    assert score["std"] == pytest.approx(statistics.pstdev(given_scores), abs=1e-6)
    assert described["ties"] == sum(c - 1 for c in Counter(given_scores).values())
    assert sum(described["histogram"]["counts"]) == len(given_scores)
    if len(given_scores) > 1:
        cuts = statistics.quantiles(given_scores, n=100, method="inclusive")
        for name, cut in (("p10", 9), ("p50", 49), ("p90", 89), ("p99", 98)):
            assert score[name] == pytest.approx(cuts[cut], abs=1e-6), name
        assert described["top_margin"] == pytest.approx(given_scores[-1] - given_scores[-2])


@pytest.mark.parametrize("shape", ["field", "numbers", "pairs", "dict"])
def test_scoring_in_every_shape(shape: str):
    """A score field, a list of numbers, pairs and a dict by id are one thing."""
    pool = [{"id": f"c{n}"} for n in range(4)]
    wanted: list[float | None] = [0.5, None, 2, -1]

    @xray.scoring_stage("s")
    def score(candidates: list[Any]) -> Any:
        if shape == "numbers":
            return wanted
        if shape == "pairs":
            return list(zip(candidates, wanted, strict=True))
        if shape == "dict":
            return {c["id"]: w for c, w in zip(candidates, wanted, strict=True)}
        return [{**c, "score": w} for c, w in zip(candidates, wanted, strict=True)]

    with recording() as recorded:
        score(pool)
    assert [row.get("score") for row in recorded.rows("s").values()] == wanted
    assert list(recorded.rows("s")) == ["c0", "c1", "c2", "c3"]
    assert recorded.metrics("s")["nulls"] == 1


def brute_force_tau_b(a: list[float], b: list[float]) -> float | None:
    concordant = discordant = ties_a = ties_b = 0
    for (a1, b1), (a2, b2) in itertools.combinations(zip(a, b, strict=True), 2):
        sign = (a1 - a2) * (b1 - b2)
        concordant += sign > 0
        discordant += sign < 0
        ties_a += a1 == a2
        ties_b += b1 == b2
    pairs = len(a) * (len(a) - 1) // 2
    below = math.sqrt((pairs - ties_a) * (pairs - ties_b))
    return (concordant - discordant) / below if below else None


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30))
def test_kendall_tau_equals_the_count_of_pairs(ranks: list[tuple[int, int]]):
    """Tau-b with ties, against its definition pair by pair; also where there are too many for one go."""
    before, after = [a for a, _ in ranks], [b for _, b in ranks]
    expected = brute_force_tau_b(before, after)
    assert kendall_tau(before, after) == (expected if expected is None else pytest.approx(expected))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_INSERTED_UP_TO", 3)
        assert kendall_tau(before, after) == (expected if expected is None else pytest.approx(expected))


@given(order=st.permutations(range(15)), keep=st.integers(0, 15), positions=st.booleans())
def test_ranking_metrics_equal_a_plain_count(order: list[int], keep: int, positions: bool):
    """Ranks before and after, displacement and overlap of the first ten, also for a cut-off ranking."""
    pool = [{"id": f"c{n}", "score": n / 10} for n in range(15)]
    kept = order[:keep]

    @xray.ranking_stage("r", score="score")
    def rank(candidates: list[Any]) -> Any:
        return list(kept) if positions else [candidates[n] for n in kept]

    with recording() as recorded:
        rank(pool)
    rows = recorded.rows("r")
    assert {key: row["rank"] for key, row in rows.items() if "rank" in row} == {
        f"c{n}": place + 1 for place, n in enumerate(kept)
    }
    metrics = recorded.metrics("r")
    assert (metrics["input_count"], metrics["output_count"]) == (15, keep)
    if keep:
        assert metrics["mean_displacement"] == pytest.approx(sum(abs(n - place) for place, n in enumerate(kept)) / keep)
        assert metrics["top10_overlap"] == len(set(kept[:10]) & set(range(10))) / min(10, keep)
    if keep > 1:
        assert metrics["top_margin"] == pytest.approx((kept[0] - kept[1]) / 10)


def test_retrieval_counts_sources_duplicates_and_what_was_asked_for():
    """Rank is the order of arrival; requested= may name the argument."""

    @xray.retrieval_stage("search", source="from", score="bm25", requested="limit")
    def search(words: str, limit: int = 10) -> list[dict[str, Any]]:
        return [{"id": i % 4, "from": "ann" if i < 3 else "bm25", "bm25": i} for i in range(5)]

    with recording() as recorded:
        search("red shoes")
    metrics = recorded.metrics("search")
    assert {name: metrics[name] for name in ("returned", "requested", "duplicates", "sources", "output_count")} == {
        "returned": 5, "requested": 10, "duplicates": 1, "sources": {"ann": 3, "bm25": 2}, "output_count": 5,
    }  # fmt: skip
    assert metrics["score"]["max"] == 4
    assert "input_count" not in metrics
    assert recorded.stage("search")["input"] == {"words": "red shoes", "limit": 10}


def test_generation_counts_empty_and_repeated_texts():
    """Strings are their own ids; a result that is no list is one candidate."""

    @xray.generation_stage("words")
    def words() -> list[str]:
        return ["stand", "case", "stand", "  "]

    @xray.generation_stage("rules", reason="why")
    def rules() -> dict[str, Any]:
        return {"min": 1, "why": "cheap ones break"}

    with recording() as recorded:
        words()
        rules()
    metrics = recorded.metrics("words")
    assert metrics == {"output_count": 4, "generated": 4, "empty": 1, "duplicates": 1, "mean_length": 4.0}
    assert recorded.stage("words")["columns"]["candidate_id"] == ["stand", "case", "stand", "  "]
    (rule,) = recorded.rows("rules").values()
    assert (rule["data"], rule["reason_text"]) == ({"min": 1, "why": "cheap ones break"}, "cheap ones break")


def test_raw_keeps_what_went_in_and_out():
    """No candidates, no metrics of its own."""

    @xray.raw_stage
    def rules(product: dict[str, Any]) -> dict[str, Any]:
        return {"max": 2}

    with recording() as recorded:
        rules({"id": 1})
    stage = recorded.stage("rules")
    assert (stage["input"], stage["output"]) == ({"product": {"id": 1}}, {"max": 2})
    assert "columns" not in stage


class Doubling(StageType):
    """A third party's type."""

    name = "doubling"
    meaning = "For the tests."
    metrics = (Metric("doubled", "candidates", "Twice the candidates."),)

    def extract(self, call: Any) -> Columns:
        return Columns(call.inputs.ids) if call.inputs else Columns([])

    def compute(self, columns: Columns) -> dict[str, Any]:
        return {"doubled": 2 * len(columns)}


class BringsDoubling:
    @xray.hookimpl
    def xray_stage_types(self) -> list[StageType]:
        return [Doubling()]


def test_a_third_partys_type_goes_the_same_way(monkeypatch: pytest.MonkeyPatch):
    """Registered through the hook, it records, measures, and sends what its metrics mean."""
    plugins = Plugins(entry_points=False)
    plugins.register(BringsDoubling(), "theirs")
    monkeypatch.setattr("xray.decorators.installed", lambda: plugins)
    monkeypatch.setattr("xray.capture.records.installed", lambda: plugins)

    @xray.stage("doubling", "twice")
    def twice(pool: list[Any]) -> None: ...

    with recording() as recorded:
        twice([{"id": 1}, {"id": 2}])
    stage = recorded.stage("twice")
    assert stage["metrics"] == {"doubled": 4}
    assert [d["name"] for d in stage["metric_declarations"]] == ["doubled"]


def test_a_type_that_fails_is_recorded_without_candidates(monkeypatch: pytest.MonkeyPatch):
    """An extraction that raises costs its own columns, nothing else."""

    class Failing(Doubling):
        def extract(self, call: Any) -> Columns:
            raise ZeroDivisionError("on purpose")

    class Brings:
        @xray.hookimpl
        def xray_stage_types(self) -> list[StageType]:
            return [Failing()]

    plugins = Plugins(entry_points=False)
    plugins.register(Brings(), "failing")
    monkeypatch.setattr("xray.decorators.installed", lambda: plugins)
    monkeypatch.setattr("xray.capture.records.installed", lambda: plugins)

    @xray.stage("doubling", "twice")
    def twice(pool: list[Any]) -> int:
        return len(pool)

    with recording() as recorded:
        assert twice([1, 2]) == 2
    assert recorded.stage("twice")["facts"]["extract_error"] == "ZeroDivisionError: on purpose"


def test_plugins_that_break_the_interface_are_named_and_left_out():
    """A taken name, a doubled metric, a module that is not there: the others stay."""

    class Twice(Doubling):
        metrics = (Metric("fail_ratio", "", ""), Metric("failratio", "", ""))

    with pytest.raises(PluginError, match="declares a metric twice"):
        check_stage_type(Twice())
    plugins = Plugins((*BUILT_IN, "no.such.module"), entry_points=False)
    assert "no.such.module" in plugins.problems
    assert set(plugins.stage_types) >= {"filtering", "scoring", "ranking", "retrieval", "generation", "raw"}
    plugins.register(BringsDoubling(), "one")
    with pytest.raises(PluginError, match="already brought by one"):
        plugins.register(BringsDoubling(), "two")
    with pytest.raises(PluginError, match=r"Did you mean 'filtering'\?"):
        plugins.stage_type("filterin")


@given(
    st.lists(
        st.fixed_dictionaries({"candidate_id": st.text()}, optional={"score": st.floats(0, 1), "rank": st.integers()})
    )
)
def test_columns_and_rows_are_one_thing(rows: list[dict[str, Any]]):
    """Rows to columns and back."""
    assert list(Columns.from_rows(rows).rows()) == rows
