"""What users say from inside a stage, without having to pass anything around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from xray.capture import propagated
from xray.capture.stage import ActiveStage
from xray.context import current

F = TypeVar("F", bound=Callable[..., Any])


class NoStage:
    """Takes what is said outside of any stage, and does nothing with it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(ActiveStage, name):
            raise AttributeError(f"A stage has no '{name}'.")
        return _nothing if callable(getattr(ActiveStage, name)) else None

    def __bool__(self) -> bool:
        return False


def _nothing(*_: Any, **__: Any) -> None:
    pass


_no_stage = NoStage()


def current_stage() -> Any:
    """The innermost stage that the current thread or task is in.

    Returns:
        An ``ActiveStage``; outside of any stage something that takes the same calls, does nothing and is false.
    """
    stage = current.get()
    found = None if stage is None else stage.stage
    return _no_stage if found is None else found


def reject(candidate: Any, label: str | None = None, text: str | None = None) -> None:
    """Record that the current stage rejected a candidate.

    Args:
        candidate: The candidate, or its id.
        label: A short, countable code for why: ``price_too_high``.
        text: Why, in prose.
    """
    current_stage().reject(candidate, label, text)


def accept(candidate: Any, label: str | None = None, text: str | None = None) -> None:
    """Record that a candidate passed the current stage.

    Args:
        candidate: The candidate, or its id.
        label: A short, countable code for why.
        text: Why, in prose.
    """
    current_stage().accept(candidate, label, text)


def score(candidate: Any, value: float, name: str | None = None) -> None:
    """Record a candidate's score in the current stage.

    Args:
        candidate: The candidate, or its id.
        value: The score.
        name: The name of the score, where there are several.
    """
    current_stage().score(candidate, value, name)


def note(text: str) -> None:
    """Add a line to the current stage's reasoning."""
    current_stage().note(text)


def llm(**facts: Any) -> None:
    """Record a model call of the current stage.

    Args:
        facts: ``model``, ``input_tokens``, ``output_tokens``, ``temperature``, ``cost``, and whatever else is known.
    """
    current_stage().llm(**facts)


def propagate(function: F) -> F:
    """Let a function, run by another thread, record into the stage or run that is current here and now.

    ``asyncio.to_thread`` and tasks take it along by themselves; the threads of a pool and ``loop.run_in_executor`` do
    not. Without it, a stage that is a method belongs to the run that its instance has under way, where that is one
    alone, and any other stage to a run of its own.

    Args:
        function: What the other thread will run: plain, a coroutine function, or a generator of either kind:
            ``pool.map(xray.propagate(judge), candidates)``.
    """
    inside: F = propagated.propagate(function)  # type: ignore[assignment]
    return inside
