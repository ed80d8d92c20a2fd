"""Ranking quality for X-Ray: the stage type ``judged`` and its decorator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, overload

import xray
from xray.capture.accessors import Accessor
from xray.capture.indexing import IndexChoice
from xray.capture.policy import CaptureChoice, RedactChoice
from xray.stage_types.base import StageType
from xray_ir_metrics.stage import JudgedStage

__all__ = ["JudgedStage", "judged_stage", "xray_stage_types"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


@xray.hookimpl
def xray_stage_types() -> list[StageType]:
    """The stage type for lists whose relevant items are known."""
    return [JudgedStage()]


@overload
def judged_stage(name: F) -> F: ...
@overload
def judged_stage(
    name: str | None = None,
    *,
    of: type[C],
    relevant: str | Collection[str] | Mapping[str, int] | None = None,
    id: str | int | Callable[[C], Any] | None = None,
    relevance: str | int | Callable[[C], Any] | None = None,
    score: str | int | Callable[[C], Any] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def judged_stage(
    name: str | None = None,
    *,
    relevant: str | Collection[str] | Mapping[str, int] | None = None,
    id: Accessor | None = None,
    relevance: Accessor | None = None,
    score: Accessor | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def judged_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that fetches, filters or orders items of which some are known to be relevant.

    Args:
        name: The stage's name; the callable's own where it is left out.
        fields: ``relevant`` is the judged or clicked ids: the name of the argument that holds them, a collection of
            ids, or a mapping of id to grade. ``relevance`` reads the grade from the candidates instead. ``score`` reads
            the number that the order goes by. ``id``, ``of``, ``capture``, ``redact`` and ``index`` are those of every
            decorator.
    """
    return xray.stage("judged", name, **fields)
