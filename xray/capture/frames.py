"""Data frames and arrays as candidates, without importing the libraries that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xray.capture.plain import plain


def is_frame(value: Any) -> bool:
    """Whether a value is a data frame of pandas or polars."""
    return _library(value) in _FRAMES and type(value).__name__ == "DataFrame"


def is_column(value: Any) -> bool:
    """Whether a value is one column of numbers or texts: a series, or an array of one dimension."""
    library = _library(value)
    if library in _FRAMES:
        return type(value).__name__ == "Series"
    return library == "numpy" and getattr(value, "ndim", None) == 1 and hasattr(value, "tolist")


def column_values(value: Any) -> list[Any]:
    """The values of a column as plain objects, missing ones as None."""
    if _library(value) == "pandas":
        return _present(value)
    values = value.to_list() if hasattr(value, "to_list") else value.tolist()
    return [None if isinstance(item, float) and item != item else item for item in values]  # noqa: PLR0124 - NaN


def rows_of(frame: Any, *, named_id: bool) -> tuple[list[dict[str, Any]], dict[str, list[Any]] | None, dict[str, Any]]:
    """The rows of a data frame as dicts; missing values are None.

    A column name that occurs again is given a number (``price#2``). A pandas frame that has no column with an id is
    known by its index, so that a selection of its rows is recognised.

    Args:
        frame: The data frame; only read.
        named_id: Whether the decorator names an id.

    Returns:
        The rows, the values that stand in for ids (``{"id": […]}``, or None), and what is worth saying about it.
    """
    from xray.capture.accessors import ID_NAMES

    is_pandas = _library(frame) == "pandas"
    facts: dict[str, Any] = {"rows_from": f"{_library(frame)}.DataFrame"}
    names, repeated = _distinct([_name(label) for label in frame.columns])
    if repeated:
        facts["duplicate_columns"] = repeated
    if is_pandas:
        columns = [_present(frame.iloc[:, place]) for place in range(len(names))]
    else:
        columns = [column_values(frame[name]) for name in frame.columns]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if not names:
        rows = [{} for _ in range(len(frame))]
    if not is_pandas or named_id or any(name in ID_NAMES for name in names):
        return rows, None, facts
    facts["id_from"] = "index"
    return rows, {"id": [_label(label) for label in frame.index]}, facts


def _present(series: Any) -> list[Any]:
    """The values of a pandas series as plain objects, missing ones as None."""
    missing = series.isna().tolist()
    return [None if gone else value for value, gone in zip(series.tolist(), missing, strict=True)]


def _distinct(given: Sequence[str]) -> tuple[list[str], int]:
    """The names, those that occur again with a number that makes them distinct; how many these are."""
    taken = set(given)
    seen: dict[str, int] = {}
    names: list[str] = []
    for name in given:
        seen[name] = count = seen.get(name, 0) + 1
        new = name
        while count > 1 and (new := f"{name}#{count}") in taken:
            count += 1
        taken.add(new)
        names.append(new)
    return names, len(given) - len(seen)


def _name(label: Any) -> str:
    """A column's name; of several levels joined: ``price/min``."""
    return "/".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _label(label: Any) -> str | int:
    """A row's label as an id; of several levels joined: ``shop/17``."""
    if isinstance(label, (str, int)):
        return label
    if isinstance(label, tuple):
        return "/".join(map(str, label))
    return str(plain(label))


_FRAMES = ("pandas", "polars")


def _library(value: Any) -> str:
    try:
        module = type(value).__module__
    except Exception:  # a metaclass may do anything
        return ""
    return module.partition(".")[0] if type(module) is str else ""
