"""What pages show is what the API answers."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.dashboard.support import (
    FILTER_ID,
    RANK_ID,
    RUN,
    RUN_ID,
    SCORE_ID,
    browse,
    events,
    figures,
    page,
    table_rows,
)
from xray.ids import now_ms
from xray.metrics import COMMON_METRICS
from xray.plugins import installed
from xray.wording import duration, percent
from xray_server.api.answers import iso_time


def other_run(number, **fields):
    """A small run of its own."""
    run_id = f"01890000-0000-7000-8000-00000001{number:04d}"
    run = {
        "id": run_id, "key": f"other {number}", "label": "moderation", "version": str(number),
        "started_at": f"2026-10-{number + 1:02d}T00:00:00Z",
    } | fields  # fmt: skip
    rows = [{"id": f"t{n}", "verdict": "failed" if n < number else "passed"} for n in range(10)]
    stage_id = f"01890000-0000-7000-9000-00000001{number:04d}"
    return [
        {"type": "run.start", "run": run, "tags": ["even"] if number % 2 == 0 else []},
        {"type": "stage", "id": stage_id, "run": run, "name": "policies", "path": "policies",
         "stage_type": "filtering", "order": 0, "duration_ms": 1.0, "candidates": rows},
        {"type": "run.end", "run": run, "duration_ms": float(number), "status": "success", "stage_count": 1},
    ]  # fmt: skip


def shown_runs(root):
    """The runs of the list: id → cells by the column's head."""
    if not root.all("table"):
        return {}
    heads = [head.text.rstrip("▲▼") for head in root.all("table")[0].one("thead").all("th")]
    rows = [row for row in root.all("tr") if "data-row" in row.attributes]
    cells = [[cell for cell in row.children if not isinstance(cell, str)] for row in rows]
    return {
        row.attributes["data-row"]: dict(zip(heads, given, strict=True))
        for row, given in zip(rows, cells, strict=True)
    }  # fmt: skip


def test_the_list_of_runs_is_that_of_the_api(tmp_path):
    """The same runs in the same order, with the same figures; filters narrow both alike."""

    async def use(client):
        for query in ("", "?label=moderation", "?status=success&version=3", "?duration_ms__gt=4", "?since=2026-10-05",
                      "?tags=even", "?environment=production", "?key=other 4"):  # fmt: skip
            rows = (await client.get(f"/v1/runs{query.replace('2026-10-05', '2026-10-05T00:00:00Z')}")).json()["rows"]
            shown = shown_runs(await page(client, f"/{query}"))
            assert list(shown) == [row["id"] for row in rows], query
            assert rows, query
            for row in rows:
                cells = shown[row["id"]]
                assert cells["Pipeline"].text == row["label"]
                assert cells["Key"].text == row["key"]
                assert cells["Took"].text == duration(row["duration_ms"])
                assert cells["Stages"].text == str(row["stage_count"])
                assert cells["Started, UTC"].one("time").attributes["datetime"] == row["started_at"]

    browse(tmp_path, use, events(), *(other_run(n) for n in range(8)))


def test_each_run_says_what_its_filters_rejected(tmp_path):
    """The counts and the small chart are those of its stages."""

    async def use(client):
        shown = shown_runs(await page(client, "/"))
        run = (await client.get(f"/v1/runs/{RUN_ID}")).json()
        first, last = run["stages"][0]["metrics"], run["stages"][-1]["metrics"]
        cells = shown[RUN_ID]
        assert cells["Candidates"].text == f"{first['input_count']} → {last['output_count']}"
        chart = cells["Rejected"].one("svg")
        assert chart.attributes["aria-label"] == f"Rejected: price_filter {round(first['fail_ratio'] * 100)} %"
        height = float(chart.one("rect", class_="fill-verdict-failed").attributes["height"])
        assert height == pytest.approx(20 * first["fail_ratio"], abs=0.06)

    browse(tmp_path, use, events())


