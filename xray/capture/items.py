"""The candidates of one list of a call, read from its snapshot as little as possible.

Most stages need three fields of each candidate and pass the rest on as it is. So a list stays the msgpack that the
snapshot holds: fields that the decorator names are read in one pass of a C decoder that skips everything else, and
the candidates themselves go on to the service as the bytes that they are. Only what cannot be read in that way is
decoded whole.
"""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import msgspec

from xray.capture.accessors import (
    ID_NAMES,
    MISSING,
    SCALARS,
    Accessor,
    Missing,
    compile_accessor,
    core,
    infer_id_name,
    row_id,
)
from xray.capture.fields import FieldColumns, Lazy
from xray.capture.snapshot import restore, to_json

MAX_ID_CHARS = 500
"""Candidates whose texts are their ids may be long; a longer id is kept as its beginning and a hash."""

_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_PLAIN_TYPES = frozenset({str, int, bool, type(None)})
_FIXED_TYPES = _PLAIN_TYPES | {float, Missing}


class Packed(Lazy):
    """A list of candidates that is still msgpack: it goes on as it is, and is cut into pieces only if somebody looks.

    Args:
        raw: The msgpack of the list.
    """

    def __init__(self, raw: msgspec.Raw) -> None:
        self._raw = raw
        self._count = _count_of(raw)

    @property
    def size_bytes(self) -> int:
        """What the list weighs."""
        return len(self._raw)

    def raw(self) -> msgspec.Raw:
        """The list as it goes on the wire."""
        return self._raw

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return self.pieces[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.pieces)

    def is_equal(self, other: Packed) -> bool:
        """Whether the other list has the same bytes."""
        return len(self._raw) == len(other._raw) and bytes(self._raw) == bytes(other._raw)

    @functools.cached_property
    def pieces(self) -> list[msgspec.Raw]:
        """The msgpack of each candidate."""
        return _split(self._raw)


def _count_of(raw: msgspec.Raw) -> int:
    """How many elements an array has, by its header (see the specification of msgpack)."""
    head = memoryview(raw)
    if head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    width = {0xDC: 2, 0xDD: 4}[head[0]]
    return int.from_bytes(head[1 : 1 + width], "big")


