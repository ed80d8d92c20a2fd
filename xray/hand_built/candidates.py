"""Candidates that were given by hand: from rows, or from the user's own items, to checked rows of the wire."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from xray.capture.accessors import MISSING, SCALARS, Accessor, compile_accessor, infer_id_name
from xray.capture.call import as_checks
from xray.capture.snapshot import to_json
from xray.exceptions import SchemaError, did_you_mean
from xray.hand_built.values import Markers, bad, count_of, number_of, plain_of, text_of, word_of
from xray.stage_types.base import CANDIDATE_COLUMNS, VERDICTS

_ID_NAMES = ("id", "candidate_id")
_COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")

Row = dict[str, Any]


def rows_of_items(place: str, accessor: Accessor | None, **by_verdict: Iterable[Any]) -> list[Row]:
    """Rows of the user's own items.

    Args:
        place: The stage, for the errors' paths.
        accessor: How an item's id is read, or None to find out.
        by_verdict: Verdict → items; one that failed may be ``(item, reason_label)`` or ``(item, reason_label,
            reason_text)``.

    Raises:
        SchemaError: An item has no id.
    """
    rows: list[Row] = []
    for verdict, items in by_verdict.items():
        for item in items:
            row: Row = {"verdict": verdict, "data": item}
            is_plain_tuple = isinstance(item, tuple) and not hasattr(item, "_fields")
            if verdict == "failed" and is_plain_tuple and 2 <= len(item) <= 3:
                row |= zip(("data", "reason_label", "reason_text"), item, strict=False)
            rows.append(row)
    records = [row["data"] for row in rows if not isinstance(row["data"], SCALARS)]
    chosen = accessor if accessor is not None else infer_id_name(records) if records else None
    read: Callable[[Any], Any] = (lambda _: MISSING) if chosen is None else compile_accessor(chosen)
    for row in rows:
        item = row["data"]
        if isinstance(item, SCALARS):
            row["id"] = item
            del row["data"]
            continue
        row["id"] = read(item)
        if row["id"] is MISSING or row["id"] is None:
            raise SchemaError(
                f"An item that {row['verdict']} has no id: {item!r:.100}.",
                code="bad_candidate",
                path=place,
                hint="Say how it is read, for example id='product.id'.",
            )
    return rows


def read_rows(
    given: Sequence[Mapping[str, Any]], place: str, own_columns: Sequence[str] | None, first: int, markers: Markers
) -> list[Row]:
    """Check rows.

    Args:
        given: The rows.
        place: The stage, for the errors' paths.
        own_columns: The stage type's own columns; None where the type is not known, so that any name will do.
        first: How many candidates the stage has already.
        markers: A list that takes what had to be replaced; untouched where this raises.

    Returns:
        New rows with ``candidate_id`` and each column that has a value, all of it JSON.

    Raises:
        SchemaError: One of them cannot be so; ``path`` names it.
    """
    plain = plain_of(list(given))
    replaced: Markers = []
    rows: list[Row] = []
    for seq, row in enumerate(plain, first):
        path = f"{place}.candidates[{seq}]"
        if not isinstance(row, dict):
            raise SchemaError("A candidate is a mapping.", code="bad_candidate", path=path)
        checked = {"candidate_id": _id(row, path)}
        for name, value in row.items():
            if name in _ID_NAMES:
                continue
            _check_name(name, path, own_columns)
            check = _CHECKS.get(name)
            found = to_json(value, replaced, f"candidates.{seq}.{name}") if check is None else value
            if check is not None and value is not None:
                found = check(value, f"{path}.{name}")
            if found is not None:
                checked[name] = found
        rows.append(checked)
    markers += replaced
    return rows


def _id(row: Row, path: str) -> str:
    given = [row[name] for name in _ID_NAMES if row.get(name) is not None]
    if len(given) != 1:
        raise SchemaError(
            "A candidate has two ids." if given else "A candidate has no id.", code="bad_candidate", path=f"{path}.id"
        )
    return text_of(given[0], f"{path}.id")


def _check_name(name: Any, path: str, own_columns: Sequence[str] | None) -> None:
    known = (*CANDIDATE_COLUMNS, *(own_columns or ()))
    if name in known or (own_columns is None and isinstance(name, str) and _COLUMN_NAME.match(name)):
        return
    raise SchemaError(
        f"A candidate has no field '{name}'.",
        code="unknown_field",
        path=f"{path}.{name}",
        hint=did_you_mean(str(name), known) or "What describes the candidate itself belongs into 'data'.",
    )


def _score(value: Any, path: str) -> float | int | None:
    # A score that is not finite is no score, as everywhere else.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return number_of(value, path)


def _scores(value: Any, path: str) -> dict[str, float | int]:
    if not isinstance(value, dict):
        raise bad("Scores are a mapping from name to number.", path)
    found = {str(name): _score(number, f"{path}.{name}") for name, number in value.items()}
    return {name: number for name, number in found.items() if number is not None}


def _checks(value: Any, path: str) -> dict[str, Any]:
    table = as_checks(value)
    if table is None:
        raise bad("Checks are a mapping from name to whether it passed.", path)
    found: dict[str, Any] = to_json(table)
    return found


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "verdict": lambda value, path: word_of(value, VERDICTS, path, "A verdict"),
    "reason_label": text_of,
    "reason_text": text_of,
    "score": _score,
    "scores": _scores,
    "checks": _checks,
    "rank": count_of,
    "rank_before": count_of,
}
