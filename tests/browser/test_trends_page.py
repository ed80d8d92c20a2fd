"""The page of trends: its figures are the API's, its filters are in the address, a point leads to its runs."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page

from tests.browser.watched import Watched
from tests.service import Service

LABEL = "review_moderation"


def drawn(page: Page, name: str) -> list[dict]:
    """The traces of a chart as they stand in the page."""
    return json.loads(page.locator(f"#{name} script").text_content() or "")["data"]


def test_charts_have_the_figures_of_the_api(visit: Watched, demo: Service):
    """Each point of the fail ratio, the labels' shares, the durations and the map is what the API answers."""
    with demo.client() as client:
        rows = client.trends(LABEL, bucket="1d").rows
    policies = {row["from"]: row for row in rows if row["name"] == "policies"}
    page = visit.open(f"/trends?label={LABEL}&bucket=1d")
    visit.settle()
    (line,) = drawn(page, "fail-ratio")
    found = {time: value for time, value in zip(line["x"], line["y"], strict=True) if value is not None}
    assert found == {time: row["fail_ratio"] for time, row in policies.items()}
    shares = {trace["name"]: trace for trace in drawn(page, "labels-0")}
    assert set(shares) == {"spam", "rude", "off_topic", "duplicate"}
    spam = {time: value for time, value in zip(line["x"], shares["spam"]["y"], strict=True) if value is not None}
    assert spam == {time: row["labels"].get("spam", {"share": 0})["share"] for time, row in policies.items()}
    (heat,) = drawn(page, "map")
    place = heat["y"].index("policies")
    assert [value for value in heat["z"][place] if value is not None] == [
        row["fail_ratio"] for row in policies.values()
    ]
    total = sum(row["stages"] for row in rows)
    assert f"{total} stages, of which" in page.locator("main").inner_text()


def test_a_click_on_a_point_opens_its_runs(visit: Watched, demo: Service):
    """The question on the page of questions finds as many runs as the field of the map counts stages."""
    page = visit.open(f"/trends?label={LABEL}&bucket=1d&stage=policies&measure=stages")
    visit.settle()
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map .plot .nsewdrag").first.bounding_box()
    assert box is not None
    (heat,) = drawn(page, "map")
    places = [place for place, value in enumerate(heat["z"][0]) if value]
    place = places[len(places) // 2]
    # The axis of time begins half a stretch before the first one.
    at = box["x"] + box["width"] * (place + 0.5) / len(heat["x"]), box["y"] + box["height"] / 2
    page.mouse.move(at[0] - 3, at[1])
    page.mouse.move(*at, steps=5)
    page.wait_for_selector("#map .hovertext", state="attached")
    page.mouse.click(*at)
    page.wait_for_url("**/query?q=*")
    visit.ready()
    question = json.loads(parse_qs(urlsplit(page.url).query)["q"][0])
    assert question["stage"]["name"] == "policies"
    assert question["stage"]["started_at"]["$gte"] == heat["x"][place]
    assert page.locator("#answers tbody tr").count() == heat["z"][0][place]


def test_the_table_leads_there_with_the_keyboard(visit: Watched):
    page = visit.open(f"/trends?label={LABEL}&bucket=1d")
    page.locator("#map summary").focus()
    page.keyboard.press("Enter")
    link = page.locator("#map details a").first
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/query?q=*")
    assert page.locator("#answers tbody tr").count() > 0


def test_filters_are_in_the_address(visit: Watched):
    """Choosing changes the address; the page of that address shows the same choice."""
    page = visit.open("/trends")
    page.get_by_label("Pipeline").select_option(LABEL)
    page.get_by_label("Over the last").select_option("7d")
    page.get_by_label("The map shows").select_option("duration")
    page.get_by_label("By version").check()
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**since=7d**")
    visit.ready()
    visit.settle()
    assert "median duration" in page.locator("#map-title").inner_text()
    assert page.get_by_label("By version").is_checked()
    assert page.get_by_label("Over the last").input_value() == "7d"
    names = {trace["name"] for trace in drawn(page, "durations")}
    assert names == {f"{name} · 2026.11" for name in ("incoming", "policies", "helpfulness", "front_page")}
    page.get_by_role("combobox", name="Stage").select_option("policies")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**stage=policies**")
    assert {trace["name"] for trace in drawn(page, "durations")} == {"policies · 2026.11"}


def test_charts_follow_the_theme(visit: Watched):
    """In dark the same chart has the dark colours."""
    page = visit.open(f"/trends?label={LABEL}")
    visit.settle()
    colour = "getComputedStyle(document.querySelector('#fail-ratio .js-line')).stroke"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    visit.until(f"{colour} !== '{light}'")
