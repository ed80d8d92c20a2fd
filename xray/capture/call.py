"""What a stage type's extraction sees of one call: snapshots of the candidates that came in and went out."""

from __future__ import annotations

import functools
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from xray.capture.accessors import SCALARS
from xray.capture.fields import FieldColumns
from xray.capture.items import Items, Packed
from xray.capture.snapshot import restore, to_json
from xray.stage_types.base import Columns

__all__ = ["Alignment", "Items", "StageCall", "changes", "with_output"]


class StageCall:
    """One call of a decorated callable, for ``StageType.extract``.

    Args:
        inputs: The candidates that came in, or None where the callable takes none.
        parts: The lists of candidates that went out, as ``StageType.candidates_in`` found them in the result.
        result: The return value where it holds no candidates: decoded, or as msgpack.
        options: The decorator's fields that are no accessors, as given.
        arguments: The other recorded arguments by name: decoded, or as msgpack.
        is_abandoned: Whether the callable is a generator whose consumer went away before its end, so that nobody knows
            what else would have come.
    """

    def __init__(
        self,
        inputs: Items | None,
        parts: Sequence[Items],
        result: Any,
        options: Mapping[str, Any],
        arguments: Mapping[str, Any] | msgspec.Raw | None,
        *,
        is_abandoned: bool = False,
    ) -> None:
        self.is_abandoned = is_abandoned
        self.inputs = inputs
        self.parts = parts
        self.options = options
        self._result = result
        self._arguments = arguments

    @functools.cached_property
    def result(self) -> Any:
        """The return value where it holds no candidates, decoded."""
        return to_json(restore(bytes(self._result))) if isinstance(self._result, msgspec.Raw) else self._result

    @functools.cached_property
    def arguments(self) -> Mapping[str, Any]:
        """The other recorded arguments by name, decoded."""
        if isinstance(self._arguments, msgspec.Raw):
            decoded: dict[str, Any] = to_json(restore(bytes(self._arguments)))
            return decoded
        return self._arguments or {}

    @property
    def output(self) -> Items | None:
        """The first list of candidates that went out, or None where there is none."""
        return self.parts[0] if self.parts else None

    def option(self, name: str) -> Any:
        """The value of an option; a string that names a recorded argument stands for that argument's value."""
        value = self.options.get(name)
        if isinstance(value, str) and value in self.arguments:
            return self.arguments[value]
        return value