def test_a_metric_says_its_unit_once_and_a_list_how_long_it_is(tmp_path):
    """Its unit in the column of units alone; the list itself unfolds."""
    bins = [{"upto": n / 10, "count": n} for n in range(10)]
    given = other_run(1)
    given[1] |= {"stage_type": "ranking", "metrics": {"mean_displacement": 4, "bins": bins}}
    given[1]["capture"] = {"mode": "summary", "seen": 10, "kept": 0}
    given[1]["candidates"] = []

    async def use(client):
        root = await page(client, f"/stages/{given[1]['id']}")
        cells = {row.one("code").text: row.all("td") for row in root.all("tr") if row.all("code")}
        assert [cell.text for cell in cells["mean_displacement"][1:3]] == ["4", "ranks"]
        assert cells["bins"][1].one("summary").text == "10 entries"
        assert json.dumps(bins, separators=(",", ":")) == cells["bins"][1].one("bdi").text

    browse(tmp_path, use, given)


def test_a_search_finds_runs_by_the_beginning_of_their_key_or_their_id(tmp_path):
    """Marks of patterns are taken as they are."""

    async def use(client):
        async def found(text):
            return len(shown_runs(await page(client, f"/?q={text}")))

        assert await found("other") == 4
        assert await found("other 2") == 1
        assert await found("ther") == 0
        assert await found("request") == 1
        assert await found(RUN_ID) == 1
        assert await found("o.her") == 0
        assert await found("%5Eother%24%28") == 0

    browse(tmp_path, use, events(), *(other_run(n) for n in range(4)))


def test_runs_are_sorted_by_any_metric_of_their_stages(tmp_path):
    """Highest first or lowest first, and over pages each stage comes once, as the query language has it."""

    async def use(client):
        question = {"stage": {"$failRatio": {"$exists": True}}, "sort": {"$failRatio": -1}, "limit": 100}
        expected = [row["run_id"] for row in (await client.post("/v1/query", json=question)).json()["rows"]]
        seen, address = [], "/?sort=-$failRatio&limit=3"
        while address:
            root = await page(client, address)
            seen += [row.split("/")[0] for row in shown_runs(root)]
            following = root.all("a", rel="next")
            address = following[0].attributes["href"] if following else None
        assert seen == expected
        assert len(expected) == 9
        lowest = shown_runs(await page(client, "/?sort=$failRatio&limit=1"))
        assert [row.split("/")[0] for row in lowest] == expected[-1:]

    browse(tmp_path, use, events(), *(other_run(n) for n in range(8)))


def test_the_stages_of_a_run_are_those_of_the_api(tmp_path):
    """Counts, share, labels and durations of each stage; the order by a metric; pages that go on."""

    async def use(client):
        run = (await client.get(f"/v1/runs/{RUN_ID}")).json()
        root = await page(client, f"/runs/{RUN_ID}")
        rows = table_rows(root)
        assert [row[1] for row in rows] == [stage["name"] for stage in run["stages"]]
        metrics = run["stages"][0]["metrics"]
        assert rows[0][4:7] == [
            str(metrics["input_count"]), str(metrics["output_count"]), percent(metrics["fail_ratio"])
        ]  # fmt: skip
        for label, count in metrics["label_counts"].items():
            assert f"{label} {count}" in rows[0][7]
        assert [row[8] for row in rows] == [duration(stage["duration_ms"]) for stage in run["stages"]]
        by_time = table_rows(await page(client, f"/runs/{RUN_ID}?sort=-duration_ms"))
        assert [row[1] for row in by_time] == ["relevance", "price_filter", "order"]
        only = table_rows(await page(client, f"/runs/{RUN_ID}?sort=-$failRatio"))
        assert [row[1] for row in only] == ["price_filter"]
        first = await page(client, f"/runs/{RUN_ID}?limit=2")
        second = await page(client, first.one("a", rel="next").attributes["href"])
        assert [row[1] for row in table_rows(first) + table_rows(second)] == ["price_filter", "relevance", "order"]

    browse(tmp_path, use, events())


