"""Recommend films to a viewer: real films, candidates as plain dicts, one filter that was never changed for X-Ray.

The pipeline ``film_recommendation`` decides which five films a viewer is shown:

1. ``by_genre_and_decade`` (retrieval) fetches up to 1,000 films of the viewer's genre and decade, those with the
   most reviews first.
2. ``suitable`` (filtering) returns every film with a flag. The first of these that holds rejects it:
   ``wrong_language`` (none of its languages is the viewer's), ``unknown_length``, ``too_long`` (for the viewer),
   ``not_rated_family`` (viewers with children only: rated neither G nor PG), ``too_few_reviews`` (under 20).
3. ``critics_like`` (filtering) returns the survivors only, as code that knows nothing of X-Ray does: films of which
   too small a share of the reviews is positive are missing from what comes back, without a reason.
4. ``appeal`` (scoring): 0.5 * the share of positive reviews + 0.3 * the critics' mean rating out of 10 (that share
   where there is no rating) + 0.2 * the reviews out of 200, no more than 0.2.
5. ``shortlist`` (ranking) sorts by that score, the film with the lower id first where it is equal.

What to look at: for viewers with children, ``not_rated_family`` rejects most of what comes in, because most films of
the data carry no rating at all: a gap in the data that looks like a strict rule. ``critics_like`` rejects without a
label; its metric ``unlabelled`` says how many.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

from xray import (
    Candidates,
    filtering_stage,
    pipeline,
    ranking_stage,
    retrieval_stage,
    scoring_stage,
)

from .data import film_database

Film = dict[str, Any]
"""A row of the database: id, title, year, genre, minutes, language, rated, reviews, positive and rating."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who looks for a film."""

    id: str
    genre: str
    decade: int
    languages: tuple[str, ...] = ("English",)
    max_minutes: int = 150
    with_children: bool = False
    min_positive: int = 60


VIEWERS = (
    Viewer("V01", "Comedy", 1990),
    Viewer("V02", "Comedy", 2000, with_children=True),
    Viewer("V03", "Animation", 2000, with_children=True, max_minutes=100),
    Viewer("V04", "Drama", 1950, max_minutes=120, min_positive=95),
    Viewer("V05", "Drama", 2000, languages=("French",), min_positive=80),
    Viewer("V06", "Documentary", 2010, max_minutes=90),
    Viewer("V07", "Sci-Fi", 1980, languages=("English", "Japanese"), max_minutes=130),
    Viewer("V08", "Western", 1960, languages=("Italian",), max_minutes=180),
    Viewer("V09", "Horror", 2000, max_minutes=95, min_positive=90),
    Viewer("V10", "Romance", 2000, languages=("Hindi",), max_minutes=160),
    Viewer("V11", "Crime", 1970, min_positive=75),
    Viewer("V12", "Family", 1990, with_children=True, min_positive=30),
)
"""Twelve viewers with different tastes."""


@pipeline("film_recommendation", id="viewer.id", version="1.0")
def recommend(viewer: Viewer) -> list[Film]:
    """The five films that the viewer is shown, best first; fewer where there are no more."""
    films = by_genre_and_decade(viewer.genre, viewer.decade)
    films = [film for film in suitable(films, viewer) if film["ok"]]
    films = critics_like(films, viewer.min_positive)
    return shortlist(appeal(films))[:5]


@retrieval_stage("by_genre_and_decade", id="id", score="reviews", requested="limit")
def by_genre_and_decade(genre: str, decade: int, limit: int = 1000) -> list[Film]:
    """The most reviewed films of a genre and a decade."""
    with closing(film_database()) as database:
        rows: list[sqlite3.Row] = database.execute(
            """
            SELECT omdb.ID AS id, Title AS title, Year AS year, Genre AS genre, Runtime AS minutes,
                   Language AS language, omdb.Rating AS rated, coalesce(Reviews, 0) AS reviews,
                   Meter AS positive, tomatoes.Rating AS rating
            FROM omdb JOIN tomatoes ON tomatoes.ID = omdb.ID
            WHERE Year BETWEEN :decade AND :decade + 9 AND instr(', ' || Genre || ',', ', ' || :genre || ',')
            ORDER BY coalesce(Reviews, 0) DESC, omdb.ID
            LIMIT :limit
            """,
            {"decade": decade, "genre": genre, "limit": limit},
        ).fetchall()
    return [dict(row) for row in rows]


@filtering_stage(
    "suitable",
    id="id",
    passed="ok",
    reason_label="why",
    labels={"wrong_language", "unknown_length", "too_long", "not_rated_family", "too_few_reviews"},
)
def suitable(films: Annotated[list[Film], Candidates("films")], viewer: Viewer) -> list[Film]:
    """Every film with ``ok`` and, where that is false, ``why``."""
    judged = []
    for film in films:
        why = _objection(film, viewer)
        judged.append({**film, "ok": why is None, "why": why})
    return judged


def _objection(film: Film, viewer: Viewer) -> str | None:
    if not set((film["language"] or "").split(", ")) & set(viewer.languages):
        return "wrong_language"
    if film["minutes"] is None:
        return "unknown_length"
    if film["minutes"] > viewer.max_minutes:
        return "too_long"
    if viewer.with_children and film["rated"] not in ("G", "PG"):
        return "not_rated_family"
    return "too_few_reviews" if film["reviews"] < 20 else None


@filtering_stage("critics_like")
def critics_like(films: Annotated[list[Film], Candidates("films")], min_positive: int) -> list[Film]:
    """The films that enough critics liked; nothing but the decorator was added here."""
    return [film for film in films if (film["positive"] or 0) >= min_positive]


@scoring_stage("appeal", id="id", score="appeal")
def appeal(films: Annotated[list[Film], Candidates("films")]) -> list[Film]:
    """Every film with its score as ``appeal``."""

    def score(film: Film) -> float:
        positive: float = film["positive"] / 100
        rating: float = positive if film["rating"] is None else film["rating"] / 10
        popularity: float = min(film["reviews"] / 200, 1)
        return round(0.5 * positive + 0.3 * rating + 0.2 * popularity, 4)

    return [{**film, "appeal": score(film)} for film in films]


@ranking_stage("shortlist", id="id", score="appeal")
def shortlist(films: Annotated[list[Film], Candidates("films")]) -> list[Film]:
    """The most appealing film first."""
    return sorted(films, key=lambda film: (-film["appeal"], film["id"]))


def run_all() -> dict[str, list[Film]]:
    """Recommend films to every viewer; the results by the viewer's id."""
    return {viewer.id: recommend(viewer) for viewer in VIEWERS}


if __name__ == "__main__":
    for viewer_id, films in run_all().items():
        print(viewer_id, "→", ", ".join(f"{film['title']} ({film['year']})" for film in films) or "nothing")
