"""What users recorded is shown inert: no markup, no control of directions, no page that grows with it."""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest

from tests.dashboard.support import browse, figures, page, parsed, table_rows

RUN_ID = "01890000-0000-7000-8000-0000000000c1"
STAGE_ID = "01890000-0000-7000-8000-0000000000c2"
SECOND_ID = "01890000-0000-7000-8000-0000000000c3"

SCRIPT = "<script>alert('x')</script>"
TAGS = f'"><img src=x onerror=alert(1)>{SCRIPT}<!-- --></script></style>{{{{7*7}}}}{{% raw %}}'
BIDI = "price\u202e\u2066\u200f\u061c reversed\u2069\x07\x1b[31m"
HUGE = "x" * 1_000_000
MANY = 5000


def events():
    run = {"id": RUN_ID, "key": TAGS, "label": BIDI, "version": TAGS, "environment": BIDI,
           "started_at": "2026-11-01T00:00:00Z"}  # fmt: skip
    rows = []
    for n in range(MANY):
        row = {"id": f"{n} {TAGS if n % 2 else BIDI}", "verdict": "failed" if n % 2 else "passed"}
        if n % 2:
            row |= {"reason_label": f"{n} {BIDI}{TAGS}", "reason_text": TAGS + BIDI}
        row |= {"score": n / MANY, "checks": {TAGS: {"passed": bool(n % 3), "detail": BIDI}}}
        row["data"] = {TAGS: BIDI, "deep": [[[[TAGS]]]], "nothing": None}
        rows.append(row)
    rows[0]["data"]["huge"] = HUGE
    rows[1]["reason_text"] = HUGE
    stage = {
        "type": "stage", "run": run, "stage_type": "filtering", "started_at": "2026-11-01T00:00:00Z",
        "duration_ms": 5.0, "status": "failure", "error": {"type": TAGS, "message": BIDI + HUGE},
    }  # fmt: skip
    one = stage | {
        "id": STAGE_ID, "name": TAGS, "path": TAGS, "order": 0, "reasoning": TAGS + BIDI, "input": {TAGS: HUGE},
        "output": BIDI, "metadata": {TAGS: BIDI}, "trace": {"trace_id": TAGS, "span_id": BIDI},
        "llm": {"model": TAGS, "prompt": TAGS + HUGE, "completion": BIDI, "cost": 1e308, TAGS: BIDI},
    }  # fmt: skip
    two = stage | {"id": SECOND_ID, "name": BIDI, "path": BIDI, "order": 1}
    end = {"type": "run.end", "run": run, "duration_ms": 9.0, "status": "failure", "stage_count": 2,
           "error": {"type": TAGS, "message": BIDI}, "output": {"deep": TAGS}}  # fmt: skip
    start = {"type": "run.start", "run": run, "tags": [TAGS, BIDI], "metadata": {TAGS: BIDI}, "input": {"b": HUGE}}
    pages = [
        {"type": "candidates", "id": STAGE_ID, "run": run, "from_seq": n, "candidates": rows[n : n + 500]}
        for n in range(0, MANY, 500)
    ]
    second = {"type": "candidates", "id": SECOND_ID, "run": run, "from_seq": 0, "candidates": rows[:20:2]}
    return [[start, one, *pages], [two, second, end]]


ADDRESSES = (
    "/", "/?sort=-$failRatio", f"/runs/{RUN_ID}", f"/runs/{RUN_ID}/flow", f"/runs/{RUN_ID}/suspects",
    f"/stages/{STAGE_ID}", f"/stages/{STAGE_ID}?view=candidates", f"/stages/{STAGE_ID}?view=candidates&sort=-score",
    f"/stages/{STAGE_ID}?view=checks", f"/stages/{STAGE_ID}?view=values", f"/stages/{STAGE_ID}?view=llm",
    f"/stages/{STAGE_ID}?view=json", f"/stages/{STAGE_ID}/panel", f"/stages/{STAGE_ID}/scores",
    f"/stages/{STAGE_ID}/whatif?threshold=0.5", f"/stages/{STAGE_ID}/candidates/0", f"/stages/{STAGE_ID}/candidates/1",
)  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Address → the page's text; and the page of a candidate with everything in its id, by way of its link."""

    async def use(client):
        found = {address: (await client.get(address, headers={"Accept": "text/html"})) for address in ADDRESSES}
        candidates = await page(client, f"/stages/{STAGE_ID}?view=candidates")
        for position in (0, 1):
            link = candidates.one("tbody").all("tr")[position].all("a")[0].attributes["href"]
            found[f"candidate {position}"] = await client.get(link, follow_redirects=True)
        return found

    return browse(tmp_path_factory.mktemp("hostile"), use, *events())