def test_the_funnel_on_the_page_is_the_api_s(tmp_path):
    """The diagram's links from a stage sum up to what came in, and its table says the same."""

    async def use(client):
        answer = (await client.get(f"/v1/runs/{RUN_ID}/funnel")).json()
        root = await page(client, f"/runs/{RUN_ID}/flow")
        trace = figures(root)["funnel"]["data"][0]
        names, link = trace["node"]["label"], trace["link"]
        links = list(zip(link["source"], link["target"], link["value"], strict=True))
        for row in answer["stages"]:
            out = sum(value for source, _, value in links if names[source] == row["path"])
            assert out == row["in"], row
        labels = (await client.get(f"/v1/stages/{FILTER_ID}")).json()["metrics"]["label_counts"]
        for label, count in labels.items():
            assert [value for _, target, value in links if names[target] == label] == [count]
        assert [[a, b, int(v)] for a, b, v in table_rows(root, 1)] == [[names[s], names[t], v] for s, t, v in links]
        assert ("Every candidate is accounted for" in root.text) == (answer["conserved"] is True)

    browse(tmp_path, use, events())


def test_the_suspects_on_the_page_are_the_api_s(tmp_path):
    """With enough history: the same verdict, and the same evidence in the same order."""
    runs = [other_run(n, label="steady", version="1") for n in range(1, 10)]
    for number, batch in enumerate(runs):
        for event in batch:
            for row in event.get("candidates", ()):
                row["verdict"] = "failed" if row["id"] == f"t{number % 3}" else "passed"
    odd = other_run(50, label="steady", version="1", started_at="2026-10-30T00:00:00Z")

    async def use(client):
        run_id = odd[0]["run"]["id"]
        answer = (await client.get(f"/v1/runs/{run_id}/analysis")).json()
        assert answer["suspicious"] is True
        root = await page(client, f"/runs/{run_id}/suspects")
        assert answer["faulty_stage"] in root.one("main").text
        assert [row[0].split()[0] for row in table_rows(root)] == [each["path"] for each in answer["suspects"]]
        for evidence in answer["suspects"][0]["evidence"][:4]:
            assert evidence["text"] in root.one("main").text

    browse(tmp_path, use, *runs, odd)


@pytest.mark.parametrize("stage_id", [FILTER_ID, SCORE_ID, RANK_ID])
def test_a_stage_shows_every_metric_with_its_unit_and_meaning(tmp_path, stage_id):
    """Numbers as the API has them, and what the type declares of them."""

    async def use(client):
        stage = (await client.get(f"/v1/stages/{stage_id}")).json()
        own = (*COMMON_METRICS, *installed().metrics()[stage["type"]])
        declared = {metric.name: metric for metric in own}
        root = await page(client, f"/stages/{stage_id}")
        rows = {row[0].split(" ")[0]: row for row in table_rows(root)}
        numbers = {name for name, value in stage["metrics"].items() if isinstance(value, int | float)}
        assert numbers <= set(rows)
        for name in numbers:
            value = stage["metrics"][name]
            assert rows[name][2:] == [declared[name].unit, declared[name].meaning]
            shown = rows[name][1].split(" ")[0].rstrip("%").replace(",", "")
            if declared[name].unit == "ratio":
                assert float(shown) == pytest.approx(value * 100, abs=0.06)
            elif declared[name].unit != "ms":
                assert float(shown) == pytest.approx(value, rel=1e-3)

    browse(tmp_path, use, events())


def test_the_figures_of_a_type_are_the_api_s_panel(tmp_path):
    """The same bars; those of labels lead to the candidates that have them."""

    async def use(client):
        panel = (await client.get(f"/v1/stages/{FILTER_ID}/panel")).json()["figures"]
        shown = list(figures(await page(client, f"/stages/{FILTER_ID}/panel")).values())
        assert [[trace["x"] for trace in each["data"]] for each in shown] == [
            [trace["x"] for trace in each["data"]] for each in panel
        ]
        bars = shown[1]["data"][0]
        for label, count, address in zip(bars["y"], bars["x"], bars["customdata"], strict=True):
            root = await page(client, address)
            assert len([row for row in root.all("tr") if "data-row" in row.attributes]) == count
            assert f"reason_label={label}" in address

    browse(tmp_path, use, events())


