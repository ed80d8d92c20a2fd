"""A page that notices whatever a user should never see: errors of scripts, failed requests, requests to elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, Response

NO_BROWSER = "there is no Chromium: no chromium, chromium-browser or google-chrome on the path, no XRAY_TEST_CHROMIUM"
TIMEOUT_MS = 30_000


def browser_path() -> str:
    """The browser that drives the tests. Skips where this machine has none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("XRAY_TEST_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(NO_BROWSER)
    return found


def launch(playwright: Playwright) -> Browser:
    """Start the browser."""
    # Chromium refuses its sandbox to root, which tests in containers run as.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=browser_path(), args=arguments)


class Watched:
    """A page of a service, and what went wrong on it.

    Args:
        page: The page.
        url: Where the service listens.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        self._asked_for: set[tuple[int, str]] = set()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(f"error of a script: {error}"))
        page.on("request", self._on_request)
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)
        page.on("dialog", self._on_dialog)

    def open(self, path: str, *, status: int = 200) -> Page:
        """Go to a page of the dashboard and wait until its scripts are ready.

        Args:
            path: The path with its parameters.
            status: What it is to answer; another one than 200 is asked for here, and nowhere else.
        """
        if status != 200:
            self.expect(status, path.partition("?")[0])
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == status, f"{path} answered {answer.status}"
        self.ready()
        return self.page

    def ready(self) -> None:
        """Wait until the page's scripts have run, and the parts that come later are there."""
        self.page.wait_for_selector("html[data-ready]", state="attached")
        self.until("!document.querySelector('[data-loading]')")

    def until(self, condition: str) -> None:
        """Wait until a condition holds; the pages' policy forbids what Playwright's own way to wait for it does.

        Args:
            condition: An expression in JavaScript.
        """
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"on {self.page.url} this does not come true: {condition}"
            self.page.wait_for_timeout(20)

    def expect(self, status: int, path: str) -> None:
        """Take an error of the server for asked for.

        Args:
            status: The status.
            path: The path; with whatever parameters.
        """
        self._asked_for.add((status, self.url + path))

    def settle(self) -> None:
        """Draw every chart of the page and wait for it."""
        for chart in self.page.locator("[data-chart]").all():
            if chart.is_visible():
                chart.scroll_into_view_if_needed()
        self.until(
            "[...document.querySelectorAll('[data-chart]')].filter(c => c.checkVisibility())"
            ".every(c => 'drawn' in c.dataset)"
        )

    def check(self) -> None:
        """Nothing went wrong so far."""
        assert not self.problems, "\n".join(self.problems)

    # --- what a page must not do --------------------------------------------------------------------------------

    def _on_console(self, message: ConsoleMessage) -> None:
        # The browser says on its own that a page answered 404, also where that was asked for.
        address = message.location.get("url", "").partition("?")[0]
        if "Failed to load resource" in message.text and any(address == asked for _, asked in self._asked_for):
            return
        if message.type in ("error", "warning", "assert"):
            self.problems.append(f"{message.type} on the console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.url + "/", "data:", "blob:")):
            self.problems.append(f"request to elsewhere: {request.url}")

    def _on_failure(self, request: Request) -> None:
        # What was under way when somebody left the page was given up on purpose.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed request: {request.url}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and (response.status, response.url.partition("?")[0]) not in self._asked_for:
            self.problems.append(f"{response.status} of {response.url}")

    def _on_dialog(self, dialog: Any) -> None:
        self.problems.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    # --- how it looks -------------------------------------------------------------------------------------------

    def check_layout(self) -> None:
        """The page is no wider than the window, and no control lies beyond its edges unless its box scrolls."""
        found = self.page.evaluate(_BEYOND)
        assert found == [], f"beyond the edge of {self.page.url}: {found}"

    def check_accessibility(self) -> None:
        """No serious or critical violation of what axe-core checks, in light and in dark."""
        for scheme, options in (("light", {}), ("dark", {"runOnly": _OF_COLOURS})):
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            self.settle()
            if scheme == "light":
                self.page.evaluate(AXE_SCRIPT)
            bad = self.page.evaluate(_BAD_FOR_AXE, {"preload": False, **options})
            assert not bad, f"{self.page.url} in {scheme}: {json.dumps(bad, indent=1)}"
        self.page.emulate_media(color_scheme="light")


_OF_COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that look at colours: nothing else differs in dark."""

_BAD_FOR_AXE = """async (options) => {
  // Of long tables the first rows: the others have the same form, and colours are what takes the time.
  const part = { include: [["html"]], exclude: [["tbody tr:nth-child(n+21)"]] };
  const { violations, passes } = await axe.run(part, { resultTypes: ["violations"], ...options });
  if (!passes.length) return ["no rule was checked"];
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact)).map(
    ({ id, help, nodes }) => [id, help, nodes.slice(0, 5).map((node) => [node.target, node.failureSummary])]
  );
}"""

_BEYOND = """() => {
  const wide = document.documentElement.clientWidth;
  const found = [];
  if (document.documentElement.scrollWidth > wide + 1) found.push(`page ${document.documentElement.scrollWidth}`);
  const scrolls = (element) => {
    for (let each = element.parentElement; each; each = each.parentElement) {
      if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(each).overflowX)) return true;
    }
    return false;
  };
  for (const element of document.querySelectorAll("a, button, input, select, textarea, h1, h2")) {
    const box = element.getBoundingClientRect();
    const shown = element.checkVisibility() && box.width > 0 && !element.classList.contains("skip");
    if (shown && (box.right > wide + 1 || box.left < -1) && !scrolls(element)) {
      found.push(element.outerHTML.slice(0, 200));
    }
  }
  return found;
}"""


@contextmanager
def watched(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """A page of its own in a fresh browser profile; whatever went wrong on it fails the test at the end.

    Args:
        browser: The browser.
        url: Where the service listens.
        options: Of the browser's context, such as ``viewport``.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    try:
        visit = Watched(context.new_page(), url)
        yield visit
        visit.check()
    finally:
        context.close()
