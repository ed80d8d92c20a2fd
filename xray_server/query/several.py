"""Conditions on several stages of one run: ``"stages": [{…}, {…}]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xray_server.query import ast
from xray_server.query.evaluate import compile_condition
from xray_server.query.narrowing import references


class Needed:
    """The conditions of ``stages``: each must hold for some stage of a run.

    Args:
        conditions: The conditions.
    """

    def __init__(self, conditions: Sequence[ast.Condition]) -> None:
        self.condition = ast.Or(tuple(conditions))
        """What a stage satisfies that satisfies one of them."""
        self._tests = [compile_condition(condition) for condition in conditions]

    def none(self) -> list[bool]:
        """Which of the conditions hold for some stage, where no stage was looked at yet."""
        return [False] * len(self._tests)

    def note(self, held: list[bool], stage: Mapping[str, Any]) -> None:
        """Note which conditions hold for a stage.

        Args:
            held: Which held already; changed in place.
            stage: The stage.
        """
        for place, holds in enumerate(self._tests):
            if not held[place]:
                held[place] = holds(stage)


def rows_condition(question: ast.Question) -> ast.Condition:
    """What the stages of an answer satisfy: with ``stages`` alone, one of its conditions."""
    if question.stages and question.stage == ast.EVERYTHING and question.candidate is None:
        return ast.Or(question.stages)
    return question.stage


def narrowest(question: ast.Question) -> ast.Condition:
    """The one condition on some stage of a run that a store is asked to narrow runs by."""
    if not question.stages or question.stage != ast.EVERYTHING or question.candidate is not None:
        return question.stage
    by_metric = [
        condition
        for condition in question.stages
        if any(isinstance(reference, ast.Metric) for reference in references(condition))
    ]
    return (by_metric or list(question.stages))[0]
