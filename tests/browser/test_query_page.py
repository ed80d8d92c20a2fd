"""The page of questions: asking, completing, errors at their place, going on, and the same elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page

from tests.browser.watched import Watched
from tests.service import Service

QUESTION = {
    "pipeline": {"label": "review_moderation"},
    "stage": {"type": "filtering", "$failRatio": {"$gt": 0.5}},
    "sort": {"$failRatio": -1},
    "limit": 10,
}


def ask(visit: Watched, question, *, status: int = 200) -> Page:
    text = question if isinstance(question, str) else json.dumps(question)
    return visit.open(f"/query?q={quote(text)}", status=status)


def column(page: Page, head: str) -> list[str]:
    """The cells of a column of the answer."""
    heads = page.locator("#answers th").all_inner_texts()
    return page.locator(f"#answers td:nth-child({heads.index(head) + 1})").all_inner_texts()


def test_what_is_typed_is_asked(visit: Watched):
    """The question lies in the address, so that going back, reloading and sending the link to somebody work."""
    page = visit.open("/query")
    page.get_by_label("The question, as JSON").fill(json.dumps(QUESTION))
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#answers")
    visit.ready()
    first = page.url
    assert "q=" in first
    assert 'Stages whose type is "filtering"' in page.locator(".reading").inner_text()
    assert json.loads(page.locator("#question").input_value()) == QUESTION
    page.get_by_role("link", name="Clear").click()
    page.wait_for_url(visit.url + "/query")
    page.go_back()
    page.wait_for_url(first)
    assert page.locator("#answers tbody tr").count() == 10


def test_figures_are_those_of_the_api(visit: Watched, demo: Service):
    """Every number of the answer, worded for people, in the same order; and the links lead to these stages."""
    with demo.client() as client:
        rows = client.query(QUESTION)["rows"]
    page = ask(visit, QUESTION)
    assert column(page, "fail ratio") == [f"{row['metrics']['fail_ratio']:.1%}" for row in rows]
    assert column(page, "in") == [str(row["metrics"]["input_count"]) for row in rows]
    assert column(page, "out") == [str(row["metrics"]["output_count"]) for row in rows]
    links = page.locator("#answers td:first-child a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == [f"/stages/{row['id']}" for row in rows]
    page.locator("#answers td:first-child a").first.click()
    page.wait_for_url(f"{visit.url}/stages/{rows[0]['id']}")
    visit.ready()
    assert "policies" in page.locator("h1").inner_text()


def test_the_answer_goes_on(visit: Watched, demo: Service):
    """The next page has the rows that the cursor of the API gives; the first page is a click away."""
    with demo.client() as client:
        first = client.query(QUESTION)
        second = client.query({**QUESTION, "cursor": first["cursor"]})["rows"]
    page = ask(visit, QUESTION)
    page.get_by_role("link", name="Next page").click()
    page.wait_for_selector("text=First page")
    visit.ready()
    assert column(page, "fail ratio") == [f"{row['metrics']['fail_ratio']:.1%}" for row in second]
    page.get_by_role("link", name="First page").click()
    page.wait_for_selector("#answers")
    assert column(page, "fail ratio") == [f"{row['metrics']['fail_ratio']:.1%}" for row in first["rows"]]


def test_runs_candidates_and_groups_have_tables_too(visit: Watched, demo: Service):
    runs = {"pipeline": {"status": "failure"}, "return": "runs"}
    page = ask(visit, runs)
    with demo.client() as client:
        expected = client.query(runs)["rows"]
    assert column(page, "key") == [row["key"] for row in expected]
    candidates = {"candidate": {"reason_label": "spam", "data.stars": 5}, "return": "candidates", "limit": 5}
    page = ask(visit, candidates)
    with demo.client() as client:
        expected = client.query(candidates)["rows"]
    assert column(page, "candidate") == [row["candidate_id"] for row in expected]
    assert set(column(page, "data.stars")) == {"5"}
    assert set(column(page, "reason")) == {"spam"}
    groups = {
        "pipeline": {"label": "review_moderation"}, "group_by": ["name"],
        "values": {"stages": {"$count": {}}, "most": {"$max": "$inputCount"}},
    }  # fmt: skip
    page = ask(visit, groups)
    with demo.client() as client:
        expected = client.aggregate(groups)["rows"]
    assert column(page, "name") == [row["group"]["name"] for row in expected]
    assert column(page, "stages") == [f"{row['values']['stages']:.0f}" for row in expected]


def test_how_a_question_is_run_is_what_the_api_explains(visit: Watched, demo: Service):
    """The reading at once, the plan when it comes into view; of figures over groups too."""
    groups = {"stage": {"type": "filtering"}, "group_by": ["name"], "values": {"n": {"$count": {}}}}
    for question, form in ((QUESTION, "query"), (groups, "aggregate")):
        with demo.client() as client:
            expected = client.post(f"/v1/{form}", {**question, "explain": True})["explanation"]
        page = ask(visit, question)
        assert page.locator(".reading").inner_text() == expected["question"]
        card = page.locator("section", has=page.locator("#plan"))
        card.scroll_into_view_if_needed()
        card.locator("ol.steps").wait_for()
        assert card.locator("ol.steps li").all_inner_texts() == expected["steps"]
        card.get_by_text("The store's plan").click()
        assert card.locator("pre").inner_text() == expected["plan"]


def test_an_error_is_marked_at_its_place(visit: Watched):
    """The wrong word is marked and selected, and one click asks with the nearest right one."""
    text = '{\n  "stage": {"$failRatoi": {"$gt": 0.6}}\n}'
    page = ask(visit, text, status=422)
    assert page.locator(".marked mark").inner_text() == '"$failRatoi"'
    assert "Line 2, column 13" in page.locator("#question-problem").inner_text()
    area = page.locator("#question")
    assert area.get_attribute("aria-invalid") == "true"
    selected = area.evaluate("area => area.value.slice(area.selectionStart, area.selectionEnd)")
    assert selected == '"$failRatoi"'
    page.get_by_role("link", name="Ask with “$failRatio”").click()
    page.wait_for_selector(".reading")
    visit.ready()
    assert "$failRatio is above 0.6" in page.locator(".reading").inner_text()


def test_a_slip_in_the_json_is_marked(visit: Watched):
    page = ask(visit, '{"stage": {"type": filtering}}', status=422)
    assert page.locator(".marked mark").inner_text() == "filtering"
    assert "The question is not JSON" in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Format").click()  # cannot; the service says why again
    visit.ready()
    assert page.locator(".marked mark").inner_text() == "filtering"


def test_a_question_that_is_too_deep_is_refused(visit: Watched):
    page = ask(visit, '{"stage": ' + "[" * 3000 + "]" * 3000 + "}", status=422)
    assert page.get_by_role("alert").is_visible()


def completions(page: Page) -> list[str]:
    return page.locator("#completions li span:first-child").all_inner_texts() if shown(page) else []


def shown(page: Page) -> bool:
    return page.locator("#completions").is_visible()


def test_words_are_completed_where_they_can_stand(visit: Watched):
    """Keys, fields and metrics of the part, operators below them, values of a few fields; with the keyboard alone."""
    page = visit.open("/query")
    area = page.locator("#question")
    area.fill("{}")
    area.press("Home")
    area.press("ArrowRight")
    area.press("Control+Space")
    assert {"pipeline", "stage", "candidate", "return"} <= set(completions(page))
    area.press_sequentially('"sta')
    assert completions(page)[:2] == ["stage", "stages"]
    area.press("Enter")
    assert area.input_value() == '{"stage": }'
    area.press_sequentially('{"failr')
    assert completions(page)[0] == "$failRatio"
    assert area.get_attribute("aria-activedescendant") == "completion-0"
    area.press("Tab")
    area.press_sequentially('{"$g')
    assert completions(page)[:2] == ["$gt", "$gte"]
    area.press("ArrowDown")
    area.press("Enter")
    assert area.input_value() == '{"stage": {"$failRatio": {"$gte": }'
    area.press_sequentially('0.5}, "type": "fil')
    assert completions(page) == ["filtering"]
    area.press("Escape")
    assert not shown(page)
    area.press_sequentially('tering"}, "pipeline": {"label": "review')
    assert completions(page) == ["review_moderation"]
    page.locator("#completions li").click()
    area.press_sequentially('}, "return": "ru')
    area.press("Enter")
    area.press("Control+Enter")
    page.wait_for_selector("#answers")
    visit.ready()
    assert set(column(page, "label")) == {"review_moderation"}


def test_format_lays_a_question_out(visit: Watched):
    page = visit.open("/query")
    area = page.locator("#question")
    area.fill(json.dumps(QUESTION, separators=(",", ":")))
    page.get_by_role("button", name="Format").click()
    assert json.loads(area.input_value()) == QUESTION
    assert area.input_value().count("\n") >= 5


def test_every_example_finds_an_answer(visit: Watched):
    """They name what there is, and none is refused."""
    page = visit.open("/query")
    links = page.get_by_label("Questions to start from").get_by_role("link")
    addresses = [link.get_attribute("href") for link in links.all()]
    assert len(addresses) >= 5
    for address in addresses:
        visit.open(str(address))
        assert page.locator("h2#answer").is_visible()


def test_the_same_elsewhere_gives_the_same(visit: Watched, demo: Service, tmp_path: Path):
    """What stands there to copy runs as it stands, in a shell and in Python, and finds what the page shows."""
    question = {**QUESTION, "pipeline": {"label": "review_moderation", "key": {"$ne": 'it\'s "odd" $HOME'}}}
    page = ask(visit, question)
    texts = {word: page.locator(f"#as-{word}").text_content() or "" for word in ("curl", "cli", "python")}
    with demo.client() as client:
        expected = [row["id"] for row in client.query(question)["rows"]]

    def run(command: list[str]) -> str:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
        return done.stdout

    command = run(["bash", "-c", texts["cli"] + " --json"])
    assert [row["id"] for row in json.loads(command)["rows"]] == expected
    assert all(found in run([sys.executable, "-c", texts["python"]]) for found in expected)
    words = shlex.split(texts["curl"])
    assert words[0] == "curl"
    assert words[2] == f"{demo.url}/v1/query"
    assert json.loads(words[words.index("-d") + 1]) == question


def test_copying_puts_the_text_on_the_clipboard(visit: Watched):
    page = ask(visit, QUESTION)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=visit.url)
    page.locator("#same ~ details").first.get_by_role("button", name="Copy").click()
    page.wait_for_selector("text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#as-curl").text_content()


def test_a_question_is_kept_under_a_name(visit: Watched, demo: Service):
    """Saved on the page it is there for everybody, with its answer; it is asked by its name, and deleted again."""
    page = ask(visit, QUESTION)
    page.get_by_label("Name").fill("too strict filters")
    page.get_by_label("What it is for").fill("<b>Filters</b> that reject most")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("text=Saved as")
    with demo.client() as client:
        kept = client.get("/v1/questions/too%20strict%20filters")
        expected = [row["id"] for row in client.query(QUESTION)["rows"]]
    assert kept["question"] == QUESTION
    page.get_by_role("link", name="too strict filters").first.click()
    page.wait_for_url("**saved=too+strict+filters")
    visit.ready()
    links = page.locator("#answers td:first-child a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == [f"/stages/{each}" for each in expected]
    assert "<b>Filters</b>" in page.locator("section:has(#opened)").inner_text()
    visit.check_layout()
    visit.check_accessibility()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it for good").click()
    page.wait_for_url(visit.url + "/query")
    assert page.get_by_label("Questions to start from").get_by_text("too strict filters").count() == 0
    visit.open("/query?saved=too+strict+filters", status=404)


def test_parameters_of_a_saved_question_are_asked_for(visit: Watched, demo: Service):
    """Those without a default first; what is given goes into the question as a value of its type."""
    question = {"pipeline": {"label": {"$param": "label"}}, "stage": {"$failRatio": {"$gt": {"$param": "above"}}}}
    declared = {"label": {"type": "string"}, "above": {"type": "number", "default": 0.6}}
    with demo.client() as client:
        body = json.dumps({"question": question, "parameters": declared}).encode()
        saved = urllib.request.Request(f"{demo.url}/v1/questions/strict", body, method="PUT")
        saved.add_header("Content-Type", "application/json")
        urllib.request.urlopen(saved).close()
        expected = client.query({"pipeline": {"label": "review_moderation"}, "stage": {"$failRatio": {"$gt": 0.7}}})
    page = visit.open("/query?saved=strict")
    assert "Give the parameters" in page.locator("main").inner_text()
    page.get_by_label("label", exact=False).first.fill("review_moderation")
    page.get_by_label("above", exact=False).first.fill("0.7")
    page.locator("section:has(#opened)").get_by_role("button", name="Ask").click()
    page.wait_for_selector("#answers")
    visit.ready()
    assert page.locator("#answers tbody tr").count() == len(expected["rows"])
    page = visit.open("/query?saved=strict&p.label=x&p.above=much", status=422)
    assert "above" in page.get_by_role("alert").inner_text()


def test_the_page_works_without_scripts(visit: Watched, demo: Service):
    """The form, the answer and its links need none."""
    context = visit.page.context.browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(demo.url + "/query")
        page.get_by_label("The question, as JSON").fill(json.dumps(QUESTION))
        page.get_by_role("button", name="Ask").click()
        page.locator("#answers tbody tr").first.wait_for()
        assert page.locator("#answers tbody tr").count() == 10
    finally:
        context.close()
