"""Write the pictures of ``dashboard.md`` from the examples' data: ``python docs/make_screenshots.py``.

It needs Chromium (``XRAY_TEST_CHROMIUM`` names one that is not on the path) and Playwright. Look at each picture before
you commit it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import xray
from xray_examples import categorisation, competitors, history, listing
from xray_examples.service import running_service

FOLDER = Path(__file__).parent / "images"
SIZE = {"width": 1280, "height": 720}

Shot = Callable[[str, str | None], None]
"""Takes a picture of what is on the screen, under a name; with a selector scrolled to what it selects."""


def walk(page: Page, url: str, shot: Shot) -> None:
    """A laptop stand was matched to a phone case: from the list of runs to the cause, by clicks alone.

    Args:
        page: A page of a browser.
        url: Where a service with the data of ``xray demo`` listens.
        shot: Called at each step.
    """
    # 1. The run: its input is a laptop stand, its output a phone case.
    page.goto(f"{url}/?label=competitor_discovery")
    page.get_by_label("Key begins with, or id").fill("sold-laptop-stand")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**q=sold-laptop-stand**")
    _ready(page)
    shot("walk-1-runs", None)
    page.locator("#runs tbody tr").first.get_by_role("link").first.click()
    page.wait_for_url("**/runs/*")
    _ready(page)
    shot("walk-2-run", None)
    # 2. The phone case's way through it: found by the keyword "phone case", and nobody rejected it.
    page.get_by_label("Why was a candidate kept or dropped?").fill("phone-case-15")
    page.get_by_role("button", name="Follow it").click()
    page.wait_for_url("**phone-case-15**")
    _ready(page)
    shot("walk-3-candidate", None)
    # 3. Would a stricter cutoff have helped? The phone case scores best of all.
    page.get_by_role("link", name="similarity").first.click()
    page.wait_for_url("**/stages/*")
    _ready(page)
    page.get_by_role("spinbutton", name="Cutoff").fill("0.6")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("text=1 would pass at least 0.6")
    _ready(page)
    shot("walk-4-cutoff", "#scores, .chart")
    # 4. The same request, a version before: the two part at the keywords.
    page.goto(f"{url}/?label=competitor_discovery&q=sold-laptop-stand")
    _ready(page)
    rows = page.locator("#runs tbody tr")
    rows.nth(1).get_by_role("radio", name="A:").check()
    rows.nth(0).get_by_role("radio", name="B:").check()
    page.get_by_role("button", name="Compare A with B").click()
    page.wait_for_url("**/compare?**")
    _ready(page)
    shot("walk-5-compare", None)
    page.locator("tr.divergent").get_by_role("link", name="B").click()
    page.wait_for_url("**/stages/*")
    _ready(page)
    page.get_by_role("link", name="Candidates").first.click()
    page.wait_for_selector("td:has-text('phone case'), th:has-text('phone case')")
    _ready(page)
    shot("walk-6-keywords", None)


def others(page: Page, url: str, shot: Shot) -> None:
    """The pages that the walk does not come to."""
    question = '{\n  "stage": {"type": "filtering", "$failRatio": {"$gt": 0.6}},\n  "sort": {"$failRatio": -1},\n  "limit": 8\n}'
    page.goto(f"{url}/query")
    page.get_by_label("The question, as JSON").fill(question)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("#answers")
    _ready(page)
    shot("query", None)
    for name, path in (
        ("runs", "/"),
        ("trends", "/trends?label=review_moderation"),
        ("compare", "/compare?by=version&label=review_moderation"),
        ("system", "/system"),
    ):
        page.goto(url + path)
        _ready(page)
        shot(name, None)


def _ready(page: Page) -> None:
    """Wait until the page's scripts have run and every chart in view is drawn."""
    page.wait_for_selector("html[data-ready]", state="attached")
    for _ in range(500):
        if page.evaluate(_DRAWN):
            return
        page.wait_for_timeout(20)
    raise TimeoutError(f"{page.url} is not drawn")


_DRAWN = """() => !document.querySelector('[data-loading]') && [...document.querySelectorAll('[data-chart]')].every(
  (chart) => 'drawn' in chart.dataset || !chart.checkVisibility() || chart.getBoundingClientRect().top > innerHeight
)"""


def main() -> None:
    """Record the examples in a service of our own, and take the pictures."""
    found = os.environ.get("XRAY_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as client:
        xray.configure(server_url=client.server_url, spool_dir=f"{folder}/spool")
        for fault in (False, False, False, False, True):
            competitors.run_all(fault=fault)
        categorisation.run_all()
        listing.run_all()
        assert xray.flush(timeout_s=60)
        for run in history.runs():
            client.send(run)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=arguments)
            for scheme, visit in (("light", walk), ("dark", others)):
                page = browser.new_context(viewport=SIZE, color_scheme=scheme).new_page()  # type: ignore[arg-type]
                visit(page, client.server_url, lambda name, at, page=page: _save(page, name, at))  # type: ignore[misc]
            browser.close()


def _save(page: Page, name: str, at: str | None) -> None:
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    if at is not None:
        page.locator(at).first.evaluate("element => element.scrollIntoView()")
    page.wait_for_timeout(300)  # what moves has come to rest
    page.screenshot(path=FOLDER / f"{name}.png")
    print(f"{name}.png: {(FOLDER / f'{name}.png').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