NAMES = (*ADDRESSES, "candidate 0", "candidate 1")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_was_recorded_is_markup(answers, name):
    """No element but the page's own; templates are not evaluated in what users recorded."""
    answer = answers[name]
    assert answer.status_code == 200, answer.text[-2000:]
    assert SCRIPT not in answer.text
    root = parsed(answer.text)
    assert {script.attributes.get("src") or script.attributes["type"] for script in root.all("script")} <= {
        *(script.attributes.get("src") for script in root.one("head").all("script")), "application/json"
    }  # fmt: skip
    assert not root.all("img")
    assert "alert(1)" in root.text
    assert "{{7*7}}" in root.text.replace("\\", "") or "7*7" not in root.text


@pytest.mark.parametrize("name", NAMES)
def test_marks_of_direction_are_written_out(answers, name):
    """No character that turns the direction round, or that a terminal would obey, is in the page."""
    text = answers[name].text
    bad = {c for c in set(text) - {"\n"} if unicodedata.category(c) in ("Cc", "Cf")}
    assert bad == set(), {f"U+{ord(c):04X}" for c in bad}


@pytest.mark.parametrize("name", NAMES)
def test_a_page_stays_small(answers, name):
    """A megabyte in a field, and thousands of labels, are cut, and the page says so."""
    assert len(answers[name].content) < 600_000
    if name in (f"/stages/{STAGE_ID}?view=values", f"/runs/{RUN_ID}", f"/stages/{STAGE_ID}/candidates/0"):
        root = parsed(answers[name].text)
        assert "(1,000,000 characters)" in root.text
        cut = [note.one("a").attributes["href"] for note in root.all("p", class_="note") if "Cut here" in note.text]
        assert cut
        assert all(address.startswith("/v1/") for address in cut)


def test_charts_hold_texts_and_no_markup(answers):
    """Plotly reads tags in texts, so there are none; the JSON cannot end its element."""
    for name in (f"/stages/{STAGE_ID}/panel", f"/stages/{STAGE_ID}/scores", f"/runs/{RUN_ID}/flow"):
        for figure in figures(parsed(answers[name].text)).values():
            for text in texts(figure):
                assert "<" not in text.replace("<extra></extra>", ""), text


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from texts(each)


def test_thousands_of_labels_are_counted_and_the_first_shown(answers):
    """The page of the stage says how many more there are."""
    root = parsed(answers[f"/stages/{STAGE_ID}"].text)
    row = next(row for row in table_rows(root) if row[0] == "label_counts")
    assert f"{MANY // 2 - 8:,} more" in row[1]


def test_a_candidate_s_link_leads_to_that_candidate(answers):
    """Whatever its id is made of."""
    for position, what in ((0, "price⟨U+202E⟩"), (1, "<script>alert")):
        heading = parsed(answers[f"candidate {position}"].text).one("h1").text
        assert heading.startswith(f"{position} ")
        assert what in heading


@pytest.mark.parametrize("candidate_id", [
    "a/b", "/a", "a/", "a//b", ".", "..", "a/../b", "a?b=c", "a#b", "a%2Fb", "a b", "é\u202e", "&amp;", "1" * 400, "+",
])  # fmt: skip
def test_any_id_has_an_address(tmp_path, candidate_id):
    """The page that a stage's table leads to is of the same id, for what browsers would change in a path too."""
    run = {"id": RUN_ID, "label": "ids"}
    rows = [{"id": candidate_id, "verdict": "passed", "reason_label": None}, {"id": "other", "verdict": "failed"}]

    async def use(client):
        root = await page(client, f"/stages/{STAGE_ID}?view=candidates")
        link = root.one("tbody").all("tr")[0].all("a")[0].attributes["href"]
        assert not {".", ".."} & set(link.partition("?")[0].split("/"))
        shown = await page(client, link)
        assert "Kept" in shown.one("h1").text
        assert "1 of 1 stages" in shown.text

    stage = {"type": "stage", "id": STAGE_ID, "run": run, "name": "s", "stage_type": "filtering", "order": 0}
    browse(tmp_path, use, [{"type": "run.start", "run": run}, stage | {"candidates": rows}])


def test_a_cell_of_a_download_is_no_formula(tmp_path):
    """What a spreadsheet would run is a text; negative numbers stay numbers."""
    run = {"id": RUN_ID, "label": "ids"}
    texts_of = ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "plain"]
    rows = [{"id": text, "data": {"text": text, "number": -place}} for place, text in enumerate(texts_of)]

    async def use(client):
        sheet = await client.get(f"/stages/{STAGE_ID}/candidates.csv")
        found = list(csv.DictReader(io.StringIO(sheet.text, newline="")))
        assert [row["data.text"] for row in found] == [f"'{text}" for text in texts_of[:-1]] + ["plain"]
        assert [row["candidate_id"][:1] for row in found] == ["'"] * 5 + ["p"]
        assert [float(row["data.number"]) for row in found] == [-place for place in range(6)]

    stage = {"type": "stage", "id": STAGE_ID, "run": run, "name": "s", "stage_type": "retrieval", "order": 0}
    browse(tmp_path, use, [{"type": "run.start", "run": run}, stage | {"candidates": rows}])
