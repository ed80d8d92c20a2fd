"""The candidates of an event: from rows or columns, as they came, to checked columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from xray.capture.fields import BY_FIELD
from xray.exceptions import SchemaError, did_you_mean
from xray.stage_types.base import CANDIDATE_COLUMNS, VERDICTS, Columns
from xray_server.json_rules import INT64_MAX, INT64_MIN, clean, clean_text, is_clean_list, is_clean_table
from xray_server.tables import Table, as_table, changed_fields, output_of, plain

ID_NAMES = ("candidate_id", "id")
_COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_COMMON_COLUMNS = frozenset(CANDIDATE_COLUMNS)
_RESERVED = frozenset({"seq", "stage_id", "stage_name", "stage_type", "run_id", "label"})
"""What an answer puts beside a candidate's own columns."""

_ALL_VERDICTS = frozenset({*VERDICTS, None})

_Place = Callable[[str, int], str]
"""Column and position → the path of the value in what was sent."""


def from_rows(rows: Any, path: str, own_columns: Sequence[str] | None) -> Columns:
    """The columns of candidates that came as rows.

    Args:
        rows: What was sent.
        path: Where it was (``events[3].candidates``).
        own_columns: The stage type's own columns; None where the type is not known, so that any name will do.

    Raises:
        SchemaError: It is no list of candidates; ``path`` names the one that is not.
    """
    if not isinstance(rows, list):
        raise SchemaError("'candidates' is a list of objects.", code="bad_value", path=path)
    ids: list[Any] = []
    names: dict[str, None] = {}
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise SchemaError("A candidate is an object.", code="bad_candidate", path=f"{path}[{position}]")
        given = [name for name in ID_NAMES if row.get(name) is not None]
        if len(given) != 1:
            raise SchemaError(
                "A candidate has two ids." if given else "A candidate has no id.",
                code="bad_candidate",
                path=f"{path}[{position}]",
                hint="Give it as 'id', a string.",
            )
        ids.append(row[given[0]])
        names.update(dict.fromkeys(row))
    for name in names:
        if name not in ID_NAMES:
            where = next(i for i, row in enumerate(rows) if name in row)
            _check_name(name, f"{path}[{where}].{name}", own_columns)
    values = {name: [row.get(name) for row in rows] for name in names if name not in ID_NAMES}
    return _checked(ids, values, lambda name, position: f"{path}[{position}].{name}")


def from_columns(columns: Any, path: str, own_columns: Sequence[str] | None) -> Columns:
    """The columns of candidates that came by column.

    Args:
        columns: What was sent.
        path: Where it was (``events[3].columns``).
        own_columns: As in :func:`from_rows`.

    Raises:
        SchemaError: It is no object of lists of one length; ``path`` names the one that is not.
    """
    if not isinstance(columns, dict):
        raise SchemaError("'columns' is an object of lists.", code="bad_value", path=path)
    id_names = [name for name in ID_NAMES if columns.get(name) is not None]
    if len(id_names) != 1:
        raise SchemaError(
            "Columns need one column of ids.", code="bad_candidate", path=path, hint="Name it 'candidate_id'."
        )
    for name, column in columns.items():
        if name not in _COMMON_COLUMNS and name not in ID_NAMES:
            _check_name(name, f"{path}.{name}", own_columns)
        if isinstance(column, dict) and name in BY_FIELD:
            continue
        if column is not None and not isinstance(column, list):
            raise SchemaError("A column is a list.", code="bad_value", path=f"{path}.{name}")
    ids = columns[id_names[0]]
    values: dict[str, Any] = {
        name: _by_field(name, column, len(ids), path) if isinstance(column, dict) else column
        for name, column in columns.items()
        if name not in ID_NAMES and column is not None
    }
    for name, column in values.items():
        if len(column) != len(ids):
            raise SchemaError(
                f"Column '{name}' has {len(column)} values for {len(ids)} candidates.",
                code="bad_candidate",
                path=f"{path}.{name}",
            )
    return _checked(ids, values, lambda name, position: f"{path}.{name}[{position}]")


def _by_field(name: str, fields: dict[str, Any], count: int, path: str) -> Table:
    for field, values in fields.items():
        if not isinstance(values, list):
            raise SchemaError("A field's values are a list.", code="bad_value", path=f"{path}.{name}.{field}")
        if len(values) != count:
            raise SchemaError(
                f"Field '{field}' has {len(values)} values for {count} candidates.",
                code="bad_candidate",
                path=f"{path}.{name}.{field}",
            )
    return Table(tuple(fields), tuple(fields.values()), count)


