"""``/v1/trends`` over both stores: sums, shares and quantiles by time and group, from whatever is there by then."""

from __future__ import annotations

import datetime as dt
import statistics
import uuid

import pytest

from tests.server.helpers import error_of
from tests.server.stores_of import store_url, with_service
from xray_server.analysis.trends import MAX_STRETCHES, fitting_bucket_ms
from xray_server.rollups import HOUR_MS

__all__ = ["store_url"]  # the fixture

BEGAN = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
SPAN = {"since": "2026-11-01T00:00:00Z", "until": "2026-11-04T00:00:00Z"}


def run_of(
    hours, *, version="1", label="shop", name="price", passed=2, failed=(), scores=None, duration_ms=5, **fields
):
    """The events of a run with one stage: a filter, or with scores a scoring stage."""
    at = (BEGAN + dt.timedelta(hours=hours)).isoformat()
    run = {"id": str(uuid.uuid4()), "label": label, "version": version, "started_at": at}
    stage = {
        "type": "stage", "id": str(uuid.uuid4()), "run": run, "name": name, "order": 0, "started_at": at,
        "duration_ms": duration_ms,
    }  # fmt: skip
    if scores is None:
        rows = [{"id": f"p{n}", "verdict": "passed"} for n in range(passed)]
        rows += [{"id": f"f{n}", "verdict": "failed", "reason_label": label} for n, label in enumerate(failed)]
        stage |= {"stage_type": "filtering", "candidates": rows}
    else:
        rows = [{"id": f"s{n}", "score": score} for n, score in enumerate(scores)]
        stage |= {"stage_type": "scoring", "candidates": rows}
    return [{"type": "run.start", "run": run}, stage | fields]


async def send(client, *runs):
    answer = await client.post("/v1/ingest", json={"events": [event for run in runs for event in run]})
    assert answer.status_code == 200, answer.text