class Alignment:
    """The candidates that came in, matched with those that went out.

    Candidates are matched by id, the k-th with an id to the k-th with the same id. Where the lists are equally long
    and the ids of one could not be read, they are matched by position. The rows are the inputs in their order, then
    what went out without having come in.

    Args:
        inputs: What came in, or None.
        outputs: What went out.
    """

    def __init__(self, inputs: Items | None, outputs: Items) -> None:
        self.inputs = inputs
        self.outputs = outputs
        if inputs is not None:
            outputs.compare(inputs)
        self.facts: dict[str, Any] = {"id_from": (inputs or outputs).id_from}
        known = [] if inputs is None else inputs.ids
        self.output_of: list[int | None] = [None] * len(known)
        """For each row, the place of its candidate among the outputs, or None."""
        self._one_to_one = False
        added: list[int] = []
        if inputs is None or "position" in (inputs.id_from, outputs.id_from):
            if inputs is not None and len(inputs) == len(outputs):
                self._match_by_position()
            else:
                added = list(range(len(outputs)))
                self._one_to_one = inputs is None or not len(inputs)
        elif known == outputs.ids and not inputs.without_id:
            self.output_of = list(range(len(known)))
            self._one_to_one = True
        elif self._by_position(inputs, outputs):
            self._match_by_position()
        else:
            added = self._match_by_id(inputs, outputs)
        self.input_count = len(known)
        self.output_of += added
        self.ids = known + [outputs.ids[place] for place in added]
        if inputs is not None and added:
            self.facts["unknown_outputs"] = len(added)
        duplicates = len(known) - len(set(known))
        if duplicates:
            self.facts["duplicate_ids"] = duplicates
        missing = len((inputs or outputs).without_id)
        if missing:
            self.facts["missing_ids"] = missing

    @property
    def without_output(self) -> list[int]:
        """The rows that did not go out."""
        if self._one_to_one and len(self.outputs) == len(self.output_of):
            return []
        return [row for row, place in enumerate(self.output_of) if place is None]

    def _match_by_position(self) -> None:
        self.output_of = list(range(len(self.output_of)))
        self._one_to_one = True
        self.facts["matched_by"] = "position"

    def _match_by_id(self, inputs: Items, outputs: Items) -> list[int]:
        """Fill :attr:`output_of`; the places of the outputs that did not come in."""
        added: list[int] = []
        places: defaultdict[str, deque[int]] = defaultdict(deque)
        for place, candidate_id in enumerate(inputs.ids):
            if place not in inputs.without_id:
                places[candidate_id].append(place)
        for place, candidate_id in enumerate(outputs.ids):
            waiting = places.get(candidate_id) if place not in outputs.without_id else None
            if waiting:
                self.output_of[waiting.popleft()] = place
            else:
                added.append(place)
        return added

    @staticmethod
    def _by_position(inputs: Items, outputs: Items) -> bool:
        return (
            len(inputs) == len(outputs)
            and bool({"identity", "position"} & {inputs.id_from, outputs.id_from})
            and not set(inputs.ids) & set(outputs.ids)
        )

    def spread(self, values: Sequence[Any] | None) -> list[Any] | None:
        """A column of the outputs as a column of the rows: None for rows that did not go out."""
        if values is None or self._one_to_one:
            return None if values is None else values if isinstance(values, list) else list(values)
        return [None if place is None else values[place] for place in self.output_of]

    def columns(self, **values: list[Any] | None) -> Columns:
        """The rows as columns, with ``data`` (what came in) and ``output`` (what the stage added or changed).

        Args:
            values: More columns, as long as there are rows; None and empty ones are left out.
        """
        kept: dict[str, Any] = {}
        if self.outputs.is_absent or (self.inputs is not None and self.inputs.is_absent):
            pass
        elif self.outputs.are_packed and (self.inputs is None or self.inputs.are_packed or not len(self.inputs)):
            kept = self._pieces()
        else:
            kept = self._decoded()
        kept["checks"] = self.spread(_each(self.outputs.read("checks"), as_checks)) or []
        kept["scores"] = self.spread(_each(self.outputs.read("scores"), as_scores)) or []
        used = {name: column for name, column in {**kept, **values}.items() if column and not _is_empty(column)}
        return Columns(self.ids, used, self.facts)

    def _pieces(self) -> dict[str, Any]:
        """The candidates undecoded; what the stage changed is worked out by the service, as far as it is not plain."""
        came: Sequence[Any] = [] if self.inputs is None else self.inputs.pieces
        went = self.outputs.pieces
        if self.inputs is None:
            return {"data": went}
        added = [went[place] for place in self.output_of[self.input_count :] if place is not None]
        data = [*came, *added] if added else came
        if self._one_to_one and not added:
            returned: Sequence[Any] = went
            if isinstance(came, FieldColumns) and isinstance(went, FieldColumns):
                returned = went.changed()
            elif isinstance(came, Packed) and isinstance(went, Packed) and came.is_equal(went):
                returned = []
            return {"data": data, "returned": returned}
        if isinstance(came, FieldColumns) and isinstance(went, FieldColumns):
            return {"data": data, "output": [*self._changes_by_field(came, went), *[None] * len(added)]}
        each = (self.spread(went) or [])[: self.input_count]
        pairs = ((came[row], piece) for row, piece in enumerate(each) if piece is not None)
        first = next(pairs, None)
        if first is not None and _is_same_piece(*first):
            # Stages that change candidates change all of them, those that only choose change none: the first one
            # tells which it is, and whether comparing is worth the time.
            each = [
                None if piece is None or _is_same_piece(came[row], piece) else piece for row, piece in enumerate(each)
            ]
        return {"data": data, "returned": [*each, *[None] * len(added)]}

    def _changes_by_field(self, came: FieldColumns, went: FieldColumns) -> list[dict[str, Any] | None]:
        """For each candidate that came in, the fields that are new or not the same on it as it went out."""
        matched = [(row, place) for row, place in enumerate(self.output_of[: self.input_count]) if place is not None]
        changed: list[dict[str, Any] | None] = [None] * self.input_count
        for name in went.packed:
            before, after = came.column(name), went.column(name) or []
            for row, place in matched:
                if before is None or not _same(before[row], after[place]):
                    fields = changed[row]
                    if fields is None:
                        fields = changed[row] = {}
                    fields[name] = after[place]
        return changed

    def _decoded(self) -> dict[str, Any]:
        came = [] if self.inputs is None else self.inputs.cores
        went = self.outputs.cores
        data: list[Any] = []
        output: list[Any] = []
        for row, place in enumerate(self.output_of):
            if row < self.input_count:
                data.append(came[row])
                output.append(None if place is None else changes(came[row], went[place]))
            else:
                # What the stage brought in has no earlier form: it is the candidate.
                data.append(went[place] if place is not None else None)
                output.append(None)
        return {"data": data, "output": output}


