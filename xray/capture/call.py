"""What a stage type's extraction sees of one call: snapshots of the candidates that came in and went out."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from xray.capture.accessors import MISSING, SCALARS, Accessor, compile_accessor, core, infer_id_name, row_id
from xray.stage_types.base import Columns


class Items:
    """Some candidates of a call: the list that came in, or a list that went out.

    Args:
        values: The decoded snapshots of the candidates, in order.
        accessors: Field name → accessor, as given to the decorator.
        live: Field name → values that had to be read from the live objects on the caller's thread.
        ordinals: A number for each candidate by object identity, where there is no id to read.
        id_name: The name that was found to lead to the id of every candidate, where ``id=`` was left out.
    """

    def __init__(
        self,
        values: list[Any],
        accessors: Mapping[str, Accessor],
        live: Mapping[str, list[Any]] | None = None,
        ordinals: list[int] | None = None,
        id_name: str | None = None,
    ) -> None:
        self.values = values
        self._accessors = accessors
        self._live = live or {}
        self._ordinals = ordinals
        self._id_name = id_name
        self.ids, self.id_from = self._read_ids()
        """The candidates' ids, and which name, accessor or way gave them."""

    def __len__(self) -> int:
        return len(self.values)

    def picked(self, places: Sequence[int]) -> Items:
        """The candidates at these places, in that order."""
        return Items(
            [self.values[place] for place in places],
            self._accessors,
            {field: [values[place] for place in places] for field, values in self._live.items()},
            None if self._ordinals is None else [self._ordinals[place] for place in places],
            self._id_name,
        )

    def joined(self, other: Items) -> Items:
        """These candidates and then the other's; the ids are those that each list has on its own."""
        both = Items(self.values + other.values, self._accessors, {"id": self.ids + other.ids})
        both.id_from = self.id_from if self.values else other.id_from
        return both

    @property
    def cores(self) -> list[Any]:
        """The candidates themselves: of a pair such as ``(item, score)`` the item."""
        return [core(value) for value in self.values]

    def read(self, field: str, *defaults: str | int) -> list[Any] | None:
        """The values of a field, with None where a candidate has none.

        Args:
            field: The decorator's keyword.
            defaults: Accessors that are tried, where the decorator was given none, until one reads a value.

        Returns:
            One value a candidate; None where the decorator was given none and no default reads anything.
        """
        if field in self._live:
            return [None if value is MISSING else value for value in self._live[field]]
        given = self._accessors.get(field)
        for accessor in defaults if given is None else (given,):
            reader = compile_accessor(accessor)
            values = [reader(value) for value in self.values]
            if given is not None or any(value is not MISSING for value in values):
                return [None if value is MISSING else value for value in values]
        return None

    def _read_ids(self) -> tuple[list[str], str]:
        given = self._accessors.get("id")
        if "id" in self._live:
            found = self._live["id"]
            if MISSING not in found and None not in found:
                return [_text(value) for value in found], "id="
        elif given is not None:
            reader = compile_accessor(given)
            for values in (self.values, self.cores):
                found = [reader(value) for value in values]
                if all(value is not MISSING and value is not None for value in found):
                    return [_text(value) for value in found], "id="
        name = self._id_name
        if name is None and self._ordinals is None:
            name = infer_id_name(self.values)
        if name is not None:
            reader = compile_accessor(name)
            return [_text(reader(value)) for value in self.cores], name
        if self.values and all(isinstance(value, SCALARS) for value in self.cores):
            return [_text(value) for value in self.cores], "value"
        firsts = [row_id(value) for value in self.values]
        if firsts and MISSING not in firsts:
            return [_text(value) for value in firsts], "0"
        if self._ordinals is not None:
            return [f"#{number}" for number in self._ordinals], "identity"
        return [f"#{place + 1}" for place in range(len(self.values))], "position"


class StageCall:
    """One call of a decorated callable, for ``StageType.extract``.

    Args:
        inputs: The candidates that came in, or None where the callable takes none.
        parts: The lists of candidates that went out, as ``StageType.candidates_in`` found them in the result.
        result: The decoded snapshot of the return value.
        options: The decorator's fields that are no accessors, as given.
        arguments: The other recorded arguments by name.
    """

    def __init__(
        self,
        inputs: Items | None,
        parts: Sequence[Items],
        result: Any,
        options: Mapping[str, Any],
        arguments: Mapping[str, Any],
    ) -> None:
        self.inputs = inputs
        self.parts = parts
        self.result = result
        self.options = options
        self.arguments = arguments

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
        self.facts: dict[str, Any] = {"id_from": (inputs or outputs).id_from}
        known = [] if inputs is None else inputs.ids
        self.output_of: list[int | None] = [None] * len(known)
        """For each row, the place of its candidate among the outputs, or None."""
        added: list[int] = []
        if inputs is not None and self._by_position(inputs, outputs):
            self.output_of = list(range(len(known)))
            self.facts["matched_by"] = "position"
        elif inputs is None or "position" in (inputs.id_from, outputs.id_from):
            added = list(range(len(outputs)))
        else:
            places: defaultdict[str, deque[int]] = defaultdict(deque)
            for place, candidate_id in enumerate(known):
                places[candidate_id].append(place)
            for place, candidate_id in enumerate(outputs.ids):
                waiting = places.get(candidate_id)
                if waiting:
                    self.output_of[waiting.popleft()] = place
                else:
                    added.append(place)
        self.input_count = len(known)
        self.output_of += added
        self.ids = known + [outputs.ids[place] for place in added]
        if inputs is not None and added:
            self.facts["unknown_outputs"] = len(added)
        duplicates = len(known) - len(set(known))
        if duplicates:
            self.facts["duplicate_ids"] = duplicates

    @staticmethod
    def _by_position(inputs: Items, outputs: Items) -> bool:
        return (
            len(inputs) == len(outputs)
            and outputs.id_from in ("identity", "position")
            and not set(inputs.ids) & set(outputs.ids)
        )

    def spread(self, values: Sequence[Any] | None) -> list[Any] | None:
        """A column of the outputs as a column of the rows: None for rows that did not go out."""
        if values is None:
            return None
        return [None if place is None else values[place] for place in self.output_of]

    def columns(self, **values: list[Any] | None) -> Columns:
        """The rows as columns, with ``data`` (what came in) and ``output`` (what the stage added or changed).

        Args:
            values: More columns, as long as there are rows; None and empty ones are left out.
        """
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
        kept = {"data": data, "output": output, **values}
        used = {name: column for name, column in kept.items() if column and any(v is not None for v in column)}
        return Columns(self.ids, used, self.facts)


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


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _text(value: Any) -> str:
    return value if type(value) is str else str(value)
