"""Taking the current run or stage along into a function that another thread runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from xray.capture.wrapping import first_step
from xray.context import ActiveRun, current


class _Place:
    """The run or stage that a function is in whenever its code runs; blocks that it opens may change it.

    Args:
        here: What was current where the function was taken along.
    """

    def __init__(self, here: Any) -> None:
        self._here: ActiveRun | Any = here
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = current.set(self._here)

    def __exit__(self, *_: object) -> None:
        # A block that a generator is in stays open over its ``yield``.
        self._here = current.get()
        current.reset(self._token)


def propagate(function: Callable[..., Any]) -> Callable[..., Any]:
    """See :func:`xray.propagate`."""
    here = current.get()
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def inside_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _steps(function(*args, **kwargs), _Place(here)))

        return inside_generator
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def inside_async_generator(*args: Any, **kwargs: Any) -> Any:
            return _async_steps(function(*args, **kwargs), _Place(here))

        return inside_async_generator
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def inside_async(*args: Any, **kwargs: Any) -> Any:
            with _Place(here):
                return await function(*args, **kwargs)

        return inside_async

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with _Place(here):
            return function(*args, **kwargs)

    return inside


def _steps(generator: Generator[Any, Any, Any], place: _Place) -> Generator[Any, Any, Any]:
    """Like ``yield from``, in the place at each step and out of it while the consumer has the item."""
    sent: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            with place:
                item = generator.send(sent) if thrown is None else generator.throw(thrown)
        except StopIteration as stop:
            return stop.value
        finally:
            sent = thrown = None
        try:
            sent = yield item
        except BaseException as error:
            thrown = error


async def _async_steps(generator: AsyncGenerator[Any, Any], place: _Place) -> AsyncGenerator[Any, Any]:
    step = first_step(generator)
    while True:
        try:
            with place:
                item = await step
        except StopAsyncIteration:
            return
        try:
            step = generator.asend((yield item))
        except BaseException as error:
            step = generator.athrow(error)
