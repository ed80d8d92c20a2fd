"""``explain: true``: how a question is read, how it will be run, and whether an index serves it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from xray_server.query import aggregate, ast, hours
from xray_server.query.describe import describe, describe_figures
from xray_server.query.figures import Aggregation
from xray_server.query.run import DOCUMENT_BUDGET, PAGE_BUDGET, TIME_BUDGET_S
from xray_server.query.several import narrowest, rows_condition
from xray_server.query.sighted import MOST_PAGES, is_asked
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import ScanPlan, Store


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``explain: true`` answers.

    Args:
        question: The question in English.
        steps: What is done, one after the other.
        index: How the store finds the documents, or None where the store does not say.
    """

    question: str
    steps: tuple[str, ...]
    index: ScanPlan | None

    def as_dict(self) -> dict[str, object]:
        """The explanation as JSON."""
        plan = self.index
        return {
            "question": self.question,
            "steps": list(self.steps),
            "indexed": None if plan is None else plan.indexed,
            "plan": "not known" if plan is None else plan.detail,
        }


async def explain(store: Store, project: str, question: ast.Question) -> Explanation:
    """Explain a question without answering it.

    Args:
        store: The store, open.
        project: The project.
        question: The parsed question.

    Raises:
        StoreError: The store could not be asked.
    """
    scan = _scan(question)
    plan = await store.explain(project, scan)
    return Explanation(describe(question), tuple(_steps(store, question, scan)), plan)


async def explain_figures(store: Store, project: str, aggregation: Aggregation) -> Explanation:
    """Explain an aggregation without working it out.

    Args:
        store: The store, open.
        project: The project.
        aggregation: The parsed aggregation.

    Raises:
        StoreError: The store could not be asked.
    """
    scan = _scan(aggregation.conditions)
    found = await hours.plan(store, project, aggregation)
    if found is not None:
        first, end = (dt.datetime.fromtimestamp(time / 1000, dt.UTC).isoformat() for time in (found.first, found.end))
        steps = [
            f"The hours from {first} to {end} come out of rollups, which say the same as their stages.",
            "The stages before and after them are read, and those without a start.",
            f"Where no more than {aggregate.FEW:,} stages satisfy the conditions, these are read, and no rollups.",
            f"The same goes for rollups that stand for fewer than {aggregate.STAGES_FOR_A_ROLLUP} stages each.",
        ]
    else:
        steps = ["Every stage that satisfies the conditions is read, the latest first."]
        if hours.asked_of(aggregation) is None:
            steps.append(
                "Rollups do not know what is asked: they know label, version, name, type and hour, and of metrics "
                "counts, sums, averages and bounds."
            )
        else:
            steps.append("Rollups do not pay: too few whole hours have passed, or too much in them has changed since.")
    steps.append(
        f"Reading stops after {aggregate.DOCUMENT_BUDGET:,} documents, {aggregate.PAGE_BUDGET:,} opened pages or "
        f"{aggregate.TIME_BUDGET_S:g} seconds; the answer then says that it is not complete."
    )
    return Explanation(describe_figures(aggregation), tuple(steps), await store.explain(project, scan))


def _scan(question: ast.Question) -> ast.Scan:
    runs = question.returns == "runs"
    return ast.Scan(
        of="runs" if runs else "stages",
        pipeline=question.pipeline,
        stage=narrowest(question) if runs else rows_condition(question),
        candidate=question.candidate,
        stages=question.stages if runs else (),
        sort=question.sort or DEFAULT_SORT,
        after=question.after,
        limit=question.limit + 1,
    )


def _steps(store: Store, question: ast.Question, scan: ast.Scan) -> list[str]:
    steps = [f"The store finds {scan.of} in order; of what it cannot decide it gives all that may fit."]
    given = (question.pipeline, rows_condition(question), question.candidate, *question.stages)
    if any(condition is not None and ast.weakened(condition) != condition for condition in given):
        steps.append(
            "Some operators are evaluated by the service alone ($regex, $elemMatch, $size, $type, $mod): an anchored "
            "literal prefix, or that the field is there, is all that the store is asked of them."
        )
    if is_asked(store, question):
        steps.append(
            f"Where the candidate's id is on no more than {MOST_PAGES} pages, the index over candidate ids leads to "
            "their stages, and only these are looked at."
        )
    steps.append("Each of them is checked against the whole question, unless the store has decided it already.")
    if question.stages:
        steps.append("For each run, its stages are looked up until every condition of 'stages' holds for one of them.")
    if question.candidate is not None or question.returns == "candidates":
        steps.append("The pages of candidates of each stage that remains are opened, but for those that cannot match.")
    steps.append(
        f"The search stops at {question.limit} rows, after {DOCUMENT_BUDGET:,} documents, {PAGE_BUDGET:,} opened pages "
        f"or {TIME_BUDGET_S:g} seconds, with a cursor to go on."
    )
    return steps
