"""Lists of objects of one form, by field: looked at, compared and stored as a few lists in place of many dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from xray.capture.call import with_output
from xray.stage_types.base import Columns


class Table(Sequence[Any]):
    """What a list of dicts is that all have the same keys in the same order; the dicts are made when asked for.

    Args:
        keys: The keys.
        columns: One list of values a key.
        count: How many dicts there are.
    """

    __slots__ = ("_count", "columns", "keys")

    def __init__(self, keys: tuple[str, ...], columns: Sequence[Sequence[Any]], count: int) -> None:
        self.keys = keys
        self.columns = columns
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Table: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return Table(self.keys, [column[place] for column in self.columns], len(range(self._count)[place]))
        if not -self._count <= place < self._count:
            raise IndexError(place)
        return dict(zip(self.keys, (column[place] for column in self.columns), strict=True))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.keys:
            return iter([{} for _ in range(self._count)])
        return (dict(zip(self.keys, row, strict=True)) for row in zip(*self.columns, strict=True))


def as_table(values: Sequence[Any]) -> Table | None:
    """The values by field, or None where they are not all dicts with the same keys in the same order."""
    if type(values) is Table:  # isinstance takes longer than the rest, of a class that is a Sequence
        return values
    if not values or set(map(type, values)) != {dict} or len(forms := set(map(tuple, values))) != 1:
        return None
    (keys,) = forms
    columns = list(map(list, zip(*map(dict.values, values), strict=True))) if keys else []
    return Table(keys, columns, len(values))


def plain(values: Sequence[Any]) -> list[Any]:
    """The values as a list, which is what a stage type's code expects."""
    return values if isinstance(values, list) else list(values)


def output_of(ids: list[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns with ``returned`` turned into ``output``, as :func:`xray.capture.call.with_output` does it.

    Args:
        ids: The candidates' ids.
        values: Their columns; ``data`` and ``returned`` may be tables.
    """
    data, returned = values.get("data"), values.get("returned")
    if returned is None:
        return dict(values)
    if type(data) is Table and type(returned) is Table:
        changed = changed_fields(data, returned)
        if changed is not None:
            others = {name: column for name, column in values.items() if name != "returned"}
            return others | {"output": changed} if changed.keys else others
    return with_output(Columns(ids, {name: plain(column) for name, column in values.items()})).values


def changed_fields(data: Table, returned: Table) -> Table | None:
    """The fields that are new, or changed on every candidate; None where one is changed only on some."""
    before = dict(zip(data.keys, data.columns, strict=True))
    names: list[str] = []
    columns: list[Sequence[Any]] = []
    for name, after in zip(returned.keys, returned.columns, strict=True):
        if name in before:
            old = before[name]
            if old == after and list(map(type, old)) == list(map(type, after)):
                continue
            if any(type(a) is type(b) and bool(a == b) for a, b in zip(old, after, strict=True)):
                return None
        names.append(name)
        columns.append(after)
    return Table(tuple(names), columns, len(returned))
