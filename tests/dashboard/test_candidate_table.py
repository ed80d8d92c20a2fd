"""The candidates of a stage: filters, order, columns, pages."""

from __future__ import annotations

import pytest

from tests.dashboard.support import (
    FILTER_ID,
    RANK_ID,
    RUN,
    SCORE_ID,
    browse,
    events,
    judged,
    page,
    products,
    ranked,
    scored,
)

COUNT = 700


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """``look(address)``: the ids in the table, the heads, and the page."""
    found = {}

    async def use(client):
        for address in ADDRESSES:
            found[address] = await _all_pages(client, address)

    browse(tmp_path_factory.mktemp("candidates"), use, events(COUNT))
    return found


async def _all_pages(client, address):
    ids, roots = [], []
    while address:
        root = await page(client, address)
        rows = [row for row in root.all("tr") if "data-row" in row.attributes]
        ids += [row.all("a")[0].text for row in rows]
        roots.append(root)
        following = root.all("a", rel="next")
        address = following[0].attributes["href"] if following else None
        assert len(roots) < 40
    return ids, roots


FILTERED = judged(products(COUNT))
SCORED = scored(FILTERED)
RANKED = ranked(SCORED)
_BASE = f"/stages/{FILTER_ID}?view=candidates"
FILTERS = {
    "": lambda row: True,
    "&verdict=failed": lambda row: row["verdict"] == "failed",
    "&verdict=passed&field=data.price&op=lte&value=20": lambda row: (
        row["verdict"] == "passed" and row["data"]["price"] <= 20
    ),
    "&reason_label=out_of_stock": lambda row: row["reason_label"] == "out_of_stock",
    "&id=00": lambda row: "00" in row["id"],
    "&id=u-000": lambda row: "u-000" in row["id"],
    "&id=.": lambda row: "." in row["id"],
    "&field=data.title&op=regex&value=9%24": lambda row: row["data"]["title"].endswith("9"),
    "&field=data.price&op=ne&value=50": lambda row: row["data"]["price"] != 50,
    "&field=data.price&op=eq&value=%2250%22": lambda row: False,
    "&field=data.colour&op=exists": lambda row: False,
    "&field=checks.price.passed&op=eq&value=true": lambda row: row["checks"]["price"]["passed"],
}
SORTS = {
    "data.price": lambda row: row["data"]["price"],
    "candidate_id": lambda row: row["id"],
    "reason_label": lambda row: (row["reason_label"] is None, row["reason_label"] or ""),
}
ADDRESSES = (
    *(_BASE + query for query in FILTERS),
    *(f"{_BASE}&sort={sign}{name}&verdict=failed" for name in SORTS for sign in ("", "-")),
    f"{_BASE}&limit=64",
    f"/stages/{SCORE_ID}?view=candidates&min_score=0.25&max_score=0.5",
    f"/stages/{SCORE_ID}?view=candidates&sort=-score&min_score=0.5",
    f"/stages/{RANK_ID}?view=candidates&sort=rank_before",
    f"/stages/{FILTER_ID}?view=checks",
    f"{_BASE}&column=data.title&column=verdict",
    f"{_BASE}&sort=-data.nothing",
)