def as_checks(value: Any) -> dict[str, dict[str, Any]] | None:
    """An evaluation table: name → ``{"passed": …, "detail": …}``, from a mapping of flags, pairs or objects."""
    if not isinstance(value, dict):
        return None
    table: dict[str, dict[str, Any]] = {}
    for name, said in value.items():
        passed, detail = said, None
        if isinstance(said, (list, tuple)):
            passed, detail = (*said, None, None)[:2]
        elif isinstance(said, dict):
            passed, detail = said.get("passed"), said.get("detail")
        table[str(name)] = {"passed": None if passed is None else bool(passed)}
        if detail is not None:
            table[str(name)]["detail"] = detail
    return table


def as_scores(value: Any) -> dict[str, float] | None:
    """Several scores: name → number."""
    if not isinstance(value, dict):
        return None
    return {str(name): number for name, number in value.items() if type(number) in (int, float)}


def _each(values: list[Any] | None, make: Callable[[Any], Any]) -> list[Any] | None:
    return None if values is None else [make(value) for value in values]


def _is_empty(column: Sequence[Any]) -> bool:
    if isinstance(column, (FieldColumns, Packed)):
        return isinstance(column, FieldColumns) and not column.packed
    return column[0] is None and all(value is None for value in column)


def _is_same_piece(before: Any, after: Any) -> bool:
    return (
        isinstance(before, msgspec.Raw) and isinstance(after, msgspec.Raw) and bytes(before) == bytes(after)
    ) or _same(before, after)


def changes(before: Any, after: Any) -> Any:
    """What a stage added to a candidate or changed on it, or None.

    Args:
        before: The candidate as it came in.
        after: The candidate as it went out.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        changed = {key: value for key, value in after.items() if key not in before or not _same(before[key], value)}
        return changed or None
    if isinstance(after, SCALARS) or after is None:
        return None
    return None if _same(before, after) else after


def with_output(columns: Columns) -> Columns:
    """The columns with ``returned`` (candidates as they went out) turned into ``output`` (what was added or changed).

    Args:
        columns: Decoded columns, as they came over the wire.
    """
    returned = columns.values.get("returned")
    if returned is None:
        return columns
    data = columns.column("data")
    output = [None if after is None else changes(before, after) for before, after in zip(data, returned, strict=True)]
    values = {name: column for name, column in columns.values.items() if name != "returned"}
    if any(value is not None for value in output):
        values["output"] = output
    return Columns(columns.candidate_id, values, columns.facts)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b or (type(a) is float and math.isnan(a) and math.isnan(b)))
