"""The walkthrough of docs/dashboard.md, by the very clicks that its pictures were taken with."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from tests.browser.watched import Watched
from tests.service import Service

DOCS = Path(__file__).parents[2] / "docs"
STEPS: dict[str, tuple[str, ...]] = {
    "walk-1-runs": ("sold-laptop-stand", "2026.11", "2026.10"),
    "walk-2-run": ("Deskwell Laptop Stand", "Kiteline Phone Case", "Every candidate is accounted for"),
    "walk-3-candidate": ("phone-case-15", "Kept", "phone case", "Not seen by keyword_gen"),
    "walk-4-cutoff": ("1 would pass at least 0.6", "phone-case-15"),
    "walk-5-compare": ("The runs part at keyword_gen", "2026.10", "2026.11"),
    "walk-6-keywords": ("laptop stand", "notebook riser", "phone case"),
}
"""Picture → what has to be on the page."""


def test_the_walk_leads_to_the_cause(visit: Watched, demo: Service):
    """Each step shows what the page of the documentation says that it shows."""
    script = runpy.run_path(str(DOCS / "make_screenshots.py"))
    seen = []

    def shot(name: str, at: str | None) -> None:
        text = " ".join(visit.page.locator("main").inner_text().split())
        for words in STEPS[name]:
            assert words in text, f"{name} does not show '{words}'"
        if at is not None:
            assert visit.page.locator(at).count() > 0
        visit.check_layout()
        seen.append(name)

    script["walk"](visit.page, demo.url, shot)
    assert seen == list(STEPS)


def test_every_picture_is_there_and_shown():
    """docs/dashboard.md shows each picture, with words for those who cannot see it, and none is missing or large."""
    shown = re.findall(r"!\[([^\]]+)\]\(images/([\w-]+\.png)\)", (DOCS / "dashboard.md").read_text())
    there = {path.name: path.stat().st_size for path in (DOCS / "images").glob("*.png")}
    assert {name for _, name in shown} == set(there)
    assert all(len(words) > 15 for words, _ in shown)
    assert max(there.values()) < 200_000
