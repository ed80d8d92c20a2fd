"""The decorators: what users put on the methods that they already have."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from xray.capture.accessors import Accessor
from xray.capture.parameters import Parameters
from xray.capture.recording import PipelineSpec, StageSpec, begin_run, begin_stage
from xray.exceptions import DecoratorError, XRayError, did_you_mean
from xray.plugins import installed
from xray.runtime import runtime

log = logging.getLogger("xray")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_PIPELINE = "__xray_pipeline__"


@overload
def pipeline(target: T) -> T: ...
@overload
def pipeline(
    target: str | None = None,
    *,
    id: Accessor | None = None,
    version: str | None = None,
    environment: str | None = None,
) -> Callable[[T], T]: ...
def pipeline(
    target: Any = None,
    *,
    id: Accessor | None = None,
    version: str | None = None,
    environment: str | None = None,
) -> Any:
    """Mark a class, or a function, as a pipeline.

    On a class it labels the runs that its ``@entrypoint`` opens; on a function each call is a run.

    Args:
        target: The pipeline's label; the class's or function's name where it is left out.
        id: The user's own id of a run: on a class an attribute of the instance, on a function an argument.
        version: The version of the pipeline's code; the setting ``version`` by default.
        environment: Where it runs; the setting ``environment`` by default.
    """
    if target is not None and not isinstance(target, str):
        return pipeline()(target)

    def decorate(decorated: Any) -> Any:
        spec = PipelineSpec(target or decorated.__name__, id, version, environment)
        if isinstance(decorated, type):
            setattr(decorated, _PIPELINE, spec)
            return decorated
        return _checked(decorated, lambda function: _wrap_run(function, spec))

    return decorate


def entrypoint(method: F) -> F:
    """Open a run for each call of this method of a ``@pipeline`` class; stages called below belong to it."""
    decorated: F = _checked(method, lambda function: _wrap_run(function, None))
    return decorated


@overload
def filtering_stage(name: F) -> F: ...
@overload
def filtering_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    passed: Accessor | None = None,
    reason_label: Accessor | None = None,
    reason_text: Accessor | None = None,
    labels: Iterable[str] | None = None,
) -> Callable[[F], F]: ...
def filtering_stage(
    name: Any = None,
    *,
    id: Accessor | None = None,
    passed: Accessor | None = None,
    reason_label: Accessor | None = None,
    reason_text: Accessor | None = None,
    labels: Iterable[str] | None = None,
) -> Any:
    """Record a stage that decides for each candidate whether it goes on.

    The callable may return every candidate with its flag, only the survivors, a boolean mask over the inputs, or a
    ``(kept, rejected)`` pair.

    Args:
        name: The stage's name; the callable's own where it is left out.
        id: Reads a candidate's id; without it the first of ``id``, ``_id``, ``uuid``, ``key`` … that every candidate
            has is taken, else object identity.
        passed: Reads whether a candidate passed.
        reason_label: Reads a short code for why.
        reason_text: Reads why, in prose.
        labels: The labels that are expected; others are counted as unknown.
    """
    return stage(
        "filtering", name, id=id, passed=passed, reason_label=reason_label, reason_text=reason_text, labels=labels
    )


@overload
def scoring_stage(name: F) -> F: ...
@overload
def scoring_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    reason_text: Accessor | None = None,
) -> Callable[[F], F]: ...
def scoring_stage(
    name: Any = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    reason_text: Accessor | None = None,
) -> Any:
    """Record a stage that gives each candidate a score.

    The callable may return the candidates with a score field, a list of numbers over the inputs, ``(candidate,
    score)`` pairs, or a dict from candidate id to score.

    Args:
        name: The stage's name; the callable's own where it is left out.
        id: Reads a candidate's id; see :func:`filtering_stage`.
        score: Reads a candidate's score.
        reason_text: Reads why it scored so, in prose.
    """
    return stage("scoring", name, id=id, score=score, reason_text=reason_text)


@overload
def ranking_stage(name: F) -> F: ...
@overload
def ranking_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    reason_text: Accessor | None = None,
) -> Callable[[F], F]: ...
def ranking_stage(
    name: Any = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    reason_text: Accessor | None = None,
) -> Any:
    """Record a stage that puts the candidates in an order; the order of what it returns is the rank.

    Args:
        name: The stage's name; the callable's own where it is left out.
        id: Reads a candidate's id; see :func:`filtering_stage`.
        score: Reads the number that the order goes by.
        reason_text: Reads why a candidate ranks there, in prose.
    """
    return stage("ranking", name, id=id, score=score, reason_text=reason_text)


@overload
def retrieval_stage(name: F) -> F: ...
@overload
def retrieval_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    source: Accessor | None = None,
    requested: int | str | None = None,
) -> Callable[[F], F]: ...
def retrieval_stage(
    name: Any = None,
    *,
    id: Accessor | None = None,
    score: Accessor | None = None,
    source: Accessor | None = None,
    requested: int | str | None = None,
) -> Any:
    """Record a stage that fetches candidates.

    Args:
        name: The stage's name; the callable's own where it is left out.
        id: Reads a candidate's id; see :func:`filtering_stage`.
        score: Reads the score that the source gave.
        source: Reads where the candidate came from.
        requested: How many were asked for: a number, or the name of the argument that says it.
    """
    return stage("retrieval", name, id=id, score=score, source=source, requested=requested)


@overload
def generation_stage(name: F) -> F: ...
@overload
def generation_stage(
    name: str | None = None,
    *,
    id: Accessor | None = None,
    text: Accessor | None = None,
    reason: Accessor | None = None,
) -> Callable[[F], F]: ...
def generation_stage(
    name: Any = None,
    *,
    id: Accessor | None = None,
    text: Accessor | None = None,
    reason: Accessor | None = None,
) -> Any:
    """Record a stage that makes new candidates: keywords, titles, rules.

    Args:
        name: The stage's name; the callable's own where it is left out.
        id: Reads a candidate's id; see :func:`filtering_stage`. A generated string is its own id.
        text: Reads the text that was generated.
        reason: Reads why it was generated, in prose.
    """
    return stage("generation", name, id=id, text=text, reason=reason)


@overload
def raw_stage(name: F) -> F: ...
@overload
def raw_stage(name: str | None = None) -> Callable[[F], F]: ...
def raw_stage(name: Any = None) -> Any:
    """Record any step: what went in and what came out.

    Args:
        name: The stage's name; the callable's own where it is left out.
    """
    return stage("raw", name)


def stage(type: str, name: Any = None, **fields: Any) -> Any:
    """Record a stage of any type, a plugin's included.

    Args:
        type: The stage type's name.
        name: The stage's name; the callable's own where it is left out.
        fields: What the type's decorator accepts, and ``id``.
    """
    if name is not None and not isinstance(name, str):
        return stage(type, None, **fields)(name)

    def decorate(decorated: F) -> F:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            return _wrap_stage(function, _stage_spec(type, name or function.__name__, function, fields))

        wrapped: F = _checked(decorated, wrap)
        return wrapped

    return decorate


def _stage_spec(type_name: str, name: str, function: Callable[..., Any], given: dict[str, Any]) -> StageSpec:
    stage_type = installed().stage_type(type_name)
    kinds = {"id": "accessor"} | {field.name: field.kind for field in stage_type.fields}
    accessors: dict[str, Accessor] = {}
    options: dict[str, Any] = {}
    for field, value in given.items():
        if field not in kinds:
            raise DecoratorError(
                f"@{type_name}_stage('{name}') has no field '{field}'.", path=field, hint=did_you_mean(field, kinds)
            )
        if value is None:
            continue
        if kinds[field] == "option":
            options[field] = value
        elif isinstance(value, (str, int)) or callable(value):
            accessors[field] = value
        else:
            raise DecoratorError(
                f"{field}={value!r} of @{type_name}_stage('{name}') is no accessor.",
                path=field,
                hint="Write a name, a dotted path, a tuple index or a callable.",
            )
    return StageSpec(name, stage_type, function, accessors, options)


def _checked(decorated: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """Wrap a callable; where that cannot be, say so once and give it back untouched (strict mode: raise)."""
    try:
        for kind in (staticmethod, classmethod):
            if isinstance(decorated, kind):
                return kind(wrap(decorated.__func__))
        if not callable(decorated):
            raise DecoratorError(f"{decorated!r} cannot be called, so there is nothing to record.")
        return wrap(decorated)
    except Exception as error:
        if runtime.settings.strict:
            if isinstance(error, XRayError):
                raise
            raise DecoratorError(f"{decorated!r} cannot be decorated: {error}") from error
        log.warning("X-Ray: %s It runs undecorated.", error)
        return decorated


def _wrap_stage(function: Callable[..., Any], spec: StageSpec) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def record_async(*args: Any, **kwargs: Any) -> Any:
            recording = begin_stage(spec, args, kwargs) if runtime.settings.enabled else None
            if recording is None:
                return await function(*args, **kwargs)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                recording.fail(error)
                raise
            recording.finish(result)
            return result

        return record_async

    @functools.wraps(function)
    def record(*args: Any, **kwargs: Any) -> Any:
        recording = begin_stage(spec, args, kwargs) if runtime.settings.enabled else None
        if recording is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            recording.fail(error)
            raise
        recording.finish(result)
        return result

    return record


def _wrap_run(function: Callable[..., Any], spec: PipelineSpec | None) -> Callable[..., Any]:
    parameters = Parameters(function, takes_candidates=False)

    def pipeline_of(args: tuple[Any, ...]) -> PipelineSpec:
        if spec is not None:
            return spec
        found = getattr(args[0], _PIPELINE, None) if args else None
        if isinstance(found, PipelineSpec):
            return found
        owner = function.__qualname__.rpartition(".")[0].rpartition(".")[2]
        return PipelineSpec(owner if owner and owner != "<locals>" else function.__name__)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            recording = begin_run(pipeline_of(args), parameters, args, kwargs) if runtime.settings.enabled else None
            if recording is None:
                return await function(*args, **kwargs)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                recording.fail(error)
                raise
            recording.finish(result)
            return result

        return run_async

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        recording = begin_run(pipeline_of(args), parameters, args, kwargs) if runtime.settings.enabled else None
        if recording is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            recording.fail(error)
            raise
        recording.finish(result)
        return result

    return run
