"""The decorators of the built-in stage types: their names, their fields and what a type checker is to know of them.

Each is :func:`xray.decorators.stage` with the type filled in. Of the overloads the first is the decorator without
parentheses, the second checks callables by the candidates' type, the third is for all else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from xray.capture.accessors import Accessor
from xray.capture.indexing import IndexChoice
from xray.capture.policy import CaptureChoice, RedactChoice
from xray.decorators import stage

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


@overload
def filtering_stage(name: F) -> F: ...
@overload
def filtering_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    passed: str | int | Callable[[C], Any] | None = None,
    reason_label: str | int | Callable[[C], Any] | None = None,
    reason_text: str | int | Callable[[C], Any] | None = None,
    checks: str | int | Callable[[C], Any] | None = None,
    scores: str | int | Callable[[C], Any] | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def filtering_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    passed: Accessor | None = None,
    reason_label: Accessor | None = None,
    reason_text: Accessor | None = None,
    checks: Accessor | None = None,
    scores: Accessor | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def filtering_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that decides for each candidate whether it goes on.

    The callable may return every candidate with its flag, only the survivors, a boolean mask over the inputs, or a
    ``(kept, rejected)`` pair.

    Args:
        name: The stage's name; the callable's own where it is left out.
        of: The type of the candidates that go out, for the type checker to check callables by.
        id: Reads a candidate's id; without it the first of ``id``, ``_id``, ``uuid``, ``key`` … that every candidate
            has is taken, else object identity.
        passed: Reads whether a candidate passed.
        reason_label: Reads a short code for why.
        reason_text: Reads why, in prose.
        checks: Reads several criteria at once: a mapping of name to passed, or to ``(passed, detail)``.
        scores: Reads several scores at once: a mapping of name to number.
        labels: The reason labels that are expected; others are counted as unknown.
        capture: What is kept: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        index: Candidates' fields that questions will look for them by: ``["data.price"]``.
    """
    return stage("filtering", name, **fields)


@overload
def scoring_stage(name: F) -> F: ...
@overload
def scoring_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    score: str | int | Callable[[C], Any] | None = None,
    reason_text: str | int | Callable[[C], Any] | None = None,
    checks: str | int | Callable[[C], Any] | None = None,
    scores: str | int | Callable[[C], Any] | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def scoring_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    reason_text: Accessor | None = None,
    checks: Accessor | None = None,
    scores: Accessor | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def scoring_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that gives each candidate a score.

    The callable may return the candidates with a score field, a list of numbers over the inputs, ``(candidate,
    score)`` pairs, or a dict from candidate id to score.

    Args:
        name: The stage's name; the callable's own where it is left out.
        of: The type of the candidates that go out, for the type checker to check callables by.
        id: Reads a candidate's id; without it the first of ``id``, ``_id``, ``uuid``, ``key`` … that every candidate
            has is taken, else object identity.
        score: Reads a candidate's score.
        reason_text: Reads why it scored so, in prose.
        checks: Reads several criteria at once: a mapping of name to passed, or to ``(passed, detail)``.
        scores: Reads several scores at once: a mapping of name to number.
        labels: The reason labels that are expected; others are counted as unknown.
        capture: What is kept: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        index: Candidates' fields that questions will look for them by: ``["data.price"]``.
    """
    return stage("scoring", name, **fields)


@overload
def ranking_stage(name: F) -> F: ...
@overload
def ranking_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    score: str | int | Callable[[C], Any] | None = None,
    reason_text: str | int | Callable[[C], Any] | None = None,
    checks: str | int | Callable[[C], Any] | None = None,
    scores: str | int | Callable[[C], Any] | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def ranking_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    reason_text: Accessor | None = None,
    checks: Accessor | None = None,
    scores: Accessor | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def ranking_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that puts the candidates in an order; the order of what it returns is the rank.

    Args:
        name: The stage's name; the callable's own where it is left out.
        of: The type of the candidates that go out, for the type checker to check callables by.
        id: Reads a candidate's id; without it the first of ``id``, ``_id``, ``uuid``, ``key`` … that every candidate
            has is taken, else object identity.
        score: Reads the number that the order goes by.
        reason_text: Reads why a candidate ranks there, in prose.
        checks: Reads several criteria at once: a mapping of name to passed, or to ``(passed, detail)``.
        scores: Reads several scores at once: a mapping of name to number.
        labels: The reason labels that are expected; others are counted as unknown.
        capture: What is kept: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        index: Candidates' fields that questions will look for them by: ``["data.price"]``.
    """
    return stage("ranking", name, **fields)


