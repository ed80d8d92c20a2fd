"""What has to be read from the live candidates, because no snapshot of them holds it.

That is: fields given as callables, properties, identities where candidates have no id, and the names of named tuples.
For the common case (dicts, dataclasses and objects that have their fields) it comes to a look at the first candidate
and one pass over the types.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from xray.capture import fields as fields_module
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
from xray.capture.guarded import taken_plainly
from xray.capture.snapshot import plain, snapshot
from xray.capture.taken import Taken

if TYPE_CHECKING:
    from xray.capture.spec import StageSpec
    from xray.capture.stage import ActiveStage
    from xray.context import ActiveRun

Reader = Callable[[Any], Any]

FIELDS_FROM = 8
"""From how many dicts on they are taken by field where that is compiled: for fewer it takes longer."""

PICKED_FROM = 512
"""From how many dicts on a summary takes the fields that it needs one by one where that is not compiled."""


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


def take(items: Sequence[Any], stage: ActiveStage, fields: Collection[str]) -> Taken:
    """Take a list of candidates: as bytes, with what the bytes will not hold.

    Candidates that cannot be read well (they may raise whenever they are looked at) are taken as plain values.

    Args:
        items: The candidates: a list or tuple, or a data frame.
        stage: The stage under way.
        fields: The fields that will be asked for.
    """
    spec = stage.spec
    try:
        kind = type(items)
        if (kind is list or kind is tuple) and items:
            first = items[0]
            if type(first) is dict and spec.reads_dicts and _has_dict_id(first, spec.id_name):
                found = _take_fields(items, first, stage, fields)
                if found is not None:
                    return found
                # Of dicts nothing has to be read live. Counting is quicker than collecting the types.
                if operator.countOf(map(type, items), dict) == len(items):
                    return Taken(snapshot(items), are_records=True)
        return _take_any(items, spec, stage.run)
    except Exception as error:
        return taken_plainly(items, spec.name, error)


def _take_fields(
    items: Sequence[Any], first: dict[str, Any], stage: ActiveStage, fields: Iterable[str]
) -> Taken | None:
    """Dicts as the columns of their fields; None where they have to be taken candidate by candidate."""
    count, compiled = len(items), fields_module.take_compiled
    if stage.mode == "summary" and count >= (PICKED_FROM if compiled is None else FIELDS_FROM):
        picked = _pick(items, first, stage.spec, fields)
        if picked is not None:
            return picked
    if compiled is None or count < FIELDS_FROM:
        return None
    names = tuple(first)
    packed = compiled(items, names, True)
    if packed is None:
        return None
    taken = Taken(are_records=True)
    taken.fields = names, packed, count
    return taken


def _pick(items: Sequence[Any], first: dict[str, Any], spec: StageSpec, fields: Iterable[str]) -> Taken | None:
    """Of dicts only the fields that a summary needs; None where they have to be taken whole.

    A field that the decorator does not name is taken under its usual name, if every candidate has it there.
    """
    if spec.stage_type.reads_candidates:
        return None
    names: dict[str, Any] = {}
    try:
        for field in fields:
            if field not in spec.unmeasured:
                name = spec.plain_names.get(field) or _usual_name(items, first, spec, field)
                if name is not None:
                    names[field] = name
        packed = _columns(items, tuple(names.values()))
    except Exception:
        # Some candidate is no dict, or has no such field, or the field is no plain name: the worker will see.
        return None
    taken = Taken(are_records=True)
    taken.picked = tuple(names), packed, len(items)
    return taken


def _columns(items: Sequence[Any], names: tuple[str, ...]) -> list[bytes]:
    if fields_module.take_compiled is not None:
        packed = fields_module.take_compiled(items, names, False)
        if packed is not None:
            return packed
    return [bytes(snapshot(list(map(operator.itemgetter(name), items)))) for name in names]


def _usual_name(items: Sequence[Any], first: dict[str, Any], spec: StageSpec, field: str) -> str | int | None:
    """The name under which all of many dicts have a field that the decorator does not name; None where none has it.

    Raises:
        LookupError: That cannot be said of all of them alike.
    """
    if field in spec.accessors:
        raise LookupError(field)
    if field == "id":
        return next(name for name in ID_NAMES if name in first)
    for name in spec.defaults.get(field, ()):
        if name in first:
            return name
        if any(map(operator.contains, items, repeat(name))):
            raise LookupError(field)
    return None


def _take_any(items: Sequence[Any], spec: StageSpec, run: ActiveRun) -> Taken:
    """Candidates of any kind, with what has to be read of them live."""
    taken = Taken()
    if type(items) is not list and type(items) is not tuple and frames.is_frame(items):
        items, taken.live, taken.facts = frames.rows_of(items, named_id="id" in spec.accessors)
    if not len(items):
        return taken
    first = items[0]
    if (
        type(first) is dict
        and spec.reads_dicts
        and _has_dict_id(first, spec.id_name)
        and operator.countOf(map(type, items), dict) == len(items)
    ):
        taken.packed = snapshot(items)
        taken.are_records = True
        return taken
    taken.packed = snapshot(_read_live(items, first, spec, run, taken))
    return taken


def _read_live(items: Sequence[Any], first: Any, spec: StageSpec, run: ActiveRun, plan: Taken) -> Sequence[Any]:
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
