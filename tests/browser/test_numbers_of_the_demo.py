"""What the pages say of the examples' data is what the API answers, on each kind of page."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest

from tests.dashboard.support import Element, figures, parsed, table_rows
from tests.service import Service
from xray.wording import duration, percent

LABELS = ("competitor_discovery", "listing_optimisation", "product_categorisation", "review_moderation")
MARKS = {"passed": "✓", "failed": "✕", "selected": "★"}


def page(service: Service, path: str) -> Element:
    """A page of the service, taken apart."""
    request = urllib.request.Request(service.url + path, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return parsed(answer.read().decode())


def documents(root: Element) -> dict[str, list[str]]:
    """The rows of a page that stand for documents: id → the texts of the cells."""
    rows = [row for row in root.all("tr") if "data-row" in row.attributes]
    return {
        row.attributes["data-row"]: [cell.text for cell in row.children if not isinstance(cell, str)] for row in rows
    }


def count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


@pytest.fixture(scope="module")
def samples(demo: Service) -> list[dict[str, Any]]:
    """The latest run of each pipeline, version and status, with its stages."""
    with demo.client() as client:
        runs = [run for label in LABELS for run in client.runs(label=label, limit=200)["rows"]]
        latest = {(run["label"], run.get("version"), run["status"]): run["id"] for run in reversed(runs)}
        return [client.get(f"/v1/runs/{run_id}") for run_id in latest.values()]


@pytest.mark.parametrize("label", LABELS)
def test_each_run_of_the_list_is_that_of_the_api(demo: Service, label: str):
    """All of a pipeline's runs in the same order: how long they took, how many stages and candidates they had."""
    with demo.client() as client:
        expected = client.runs(label=label, limit=200)["rows"]
        stages = {run["id"]: client.get(f"/v1/runs/{run['id']}")["stages"] for run in expected[:5]}
    shown = documents(page(demo, f"/?label={label}&limit=200"))
    assert list(shown) == [run["id"] for run in expected]
    assert expected
    for run in expected:
        cells = shown[run["id"]]
        assert duration(run["duration_ms"]) in cells
        assert count(run["stage_count"]) in cells
        assert run["key"] in cells
        assert run["version"] in cells
    for run_id, of_run in stages.items():
        ids = {stage["id"] for stage in of_run}
        outer = [stage["metrics"] for stage in of_run if stage.get("parent_id") not in ids]
        came = max(each.get("input_count", each.get("output_count", 0)) for each in outer)
        went = [each["output_count"] for each in outer if "output_count" in each][-1]
        assert f"{came:,} → {went:,}" in shown[run_id]


def test_the_stages_of_runs_are_those_of_the_api(demo: Service, samples: list[dict[str, Any]]):
    """Counts, the share that was rejected, durations; and the suspects' scores."""
    for run in samples:
        root = page(demo, f"/runs/{run['id']}")
        shown = documents(root)
        assert list(shown) == [stage["id"] for stage in run["stages"]]
        for stage in run["stages"]:
            metrics, cells = stage.get("metrics") or {}, shown[stage["id"]]
            ratio = metrics.get("fail_ratio")
            assert cells[4:7] == [
                count(metrics.get("input_count")),
                count(metrics.get("output_count")),
                "-" if ratio is None else percent(ratio),
            ]
            assert cells[8] == duration(stage["duration_ms"])
        facts = {term.text: value.text for term, value in zip(root.all("dt"), root.all("dd"), strict=True)}
        assert facts["Took"] == duration(run["duration_ms"])
        assert facts["Stages"] == count(run["stage_count"])


def test_suspects_are_those_of_the_api(demo: Service, samples: list[dict[str, Any]]):
    with demo.client() as client:
        for run in samples:
            answer = client.get(f"/v1/runs/{run['id']}/analysis")
            rows = table_rows(page(demo, f"/runs/{run['id']}/suspects")) if answer["suspects"] else []
            for row, suspect in zip(rows, answer["suspects"], strict=False):
                assert row[0].split()[0] == suspect["path"]
                assert float(row[1].replace(",", "")) == pytest.approx(suspect["score"], rel=1e-3)
                assert all(each["text"] in row[3] for each in suspect["evidence"][:1])