def _check_name(name: Any, path: str, own_columns: Sequence[str] | None) -> None:
    if name in _COMMON_COLUMNS:
        return
    known = {*CANDIDATE_COLUMNS, *(own_columns or ())}
    if name in known:
        return
    if not isinstance(name, str) or own_columns is not None or name in _RESERVED or not _COLUMN_NAME.match(name):
        raise SchemaError(
            f"A candidate has no field '{name}'.",
            code="unknown_field",
            path=path,
            hint=did_you_mean(str(name), known) or "What describes the candidate itself belongs into 'data'.",
        )


def _checked(ids: list[Any], values: dict[str, list[Any]], place: _Place) -> Columns:
    words = _words("candidate_id", ids, place, required=True)
    values = _with_output(values)
    checked = {name: _CHECKS.get(name, _json)(name, column, place) for name, column in values.items()}
    return Columns(words, output_of(words, checked))


def _with_output(values: dict[str, Any]) -> dict[str, Any]:
    """The columns with ``returned`` turned into ``output`` where that is plain to see.

    What a stage returned of a candidate is mostly what it was given and a few fields beside it: only these then remain
    to be checked. Where it is not plain, both are checked as they are and compared afterwards.
    """
    data, returned = values.get("data"), values.get("returned")
    if data is None or returned is None or "output" in values:
        return values
    tables = as_table(data), as_table(returned)
    if tables[0] is None or tables[1] is None:
        return values
    changed = changed_fields(tables[0], tables[1])
    if changed is None:
        return {**values, "data": tables[0], "returned": tables[1]}
    others = {name: column for name, column in values.items() if name != "returned"} | {"data": tables[0]}
    return others | {"output": changed} if changed.keys else others


def _words(name: str, values: list[Any], place: _Place, *, required: bool = False) -> list[Any]:
    """Strings; an integer is a string to us, so that ids may be sent as they are in a database."""
    if set(map(type, values)) <= ({str} if required else {str, type(None)}) and is_clean_list(values):
        return values
    words: list[Any] = []
    for position, value in enumerate(values):
        if isinstance(value, str):
            words.append(clean_text(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            words.append(str(value))
        elif value is None and not required:
            words.append(None)
        else:
            raise SchemaError(
                f"'{name}' is a string.",
                code="bad_candidate",
                path=place(name, position),
            )
    return words


def _texts(_name: str, values: list[Any], _place: _Place) -> list[Any]:
    """Prose; what is no string is kept as its JSON."""
    if set(map(type, values)) <= {str, type(None)} and is_clean_list(values):
        return values
    return [
        clean_text(value)
        if isinstance(value, str)
        else None
        if value is None
        else msgspec.json.encode(clean(value)).decode()
        for value in values
    ]


def _verdicts(name: str, values: list[Any], place: _Place) -> list[Any]:
    if set(map(type, values)) <= {str, type(None)} and _ALL_VERDICTS.issuperset(values):
        return values
    for position, value in enumerate(values):
        if value is not None and value not in VERDICTS:
            raise SchemaError(
                f"A verdict is one of {', '.join(VERDICTS)}.",
                code="bad_candidate",
                path=place(name, position),
                hint=did_you_mean(value, VERDICTS) if isinstance(value, str) else None,
            )
    return values


def _scores(name: str, values: list[Any], place: _Place) -> list[Any]:
    """Numbers; one that is not finite, or beyond 64 bits, is no score."""
    if set(map(type, values)) <= {float, type(None)} and math.isfinite(sum(filter(None, values))):
        return values
    scores: list[Any] = []
    for position, value in enumerate(values):
        if value is None:
            scores.append(None)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise SchemaError(f"'{name}' is a number.", code="bad_candidate", path=place(name, position))
        else:
            is_kept = math.isfinite(value) if isinstance(value, float) else INT64_MIN <= value <= INT64_MAX
            scores.append(value if is_kept else None)
    return scores


def _ranks(name: str, values: list[Any], place: _Place) -> list[Any]:
    for position, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= INT64_MAX:
            raise SchemaError(f"'{name}' is an integer, 0 or more.", code="bad_candidate", path=place(name, position))
    return values


def _objects(name: str, values: list[Any], place: _Place) -> Any:
    for position, value in enumerate(values):
        if value is not None and not isinstance(value, dict):
            raise SchemaError(f"'{name}' is an object.", code="bad_candidate", path=place(name, position))
    return _json(name, values, place)


def _json(_name: str, values: list[Any], _place: _Place) -> Any:
    """Any JSON; objects of one form become a table, which is what most candidates are."""
    table = as_table(values)
    if table is not None and is_clean_table(table, 1):
        return table
    listed = plain(values)
    return listed if is_clean_list(listed) else [clean(value) for value in listed]


_CHECKS: dict[str, Callable[[str, list[Any], _Place], Any]] = {
    "verdict": _verdicts,
    "reason_label": _words,
    "reason_text": _texts,
    "score": _scores,
    "scores": _objects,
    "checks": _objects,
    "rank": _ranks,
    "rank_before": _ranks,
}