@pytest.mark.parametrize("query", ["threshold=0.5", "threshold=0.25&below=true", "without=out_of_stock", ""])
def test_what_if_is_the_api_s(tmp_path, query):
    """Who would pass under another cutoff, and without a rule."""

    async def use(client):
        for stage_id in (FILTER_ID, SCORE_ID):
            answer = (await client.get(f"/v1/stages/{stage_id}/whatif?{query}")).json()
            root = await page(client, f"/stages/{stage_id}/whatif?{query}")
            words = root.one("div", id="whatif").text
            if "threshold" in answer:
                given = answer["threshold"]
                assert words.startswith(f"{given['passes']} would pass")
                assert f"{given['fails']} would not" in words
            for row in answer["labels"]:
                assert [row["label"], ("at most " if row["at_most"] and row["more"] else "") + str(row["more"])] in [
                    cells[:2] for position in range(len(root.all("table"))) for cells in table_rows(root, position)
                ]

    browse(tmp_path, use, events())


def test_the_cutoff_in_the_chart_of_scores_is_that_of_the_passport(tmp_path):
    """A selection of the first five: the line stands at the lowest of them, and the bars count all candidates."""
    given = events()
    ranks = next(event for event in given if event.get("id") == RANK_ID)["candidates"]
    picked = [
        {"id": row["id"], "score": row["score"]} | ({"verdict": "selected"} if place < 5 else {})
        for place, row in enumerate(ranks)
    ]
    given.insert(-1, {
        "type": "stage", "id": RANK_ID[:-1] + "4", "run": RUN, "name": "top", "path": "top", "stage_type": "selection",
        "order": 3, "started_at": "2026-11-01T00:00:00.095Z", "duration_ms": 1.0, "candidates": picked,
    })  # fmt: skip

    async def use(client):
        root = await page(client, f"/stages/{SCORE_ID}/scores")
        figure = figures(root)["scores"]
        assert figure["layout"]["shapes"][0]["x0"] == ranks[4]["score"]
        counted = {trace["name"]: sum(trace["y"]) for trace in figure["data"]}
        assert counted == {"went on": 5, "did not": len(ranks) - 5}
        highest = max(map(sum, zip(*(trace["y"] for trace in figure["data"]), strict=True)))
        assert highest <= 5
        assert figure["layout"]["yaxis"]["dtick"] == 1  # no halves of candidates
        way = (await client.get(f"/v1/runs/{RUN_ID}/candidates/{ranks[0]['id']}")).json()
        step = next(step for step in way["steps"] if step["path"] == "relevance")
        assert step["cutoff"]["score"] == ranks[4]["score"]
        slider = root.one("input", type="range")
        assert float(slider.attributes["value"]) == ranks[4]["score"]
        assert root.one("div", id="whatif").text.startswith("5 would pass")

    browse(tmp_path, use, given)


@pytest.mark.parametrize(
    "filters", ["", "verdict=failed", "reason_label=price_too_high", "field=data.price&op=lt&value=50"]
)
def test_downloads_have_every_candidate_that_the_filters_let_through(tmp_path, filters):
    """JSON Lines and CSV, over many pages of answers, in the order of the stage."""

    async def use(client):
        question = {"stage": {"id": FILTER_ID}, "candidate": {}, "return": "candidates", "limit": 1000}
        everything = (await client.post("/v1/query", json=question)).json()
        rows = everything["rows"]
        question["cursor"] = everything["cursor"]
        while question["cursor"]:
            more = (await client.post("/v1/query", json=question)).json()
            rows += more["rows"]
            question["cursor"] = more["cursor"]
        assert len(rows) == 2300
        keep = {
            "": lambda row: True,
            "verdict=failed": lambda row: row["verdict"] == "failed",
            "reason_label=price_too_high": lambda row: row.get("reason_label") == "price_too_high",
            "field=data.price&op=lt&value=50": lambda row: row["data"]["price"] < 50,
        }[filters]
        expected = [row for row in rows if keep(row)]
        lines = await client.get(f"/stages/{FILTER_ID}/candidates.jsonl?{filters}")
        assert [json.loads(line) for line in lines.text.splitlines()] == expected
        sheet = await client.get(f"/stages/{FILTER_ID}/candidates.csv?{filters}")
        assert 'filename="' in sheet.headers["Content-Disposition"]
        found = list(csv.DictReader(io.StringIO(sheet.text)))
        assert [row["candidate_id"] for row in found] == [row["candidate_id"] for row in expected]
        assert [float(row["data.price"]) for row in found] == [row["data"]["price"] for row in expected]

    browse(tmp_path, use, events(2300))


