"""The page of the service itself, and what an empty one shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.watched import Watched, watched
from tests.service import Service, start_service
from xray.exceptions import ServiceError


def test_the_figures_are_those_of_the_api(visit: Watched, demo: Service):
    with demo.client() as client:
        answer = client.system()
    page = visit.open("/system")
    visit.settle()
    for name, key in (("runs", "runs"), ("stages", "stages"), ("candidate pages", "candidate_pages")):
        assert page.locator(f"[data-figure='{name}']").inner_text() == f"{answer['holds'][key]:,}"
    text = page.locator("main").inner_text()
    assert f"{answer['intake']['events']:,}" in text
    assert "healthy" in text
    assert answer["retention"]["text"] in text
    for row in answer["settings"]:
        assert row["variable"] in text


def test_refused_events_are_shown_by_reason(browser: Browser, tmp_path: Path):
    """What could not be taken is counted on the page, with the reason."""
    with start_service(tmp_path) as service, watched(browser, service.url) as visit:
        with service.client() as client:
            for body in ({"events": [{"type": "nonsense"}]}, {"events": 5}):
                with pytest.raises(ServiceError):
                    client.post("/v1/ingest", body)
        page = visit.open("/system")
        rows = page.get_by_role("region", name="Refused").locator("tbody tr")
        assert [row.split("\t")[0] for row in rows.all_inner_texts()] == ["events", "batches"]


def test_an_empty_service_shows_what_to_paste(empty: Watched, tmp_path: Path):
    """The lines that stand there run as they stand, and the page turns into the list of runs by itself."""
    page = empty.open("/")
    assert page.locator("h1").inner_text() == "Nothing recorded yet"
    empty.check_layout()
    empty.check_accessibility()
    script = page.locator("#step-paste").text_content() or ""
    assert len([line for line in script.splitlines() if line.strip()]) <= 12
    (tmp_path / "lunch.py").write_text(script)
    command = (page.locator("#step-run").text_content() or "").replace("python", sys.executable)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    page.wait_for_selector("td:has-text('lunch')")
    empty.ready()
    assert page.locator("h1").inner_text() == "Runs"


def test_every_page_of_an_empty_service_is_whole(empty: Watched):
    """Without anything recorded no page fails, and each says so."""
    for path in ("/", "/query", "/trends", "/compare", "/system"):
        page = empty.open(path)
        empty.settle()
        empty.check_layout()
        assert page.locator("h1").is_visible()
