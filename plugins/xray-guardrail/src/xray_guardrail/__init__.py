"""Moderation and classification for X-Ray: the stage type ``guardrail`` and its decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import xray
from xray.capture.accessors import Accessor
from xray.capture.indexing import IndexChoice
from xray.capture.policy import CaptureChoice, RedactChoice
from xray.stage_types.base import StageType
from xray_guardrail.stage import GuardrailStage

__all__ = ["GuardrailStage", "guardrail_stage", "xray_stage_types"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


@xray.hookimpl
def xray_stage_types() -> list[StageType]:
    """The guardrail stage type."""
    return [GuardrailStage()]


@overload
def guardrail_stage(name: F) -> F: ...
@overload
def guardrail_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    policies: str | int | Callable[[C], Any] | None = None,
    confidence: str | int | Callable[[C], Any] | None = None,
    expected: str | int | Callable[[C], Any] | None = None,
    previous: str | int | Callable[[C], Any] | None = None,
    reason_text: str | int | Callable[[C], Any] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def guardrail_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    policies: Accessor | None = None,
    confidence: Accessor | None = None,
    expected: Accessor | None = None,
    previous: Accessor | None = None,
    reason_text: Accessor | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def guardrail_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that holds items against policies.

    Args:
        name: The stage's name; the callable's own where it is left out.
        fields: ``policies`` reads a mapping of policy to whether it is violated (true, false, or an object with
            ``flagged`` and ``confidence``); ``confidence`` how sure the verdict on the item is, 0 to 1; ``expected``
            whether it should have been blocked, where that is known; ``previous`` whether it was blocked before;
            ``reason_text`` why, in prose. ``id``, ``of``, ``capture``, ``redact`` and ``index`` are those of every
            decorator.
    """
    return xray.stage("guardrail", name, **fields)