@overload
def retrieval_stage(name: F) -> F: ...
@overload
def retrieval_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    score: str | int | Callable[[C], Any] | None = None,
    source: str | int | Callable[[C], Any] | None = None,
    requested: int | str | None = None,
    checks: str | int | Callable[[C], Any] | None = None,
    scores: str | int | Callable[[C], Any] | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def retrieval_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    source: Accessor | None = None,
    requested: int | str | None = None,
    checks: Accessor | None = None,
    scores: Accessor | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def retrieval_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that fetches candidates.

    Args:
        name: The stage's name; the callable's own where it is left out.
        of: The type of the candidates that go out, for the type checker to check callables by.
        id: Reads a candidate's id; without it the first of ``id``, ``_id``, ``uuid``, ``key`` … that every candidate
            has is taken, else object identity.
        score: Reads the score that the source gave.
        source: Reads where the candidate came from.
        requested: How many were asked for: a number, or the name of the argument that says it.
        checks: Reads several criteria at once: a mapping of name to passed, or to ``(passed, detail)``.
        scores: Reads several scores at once: a mapping of name to number.
        labels: The reason labels that are expected; others are counted as unknown.
        capture: What is kept: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        index: Candidates' fields that questions will look for them by: ``["data.price"]``.
    """
    return stage("retrieval", name, **fields)


@overload
def generation_stage(name: F) -> F: ...
@overload
def generation_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    text: str | int | Callable[[C], Any] | None = None,
    reason: str | int | Callable[[C], Any] | None = None,
    checks: str | int | Callable[[C], Any] | None = None,
    scores: str | int | Callable[[C], Any] | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def generation_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    text: Accessor | None = None,
    reason: Accessor | None = None,
    checks: Accessor | None = None,
    scores: Accessor | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def generation_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that makes new candidates: keywords, titles, rules.

    Args:
        name: The stage's name; the callable's own where it is left out.
        of: The type of the candidates that go out, for the type checker to check callables by.
        id: Reads a candidate's id; without it the first of ``id``, ``_id``, ``uuid``, ``key`` … that every candidate
            has is taken, else object identity.
        text: Reads the text that was generated.
        reason: Reads why it was generated, in prose.
        checks: Reads several criteria at once: a mapping of name to passed, or to ``(passed, detail)``.
        scores: Reads several scores at once: a mapping of name to number.
        labels: The reason labels that are expected; others are counted as unknown.
        capture: What is kept: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        index: Candidates' fields that questions will look for them by: ``["data.price"]``.
    """
    return stage("generation", name, **fields)


@overload
def selection_stage(name: F) -> F: ...
@overload
def selection_stage(
    name: str | None = None,
    *,
    of: type[C],
    id: str | int | Callable[[C], Any] | None = None,
    score: str | int | Callable[[C], Any] | None = None,
    reason_text: str | int | Callable[[C], Any] | None = None,
    checks: str | int | Callable[[C], Any] | None = None,
    scores: str | int | Callable[[C], Any] | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
@overload
def selection_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    reason_text: Accessor | None = None,
    checks: Accessor | None = None,
    scores: Accessor | None = None,
    labels: Iterable[str] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> Callable[[F], F]: ...
def selection_stage(name: Any = None, **fields: Any) -> Any:
    """Record a stage that picks one candidate, or a few, out of those that come in.

    Args:
        name: The stage's name; the callable's own where it is left out.
        of: The type of the candidates that go out, for the type checker to check callables by.
        id: Reads a candidate's id; without it the first of ``id``, ``_id``, ``uuid``, ``key`` … that every candidate
            has is taken, else object identity.
        score: Reads the number that the choice goes by.
        reason_text: Reads why a candidate was picked, in prose.
        checks: Reads several criteria at once: a mapping of name to passed, or to ``(passed, detail)``.
        scores: Reads several scores at once: a mapping of name to number.
        labels: The reason labels that are expected; others are counted as unknown.
        capture: What is kept: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        index: Candidates' fields that questions will look for them by: ``["data.price"]``.
    """
    return stage("selection", name, **fields)


@overload
def raw_stage(name: F) -> F: ...
@overload
def raw_stage(name: str | None = None, *, redact: RedactChoice = None) -> Callable[[F], F]: ...
def raw_stage(name: Any = None, *, redact: RedactChoice = None) -> Any:
    """Record any step: what went in and what came out.

    Args:
        name: The stage's name; the callable's own where it is left out.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
    """
    return stage("raw", name, redact=redact)
