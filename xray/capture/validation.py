"""Checking, at decoration, that the names a decorator was given are there.

The return annotation, or ``of=``, says what the candidates are. Only what is certain is an error: a name that a
dataclass, a TypedDict, a NamedTuple, an attrs class, a pydantic model or an annotated class without ``__getattr__``
does not have. Whatever cannot be resolved is passed over.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from xray.exceptions import DecoratorError, did_you_mean

if TYPE_CHECKING:
    from xray.capture.spec import StageSpec


def check_names(function: Callable[..., Any], spec: StageSpec, of: Any = None) -> None:
    """Check the accessors that are names against the type of the candidates that go out.

    Args:
        function: The callable, undecorated.
        spec: The decorator.
        of: The candidates' type, or None to take it from the return annotation.

    Raises:
        DecoratorError: A name is not there; the hint names the nearest one.
    """
    element = of if of is not None else _element_of(function)
    if element is None:
        return
    names = field_names(element)
    if names is None:
        return
    for field, accessor in spec.accessors.items():
        if not isinstance(accessor, str) or field == "id":
            continue
        _check_path(element, accessor, field, spec.name)
    given = spec.accessors.get("id")
    if isinstance(given, str) and of is not None:
        _check_path(element, given, "id", spec.name)


def field_names(kind: Any) -> set[str] | None:
    """The names that a candidate of a type has, or None where they cannot be known."""
    if not isinstance(kind, type) or kind in (dict, object, list, tuple, str, int, float, bool):
        return None
    is_model = hasattr(kind, "model_fields") and hasattr(kind, "model_dump")
    if hasattr(kind, "__getattr__") and not is_model:  # a model has one for its private attributes
        return None
    names = {name for name in dir(kind) if not name.startswith("__")}
    if typing.is_typeddict(kind):
        return {*getattr(kind, "__required_keys__", ()), *getattr(kind, "__optional_keys__", ())}
    if dataclasses.is_dataclass(kind):
        return names | {field.name for field in dataclasses.fields(kind)}
    if hasattr(kind, "_fields") and issubclass(kind, tuple):
        return names
    if hasattr(kind, "__attrs_attrs__"):
        return names | {attribute.name for attribute in kind.__attrs_attrs__}
    if is_model:
        extra = getattr(kind, "model_config", {}).get("extra") == "allow"
        return (
            None
            if extra
            else names | set(getattr(kind, "model_fields", ())) | set(getattr(kind, "model_computed_fields", ()))
        )
    # A plain class may set anything in its methods: nothing is certain about its attributes.
    return None


def _check_path(element: Any, path: str, field: str, stage: str) -> None:
    here = element
    for segment in path.split("."):
        names = field_names(here)
        if names is None:
            return
        if segment not in names:
            raise DecoratorError(
                f"{field}='{path}' of the stage '{stage}': {here.__name__} has no field '{segment}'.",
                path=field,
                hint=did_you_mean(segment, {name for name in names if not name.startswith("_")}),
            )
        here = _type_of_field(here, segment)


def _type_of_field(kind: Any, name: str) -> Any:
    try:
        found = typing.get_type_hints(kind).get(name)
    except Exception:
        return None
    return _without_none(found)


def _element_of(function: Callable[..., Any]) -> Any:
    """The type of the candidates that a callable returns or yields, or None where it does not say."""
    try:
        annotation = typing.get_type_hints(function).get("return")
    except Exception:
        return None  # a name that exists only for type checkers
    annotation = _without_none(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or not arguments:
        return None
    name = getattr(origin, "__name__", "")
    if name in ("Coroutine", "Awaitable"):
        return None
    if origin is tuple:
        # A pair of lists; or a row, which is a candidate itself and has no names.
        first = arguments[0]
        inner = get_args(first)
        is_pair = len(arguments) == 2 and get_origin(first) in (list, tuple) and inner
        homogeneous = len(arguments) == 2 and arguments[1] is Ellipsis
        return inner[0] if is_pair else first if homogeneous else None
    if name in (
        "list",
        "Sequence",
        "Iterable",
        "Iterator",
        "Generator",
        "AsyncIterator",
        "AsyncGenerator",
        "Collection",
    ):
        element = arguments[0]
        return None if get_origin(element) is tuple else _without_none(element)
    return None


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        others = [argument for argument in get_args(annotation) if argument is not type(None)]
        return others[0] if len(others) == 1 else None
    return annotation
