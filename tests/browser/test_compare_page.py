"""The page of comparisons, for two runs and for two groups."""

from __future__ import annotations

import json

import pytest

from tests.browser.watched import Watched
from tests.service import Service


@pytest.fixture
def pair(demo: Service) -> tuple[str, str]:
    """The same request, healthy and with the fault."""
    with demo.client() as client:
        a, b = (
            client.runs(key="sold-laptop-stand", version=version, limit=1)["rows"][0]["id"]
            for version in ("2026.10", "2026.11")
        )
    return a, b


def test_two_runs_part_where_the_api_says(visit: Watched, demo: Service, pair: tuple[str, str]):
    """The first divergent stage is marked; counts, flips and metrics are the API's."""
    with demo.client() as client:
        diff = client.diff(*pair)
    page = visit.open(f"/compare?a={pair[0]}&b={pair[1]}")
    assert page.locator(".headline").inner_text() == "The runs part at keyword_gen"
    assert page.locator("tr.divergent th").inner_text().startswith("keyword_gen")
    rows = page.locator("section:has(#stages) tbody tr")
    for place, stage in enumerate(diff["stages"]):
        cells = rows.nth(place).locator("th, td").all_inner_texts()
        assert cells[0].startswith(stage["path"])
        numbers = [stage["common"], stage["only_in_a"]["count"], stage["only_in_b"]["count"], len(stage["flips"])]
        assert cells[3:7] == [str(number) for number in numbers]
    changed = sum(len(stage["metrics"]) for stage in diff["stages"])
    assert page.locator("#metrics .count").inner_text() == str(changed)
    assert "Kiteline Phone Case" in page.get_by_role("region", name="Output").first.inner_text()


def test_runs_are_found_by_their_keys(visit: Watched):
    page = visit.open("/compare")
    page.get_by_label("Run A: id or key").fill("batch-000")
    page.get_by_label("Run B: id or key").fill("batch-120")
    page.get_by_role("button", name="Compare runs").click()
    page.wait_for_selector(".headline")
    visit.ready()
    assert "batch-000" in page.get_by_label("Run A").first.inner_text()
    assert "batch-120" in page.get_by_label("Run B").first.inner_text()
    page.get_by_label("Run B").first.get_by_role("link").click()
    page.wait_for_url("**/runs/*")


def test_a_run_does_not_differ_from_itself(visit: Watched, pair: tuple[str, str]):
    page = visit.open(f"/compare?a={pair[0]}&b={pair[0]}")
    assert page.locator(".headline").inner_text() == "The runs decided the same"
    assert page.locator("tr.divergent").count() == 0


def test_two_groups_have_the_statistics_of_the_api(visit: Watched, demo: Service):
    """What moved, its shares, effects and p-values; told apart by version, the earlier one first."""
    with demo.client() as client:
        answer = client.compare(by="version", label="review_moderation")
    page = visit.open("/compare")
    page.get_by_label("Pipeline").select_option("review_moderation")
    page.get_by_role("button", name="Compare groups").click()
    page.wait_for_selector(".headline")
    visit.ready()
    visit.settle()
    assert page.locator(".headline").inner_text() == answer.headline
    moved = [row for row in answer.rows if row["moved"]]
    rows = page.locator("section:has(#moved) tbody tr")
    assert rows.count() == len(moved)
    for place, row in enumerate(moved):
        cells = rows.nth(place).locator("td").all_inner_texts()
        assert cells[0] == row["path"]
        assert cells[1] == row.get("metric", row.get("label"))
        assert cells[4].split()[0] == f"{row['effect']:+.2f}"
        assert cells[5:7] == [f"{row['p']:.2g}", f"{row['q']:.2g}"]
    labels = [row for row in moved if "label" in row]
    spam = next(row for row in labels if row["label"] == "spam")
    assert [f"{share:.1%}" for share in spam["share"]] == [
        rows.nth(moved.index(spam)).locator("td").nth(place).inner_text() for place in (2, 3)
    ]


def test_two_filters_are_compared(visit: Watched):
    page = visit.open("/compare")
    page.get_by_label("Runs of A, as JSON").fill(json.dumps({"label": "review_moderation", "tags": "nightly"}))
    page.get_by_label("Runs of B, as JSON").fill(json.dumps({"label": "review_moderation", "tags": "daily"}))
    page.get_by_role("button", name="Compare filters").click()
    page.wait_for_selector(".headline")
    visit.ready()
    assert (
        '"nightly"' in page.get_by_label("Group A").inner_text()
        or "nightly" in page.get_by_label("Group A").inner_text()
    )


def test_two_runs_picked_in_the_list_are_compared(visit: Watched):
    """The list of runs leads here."""
    page = visit.open("/?label=review_moderation")
    page.locator("tbody tr").nth(0).get_by_role("radio", name="A:").check()
    page.locator("tbody tr").nth(3).get_by_role("radio", name="B:").check()
    page.get_by_role("button", name="Compare A with B").click()
    page.wait_for_url("**/compare?**")
    visit.ready()
    assert page.locator(".headline").is_visible()
