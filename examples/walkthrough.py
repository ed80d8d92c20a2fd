"""Why was a laptop stand matched with a phone case? Found by questions to the service alone.

Nothing here knows the example ``competitors``, beyond what whoever complained would say: the pipeline's label, what
was sold and what it was matched with. Every step is a question, and what follows from its answer; an answer that
does not bear out the next step ends the walkthrough with :class:`NotSupportedError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .service import Question, Row

LABEL = "competitor_discovery"


class NotSupportedError(Exception):
    """An answer does not support what would have to follow from it."""


@dataclass(frozen=True)
class Step:
    """One step: what is wanted, the questions that were put, and what the answers say."""

    title: str
    questions: list[Question]
    finding: str


@dataclass(frozen=True)
class Suspect:
    """The wrong match, as its run's record tells it."""

    run_id: str
    key: str
    version: str
    candidate_id: str
    category: str


class Walkthrough:
    """The five steps from the wrong match to its cause.

    Args:
        ask: Puts a question to the service and gives the rows of the answer.
        on_step: Called with each step as soon as it is done.
    """

    def __init__(self, ask: Callable[[Question], list[Row]], on_step: Callable[[Step], None]) -> None:
        self._ask = ask
        self._on_step = on_step

    def run(self, sold: str, matched: str) -> dict[str, Any]:
        """Find out why something of the category ``sold`` was matched with something of the category ``matched``.

        Returns:
            ``run_id``, ``version``, ``candidate_id``, ``first_stage``, ``keyword``, ``generated_by``, ``reason`` and
            ``conclusion``.

        Raises:
            NotSupportedError: An answer does not support the next step.
        """
        try:
            return self._run(sold, matched)
        except (KeyError, TypeError) as error:
            raise NotSupportedError(f"An answer lacks what the next step needs: {error!r}") from error

    def _run(self, sold: str, matched: str) -> dict[str, Any]:
        suspect = self._find_run(sold, matched)
        stages = self._list_stages(suspect)
        first_stage, keyword = self._trace_candidate(suspect, stages)
        self._explain_filter(suspect, stages)
        generator, reason, healthy_version = self._find_origin(suspect, stages, keyword)
        conclusion = (
            f"Stage '{generator}' of version {suspect.version} came up with the keyword '{keyword}' ({reason}), which "
            f"version {healthy_version} does not for the same request. '{first_stage}' found {suspect.candidate_id} "
            "with it, and no filter looks at the category."
        )
        return {
            "run_id": suspect.run_id,
            "version": suspect.version,
            "candidate_id": suspect.candidate_id,
            "first_stage": first_stage,
            "keyword": keyword,
            "generated_by": generator,
            "reason": reason,
            "healthy_version": healthy_version,
            "conclusion": conclusion,
        }

    def _find_run(self, sold: str, matched: str) -> Suspect:
        question = {
            "pipeline": {"label": LABEL, "input.product.category": sold, "output.category": matched},
            "return": "runs",
        }
        runs = self._ask(question)
        _require(len(runs) == 1, f"one run that matched a {sold} with a {matched}", runs)
        run = runs[0]
        suspect = Suspect(run["id"], run["key"], run["version"], run["output"]["id"], matched)
        self._step(
            f"Which run matched a {sold} with a {matched}?",
            [question],
            f"Run {suspect.run_id} of version {suspect.version}, for the request '{suspect.key}': "
            f"'{run['input']['product']['title']}' was matched with '{run['output']['title']}' "
            f"({suspect.candidate_id}). The run's status is {run['status']}: nothing broke.",
        )
        return suspect

    def _list_stages(self, suspect: Suspect) -> list[Row]:
        question = {"pipeline": {"id": suspect.run_id}, "return": "stages", "sort": {"order": 1}}
        stages = self._ask(question)
        _require(len(stages) > 2, "several stages of the run", stages)
        lines = [f"{stage['name']} ({stage['type']}): {_counts(stage['metrics'])}" for stage in stages]
        self._step("What were its stages?", [question], "\n  ".join(lines))
        return stages

    def _trace_candidate(self, suspect: Suspect, stages: list[Row]) -> tuple[str, str]:
        question = {
            "pipeline": {"id": suspect.run_id},
            "candidate": {"candidate_id": suspect.candidate_id},
            "return": "candidates",
        }
        by_stage = {row["stage_id"]: row for row in self._ask(question)}
        seen_by = [stage for stage in stages if stage["id"] in by_stage]
        _require(bool(seen_by), f"the candidate {suspect.candidate_id} in some stage", by_stage)
        names = [str(stage["name"]) for stage in seen_by]
        source = by_stage[seen_by[0]["id"]].get("source")
        _require(isinstance(source, str), "a source in the stage that saw it first", by_stage)
        self._step(
            "Which stage saw the phone case first, and where did it come from?",
            [question],
            f"'{names[0]}' brought it in, found by the keyword '{source}'. After that it went through "
            f"{', '.join(names[1:])}.",
        )
        return names[0], str(source)

    def _explain_filter(self, suspect: Suspect, stages: list[Row]) -> None:
        passed_question = {
            "pipeline": {"id": suspect.run_id},
            "stage": {"type": "filtering"},
            "candidate": {"candidate_id": suspect.candidate_id},
            "return": "candidates",
        }
        failed_question = {
            "pipeline": {"id": suspect.run_id},
            "stage": {"type": "filtering"},
            "candidate": {"data.category": suspect.category, "verdict": "failed"},
            "return": "candidates",
        }
        judged = self._ask(passed_question)
        filters = {stage["id"]: stage for stage in stages if stage["type"] == "filtering"}
        _require(
            len(judged) == len(filters) > 0 and all(row["verdict"] == "passed" for row in judged),
            "every filter to have passed the candidate",
            judged,
        )
        labels = {label for stage in filters.values() for label in stage["facts"]["labels"]}
        rejected = {row["reason_label"] for row in self._ask(failed_question)}
        _require(not any("category" in label for label in labels | rejected), "no label about the category", labels)
        self._step(
            "Why did no filter stop it?",
            [passed_question, failed_question],
            f"{', '.join(stage['name'] for stage in filters.values())} passed it. The labels that it can reject for "
            f"are {', '.join(sorted(labels))}; the {suspect.category}s that it did reject went for "
            f"{', '.join(sorted(rejected)) or 'none of them'}. None of these asks what kind of product it is.",
        )

    def _find_origin(self, suspect: Suspect, stages: list[Row], keyword: str) -> tuple[str, str, str]:
        same_request = {"label": LABEL, "key": suspect.key}
        here_question = {
            "pipeline": {"id": suspect.run_id},
            "stage": {"type": "generation"},
            "candidate": {"candidate_id": keyword},
            "return": "candidates",
        }
        elsewhere_question = {
            "pipeline": {**same_request, "version": {"$ne": suspect.version}},
            "stage": {"type": "generation"},
            "return": "candidates",
        }
        outcome_question = {
            "pipeline": {**same_request, "version": {"$ne": suspect.version}},
            "return": "runs",
        }
        here = self._ask(here_question)
        _require(len(here) == 1, f"one stage that generated '{keyword}'", here)
        generator = next(stage["name"] for stage in stages if stage["id"] == here[0]["stage_id"])
        healthy = self._ask(outcome_question)
        _require(
            len(healthy) == 1 and healthy[0]["output"]["category"] == healthy[0]["input"]["product"]["category"],
            "another version that matched the same product rightly",
            healthy,
        )
        elsewhere = [row["candidate_id"] for row in self._ask(elsewhere_question)]
        _require(bool(elsewhere) and keyword not in elsewhere, f"'{keyword}' to be new in this version", elsewhere)
        version, reason = healthy[0]["version"], here[0]["reason_text"]
        self._step(
            "Who came up with that keyword, and did the other version too?",
            [here_question, elsewhere_question, outcome_question],
            f"'{generator}' did, because {reason}. For the same request version {version} generated "
            f"{', '.join(repr(word) for word in elsewhere)} only, and was right: '{healthy[0]['output']['title']}'.",
        )
        return generator, reason, version

    def _step(self, title: str, questions: list[Question], finding: str) -> None:
        self._on_step(Step(title, questions, finding))


def _counts(metrics: dict[str, Any]) -> str:
    came, went = metrics.get("input_count"), metrics["output_count"]
    return f"{went} candidates" if came is None else f"{went} of {came} candidates"


def _require(condition: bool, expected: str, answer: Any) -> None:
    if not condition:
        raise NotSupportedError(f"Expected {expected}; the answer was: {str(answer)[:500]}")