async def trends(client, **parameters):
    answer = await client.get("/v1/trends", params={**SPAN, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_figures_are_of_all_candidates_of_a_stretch(store_url):
    """A ratio is of all candidates together, not the mean of the stages' ratios; labels are shares of the rejected."""

    async def use(client):
        await send(
            client,
            run_of(0, passed=8, failed=["dear"] * 2, duration_ms=10),
            run_of(1, passed=0, failed=["dear", "old", "old"], duration_ms=30),
            run_of(24, passed=1, failed=["dear"], status="failure"),
        )
        return await trends(client, bucket="1d")

    answer = with_service(store_url, use)
    assert (answer["bucket"], answer["by"], answer["complete"]) == ("1d", ["label", "name", "type"], True)
    first, second = answer["rows"]
    assert (first["from"], first["until"]) == ("2026-11-01T00:00:00.000Z", "2026-11-02T00:00:00.000Z")
    assert (first["label"], first["name"], first["type"]) == ("shop", "price", "filtering")
    assert (first["stages"], first["failures"], first["in"], first["out"]) == (2, 0, 13, 8)
    assert (first["passed"], first["failed"], first["fail_ratio"]) == (8, 5, 5 / 13)
    assert first["labels"] == {"dear": {"count": 3, "share": 0.6}, "old": {"count": 2, "share": 0.4}}
    assert first["other_labels"] is None
    assert first["score"] is None
    assert first["duration_ms"]["count"] == 2
    assert first["duration_ms"]["mean"] == 20
    assert first["duration_ms"]["max"] == 30
    assert (second["stages"], second["failures"], second["fail_ratio"]) == (1, 1, 0.5)


def test_scores_are_medians_of_the_stages_quantiles(store_url):
    runs = [[0.1, 0.2, 0.3], [0.5, 0.6, 0.7], [0.2, 0.4, 0.9]]

    async def use(client):
        await send(client, *(run_of(n, scores=scores) for n, scores in enumerate(runs)))
        return await trends(client, bucket="1d", metrics="score.max,nothing")

    (row,) = with_service(store_url, use)["rows"]
    assert row["score"]["p50"] == pytest.approx(statistics.median([0.2, 0.6, 0.4]), rel=0.011)
    assert row["fail_ratio"] is None
    assert row["metrics"]["score.max"]["max"] == 0.9
    assert row["metrics"]["nothing"] is None


def test_rows_are_told_apart_as_asked(store_url):
    """By version, by pipeline alone, or only those of one; groups of a stretch come in the order of their words."""

    async def use(client):
        await send(
            client,
            run_of(0, version="2", failed=["dear"]),
            run_of(0, version="1"),
            run_of(1, version="1", name="stock"),
            run_of(1, label="films", name="stock"),
        )
        return [
            await trends(client, **asked)
            for asked in (
                {"bucket": "1d", "by": "version,label", "label": "shop"},
                {"bucket": "1h", "by": "label"},
                {"name": "stock", "by": "name"},
                {"version": "2"},
                {"type": "scoring"},
                {"until": "2026-11-01T12:00:00Z"},
            )
        ]

    by_version, by_label, stock, second, scoring, before = with_service(store_url, use)
    assert [(row["label"], row["version"], row["stages"]) for row in by_version["rows"]] == [
        ("shop", "1", 2),
        ("shop", "2", 1),
    ]
    assert [(row["from"][11:13], row["label"], row["stages"]) for row in by_label["rows"]] == [
        ("12", "shop", 2),
        ("13", "films", 1),
        ("13", "shop", 1),
    ]
    assert [row["stages"] for row in stock["rows"]] == [2]
    assert [row["failed"] for row in second["rows"]] == [1]
    assert scoring["rows"] == []
    assert before["rows"] == []


def test_what_comes_late_or_again_is_counted_once(store_url):
    """The answer is of what the store holds then: a late stage counts, a repeated one does not count twice."""

    async def use(client):
        early, late = run_of(0, failed=["dear"]), run_of(0.5, failed=["dear"])
        await send(client, early)
        await send(client, early)
        before = await trends(client)
        await send(client, late)
        return before, await trends(client)

    before, after = with_service(store_url, use)
    assert [row["stages"] for row in before["rows"]] == [1]
    assert [(row["stages"], row["failed"]) for row in after["rows"]] == [(2, 2)]


def test_frequent_labels_are_the_same_in_every_stretch(store_url):
    """Of many labels the most frequent of the whole time are told apart, the others are one sum."""

    async def use(client):
        await send(
            client,
            run_of(0, failed=["often"] * 5 + ["rare"] * 2),
            run_of(24, failed=["once"] + ["rare"] + ["often"] * 2),
        )
        return await trends(client, bucket="1d", labels="1")

    first, second = with_service(store_url, use)["rows"]
    assert list(first["labels"]) == list(second["labels"]) == ["often"]
    assert first["other_labels"] == {"labels": 1, "count": 2, "share": 2 / 7}
    assert second["other_labels"] == {"labels": 2, "count": 2, "share": 0.5}


def test_the_runs_behind_a_row_are_those_that_it_counts(store_url):
    """The question that a row's point leads to finds the runs of its stages and no others."""
    from xray_server.api.trends import runs_behind

    async def use(client):
        await send(
            client,
            run_of(0),
            run_of(0.2, version="2"),
            run_of(1),
            run_of(0, name="stock"),
            run_of(0, label="films"),
        )
        rows = (await trends(client, bucket="1h"))["rows"]
        found = [(await client.post("/v1/query", json=runs_behind(row))).json()["coverage"]["matched"] for row in rows]
        return found, [row["stages"] for row in rows]

    found, stages = with_service(store_url, use)
    assert found == stages == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"bucket": "30m"}, "bucket"),
        ({"bucket": "1x"}, "bucket"),
        ({"bucket": "1h", "since": "2025-01-01"}, "bucket"),
        ({"since": "2026-11-05T00:00:00Z"}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"by": "label,stage"}, "by"),
        ({"lable": "shop"}, "lable"),
        ({"labels": "101"}, "labels"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_place(tmp_path, parameters, path):
    async def use(client):
        return await client.get("/v1/trends", params={**SPAN, **parameters})

    assert error_of(with_service(f"sqlite:///{tmp_path}/xray.sqlite3", use), 422)["path"] == path


@pytest.mark.parametrize("days", [0.01, 1, 2, 30, 90, 365, 3650])
def test_the_fitting_stretch_is_whole_hours_and_makes_no_crowd(days):
    span = days * 24 * HOUR_MS
    bucket = fitting_bucket_ms(span)
    assert bucket % HOUR_MS == 0
    assert span / bucket <= (62 if days < 1700 else MAX_STRETCHES)
