"""What has to be read from the live candidates, because no snapshot of them holds it.

That is: fields given as callables, properties, identities where candidates have no id, and the names of named tuples.
For the common case (dicts, dataclasses and objects that have their fields) it comes to a look at the first candidate
and one pass over the types.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xray.capture import frames
from xray.capture.accessors import (
    ID_NAMES,
    MISSING,
    SCALARS,
    compile_accessor,
    core,
    has_id,
    reads_from_snapshot,
    row_id,
)
from xray.capture.snapshot import plain, recycle, snapshot

if TYPE_CHECKING:
    from xray.capture.stage import StageSpec
    from xray.context import ActiveRun

Reader = Callable[[Any], Any]


COLUMNS_FROM = 512
"""From how many candidates on a summary takes the named fields of dicts instead of the dicts: some 15 ns a value."""


class Taken:
    """One list of candidates as it was taken: their bytes, and what the bytes do not hold or are slow to give.

    ``packed`` is the msgpack of the list, or None where only fields of its ``count`` candidates were taken;
    ``are_records`` says that all of them are known to be dicts; ``live`` has the values of fields that were read from
    the live candidates, ``ordinals`` a number for each candidate by identity, ``facts`` what is worth saying about the
    list.
    """

    __slots__ = ("are_records", "count", "facts", "live", "ordinals", "packed")

    def __init__(self) -> None:
        self.packed: bytes | bytearray | None = _EMPTY
        self.count = 0
        self.are_records = False
        self.live: dict[str, list[Any]] | None = None
        self.ordinals: list[int] | None = None
        self.facts: dict[str, Any] | None = None

    def release(self) -> None:
        """Give the memory back: the record was sent, or will not be."""
        packed, self.packed = self.packed, None
        recycle(packed)

    @property
    def size_bytes(self) -> int:
        """What it weighs in the buffer, about."""
        size = (
            100
            + (len(self.packed) if self.packed is not None else 0)
            + (8 * len(self.ordinals) if self.ordinals else 0)
        )
        if self.live is not None:
            for values in self.live.values():
                size += 16 * len(values)
        return size


_UNCHANGING = frozenset({*SCALARS, type(None)})

_EMPTY = b"\x90"
"""The msgpack of an empty list."""


class KindPlan:
    """What has to be read live from candidates of one type, for one decorator.

    Args:
        spec: The decorator.
        kind: The type of the candidates.
    """

    __slots__ = ("fields", "is_named_tuple")

    def __init__(self, spec: StageSpec, kind: type) -> None:
        self.is_named_tuple = hasattr(kind, "_fields") and issubclass(kind, tuple)
        self.fields: list[tuple[str, Reader]] = []
        for name, accessor in spec.accessors.items():
            if not reads_from_snapshot(accessor, (kind,)):
                self.fields.append((name, compile_accessor(accessor)))
        for name, tried in spec.defaults.items():
            if name not in spec.accessors:
                properties = [accessor for accessor in tried if not reads_from_snapshot(accessor, (kind,))]
                self.fields += [(name, compile_accessor(accessor)) for accessor in properties[:1]]


def take(items: Sequence[Any], spec: StageSpec, run: ActiveRun, fields: Collection[str]) -> Taken:
    """Take a list of candidates: as bytes, with what the bytes will not hold.

    Args:
        items: The candidates: a list or tuple, or a data frame.
        spec: The decorator.
        run: The run, for identities.
        fields: The fields that will be asked for.
    """
    taken = Taken()
    if type(items) is not list and type(items) is not tuple and frames.is_frame(items):
        items, taken.live, taken.facts = frames.rows_of(items, named_id="id" in spec.accessors)
    if not len(items):
        return taken
    first = items[0]
    given = None if taken.live is None else dict(taken.live)
    is_summary = (spec.mode or run.policy.capture.mode) == "summary"
    if (
        type(first) is dict
        and spec.reads_dicts
        and _has_dict_id(first, spec.id_name)
        and _take_dicts(items, spec, taken, fields if is_summary else ())
    ):
        taken.are_records = True
        if is_summary and _fields_suffice(items, first, spec, taken, fields):
            taken.packed, taken.count = None, len(items)
        else:
            # The snapshot has every field as it is now; a value read beside it might change until it is used.
            taken.live = given
            taken.packed = snapshot(items)
        return taken
    taken.packed = snapshot(_take_any(items, first, spec, run, taken))
    return taken


def _take_dicts(items: Sequence[Any], spec: StageSpec, taken: Taken, fields: Collection[str]) -> bool:
    """The common case: of dicts nothing has to be read live; for a summary of many, the named fields are."""
    if len(items) < COLUMNS_FROM or not fields:
        return operator.countOf(map(type, items), dict) == len(items)
    live = taken.live if taken.live is not None else {}
    try:
        for field in fields:
            name = spec.plain_names.get(field)
            if name is not None and field not in live:
                live[field] = list(map(operator.itemgetter(name), items))
    except Exception:
        # Not every candidate has the field, or not every candidate is a dict: the worker will see.
        return operator.countOf(map(type, items), dict) == len(items)
    if live:
        taken.live = live
    return "id" in live or operator.countOf(map(type, items), dict) == len(items)


def _fields_suffice(
    items: Sequence[Any], first: dict[str, Any], spec: StageSpec, taken: Taken, fields: Iterable[str]
) -> bool:
    """Whether, for a summary, what was read from many dicts is all that the stage type will ask for.

    A field that the decorator does not name is taken under its usual name, if every candidate has it there. Where only
    some have it, or a value is not of a kind that cannot change, the candidates have to be taken whole.
    """
    live = taken.live
    if live is None or len(items) < COLUMNS_FROM or spec.stage_type.reads_candidates:
        return False
    try:
        for field in fields:
            if field in live or field in spec.accessors:
                continue
            for name in ID_NAMES if field == "id" else spec.defaults.get(field, ()):
                if name in first:
                    live[field] = list(map(operator.itemgetter(name), items))
                    break
                if any(name in item for item in items):
                    return False
    except Exception:
        return False
    return (
        all(field in live for field in spec.accessors if field in fields)
        and "id" in live
        and all(set(map(type, values)) <= _UNCHANGING for values in live.values())
    )


def _take_any(items: Sequence[Any], first: Any, spec: StageSpec, run: ActiveRun, plan: Taken) -> Sequence[Any]:
    """Read whatever candidates of any kind need; the candidates in a form that can be encoded."""
    kind = type(first)
    # Counting is quicker than collecting, and nearly always enough.
    is_uniform = operator.countOf(map(type, items), kind) == len(items)
    kinds = {kind} if is_uniform else set(map(type, items))
    is_pair = core(first) is not first
    if is_pair:
        kinds |= {type(core(item)) for item in items}
    named = False
    for each in kinds:
        found = spec.plan_cache.get(each)
        if found is None:
            found = KindPlan(spec, each)
            if len(spec.plan_cache) < 100:
                spec.plan_cache[each] = found
        named = named or found.is_named_tuple
        for name, reader in found.fields:
            if plan.live is None:
                plan.live = {}
            if name not in plan.live:
                plan.live[name] = _read(items, reader, is_pair)
    _plan_ids(items, first, spec, run, plan)
    if named:
        # The encoder writes named tuples as arrays, which loses their names.
        return [_with_names(item) for item in items]
    return items


def _has_dict_id(first: dict[str, Any], name: str | None) -> bool:
    if name is not None:
        return first.get(name) is not None
    return any(first.get(tried) is not None for tried in ID_NAMES)


def _plan_ids(items: Sequence[Any], first: Any, spec: StageSpec, run: ActiveRun, plan: Taken) -> None:
    """See to it that the ids can be read by the worker: from the snapshot, from live values, or by identity."""
    if plan.live is not None and "id" in plan.live:
        if not all(value is MISSING for value in plan.live["id"]):
            return
        del plan.live["id"]
    elif "id" in spec.accessors:
        reader = compile_accessor(spec.accessors["id"])
        if reader(first) not in (MISSING, None) or reader(core(first)) not in (MISSING, None):
            return
    candidate = core(first)
    if isinstance(candidate, SCALARS) or row_id(first) is not MISSING:
        return
    for name in ID_NAMES:
        if has_id(candidate, name):
            if isinstance(getattr(type(candidate), name, None), property):
                reader = compile_accessor(name)
                plan.live = {**(plan.live or {}), "id": [_scalar(reader(core(item))) for item in items]}
            return
    plan.ordinals = run.ordinals([core(item) for item in items])


def _read(items: Sequence[Any], reader: Reader, is_pair: bool) -> list[Any]:
    values = [reader(item) for item in items]
    if is_pair:
        values = [reader(core(item)) if value is MISSING else value for item, value in zip(items, values, strict=True)]
    return [_scalar(value) for value in values]


def _scalar(value: Any) -> Any:
    """A value that was read on the caller's thread, in a form that cannot change later."""
    if value is None or value is MISSING or isinstance(value, SCALARS):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy scalar
        return value.item()
    return plain(dict(value) if isinstance(value, Mapping) else value)


def _with_names(item: Any) -> Any:
    if hasattr(item, "_fields"):
        return dict(zip(item._fields, item, strict=False))
    if isinstance(item, (tuple, list)) and item and hasattr(item[0], "_fields"):
        return [_with_names(item[0]), *item[1:]]
    return item
