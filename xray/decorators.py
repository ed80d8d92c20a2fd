"""The decorators: what users put on the methods that they already have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from xray.capture.accessors import Accessor
from xray.capture.indexing import IndexChoice, read_index
from xray.capture.policy import CaptureChoice, KeepIf, RedactChoice, keep_failures
from xray.capture.run import PipelineSpec
from xray.capture.spec import StageSpec
from xray.capture.validation import check_names
from xray.capture.wrapping import PIPELINE_ATTRIBUTE, wrap_run, wrap_stage
from xray.exceptions import DecoratorError, XRayError, did_you_mean
from xray.plugins import installed
from xray.runtime import runtime

log = logging.getLogger("xray")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@overload
def pipeline(
    target: str | None = None,
    *,
    id: Accessor | None = None,
    version: str | None = None,
    environment: str | None = None,
    tags: Iterable[str] = (),
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    sample_rate: float | None = None,
    keep_if: KeepIf | str | None = None,
) -> Callable[[T], T]: ...
@overload
def pipeline(target: T) -> T: ...
def pipeline(
    target: Any = None,
    *,
    id: Accessor | None = None,
    version: str | None = None,
    environment: str | None = None,
    tags: Iterable[str] = (),
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    sample_rate: float | None = None,
    keep_if: KeepIf | str | None = None,
) -> Any:
    """Mark a class, or a function, as a pipeline.

    On a class it labels the runs that its ``@entrypoint`` opens; on a function each call is a run.

    Args:
        target: The pipeline's label; the class's or function's name where it is left out.
        id: The user's own id of a run: on a class an attribute of the instance, on a function an argument.
        version: The version of the pipeline's code; the setting ``version`` by default.
        environment: Where it runs; the setting ``environment`` by default.
        tags: Words to filter its runs by.
        capture: What is kept of its stages: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        sample_rate: The share of runs that is recorded, from 0 to 1; decided when a run begins.
        keep_if: Keeps a run at its end although it was not sampled: ``"failure"``, or a callable that is given what is
            known of the run (``xray.RunOutcome``).
    """
    if target is not None and not isinstance(target, str):
        return pipeline()(target)

    def decorate(decorated: Any) -> Any:
        def spec() -> PipelineSpec:
            runtime.policy.refined(capture, redact)  # raises where it cannot be
            if sample_rate is not None and not 0 <= sample_rate <= 1:
                raise DecoratorError(f"sample_rate={sample_rate!r} is no share from 0 to 1.", path="sample_rate")
            label = target or decorated.__name__
            kept = keep_if_of(keep_if)
            return PipelineSpec(label, id, version, environment, capture, redact, sample_rate, kept, tuple(tags))

        if isinstance(decorated, type):
            made = _or_untouched(decorated, spec)
            if made is not None:
                setattr(decorated, PIPELINE_ATTRIBUTE, made)
            return decorated
        return _checked(decorated, lambda function: wrap_run(function, spec()))

    return decorate


def entrypoint(method: F) -> F:
    """Open a run for each call of this method of a ``@pipeline`` class; stages called below belong to it."""
    decorated: F = _checked(method, lambda function: wrap_run(function, None))
    return decorated


def stage(
    type: str,
    name: Any = None,
    *,
    of: Any = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
    **fields: Any,
) -> Any:
    """Record a stage of any type, a plugin's included.

    Args:
        type: The stage type's name.
        name: The stage's name; the callable's own where it is left out.
        of: The type of the candidates that go out, where the return annotation does not say it.
        capture: What is kept: ``full``, ``sampled``, ``summary`` or a strategy of ``xray.sampling``.
        redact: What is made unreadable before it leaves the process: names, patterns, callables.
        index: Candidates' fields that questions will look for them by: ``["data.price"]``; stored with the stage.
        fields: What the type's decorator accepts, and ``id``, ``checks``, ``scores`` and ``labels``.
    """
    if name is not None and not isinstance(name, str):
        return stage(type, None, of=of, capture=capture, redact=redact, index=index, **fields)(name)

    def decorate(decorated: F) -> F:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            spec = make_spec(type, name or function.__name__, function, fields, capture, redact, index)
            check_names(function, spec, of)
            return wrap_stage(function, spec)

        wrapped: F = _checked(decorated, wrap)
        return wrapped

    return decorate


def make_spec(
    type_name: str,
    name: str,
    function: Callable[..., Any] | None,
    given: dict[str, Any],
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    index: IndexChoice = None,
) -> StageSpec:
    """Check what a stage was given, and work it out for the calls.

    Args:
        type_name: The stage type.
        name: The stage's name.
        function: The callable, or None for a stage that is opened by hand.
        given: Field → accessor or option; None stands for left out.
        capture: What is kept of it.
        redact: What is made unreadable.
        index: Candidates' fields that questions will look for them by.

    Raises:
        XRayError: A field is unknown, is no accessor, or a choice cannot be.
    """
    stage_type = installed().stage_type(type_name)
    kinds = {field.name: field.kind for field in stage_type.all_fields()}
    runtime.policy.refined(capture, redact)  # raises where it cannot be
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
    return StageSpec(
        name, stage_type, function, accessors, options, capture, redact, read_index(index, stage_type, name)
    )


def keep_if_of(given: KeepIf | str | None) -> KeepIf | None:
    """The condition that ``keep_if=`` names.

    Args:
        given: ``"failure"``, a callable, or None.

    Raises:
        DecoratorError: It is none of these.
    """
    if given is None or callable(given):
        return given
    if given in ("failure", "failures"):
        return keep_failures
    raise DecoratorError(
        f"keep_if={given!r} is no condition.",
        path="keep_if",
        hint="Write 'failure', or a callable of the run's outcome.",
    )


def _checked(decorated: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """Wrap a callable; where that cannot be, say so once and give it back untouched (strict mode: raise)."""

    def make() -> Any:
        for kind in (staticmethod, classmethod):
            if isinstance(decorated, kind):
                return kind(wrap(decorated.__func__))
        if not callable(decorated):
            raise DecoratorError(f"{decorated!r} cannot be called, so there is nothing to record.")
        return wrap(decorated)

    made = _or_untouched(decorated, make)
    return decorated if made is None else made


def _or_untouched(decorated: Any, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except Exception as error:
        if runtime.settings.strict:
            if isinstance(error, XRayError):
                raise
            raise DecoratorError(f"{decorated!r} cannot be decorated: {error}") from error
        log.warning("X-Ray: %s It runs undecorated.", error)
        return None