@pytest.mark.parametrize("query", FILTERS)
def test_a_filter_lets_through_what_it_says(look, query):
    """Over all pages, in the order of the stage, each candidate once."""
    ids, _ = look[_BASE + query]
    assert ids == [row["id"] for row in FILTERED if FILTERS[query](row)]


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_order_is_that_of_all_candidates_not_of_a_page(look, name, sign):
    """Of those that the filter lets through; whoever has no value comes last either way."""
    ids, roots = look[f"{_BASE}&sort={sign}{name}&verdict=failed"]
    failed = [row for row in FILTERED if row["verdict"] == "failed"]
    value = SORTS[name]
    assert len(roots) == -(-len(failed) // 100) > 1
    assert sorted(ids) == sorted(row["id"] for row in failed)
    by_id = {row["id"]: row for row in failed}
    values = [value(by_id[each]) for each in ids]
    assert values == sorted(values, reverse=bool(sign))
    assert f"{len(failed)} candidates" in roots[0].one("main").text


def test_candidates_without_a_value_keep_their_place_at_the_end(look):
    """Sorting by what nobody has changes nothing."""
    ids, _ = look[f"{_BASE}&sort=-data.nothing"]
    assert ids == [row["id"] for row in FILTERED]


def test_pages_follow_each_other_without_gaps(look):
    """Of another size too."""
    ids, roots = look[f"{_BASE}&limit=64"]
    assert ids == [row["id"] for row in FILTERED]
    assert len(roots) == 11


def test_scores_are_filtered_by_a_range_and_sorted(look):
    """Both bounds belong to it."""
    ids, _ = look[f"/stages/{SCORE_ID}?view=candidates&min_score=0.25&max_score=0.5"]
    assert ids == [row["id"] for row in SCORED if 0.25 <= row["score"] <= 0.5]
    ids, _ = look[f"/stages/{SCORE_ID}?view=candidates&sort=-score&min_score=0.5"]
    by_id = {row["id"]: row["score"] for row in SCORED}
    assert [by_id[each] for each in ids] == sorted((s for s in by_id.values() if s >= 0.5), reverse=True)


def test_ranks_are_sorted(look):
    """By the place before."""
    ids, _ = look[f"/stages/{RANK_ID}?view=candidates&sort=rank_before"]
    assert ids == [row["id"] for row in sorted(RANKED, key=lambda row: row["rank_before"])]


def test_columns_are_those_that_were_chosen(look):
    """In the order of the address; and the checks of an evaluation table by itself."""
    _, roots = look[f"{_BASE}&column=data.title&column=verdict"]
    assert [head.text for head in roots[0].all("th")] == ["#", "Candidate", "data.title", "verdict", "In and out"]
    _, roots = look[f"/stages/{FILTER_ID}?view=checks"]
    assert [head.text for head in roots[0].all("th")] == ["#", "Candidate", "verdict", "price", "In and out"]
    first = roots[0].one("tbody").all("tr")[0]
    passed = FILTERED[0]["checks"]["price"]
    assert f"{'passed' if passed['passed'] else 'failed'} {passed['detail']}" in first.text


def test_what_a_row_is_made_of_is_there_when_it_is_opened(tmp_path):
    """The candidate as it came in, beside what the stage decided."""

    async def use(client):
        root = await page(client, _BASE)
        part = root.one("tbody").all("tr")[3].one("details").all("div")[0].attributes["data-later"]
        assert part == f"/stages/{FILTER_ID}/candidates/3"
        came, made = [block.text for block in (await page(client, part)).all("pre")]
        assert FILTERED[3]["data"]["title"] in came
        assert FILTERED[3]["verdict"] in made
        assert FILTERED[3]["data"]["title"] not in made

    browse(tmp_path, use, events(20))


def test_empty_states_say_why(tmp_path):
    """A stage that never had candidates, one whose filters let nothing through, one that was kept as a summary."""
    plain = {"type": "stage", "run": RUN, "stage_type": "raw", "order": 0}
    summary = {
        "id": RANK_ID, "name": "sum", "stage_type": "filtering", "metrics": {"failed": 3},
        "capture": {"mode": "summary", "seen": 5, "kept": 0},
    }  # fmt: skip
    batch = [plain | {"id": SCORE_ID, "name": "raw"}, plain | summary, *events(5)[:2]]

    async def use(client):
        said = {
            f"/stages/{SCORE_ID}?view=candidates": "The stage has no candidates",
            f"/stages/{FILTER_ID}?view=candidates&verdict=selected": "No candidate is like that",
            f"/stages/{RANK_ID}?view=candidates": "No candidates were kept",
        }
        for address, words in said.items():
            assert words in (await page(client, address)).one("main").text

    browse(tmp_path, use, batch)


def test_a_completion_that_was_not_recorded_is_looked_for_among_the_candidates(tmp_path):
    """What a model's stage made are its candidates, where nobody recorded the text itself."""
    given = events(5)
    given[1]["llm"] = {"model": "stand-in", "prompt": "say something"}
    given[2]["llm"] = {"model": "stand-in", "completion": "something"}

    async def use(client):
        root = await page(client, f"/stages/{FILTER_ID}?view=llm")
        link = root.one("section", **{"aria-labelledby": "completion-title"}).one("a")
        assert link.attributes["href"] == f"/stages/{FILTER_ID}?view=candidates"
        said = await page(client, f"/stages/{SCORE_ID}?view=llm")
        assert "something" in said.one("section", **{"aria-labelledby": "completion-title"}).text

    browse(tmp_path, use, given)