def test_a_candidate_s_way_is_its_passport(tmp_path):
    """Of each candidate: the outcome, where and why it was lost, and each stage that saw it."""

    async def use(client):
        for candidate in ("sku-0000", "sku-0009", "sku-0013", "sku-0020", "nobody"):
            address = f"/runs/{RUN_ID}/candidates/{candidate}"
            way = (await client.get(f"/v1{address}")).json()
            root = await page(client, address)
            main = root.one("main")
            heading = main.one("h1").text
            words = {"lost": "Lost", "kept": "Kept", "never seen": "Never seen"}[way["outcome"]]
            assert heading.startswith(candidate)
            assert heading.endswith(words)
            steps = [step for step in way["steps"] if step["seen"] == "yes"]
            assert [step.one("a").text for step in main.all("h3")] == [step["path"] for step in steps]
            if way["outcome"] == "lost":
                assert f"Lost at {way['lost_at']}" in main.text
                assert (way["reason_label"] or "") in main.text

    browse(tmp_path, use, events())


def test_what_became_of_a_candidate_elsewhere_is_the_api_s(tmp_path):
    """The rows of /v1/lost, with runs that lead to its way through them."""

    async def use(client):
        answer = (await client.get("/v1/lost/t1?label=moderation")).json()
        root = await page(client, "/candidates/history?id=t1&label=moderation")
        assert [row[1:4] for row in table_rows(root)] == [
            [f"{row['path']} filtering", str(row["seen"]), str(row["lost"])] for row in answer["rows"]
        ]
        assert answer["rows"][0]["lost"] > 1
        links = [link.attributes["href"] for link in root.one("tbody").all("a")]
        assert links == [f"/runs/{run_id}/candidates/t1" for run_id in answer["rows"][0]["runs"]]
        for link in links:
            await page(client, link)

    browse(tmp_path, use, *(other_run(n) for n in range(5)))


def test_a_list_by_a_metric_shows_it_with_its_unit(tmp_path):
    """A share as a percentage, a duration in its unit, an entry of a table as it is."""

    async def use(client):
        stages = (await client.get(f"/v1/runs/{RUN_ID}")).json()["stages"]
        ratio = stages[0]["metrics"]["fail_ratio"]
        counts = stages[0]["metrics"]["label_counts"]
        for sort, words in (
            ("-$failRatio", percent(ratio)), ("$fail_ratio", percent(ratio)), ("-$durationMs", "20.0 ms"),
            ("-$labelCounts.price_too_high", str(counts["price_too_high"])),
        ):  # fmt: skip
            root = await page(client, f"/?sort={sort}")
            heads = [head.text for head in root.one("thead").all("th")]
            at = next(place for place, head in enumerate(root.one("thead").all("th")) if "aria-sort" in head.attributes)
            assert heads[at - 1] == "Stage"
            assert table_rows(root)[0][at] == words

    browse(tmp_path, use, events())


@pytest.mark.parametrize(("ages_h", "span"), [((1,), "1d"), ((1, 80), "7d"), ((1, 400), "30d"), ((), "30d")])
def test_trends_show_a_time_that_what_there_is_fills(tmp_path, ages_h, span):
    """Where the address names none; a pipeline that is not there stays chosen."""
    now = now_ms()
    given = [other_run(n, started_at=iso_time(now - age * 3_600_000)) for n, age in enumerate(ages_h)]
    for run in given:
        run[1]["started_at"] = run[1]["run"]["started_at"]

    async def use(client):
        def chosen(root, name):
            (select,) = [each for each in root.all("select") if each.attributes["name"] == name]
            return [each.attributes["value"] for each in select.all("option") if "selected" in each.attributes]

        root = await page(client, "/trends?label=moderation")
        assert (chosen(root, "since"), chosen(root, "label")) == ([span], ["moderation"])
        assert ("stages, of which" in root.one("main").text) is bool(ages_h)
        root = await page(client, "/trends?label=moderation&since=90d")
        assert chosen(root, "since") == ["90d"]

    browse(tmp_path, use, events(), *given)
