"""Field accessors: how a value is read from a candidate.

An accessor is a name (``"passed"``), a dotted path (``"product.id"``), a tuple index (``1``) or a callable. The
first three read live objects and their decoded snapshots alike; a callable sees only live objects, on the caller's
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

Accessor = str | int | Callable[[Any], Any]


class Missing:
    """The type of ``MISSING``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()
"""What reading gives where there is nothing to read; unlike None, which a candidate may hold."""

ID_NAMES = ("id", "_id", "uuid", "key", "sku", "asin", "doc_id", "document_id", "item_id", "product_id", "candidate_id")
"""The names that are tried, in this order, where ``id=`` is left out."""

SCALARS = (str, int, float, bool)


def compile_accessor(accessor: Accessor) -> Callable[[Any], Any]:
    """A function that reads the accessor's value from a candidate, or gives ``MISSING``; it never raises.

    Args:
        accessor: A name, a dotted path, a tuple index or a callable.
    """
    if isinstance(accessor, int):
        return lambda item: _read_index(item, accessor)
    if isinstance(accessor, str):
        if "." not in accessor:
            return lambda item: _read_name(item, accessor)
        segments = accessor.split(".")
        return lambda item: _read_path(item, segments)
    return lambda item: _call(accessor, item)


def reads_from_snapshot(accessor: Accessor, types: Iterable[type]) -> bool:
    """Whether the accessor gives the same on the snapshots of items of these types as on the items.

    It does not for callables and for attributes that are computed (properties), which no snapshot holds.
    """
    if isinstance(accessor, int):
        return True
    if not isinstance(accessor, str):
        return False
    first = accessor.split(".", 1)[0]
    return all(not isinstance(getattr(kind, first, None), property) for kind in types)


def infer_id_name(items: Sequence[Any]) -> str | None:
    """The first of ``ID_NAMES`` that every item has, or None.

    Args:
        items: Live objects or snapshots; pairs such as ``(item, score)`` count by their first element.
    """
    if not items:
        return None
    if set(map(type, items)) == {dict}:
        # The common case, at the price of one lookup a candidate.
        return next((n for n in ID_NAMES if n in items[0] and all(item.get(n) is not None for item in items)), None)
    first = core(items[0])
    for name in ID_NAMES:
        if has_id(first, name) and all(has_id(core(item), name) for item in items):
            return name
    return None


def core(item: Any) -> Any:
    """The candidate itself: of a pair such as ``(item, score)`` the item, else what was given.

    A tuple that begins with a text or a number is no such pair but a row, a candidate of its own.
    """
    if isinstance(item, (tuple, list)) and len(item) >= 2 and not hasattr(item, "_fields"):
        first = item[0]
        return item if first is None or isinstance(first, SCALARS) else first
    return item


def row_id(item: Any) -> Any:
    """The text or whole number that a row ``("b00x", 0.7)`` begins with, or ``MISSING``."""
    if isinstance(item, (tuple, list)) and item and type(item[0]) in (str, int):
        return item[0]
    return MISSING


def has_id(item: Any, name: str) -> bool:
    """Whether a candidate has an id under that name."""
    found = _read_name(item, name)
    return found is not MISSING and found is not None and not callable(found)


def _read_name(item: Any, name: str) -> Any:
    try:
        if isinstance(item, Mapping):
            return item.get(name, MISSING)
        return getattr(item, name, MISSING)
    except Exception:
        return MISSING


def _read_index(item: Any, index: int) -> Any:
    if isinstance(item, (str, bytes)):
        return MISSING  # a letter of a text is no field of it
    try:
        return item[index]
    except Exception:
        return MISSING


def _read_path(item: Any, segments: list[str]) -> Any:
    for segment in segments:
        if isinstance(item, (list, tuple)) and segment.isdigit():
            item = _read_index(item, int(segment))
        else:
            item = _read_name(item, segment)
        if item is MISSING:
            return MISSING
    return item


def _call(accessor: Callable[[Any], Any], item: Any) -> Any:
    try:
        return accessor(item)
    except Exception:
        return MISSING
