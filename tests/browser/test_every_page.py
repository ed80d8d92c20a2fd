"""Each page by itself: nothing goes wrong, nothing sticks out, and it is accessible in light and dark."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from tests.browser.watched import Watched, watched
from tests.service import Service

BY_FAIL_RATIO = {"stage": {"type": "filtering", "$failRatio": {"$gt": 0.5}}, "sort": {"$failRatio": -1}}
REJECTED = {"candidate": {"verdict": "failed"}, "return": "candidates"}
GROUPS = {"group_by": ["name"], "bucket": "day", "values": {"stages": {"$count": {}}, "p50": {"$p50": "$failRatio"}}}


def asked(question: dict[str, object]) -> str:
    return f"/query?q={quote(json.dumps(question))}"


def addresses(service: Service) -> dict[str, str]:
    """Every kind of page, and every state of it, by name."""
    with service.client() as client:
        run = client.run(client.run_id("sold-laptop-stand"))
        other = client.runs(key="sold-laptop-stand", version="2026.10", limit=1)["rows"][0]["id"]
        failed = client.runs(status="failure", limit=1)["rows"][0]["id"]
        model = client.query({"stage": {"llm": {"$exists": True}}, "limit": 1})["rows"][0]["id"]
        judged = client.query({"pipeline": {"label": "product_categorisation"}, "stage": {"type": "filtering"}})["rows"]
    checked = next(stage["id"] for stage in judged if "checks_failed" in stage["metrics"])
    stages = {f"stage: {stage['type']}": f"/stages/{stage['id']}" for stage in run["stages"]}
    return stages | {
        "stage: candidates": f"{stages['stage: filtering']}?view=candidates",
        "stage: candidates of a kind": f"{stages['stage: filtering']}?view=candidates&verdict=failed&sort=-data.price",
        "stage: no candidate": f"{stages['stage: filtering']}?view=candidates&id=nobody",
        "stage: evaluation table": f"/stages/{checked}?view=checks",
        "stage: model": f"/stages/{model}?view=llm",
        "stage: input and output": f"/stages/{model}?view=values",
        "stage: JSON": f"/stages/{model}?view=json",
        "candidate: kept": f"/runs/{run['id']}/candidates/phone-case-15",
        "candidate: lost": f"/runs/{run['id']}/candidates/laptop-stand-02",
        "candidate: never seen": f"/runs/{run['id']}/candidates/nobody",
        "runs": "/",
        "runs: filtered": "/?label=review_moderation&status=failure",
        "runs: none": "/?label=nothing",
        "runs: by a metric": "/?sort=-%24failRatio",
        "run": f"/runs/{run['id']}",
        "run: failed": f"/runs/{failed}",
        "query": "/query",
        "query: stages": asked(BY_FAIL_RATIO),
        "query: candidates": asked(REJECTED),
        "query: groups": asked(GROUPS),
        "query: nothing": asked({"pipeline": {"label": "nothing"}}),
        "trends": "/trends?label=review_moderation",
        "trends: by version": "/trends?label=review_moderation&split=version&measure=duration&stage=policies",
        "trends: nothing": "/trends?label=nothing",
        "compare": "/compare",
        "compare: runs": f"/compare?a={other}&b={run['id']}",
        "compare: groups": "/compare?by=version&label=review_moderation",
        "system": "/system",
    }


NAMES = (
    "runs", "runs: filtered", "runs: none", "runs: by a metric", "run", "run: failed",
    "stage: generation", "stage: retrieval", "stage: filtering", "stage: scoring", "stage: ranking",
    "stage: candidates", "stage: candidates of a kind", "stage: no candidate", "stage: evaluation table",
    "stage: model", "stage: input and output", "stage: JSON", "candidate: kept", "candidate: lost",
    "candidate: never seen",
    "query", "query: stages", "query: candidates", "query: groups", "query: nothing",
    "trends", "trends: by version", "trends: nothing", "compare", "compare: runs", "compare: groups", "system",
)  # fmt: skip


@pytest.fixture(scope="package")
def pages(demo: Service) -> dict[str, str]:
    return addresses(demo)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_opens_whole(visit: Watched, pages: dict[str, str], name: str):
    """No error, no request to elsewhere, all charts drawn; nothing serious for axe in light and dark."""
    page = visit.open(pages[name])
    assert page.locator("h1").count() >= 1
    assert page.title().endswith("X-Ray")
    visit.settle()
    visit.check_layout()
    visit.check_accessibility()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_readable_on_a_phone(browser: Browser, demo: Service, pages: dict[str, str], name: str):
    """At 390 pixels the page is no wider than the window; tables scroll within themselves."""
    with watched(browser, demo.url, viewport={"width": 390, "height": 844}, has_touch=True) as phone:
        phone.open(pages[name])
        phone.settle()
        phone.check_layout()


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nothing", 404, "Not found"),
        ("/runs/nobody", 404, "There is no run"),
        ("/stages/nobody", 404, "There is no stage"),
        ("/querry", 404, "Did you mean '/query'?"),
        ("/?lable=x", 422, "lable"),
        ("/trends?bucket=5x", 422, "bucket"),
        ("/trends?by=what", 422, "by"),
        ("/compare?a=nobody&b=nobody", 404, "No run has the id or key"),
        ("/compare?a=nobody", 422, "Name both"),
        ("/compare?by=colour", 422, "version"),
        ("/compare?filter_a=%7B&filter_b=%7B%7D", 422, "not JSON"),
        ("/query?q=%5B%5D", 422, "A question is a JSON object"),
    ],
)
def test_errors_are_pages_too(visit: Watched, path: str, status: int, said: str):
    """They say what is wrong, keep the bar at the top, and are accessible."""
    page = visit.open(path, status=status)
    assert said in page.locator("main").inner_text()
    assert page.get_by_role("navigation", name="Pages").is_visible()
    visit.check_layout()
    visit.check_accessibility()


def test_pages_are_reached_with_the_keyboard(visit: Watched):
    """The first stop skips to the content; the bar's links follow; the page where one is, is marked."""
    page = visit.open("/system")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.url.endswith("/system#content")
    for name, path in (("Query", "/query"), ("Trends", "/trends"), ("Compare", "/compare"), ("Runs", "/")):
        link = page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)
        link.focus()
        page.keyboard.press("Enter")
        page.wait_for_url(visit.url + path)
        visit.ready()
        assert link.get_attribute("aria-current") == "page"


def test_the_theme_is_kept(visit: Watched):
    """The switch goes round system, light and dark, and another page has what was chosen."""
    page = visit.open("/system")
    dark = "getComputedStyle(document.body).backgroundColor"
    by_system = page.evaluate(dark)
    button = page.locator("[data-theme-switch]")
    seen = set()
    for _ in range(3):
        button.click()
        seen.add(page.evaluate("document.documentElement.dataset.theme ?? 'system'"))
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert "dark" in seen
    assert page.evaluate(dark) != by_system
    visit.open("/compare")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_no_page_runs_what_stands_inline(visit: Watched):
    """The policy has no unsafe-inline or unsafe-eval for scripts, and every page has it."""
    for path in ("/", "/query", "/trends", "/compare", "/system"):
        answer = visit.page.goto(visit.url + path)
        assert answer is not None
        policy = answer.headers["content-security-policy"]
        scripts = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
        assert scripts.split() == ["script-src", "'self'"]
        assert "default-src 'none'" in policy