def test_the_metrics_of_stages_are_those_of_the_api(demo: Service, samples: list[dict[str, Any]]):
    """Every number of every stage, and as many candidates as were kept."""
    checked = 0
    for run in samples:
        for stage in run["stages"]:
            metrics = stage.get("metrics") or {}
            root = page(demo, f"/stages/{stage['id']}")
            rows = table_rows(root, len(root.all("table")) - 1) if metrics else []
            shown = {row[0].split(" ")[0]: row for row in rows}
            for name, value in metrics.items():
                if not isinstance(value, int | float):
                    continue
                _, words, unit, _ = shown[name]
                checked += 1
                if unit == "ms":
                    assert words == duration(value)
                elif unit == "ratio":
                    assert words == percent(value)
                else:
                    assert float(words.split(" ")[0].replace(",", "")) == pytest.approx(value, rel=1e-3)
    assert checked > 100


def test_candidates_are_those_of_the_api(demo: Service, samples: list[dict[str, Any]]):
    """The first page of each stage that kept some: ids in order, verdicts, reasons."""
    with demo.client() as client:
        for run in samples[:4]:
            for stage in run["stages"]:
                rows = client.candidates(stage["id"], limit=100)["rows"]
                shown = documents(page(demo, f"/stages/{stage['id']}?view=candidates"))
                assert [cells[1] for cells in shown.values()] == [row["candidate_id"] for row in rows]
                for cells, row in zip(shown.values(), rows, strict=True):
                    if row.get("verdict") is not None:
                        assert MARKS[row["verdict"]] + row["verdict"] in cells
                    if row.get("reason_label") is not None:
                        assert row["reason_label"] in cells


def test_the_funnel_and_the_panels_are_those_of_the_api(demo: Service, samples: list[dict[str, Any]]):
    """What the diagram lets in and out of each stage, and the bars of each stage's type."""
    with demo.client() as client:
        for run in samples:
            answer = client.get(f"/v1/runs/{run['id']}/funnel")
            drawn = figures(page(demo, f"/runs/{run['id']}/flow"))
            if "funnel" in drawn:
                trace = drawn["funnel"]["data"][0]
                names, link = trace["node"]["label"], trace["link"]
                for row in answer["stages"]:
                    links = zip(link["source"], link["value"], strict=True)
                    out = [value for source, value in links if names[source] == row["path"]]
                    assert not out or sum(out) == (row["in"] if row["in"] is not None else row["out"])
            for stage in run["stages"]:
                panel = client.get(f"/v1/stages/{stage['id']}/panel")["figures"]
                if "score" in stage["metrics"]:  # the page has a chart of its own of them
                    panel = [each for each in panel if title(each) != "Scores"]
                shown = figures(page(demo, f"/stages/{stage['id']}/panel"))
                values = [[trace.get("x") for trace in each["data"]] for each in panel]
                assert [[trace.get("x") for trace in each["data"]] for each in shown.values()] == values


def title(figure: dict[str, Any]) -> str:
    found = figure["layout"].get("title", "")
    return str(found["text"] if isinstance(found, dict) else found)


@pytest.mark.parametrize("label", LABELS)
def test_trends_are_those_of_the_api(demo: Service, label: str):
    """Of each pipeline: the fail ratios and durations of each stage, and how many stages there were."""
    with demo.client() as client:
        rows = client.trends(label, since="90d", bucket="1d").rows
    root = page(demo, f"/trends?label={label}&since=90d&bucket=1d")
    drawn = figures(root)
    for figure, value in (
        ("fail-ratio", lambda row: row["fail_ratio"]),
        ("durations", lambda row: (row["duration_ms"] or {}).get("p50")),
        ("candidates", lambda row: row["in"] if row["in"] is not None else row["out"]),
    ):
        expected = {(row["name"], row["from"]): value(row) for row in rows if value(row) is not None}
        lines = drawn.get(figure, {"data": []})["data"]
        found = {
            (line["name"], at): y for line in lines for at, y in zip(line["x"], line["y"], strict=True) if y is not None
        }  # fmt: skip
        assert found == expected, figure
    assert f"{sum(row['stages'] for row in rows):,} stages, of which" in root.one("main").text
