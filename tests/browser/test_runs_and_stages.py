"""The controls of the list of runs, and of the pages of a run, a stage and a candidate, as somebody uses them."""

from __future__ import annotations

import itertools
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import store_of
from tests.browser.watched import Watched, watched
from tests.dashboard import support, test_hostile
from tests.mongodb import Databases
from tests.service import Service, start_service


def send(url: str, events: list[object]) -> None:
    """Send events as they are."""
    request = urllib.request.Request(
        f"{url}/v1/ingest", json.dumps({"events": events}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def api(url: str, path: str) -> dict[str, object]:
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
        return found


@pytest.fixture(scope="module")
def shop(databases_of_pages: Databases | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one run of 2,300 candidates."""
    folder = tmp_path_factory.mktemp("shop")
    with start_service(folder, store=store_of(folder, databases_of_pages)) as service:
        send(service.url, support.events(2300))
        yield service


@pytest.fixture
def in_shop(browser: Browser, shop: Service) -> Iterator[Watched]:
    with watched(browser, shop.url, accept_downloads=True) as found:
        yield found


def parameters(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


# --- runs -------------------------------------------------------------------------------------------------------


def test_filters_and_orders_are_in_the_address(visit: Watched):
    """What is asked for stands in the address, the form says it again, and back goes back."""
    page = visit.open("/")
    page.get_by_role("combobox", name="Pipeline").fill("competitor_discovery")
    page.get_by_role("combobox", name="Version").fill("2026.10")
    page.get_by_role("button", name="Show").click()
    visit.ready()
    assert parameters(page) == {"label": ["competitor_discovery"], "version": ["2026.10"]} | {
        name: values for name, values in parameters(page).items() if name not in ("label", "version")
    }
    assert page.get_by_role("combobox", name="Pipeline").input_value() == "competitor_discovery"
    filtered = page.url
    count = page.locator("tr[data-row]").count()
    assert count > 0
    page.get_by_role("link", name="Took").click()
    visit.ready()
    assert parameters(page)["sort"] == ["-duration_ms"]
    assert parameters(page)["label"] == ["competitor_discovery"]
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("Took")
    assert page.locator("tr[data-row]").count() == count
    page.go_back()
    visit.ready()
    assert page.url == filtered
    page.get_by_role("link", name="Clear").click()
    visit.ready()
    assert page.locator("tr[data-row]").count() > count


def test_two_runs_are_picked_and_compared(visit: Watched):
    """A and B of the list are a and b of the comparison."""
    page = visit.open("/?label=competitor_discovery")
    rows = [row.get_attribute("data-row") for row in page.locator("tr[data-row]").all()[:2]]
    page.locator(f"input[name=a][value='{rows[1]}']").check()
    page.locator(f"input[name=b][value='{rows[0]}']").check()
    page.get_by_role("button", name="Compare A with B").click()
    visit.ready()
    assert urlsplit(page.url).path == "/compare"
    assert parameters(page) == {"a": [rows[1]], "b": [rows[0]]}


def test_the_list_follows_what_comes_in(browser: Browser, databases_of_pages: Databases | None, tmp_path: Path):
    """While it is live a new run shows up by itself, and what was picked stays picked; else it does not."""
    with start_service(tmp_path, store=store_of(tmp_path, databases_of_pages)) as service:
        send(service.url, support.events(5))
        with watched(browser, service.url) as visit:
            page = visit.open("/")
            assert page.locator("tr[data-row]").count() == 1
            page.locator("input[name=a]").first.check()
            live = page.get_by_role("button", name="Live")
            assert live.get_attribute("aria-pressed") == "false"
            live.click()
            run = {"id": support.RUN_ID[:-1] + "f", "label": "later", "started_at": "2026-11-02T00:00:00Z"}
            send(service.url, [{"type": "run.start", "run": run}])
            expect(page.locator("tr.new")).to_have_count(1)
            expect(page.locator("tr.new")).to_contain_text("later")
            assert page.locator("tr[data-row]").count() == 2
            assert page.locator(f"input[name=a][value='{support.RUN_ID}']").is_checked()


# --- a run ------------------------------------------------------------------------------------------------------


def test_a_run_shows_where_its_time_and_its_candidates_went(in_shop: Watched):
    """The timeline and the funnel come by themselves; a lane leads to its stage; the figures are there as a table."""
    page = in_shop.open(f"/runs/{support.RUN_ID}")
    in_shop.settle()
    expect(page.locator(".lanes tbody tr").first).to_contain_text("price_filter")
    assert page.locator("#funnel .sankey-node").count() >= 5
    page.locator("#funnel").get_by_text("The figures as a table").click()
    expect(page.locator("#funnel table")).to_contain_text("price_too_high")
    page.locator(".lanes").get_by_role("link", name="relevance").click()
    in_shop.ready()
    assert page.url.endswith(f"/stages/{support.SCORE_ID}")


def test_the_names_of_stages_are_apart_in_the_funnel(browser: Browser, demo: Service):
    """On a phone too, where the funnel scrolls within itself."""
    with demo.client() as client:
        run_id = client.run_id("sold-laptop-stand")
    with watched(browser, demo.url, viewport={"width": 390, "height": 844}) as visit:
        page = visit.open(f"/runs/{run_id}")
        visit.settle()
        visit.check_layout()
        boxes = [label.bounding_box() for label in page.locator("#funnel .node-label").all()]
        found = sorted((box["x"], box["x"] + box["width"], box["y"], box["y"] + box["height"]) for box in boxes if box)
        assert len(found) >= 8
        for (_, right, top, bottom), (left, _, other_top, other_bottom) in itertools.pairwise(found):
            assert right <= left or bottom <= other_top or other_bottom <= top


def test_why_a_candidate_was_dropped_is_one_box_away(in_shop: Watched):
    """From the run to the candidate to the stage that dropped it."""
    lost = next(row for row in support.judged(support.products(2300)) if row["reason_label"] == "price_too_high")
    page = in_shop.open(f"/runs/{support.RUN_ID}")
    page.get_by_label("Why was a candidate kept or dropped?").fill(lost["id"])
    page.get_by_role("button", name="Follow it").click()
    in_shop.ready()
    assert page.url.endswith(f"/candidates/{lost['id']}")
    main = page.locator("main")
    expect(main).to_contain_text("Lost at price_filter for price_too_high")
    expect(main.locator("section", has_text="In other runs").locator("tbody")).to_contain_text("price_filter")
    main.get_by_role("link", name="price_filter").first.click()
    in_shop.ready()
    assert page.url.endswith(f"/stages/{support.FILTER_ID}")


# --- a stage ----------------------------------------------------------------------------------------------------


def test_the_slider_says_who_would_pass_instead(in_shop: Watched):
    """Moving it asks; the answer is the API's, and the box beside it says the same cutoff."""
    page = in_shop.open(f"/stages/{support.SCORE_ID}")
    slider = page.get_by_label("Cutoff", exact=True).first
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    at = page.locator("input[name=threshold]").input_value()
    assert at == slider.input_value()
    answer = api(in_shop.url, f"/v1/stages/{support.SCORE_ID}/whatif?threshold={at}")["threshold"]
    assert isinstance(answer, dict)
    expect(page.locator("#whatif")).to_contain_text(re.compile(rf"^\s*{answer['passes']:,} would pass"))
    page.get_by_label("lower is better").check()
    below = api(in_shop.url, f"/v1/stages/{support.SCORE_ID}/whatif?threshold={at}&below=true")["threshold"]
    assert isinstance(below, dict)
    expect(page.locator("#whatif")).to_contain_text(re.compile(rf"^\s*{below['passes']:,} would pass"))


def test_a_bar_of_a_label_leads_to_its_candidates(in_shop: Watched):
    """A click on the chart is a filter of the table."""
    page = in_shop.open(f"/stages/{support.FILTER_ID}")
    in_shop.settle()
    bars = page.locator("#panel-1 .bars .point")
    assert bars.count() == 2
    box = bars.first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/stages/*?view=candidates&reason_label=price_too_high")
    in_shop.ready()
    assert page.locator("tr[data-row]").count() == 100
    assert set(page.locator("tr[data-row] .label").all_inner_texts()) == {"price_too_high"}


def test_candidates_are_filtered_sorted_and_paged(in_shop: Watched):
    """Each step is in the address; the next page goes on in the same order."""
    page = in_shop.open(f"/stages/{support.FILTER_ID}?view=candidates")
    form = page.get_by_role("form", name="Filter candidates")
    form.get_by_role("combobox", name="Verdict").select_option("failed")
    form.get_by_role("combobox", name="Field").fill("data.price")
    form.get_by_label("Comparison").select_option("above")
    form.get_by_role("searchbox", name="Value").fill("150")
    form.get_by_role("button", name="Show", exact=True).click()
    in_shop.ready()
    page.get_by_role("link", name="data.price").click()
    in_shop.ready()
    heads = page.locator("th").all_inner_texts()
    column = heads.index("data.price▼") + 1
    first = [int(text) for text in page.locator(f"tr[data-row] td:nth-child({column})").all_inner_texts()]
    page.get_by_role("link", name="Next page").click()
    in_shop.ready()
    second = [int(text) for text in page.locator(f"tr[data-row] td:nth-child({column})").all_inner_texts()]
    expected = sorted((row["data"]["price"] for row in support.products(2300)), reverse=True)
    assert first + second == [price for price in expected if price > 150][: len(first + second)]
    assert parameters(page)["page"] == ["2"]


def test_columns_are_chosen_and_kept_in_the_address(in_shop: Watched):
    """Those that are ticked, and only those."""
    page = in_shop.open(f"/stages/{support.FILTER_ID}?view=candidates")
    page.get_by_text("Columns", exact=True).click()
    for box in page.locator("input[name=column]").all():
        box.set_checked(box.get_attribute("value") in ("verdict", "data.title"))
    page.get_by_role("button", name="Show these columns").click()
    in_shop.ready()
    assert page.locator("th").all_inner_texts() == ["#", "Candidate", "verdict", "data.title", "In and out"]
    assert parameters(page)["column"] == ["verdict", "data.title"]


def test_a_row_opens_to_what_came_in_and_what_went_out(in_shop: Watched):
    """It is asked for when it is opened, and only that one."""
    page = in_shop.open(f"/stages/{support.FILTER_ID}?view=candidates")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    row = page.locator("tr[data-row='2']")
    row.get_by_text("show").click()
    expect(row.locator("pre").first).to_contain_text("Lamp 2")
    assert [url for url in asked if "/candidates/" in url] == [f"{in_shop.url}/stages/{support.FILTER_ID}/candidates/2"]


@pytest.mark.parametrize(("button", "suffix", "lines"), [("CSV", ".csv", 2301), ("JSON Lines", ".jsonl", 2300)])
def test_candidates_are_downloaded(in_shop: Watched, button: str, suffix: str, lines: int):
    """All of them, under a name that says what they are."""
    page = in_shop.open(f"/stages/{support.FILTER_ID}?view=candidates")
    with page.expect_download() as waiting:
        page.get_by_role("link", name=f"Download {button}").click()
    download = waiting.value
    assert download.suggested_filename.endswith(suffix)
    assert len(Path(download.path()).read_text().splitlines()) == lines


def test_charts_follow_the_theme(in_shop: Watched):
    """The same verdict has the theme's colour for it, before and after the switch."""
    page = in_shop.open(f"/stages/{support.FILTER_ID}")
    in_shop.settle()

    def failed() -> str:
        found: str = page.locator("#panel-0 .bars .point path").first.evaluate("bar => getComputedStyle(bar).fill")
        return found

    def token() -> str:
        found: str = page.evaluate(
            """() => {
              const probe = document.createElement("span");
              probe.style.color = "var(--verdict-failed)";
              document.body.append(probe);
              const colour = getComputedStyle(probe).color;
              probe.remove();
              return colour;
            }"""
        )
        return found

    seen = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expected = token()
        in_shop.until(f"getComputedStyle(document.querySelector('#panel-0 .bars .point path')).fill === '{expected}'")
        seen.add(failed())
    assert len(seen) == 2


# --- hostile and large data -------------------------------------------------------------------------------------


def test_hostile_data_does_nothing(
    browser: Browser, databases_of_pages: Databases | None, tmp_path: Path, store_kind: str
):
    """No dialog, no request to elsewhere, no error; the layout holds, on a phone too."""
    with start_service(tmp_path, store=store_of(tmp_path, databases_of_pages)) as service:
        for batch in test_hostile.events():
            send(service.url, batch)
        for size in ({"width": 1280, "height": 900}, {"width": 390, "height": 844}):
            with watched(browser, service.url, viewport=size) as visit:
                for address in (
                    "/", f"/runs/{test_hostile.RUN_ID}", f"/stages/{test_hostile.STAGE_ID}",
                    f"/stages/{test_hostile.STAGE_ID}?view=candidates", f"/stages/{test_hostile.STAGE_ID}?view=llm",
                ):  # fmt: skip
                    visit.open(address)
                    visit.settle()
                    visit.check_layout()


def _step(n: int, run: dict[str, object]) -> dict[str, object]:
    return {
        "type": "stage", "id": f"01890000-0000-7000-9000-{n:012d}", "run": run, "name": f"step {n % 3}",
        "path": f"step {n % 3}#{n // 3 + 1}", "stage_type": "filtering", "order": n, "duration_ms": 1.0,
        "started_at": f"2026-11-01T00:00:{n // 100:02d}.{n % 100 * 10:03d}Z", "status": "success",
        "candidates": [{"id": f"c{n}", "verdict": "failed", "reason_label": "no"}],
    }  # fmt: skip


def large(count: int) -> list[list[object]]:
    """A run of very many stages."""
    run = support.RUN | {"key": "large"}
    batches: list[list[object]] = [[{"type": "run.start", "run": run}]]
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        batches += [[_step(n, run) for n in numbers]]
    return [
        *batches,
        [{"type": "run.end", "run": run, "duration_ms": 30_000.0, "status": "success", "stage_count": count}],
    ]


def test_a_run_of_three_thousand_stages_is_at_hand(
    browser: Browser, databases_of_pages: Databases | None, tmp_path: Path
):
    """A hundred stages a page, all of them in three lanes; the last page has the last stage."""
    with start_service(tmp_path, store=store_of(tmp_path, databases_of_pages)) as service:
        for batch in large(3000):
            send(service.url, batch)
        with watched(browser, service.url) as visit:
            page = visit.open(f"/runs/{support.RUN_ID}?limit=1000")
            assert page.locator("tr[data-row]").count() == 1000
            expect(page.locator(".lanes tbody tr")).to_have_count(3)
            expect(page.locator(".lanes")).to_contain_text("1,000")
            for _ in range(2):
                page.get_by_role("link", name="Next page").click()
                visit.ready()
            expect(page.locator("tr[data-row]").last.locator("td").first).to_have_text("2,999")