class Items:
    """Some candidates of a call: the list that came in, or a list that went out.

    Args:
        values: The candidates, in order: decoded, or as the msgpack of the list of them or of its columns.
        accessors: Field name → accessor, as given to the decorator.
        defaults: Field name → the accessors that are tried, in order, where the decorator was given none.
        live: Field name → values that had to be read from the live objects on the caller's thread.
        ordinals: A number for each candidate by object identity, where there is no id to read.
        likely: The names of the candidates' own fields that will be asked for, so that one pass reads them all; any
            other costs a pass of its own.
        are_records: Whether every candidate is known to have been a dict.
        picked: The columns of some fields, by the decorator's keywords, where only these were taken; ``values`` then
            says nothing.
    """

    def __init__(
        self,
        values: list[Any] | msgspec.Raw | FieldColumns,
        accessors: Mapping[str, Accessor],
        defaults: Mapping[str, Sequence[str | int]] | None = None,
        live: Mapping[str, list[Any]] | None = None,
        ordinals: list[int] | None = None,
        likely: Iterable[str] = (),
        *,
        are_records: bool = False,
        picked: FieldColumns | None = None,
    ) -> None:
        self._likely = likely
        self._known_records = are_records
        self._live = dict(live or {})
        self.is_absent = picked is not None
        """Whether the candidates themselves were not taken, but only some of their fields."""
        if picked is not None:
            values = [None] * len(picked)
            self._live |= {field: picked.column(field) or [] for field in picked.packed}
        self._packed = values if isinstance(values, msgspec.Raw) else None
        self._by_field = values if isinstance(values, FieldColumns) else None
        self._values = values if isinstance(values, list) else None
        self._accessors = accessors
        self._defaults = defaults or {}
        self._ordinals = ordinals

    def __len__(self) -> int:
        return len(self.pieces)

    @functools.cached_property
    def pieces(self) -> Sequence[Any]:
        """The candidates as they go on to the service: undecoded where they can be."""
        if self._by_field is not None:
            return self._by_field
        if self._packed is None:
            assert self._values is not None
            return self._values
        return Packed(self._packed)

    @functools.cached_property
    def values(self) -> list[Any]:
        """The candidates, decoded: plain JSON."""
        if self._by_field is not None:
            return self._by_field.rows
        if self._packed is None:
            assert self._values is not None
            return self._values
        decoded: list[Any] = to_json(restore(bytes(self._packed)))
        return decoded

    @functools.cached_property
    def cores(self) -> list[Any]:
        """The candidates themselves, decoded: of a pair such as ``(item, score)`` the item."""
        return [core(value) for value in self.values]

    @property
    def are_packed(self) -> bool:
        """Whether every candidate is a record that was not decoded."""
        return self._by_field is not None or (self._packed is not None and self.are_records)

    def compare(self, other: Items) -> None:
        """Find out what is the very same in both, so that it is looked at once only."""
        if self._by_field is not None and other._by_field is not None and self is not other:
            self._by_field.compare(other._by_field)

    def read(self, field: str) -> list[Any] | None:
        """The values of a field, with None where a candidate has none.

        Args:
            field: The decorator's keyword, as the stage type declares it.

        Returns:
            One value a candidate; None where the decorator was given none and no default reads anything.
        """
        live = self._live_column(field)
        if live is not None:
            return live
        given = self._accessors.get(field)
        for accessor in self._defaults.get(field, ()) if given is None else (given,):
            found = self._column(accessor)
            if given is not None or found.count(None) < len(found):
                return found
        return None

    def _live_column(self, field: str) -> list[Any] | None:
        """What was read from the live candidates, if it cannot have changed since."""
        found = self._live.get(field)
        if found is None:
            return None
        kinds = set(map(type, found))
        if kinds <= _PLAIN_TYPES:
            return found
        if Missing in kinds:
            found = [None if value is MISSING else value for value in found]
        if not kinds <= _FIXED_TYPES and field in self._accessors and self.are_packed:
            # A mutable value that was read by name: the snapshot has it as it was. (Values of callables are copies.)
            return None
        return found if kinds <= _PLAIN_TYPES else to_json(found)

    def picked(self, places: Sequence[int]) -> Items:
        """The candidates at these places, in that order."""
        values, ids = self.values, self.ids
        live = {field: [found[place] for place in places] for field, found in self._live.items()}
        live["id"] = [ids[place] for place in places]
        picked = Items([values[place] for place in places], self._accessors, self._defaults, live)
        picked.__dict__["_identified"] = (live["id"], self.id_from, frozenset())
        return picked

    def joined(self, other: Items) -> Items:
        """These candidates and then the other's; the ids are those that each list has on its own."""
        both = Items(self.values + other.values, self._accessors, self._defaults)
        id_from = self.id_from if len(self) else other.id_from
        missing = self.without_id | {len(self) + place for place in other.without_id}
        both.__dict__["_identified"] = (self.ids + other.ids, id_from, missing)
        return both

    # --- ids ----------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> list[str]:
        """The candidates' ids."""
        return self._identified[0]

    @property
    def id_from(self) -> str:
        """Which name, accessor or way gave the ids: ``id=``, a name, ``value``, ``0``, ``identity``, ``position``."""
        return self._identified[1]

    @property
    def without_id(self) -> frozenset[int]:
        """The places of candidates that have no id where the others have one; theirs are made of their position."""
        return self._identified[2]

    @functools.cached_property
    def _identified(self) -> tuple[list[str], str, frozenset[int]]:
        nobody: frozenset[int] = frozenset()
        if self._ordinals is not None:
            return [f"#{number}" for number in self._ordinals], "identity", nobody
        partly: tuple[list[str], str, frozenset[int]] | None = None
        for found, id_from in self._id_columns():
            kinds = set(map(type, found))
            if kinds <= {str}:
                return self._bounded(found), id_from, nobody
            if not kinds & {Missing, type(None)}:
                return self._bounded(_texts(found)), id_from, nobody
            missing = frozenset(place for place, value in enumerate(found) if value is MISSING or value is None)
            if partly is None and len(missing) < len(found):
                named = [f"#{place + 1}" if place in missing else value for place, value in enumerate(found)]
                partly = self._bounded(_texts(named)), id_from, missing
        return partly or ([f"#{place + 1}" for place in range(len(self))], "position", nobody)

    def _bounded(self, found: list[str]) -> list[str]:
        """Ids of a bearable length: of a longer one the beginning, and what tells it from others that begin so."""
        size_bytes = len(self._packed) if self._packed is not None else None
        if self._by_field is not None:
            size_bytes = self._by_field.size_bytes
        if size_bytes is not None and size_bytes < MAX_ID_CHARS * len(found):
            return found  # there can be some long ones all the same, but not enough to matter
        return [
            key
            if len(key) <= MAX_ID_CHARS
            else f"{key[:100]}…{hashlib.blake2b(key.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"
            for key in found
        ]

    def _id_columns(self) -> Iterator[tuple[list[Any], str]]:
        if "id" in self._live:
            yield self._live["id"], "id="
            return
        given = self._accessors.get("id")
        if given is not None:
            yield self._column(given), "id="
            if not self.are_records:
                reader = compile_accessor(given)
                yield [reader(value) for value in self.cores], "id="
        if not len(self):
            return
        if self.are_records:
            if self._by_field is not None:
                names: Iterable[str] = self._by_field.packed
            else:
                names = restore(bytes(self.pieces[0])) if self._packed is not None else self.values[0]
            for name in ID_NAMES:
                if name in names:
                    yield self._column(name), name
            return
        common = infer_id_name(self.values)
        if common is not None:
            reader = compile_accessor(common)
            yield [reader(value) for value in self.cores], common
        if all(isinstance(value, SCALARS) for value in self.values):
            yield self.values, "value"
        yield [row_id(value) for value in self.values], "0"

    # --- reading without decoding -------------------------------------------------------------------------------

    def _column(self, accessor: Accessor) -> list[Any]:
        """The values that an accessor reads, None where it reads nothing."""
        if self.is_absent:
            return [None] * len(self)
        if self._by_field is not None:
            return self._field(self._by_field, accessor)
        columns = self._records
        if columns is not None:
            if isinstance(accessor, str):
                assert self._packed is not None
                head, _, rest = accessor.partition(".")
                if head not in columns:
                    columns |= _read_fields(self._packed, (head,))
                if not rest:
                    return columns[head]
                reader = compile_accessor(rest)
                return [None if (found := reader(value)) is MISSING else found for value in columns[head]]
            if isinstance(accessor, int):
                return [None] * len(self)
        read = compile_accessor(accessor)
        return [None if (found := read(value)) is MISSING else found for value in self.values]

    @staticmethod
    def _field(columns: FieldColumns, accessor: Accessor) -> list[Any]:
        found = None
        if isinstance(accessor, str):
            head, _, rest = accessor.partition(".")
            found = columns.column(head)
            if found is not None and rest:
                reader = compile_accessor(rest)
                found = [None if (value := reader(each)) is MISSING else value for each in found]
        return [None] * len(columns) if found is None else found

    @property
    def are_records(self) -> bool:
        """Whether every candidate is an object with named fields."""
        if self._by_field is not None:
            return True
        if self._packed is not None:
            return self._known_records or self._records is not None
        return self.is_absent or all(type(value) is dict for value in self.values)

    @functools.cached_property
    def _records(self) -> dict[str, list[Any]] | None:
        """The fields that are likely to be asked for, by name; None where the candidates are no records."""
        if self._packed is None:
            return None
        names = tuple(self._likely)
        if self._known_records and not names:
            return {}
        try:
            return _read_fields(self._packed, names)
        except msgspec.ValidationError:
            return None


