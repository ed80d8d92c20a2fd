"""Candidates by field: each field of a list of dicts as one column of msgpack, taken in one pass.

The pass is compiled code (``xray/_fields.c``), built where there is a compiler. Where it is not there, and for
candidates that it does not take, the list is taken as it is, candidate by candidate; what is recorded is the same.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import msgspec

from xray.capture.snapshot import to_json

Take = Callable[[object, tuple[str, ...], bool], list[bytes] | None]

_decode_plain = msgspec.msgpack.Decoder(list[str | bool | int | None]).decode


def _compiled() -> Take | None:
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        from xray import _fields
    except ImportError:
        return None
    return _fields.take


take_compiled: Take | None = _compiled()
"""Takes fields as columns of msgpack; None where it was not built. See ``xray/_fields.c`` for what it takes."""


if TYPE_CHECKING:
    Lazy = Sequence[Any]
else:
    # Abstract base classes make every ``isinstance`` a call of Python code, and these are asked for at every stage.
    Lazy = object


class FieldColumns(Lazy):
    """Candidates as the columns of their fields, which are still msgpack.

    Args:
        names: The fields' names.
        packed: The msgpack of each field's values.
        count: How many candidates there are.
    """

    def __init__(self, names: Sequence[str], packed: Sequence[bytes], count: int) -> None:
        self.packed = dict(zip(names, packed, strict=True))
        self._count = count
        self._columns: dict[str, list[Any]] = {}
        self._same: dict[str, FieldColumns] = {}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return self.rows[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    @property
    def size_bytes(self) -> int:
        """What the columns weigh."""
        return sum(map(len, self.packed.values()))

    def column(self, name: str) -> list[Any] | None:
        """The values of a field as plain JSON; None where there is no such field."""
        if name in self._same:
            return self._same[name].column(name)
        found = self._columns.get(name)
        if found is None and name in self.packed:
            found = self._columns[name] = _decoded(self.packed[name])
        return found

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The candidates one by one, as plain JSON."""
        return rows_of({to_json(name): self.column(name) or [] for name in self.packed}, self._count)

    def picked(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """The candidates at these places."""
        columns = {to_json(name): self.column(name) or [] for name in self.packed}
        return [{name: values[place] for name, values in columns.items()} for place in places]

    def compare(self, other: FieldColumns) -> None:
        """Find the fields that are the very same, for every candidate, in another list; they are decoded once only."""
        self._same = {name: other for name, packed in self.packed.items() if other.packed.get(name) == packed}

    def changed(self) -> FieldColumns:
        """The fields that are not the very same in the list that this one was compared with."""
        changed = {name: packed for name, packed in self.packed.items() if name not in self._same}
        return FieldColumns(tuple(changed), tuple(changed.values()), self._count)

    def raw(self) -> dict[str, msgspec.Raw]:
        """The columns as they go on the wire."""
        return {name: msgspec.Raw(packed) for name, packed in self.packed.items()}


def _decoded(packed: bytes) -> list[Any]:
    """The values of a column as plain JSON."""
    try:
        # What this decoder takes is JSON as it is; where it does not, it mostly finds out at the first value.
        return _decode_plain(packed)
    except msgspec.ValidationError:
        values: list[Any] = msgspec.msgpack.decode(packed)
    kinds = set(map(type, values))
    # The sum of finite numbers is finite, or they are so large that a closer look is no matter.
    if kinds <= {float, type(None)} and math.isfinite(sum(filter(None, values))):
        return values
    plain: list[Any] = to_json(values)
    return plain


BY_FIELD = ("data", "output", "returned")
"""The columns of the wire whose candidates may come by field: as an object of lists instead of a list of objects."""


def rows_of(columns: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Any]]:
    """Candidates that came by field, one by one.

    Args:
        columns: Field → as many values as there are candidates.
        count: How many there are.
    """
    if not columns:
        return [{} for _ in range(count)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def with_rows(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns of an event, decoded, with candidates that came by field one by one.

    Args:
        columns: As the wire has them; not changed.
    """
    count = len(columns.get("candidate_id") or columns.get("id") or ())
    return {
        name: rows_of(values, count) if name in BY_FIELD and isinstance(values, dict) else values
        for name, values in columns.items()
    }
