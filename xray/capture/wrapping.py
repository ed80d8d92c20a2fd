"""The wrapper of each kind of callable, made once at decoration."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from xray.capture.parameters import Parameters
from xray.capture.run import PipelineSpec, begin_run, begin_stage
from xray.capture.spec import StageSpec
from xray.capture.yielded import Yielded
from xray.runtime import state

Begin = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""Starts a recording with ``returned(result)`` and ``raised(error)``, which never raise; or gives None."""

PIPELINE_ATTRIBUTE = "__xray_pipeline__"
"""Where a class keeps what ``@pipeline`` was given."""


def wrap_stage(function: Callable[..., Any], spec: StageSpec) -> Callable[..., Any]:
    """Record each call as a stage.

    Args:
        function: A plain, coroutine, generator or async-generator function.
        spec: The decorator.
    """
    begin = functools.partial(begin_stage, spec)
    if inspect.isgeneratorfunction(function):
        return _wrap_generator(function, begin)
    if inspect.isasyncgenfunction(function):
        return _wrap_async_generator(function, begin)
    return _wrap_call(function, begin)


def wrap_run(function: Callable[..., Any], spec: PipelineSpec | None) -> Callable[..., Any]:
    """Record each call as a run, wherever it is called: inside of another run or stage, of the same instance too.

    A pipeline that calls another one, or itself, has decided something of its own; its run is asked about by its own
    label. While two runs are under way on one instance, its methods on other threads join neither.

    Args:
        function: A plain, coroutine, generator or async-generator function.
        spec: The pipeline; None for an entry point, which takes it from its class.
    """
    parameters = Parameters(function, takes_candidates=False)
    owner_name = function.__qualname__.rpartition(".")[0].rpartition(".")[2]
    of_class = PipelineSpec(owner_name if owner_name and owner_name != "<locals>" else function.__name__)

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = spec or (getattr(args[0], PIPELINE_ATTRIBUTE, None) if args else None)
        return begin_run(found if isinstance(found, PipelineSpec) else of_class, parameters, args, kwargs)

    if inspect.isgeneratorfunction(function):
        return _wrap_generator(function, begin)
    if inspect.isasyncgenfunction(function):
        return _wrap_async_generator(function, begin)
    return _wrap_call(function, begin)


def _wrap_call(function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def record_async(*args: Any, **kwargs: Any) -> Any:
            recording = begin(args, kwargs) if state.enabled else None
            if recording is None:
                return await function(*args, **kwargs)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                recording.raised(error)
                raise
            recording.returned(result)
            return result

        return record_async

    @functools.wraps(function)
    def record(*args: Any, **kwargs: Any) -> Any:
        if not state.enabled:
            return function(*args, **kwargs)
        recording = begin(args, kwargs)
        if recording is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            recording.raised(error)
            raise
        recording.returned(result)
        return result

    return record


def _wrap_generator(function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    """Like ``yield from``, and in and out of the stage at each step.

    Whatever the consumer throws in goes to the generator as it came, ``GeneratorExit`` included: what the generator
    makes of it, a plain one would have made of it.
    """

    @functools.wraps(function)
    def record(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        recording = begin(args, kwargs) if state.enabled else None
        if recording is None:
            return (yield from function(*args, **kwargs))
        yielded = Yielded(recording)
        sent: Any = None
        thrown: BaseException | None = None
        inner: Any = None
        while True:
            yielded.resume()
            try:
                if inner is None:
                    inner = function(*args, **kwargs)
                    args = kwargs = ()  # type: ignore[assignment] # as a plain generator, hold what its code holds
                item = inner.send(sent) if thrown is None else inner.throw(thrown)
            except StopIteration as stop:
                yielded.finished(stop.value, abandoned=isinstance(thrown, GeneratorExit))
                return stop.value
            except BaseException as error:
                if error is thrown and isinstance(error, GeneratorExit):
                    yielded.finished(None, abandoned=True)
                else:
                    yielded.raised(error)
                raise
            finally:
                sent = thrown = None
            yielded.pause(item)
            try:
                sent = yield item
            except BaseException as error:
                thrown = error
            finally:
                item = None

    return record


def _wrap_async_generator(function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    @functools.wraps(function)
    async def record(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        recording = begin(args, kwargs) if state.enabled else None
        yielded = Yielded(recording) if recording is not None else None
        sent: Any = None
        thrown: BaseException | None = None
        inner: Any = None
        while True:
            if yielded is not None:
                yielded.resume()
            try:
                if inner is None:
                    inner = function(*args, **kwargs)
                    args = kwargs = ()  # type: ignore[assignment] # as a plain generator, hold what its code holds
                    step = first_step(inner)
                elif thrown is None:
                    step = inner.asend(sent)
                else:
                    step = inner.athrow(thrown)
                item = await step
            except StopAsyncIteration:
                if yielded is not None:
                    yielded.finished(None, abandoned=isinstance(thrown, GeneratorExit))
                return
            except BaseException as error:
                if yielded is None:
                    raise
                if error is thrown and isinstance(error, GeneratorExit):
                    yielded.finished(None, abandoned=True)
                else:
                    yielded.raised(error)
                raise
            finally:
                sent = thrown = step = None
            if yielded is not None:
                yielded.pause(item)
            try:
                sent = yield item
            except BaseException as error:
                thrown = error
            finally:
                item = None

    return record


def first_step(inner: Any) -> Any:
    """Begin an async generator that nobody else is to finish.

    The event loop closes the generators that it saw beginning. It sees the wrapper, which closes this one: seen too,
    both would be closed at once when the loop shuts down.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
    try:
        return inner.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)
