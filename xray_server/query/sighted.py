"""Candidates that a question names by their ids: the index over ids leads to the stages that have them."""

from __future__ import annotations

from dataclasses import dataclass

from xray_server.query import ast
from xray_server.query.narrowing import necessary_values
from xray_server.stores.base import Store

MOST_IDS = 10
MOST_PAGES = 200
"""Pages that have the candidates; where there are more, the stages are gone through in order until enough are found."""

_CANDIDATE, _LABEL, _ID = ast.Field(("candidate_id",)), ast.Field(("label",)), ast.Field(("id",))


@dataclass(frozen=True, slots=True)
class Sighted:
    """The only stages that can have what a question asks for, as conditions.

    Args:
        stages: On a stage.
        runs: On a run.
    """

    stages: ast.Condition
    runs: ast.Condition


def is_asked(store: Store, question: ast.Question) -> bool:
    """Whether a question names the only ids that its candidate can have, and the store has an index over them."""
    ids = None if question.candidate is None else necessary_values(question.candidate, _CANDIDATE)
    # Without an index the store looks through all stages itself, which takes longer than narrowing by pages.
    return ids is not None and len(ids) <= MOST_IDS and type(store).sightings is not Store.sightings


async def sighted(store: Store, project: str, question: ast.Question) -> Sighted | None:
    """The stages that have the candidates that a question names; None where they are many, or it names none.

    Args:
        store: The store, open.
        project: The project.
        question: The question.

    Raises:
        StoreError: The data could not be read.
    """
    if question.candidate is None or not is_asked(store, question):
        return None
    ids = necessary_values(question.candidate, _CANDIDATE) or ()
    labels = necessary_values(question.pipeline, _LABEL) or ()
    label = next(iter(labels)) if len(labels) == 1 else None
    stages: dict[str, None] = {}
    runs: dict[str, None] = {}
    left = MOST_PAGES
    for candidate_id in sorted(ids):
        found = await store.sightings(project, candidate_id, label=label, limit=left + 1)
        left -= len(found)
        if left < 0:
            return None
        for sighting in found:
            stages[sighting.page.stage_id] = None
            if "run_id" in sighting.stage:
                runs[sighting.stage["run_id"]] = None
    return Sighted(ast.Test(_ID, ast.In(tuple(stages))), ast.Test(_ID, ast.In(tuple(runs))))
