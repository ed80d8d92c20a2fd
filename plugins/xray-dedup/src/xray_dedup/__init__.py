"""Near-duplicates for X-Ray: the stage type ``dedup`` and its decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import xray
from xray.capture.accessors import Accessor
from xray.capture.indexing import IndexChoice
from xray.capture.policy import CaptureChoice, RedactChoice
from xray.stage_types.base import StageType
from xray_dedup.stage import DedupStage

__all__ = ["DedupStage", "dedup_stage", "xray_stage_types"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


@xray.hookimpl
def xray_stage_types() -> list[StageType]:
    """The near-duplicate stage type."""
    return [DedupStage()]


@overload
def dedup_stage(name: F) -> F: ...
@overload
def dedup_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    cluster: str | int | Callable[[C], Any] | None = None,
    similarity: str | int | Callable[[C], Any] | None = None,
    text: str | int | Callable[[C], Any] | None = None,
    threshold: float | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def dedup_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    cluster: Accessor | None = None,
    similarity: Accessor | None = None,
    text: Accessor | None = None,
    threshold: float | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def dedup_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that groups near-duplicates, or keeps one of each group.

    Args:
        name: The stage's name; the callable's own where it is left out.
        fields: ``cluster`` reads the group of a candidate, ``similarity`` how near it is to its group; ``text`` reads
            the text by which candidates are compared where there are no groups, ``threshold`` is the similarity
            (Jaccard, 0 to 1) from which two are near-duplicates. ``id``, ``of``, ``capture``, ``redact`` and
            ``index`` are those of every decorator.
    """
    return xray.stage("dedup", name, **fields)
