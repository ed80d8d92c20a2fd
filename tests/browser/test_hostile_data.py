"""Recorded data that would break a careless page: it is shown inert, and the layout stays whole."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import store_of
from tests.browser.watched import Watched, watched
from tests.mongodb import Databases
from tests.service import start_service
from xray.client import Client
from xray.hand_built import Run

SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
CLOSING = "</script></textarea></title><script>window.hacked = 1</script>"
JAVASCRIPT = "javascript:window.hacked=1"
BIDI = "abc\u202egnp.exe\u2066 \u200f\u0007end"
TEMPLATE = "{{ 7 * 7 }}{% include 'base.html' %}${7 * 7}"
LONG = "long-" + "x" * 1_000_000
WORD = "unbroken" * 60
HOSTILE = (SCRIPT, CLOSING, JAVASCRIPT, BIDI, TEMPLATE, WORD, "../..", "a/b?c=d&e#f", "%2e%2e/", "'\"`", " ")
LABELS = 5000


def runs() -> list[Run]:
    """Runs in which every text that a user can record is hostile, and one with too much of everything."""
    began = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    found = []
    for number, text in enumerate(HOSTILE):
        run = Run(
            text, key=text, version=text[:200], environment=text[:200], started_at=began, duration_ms=5.0, tags=[text],
            input={text: text, "nan": float("nan")}, output=[text], metadata={text: text},
            error=ValueError(text) if number % 2 else None,
        )  # fmt: skip
        stage = run.stage(text, "filtering", reasoning=text, llm={"model": text}, duration_ms=1.0)
        for place, each in enumerate(HOSTILE):
            stage.candidate(
                each, verdict="failed" if place % 2 else "passed", reason_label=each if place % 2 else None,
                reason_text=text, score=float("nan") if place == 3 else place / 10, data={each: text},
                checks={text: (place % 2 == 0, text)}, output={text: each},
            )  # fmt: skip
        run.stage(text, "ranking").candidate(text, rank=1, rank_before=1, score=float("inf"))
        found.append(run)
    big = Run("big", key="big", version="1", started_at=began, input={"text": LONG}, output=LONG)
    stage = big.stage("labels", "filtering", input={"text": LONG}, reasoning=LONG)
    for number in range(LABELS):
        label = f"label {number:04} {SCRIPT if number % 100 == 0 else ''}"
        stage.candidate(f"c{number}", verdict="failed", reason_label=label, reason_text=LONG if number == 0 else None)
    found.append(big)
    return found


@pytest.fixture(scope="package")
def hostile(databases_of_pages: Databases | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that holds these runs."""
    folder = tmp_path_factory.mktemp("hostile")
    with start_service(folder, store=store_of(folder, databases_of_pages)) as service:
        with Client(service.url) as client:
            for run in runs():
                assert client.send(run).rejected == ()
        yield service.url


@pytest.fixture
def visit(browser: Browser, hostile: str) -> Iterator[Watched]:
    with watched(browser, hostile) as found:
        yield found


def assert_inert(visit: Watched) -> None:
    """Nothing of the data ran, became an element or an address that runs; and the layout is whole."""
    page = visit.page
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script:not([type='application/json'])").count() == 0
    assert page.locator("main img").count() == 0
    assert page.locator("a[href^='javascript' i]").count() == 0
    text = page.locator("main").inner_text()
    assert not set("\u202e\u2066\u0007") & set(text)
    visit.check_layout()


@pytest.mark.parametrize("width", [1280, 390])
def test_lists_and_overviews_hold(browser: Browser, hostile: str, width: int):
    """The list of runs, the trends of each label, questions and comparisons over all of it."""
    with watched(browser, hostile, viewport={"width": width, "height": 900}) as visit:
        every = quote(json.dumps({"return": "candidates", "candidate": {}, "limit": 200}))
        stages = quote(json.dumps({"return": "stages", "stage": {f"$labelCounts.{SCRIPT}": {"$exists": True}}}))
        for path in ("/", "/system", "/compare", f"/query?q={every}", f"/query?q={stages}", "/compare?by=label"):
            visit.open(path)
            visit.settle()
            assert_inert(visit)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_trends_of_any_label_hold(visit: Watched, text: str):
    visit.open(f"/trends?label={quote(text, safe='')}&since=1d&split=version")
    visit.settle()
    assert_inert(visit)


def test_each_run_and_its_stages_hold(visit: Watched, hostile: str):
    """The pages of every run, of every stage, and of every candidate with an odd id, by their own links."""
    with Client(hostile) as client:
        rows = client.runs(limit=50)["rows"]
    for row in rows:
        page = visit.open(f"/runs/{row['id']}")
        visit.settle()
        assert_inert(visit)
        links = page.locator("a[href^='/stages/']").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        for address in sorted({link.split("?")[0] for link in links})[:2]:
            visit.open(address)
            visit.settle()
            assert_inert(visit)


def test_candidates_with_odd_ids_have_pages(visit: Watched, hostile: str):
    """Whatever the id, its link leads to its own page."""
    with Client(hostile) as client:
        row = client.runs(key=TEMPLATE)["rows"][0]
        stage = client.run(row["id"])["stages"][0]["id"]
    page = visit.open(f"/stages/{stage}?view=candidates")
    links = page.locator("a[href*='/candidates']").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    addresses = list(dict.fromkeys(link for link in links if link.startswith("/runs/")))
    assert len(addresses) == len(HOSTILE)
    for address in addresses:
        visit.open(address)
        assert_inert(visit)


def test_comparisons_of_hostile_runs_hold(visit: Watched, hostile: str):
    with Client(hostile) as client:
        rows = client.runs(limit=50)["rows"]
    for one, other in itertools.pairwise(rows):
        visit.open(f"/compare?a={one['id']}&b={other['id']}")
        visit.settle()
        assert_inert(visit)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_asked_for_is_shown_inert(visit: Watched, text: str):
    """Parameters come back in forms and errors; they run as little as what was recorded."""
    word = quote(text, safe="")
    visit.open(f"/?label={word}")
    assert_inert(visit)
    visit.open(f"/query?q={word}", status=422 if text.strip() else 200)
    assert_inert(visit)
    visit.open(f"/compare?by=version&label={word}&x={word}&y={word}")
    assert_inert(visit)


def test_five_thousand_labels_leave_the_pages_light(visit: Watched, hostile: str):
    """The trends tell the most frequent apart and count the others; no page is heavier than a megabyte."""
    page = visit.open("/trends?label=big&since=1d")
    visit.settle()
    assert "rarer labels are not drawn" in page.locator("main").inner_text()
    with Client(hostile) as client:
        stage = client.stages(name="labels")["rows"][0]
    for path in ("/trends?label=big&since=1d", f"/stages/{stage['id']}", f"/runs/{stage['run_id']}", "/"):
        answer = visit.page.request.get(visit.url + path)
        assert answer.status == 200
        assert len(answer.body()) < 1_000_000, path