@functools.lru_cache(maxsize=512)
def _decoder(names: tuple[str, ...]) -> msgspec.msgpack.Decoder[list[Any]]:
    places = {f"f{place}": name for place, name in enumerate(names)}
    struct = msgspec.defstruct("Fields", [(place, Any, None) for place in places], rename=places.get, gc=False)
    return msgspec.msgpack.Decoder(list[struct])  # type: ignore[valid-type]


def _read_fields(packed: msgspec.Raw, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """The columns of these names, None where a record has no such field.

    Raises:
        msgspec.ValidationError: Not every candidate is a record.
    """
    records = _decoder(names).decode(packed)
    columns: dict[str, list[Any]] = {}
    for place, name in enumerate(names):
        column = _column_at(records, place)
        if not set(map(type, column)) <= _PLAIN_TYPES:
            column = to_json(column)
        columns[name] = column
    return columns


def _column_at(records: list[Any], place: int) -> list[Any]:
    """One field of each record. Reading an attribute by a fixed name is three times as quick as by a variable one."""
    if place == 0:
        return [record.f0 for record in records]
    if place == 1:
        return [record.f1 for record in records]
    if place == 2:
        return [record.f2 for record in records]
    if place == 3:
        return [record.f3 for record in records]
    return list(map(operator.attrgetter(f"f{place}"), records))


def _texts(values: list[Any]) -> list[str]:
    return (
        values if set(map(type, values)) <= {str} else [value if type(value) is str else str(value) for value in values]
    )
