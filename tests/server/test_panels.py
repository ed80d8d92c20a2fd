"""The panels of stages: figures of built-in types, of plugins' types, and of types that the service does not have."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import plotly.graph_objects as go
import pytest

import xray
from tests.server.helpers import STAGE_ID, error_of, in_service, stage
from xray.figures import MOST_BARS, bars, histogram
from xray.guarded_types import MAX_PANEL_BYTES
from xray.metrics import Metric
from xray.plugins import BUILT_IN, Plugins
from xray.stage_types.base import Columns, StageType
from xray_server.panels import panel_of


def candidates(stage_type: str) -> list[dict[str, Any]]:
    if stage_type == "filtering":
        labels = ["none", "dear", None]
        return [
            {"id": f"c{n}", "verdict": "failed" if n % 3 else "passed", "reason_label": labels[n % 3]}
            for n in range(30)
        ]
    own = {"source": "ann"} if stage_type == "retrieval" else {}
    return [
        {"id": f"c{n}", "score": n / 10, "rank": 30 - n, "rank_before": n + 1, "data": {"text": "a" * n},
         "verdict": "selected" if n == 4 else None, "checks": {"price": {"passed": n % 2 == 0}}} | own
        for n in range(30)
    ]  # fmt: skip


def titles(panel: dict[str, Any]) -> list[str]:
    return [figure["layout"]["title"]["text"].partition(":")[0] for figure in panel["figures"]]


def panel_in(folder, event, plugins=None) -> dict[str, Any]:
    """The panel that the service shows of a stage."""

    async def use(client):
        response = await client.post("/v1/ingest", json={"events": [event]})
        assert response.status_code == 200, response.text
        return (await client.get(f"/v1/stages/{STAGE_ID}/panel")).json()

    return in_service(folder, use, plugins=plugins)


@pytest.mark.parametrize(
    ("stage_type", "expected"),
    [
        ("filtering", ["Verdicts", "Rejected for"]),
        ("scoring", ["Scores", "checks_failed", "check_fail_ratio"]),
        ("retrieval", ["Asked for and returned", "Sources", "Scores", "checks_failed", "check_fail_ratio"]),
        ("ranking", ["Ranks gained", "checks_failed", "check_fail_ratio"]),
        ("generation", ["Generated", "checks_failed", "check_fail_ratio"]),
        ("selection", ["Picked", "checks_failed", "check_fail_ratio"]),
        ("raw", []),
    ],
)
def test_every_built_in_type_has_figures_that_plotly_draws(tmp_path, stage_type, expected):
    """Each figure is valid for Plotly, which refuses unknown entries; raw stages have nothing to show."""
    rows = [] if stage_type == "raw" else candidates(stage_type)
    panel = panel_in(tmp_path, stage(stage_type=stage_type, candidates=rows))
    assert (panel["stage_id"], panel["type"], panel["problem"]) == (STAGE_ID, stage_type, None)
    assert titles(panel) == expected
    for figure in panel["figures"]:
        assert set(figure) == {"data", "layout"}
        assert len(go.Figure(figure).data) == 1


def test_figures_show_what_the_metrics_say(tmp_path):
    """The bars of a filtering stage are its counts, candidates without a label among them, the most frequent first."""
    panel = panel_in(tmp_path, stage(candidates=candidates("filtering")))
    verdicts, labels = (figure["data"][0] for figure in panel["figures"])
    assert dict(zip(verdicts["y"], verdicts["x"], strict=True)) == {"failed": 20, "passed": 10}
    assert dict(zip(labels["y"], labels["x"], strict=True)) == {"dear": 10, "(no label)": 10}


def test_the_ranks_gained_lie_between_edges_that_no_rank_is_on(tmp_path):
    """A reversed order of 30: every second number from -29 to 29, in bins of whole ranks."""
    panel = panel_in(tmp_path, stage(stage_type="ranking", candidates=candidates("ranking")))
    trace = panel["figures"][0]["data"][0]
    assert sum(trace["y"]) == 30
    assert trace["customdata"][0][0] == -29.5
    assert all(low % 1 == 0.5 for low, _ in trace["customdata"])


def test_an_unknown_stage_has_no_panel(tmp_path):
    async def use(client):
        error_of(await client.get(f"/v1/stages/{STAGE_ID}/panel"), 404)

    in_service(tmp_path, use)


def test_a_type_that_the_service_does_not_have_is_drawn_by_its_declarations(tmp_path):
    """Tables become bars with their unit; what is one number is no figure."""
    declarations = [
        Metric("cluster_sizes", "candidates", "Candidates by cluster.", kind="table").as_dict(),
        Metric("spread", "score", "How they spread.", kind="data", indexed=False).as_dict(),
        Metric("clusters", "clusters", "How many.").as_dict(),
    ]
    metrics = {"cluster_sizes": {"a": 2, "b": 5}, "spread": {"edges": [0, 1, 2], "counts": [3, 4]}, "clusters": 2}
    event = stage(stage_type="grouping", metrics=metrics, metric_declarations=declarations)
    panel = panel_in(tmp_path, event)
    assert titles(panel) == ["cluster_sizes", "spread"]
    assert panel["figures"][0]["data"][0]["y"] == ["b", "a"]
    assert panel["figures"][0]["layout"]["xaxis"]["title"]["text"] == "candidates"


@pytest.mark.parametrize(
    "metrics",
    [
        {"label_counts": 3}, {"label_counts": {"a": None}}, {"passed": "many"}, {"histogram": {"edges": 1}},
        {"histogram": {"edges": [1, 2], "counts": [None]}}, {"score": [1]}, {"displacement": "far"}, {"selected": None},
    ],
)  # fmt: skip
@pytest.mark.parametrize("stage_type", ["filtering", "scoring", "retrieval", "ranking", "selection", "generation"])
def test_metrics_that_are_not_the_types_own_break_no_panel(stage_type, metrics):
    """What a sender made up leaves a figure out, or says that the metrics are odd."""
    panel = panel_of({"id": "s", "type": stage_type, "metrics": metrics}, Plugins(BUILT_IN, entry_points=False), {})
    for figure in panel.figures:
        go.Figure(figure)


def test_recorded_texts_are_no_markup():
    """A label cannot become a link, or bold, or an entity."""
    figure = bars("t", {'<a href="https://evil.example">x</a>': 1, "a & b": 2}, "candidates")
    assert figure is not None
    assert figure["data"][0]["y"] == ["a &amp; b", '&lt;a href="https://evil.example"&gt;x&lt;/a&gt;']


def test_many_bars_are_one_bar_together():
    """The sum stays; shares of a whole are not added up."""
    counts = {f"label {n}": 100 - n for n in range(MOST_BARS + 10)}
    figure = bars("t", counts, "candidates")
    assert figure is not None
    assert len(figure["data"][0]["y"]) == MOST_BARS + 1
    assert sum(figure["data"][0]["x"]) == sum(counts.values())
    ratios = bars("t", dict.fromkeys(counts, 0.5), "ratio")
    assert ratios is not None
    assert len(ratios["data"][0]["y"]) == MOST_BARS


def test_a_histogram_of_equal_values_has_a_bar_that_can_be_seen():
    figure = histogram("t", {"edges": [5, 5], "counts": [3]}, "score", {"p50": 5, "none": None})
    assert figure is not None
    assert figure["data"][0]["width"][0] > 0
    assert [each["text"] for each in figure["layout"]["annotations"]] == ["p50"]


# --- plugins' panels --------------------------------------------------------------------------------------------


class Grouping(StageType):
    name = "grouping"
    meaning = "Groups."
    metrics = (Metric("sizes", "candidates", "By group.", kind="table"),)
    gives: ClassVar[Any] = None

    def extract(self, call: Any) -> Columns:
        return Columns([])

    def compute(self, columns: Columns) -> dict[str, Any]:
        return {"sizes": {"a": 1}}


class Drawn(Grouping):
    def panel(self, stage):
        found = bars("Groups", stage["metrics"]["sizes"], "candidates")
        return [found] if found else []


class Raising(Grouping):
    def panel(self, stage):
        raise RuntimeError("no ink")


class Endless(Grouping):
    def panel(self, stage):
        import threading

        threading.Event().wait()


class NoJson(Grouping):
    def panel(self, stage):
        return [{"data": [lambda: 1]}]


class Huge(Grouping):
    def panel(self, stage):
        return [{"data": ["x" * MAX_PANEL_BYTES]}]


def plugins_with(stage_type: StageType) -> Plugins:
    class Plugin:
        @xray.hookimpl
        def xray_stage_types(self):
            return [stage_type]

    plugins = Plugins(BUILT_IN, entry_points=False)
    plugins.register(Plugin(), "of the test")
    return plugins


GROUPING = stage(stage_type="grouping", metrics={"sizes": {"a": 2}}, candidates=[{"id": "c"}])


def test_a_plugins_panel_is_shown(tmp_path):
    panel = panel_in(tmp_path, GROUPING, plugins_with(Drawn()))
    assert titles(panel) == ["Groups"]


def test_a_plugins_type_without_a_panel_is_drawn_by_its_declarations(tmp_path):
    panel = panel_in(tmp_path, GROUPING, plugins_with(Grouping()))
    assert titles(panel) == ["sizes"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Raising(), "no ink"),
        (Endless(), "not done within"),
        (NoJson(), "no JSON"),
        (Huge(), "are the most"),
    ],
)
def test_a_panel_that_fails_says_so_and_takes_nothing_else_with_it(monkeypatch, broken, said):
    """What every type may have stays; the failure is in the plugin's report."""
    monkeypatch.setattr("xray.guarded_types.DEADLINE_S", 0.2)
    plugins = plugins_with(broken)
    of_stage = {"id": "s", "type": "grouping", "metrics": {"sizes": {"a": 2}, "checks_failed": {"price": 1}}}
    panel = panel_of(of_stage, plugins, {})
    assert panel.problem is not None
    assert said in panel.problem
    assert [figure["layout"]["title"]["text"].partition(":")[0] for figure in panel.figures] == ["checks_failed"]
    assert [report.what for report in plugins.reports()] == ["stage type grouping: panel"]
    json.dumps(panel.figures)
