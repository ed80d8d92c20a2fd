"""What ``index=`` names: fields of candidates that questions will look for them by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xray.exceptions import DecoratorError, did_you_mean
from xray.stage_types.base import CANDIDATE_COLUMNS, StageType

IndexChoice = Iterable[str] | Mapping[str, str] | None
"""Paths of candidates' fields (``["data.price"]``), or names for them (``{"price": "data.price"}``)."""

MAX_INDEXED = 16
"""How many fields of one stage may be indexed: each costs the service space and time for every page."""

MAX_NAME_CHARS = 100

_TAKEN = ("id", "_id", "candidate_id", "seq")
_ROOTS = ("data", "output", "scores")
_INDEXED_ANYWAY = ("candidate_id", "verdict", "reason_label", "score", "rank")


def read_index(given: Any, stage_type: StageType, stage: str) -> list[dict[str, str]]:
    """The fields that a stage declares as indexed, as they travel in its facts.

    Args:
        given: What ``index=`` was given.
        stage_type: The stage's type.
        stage: The stage's name, for messages.

    Returns:
        ``{"name": …, "path": …}`` for each field; where no name was given it is the path.

    Raises:
        DecoratorError: A path leads to no field of a candidate, a name occurs twice, or there are too many.
    """
    if given is None:
        return []
    if isinstance(given, str):
        given = [given]
    if stage_type.name == "raw":
        raise _wrong(f"The stage '{stage}' is raw: it has no candidates to index.")
    if not isinstance(given, Iterable):
        raise _wrong(f"index={given!r} of the stage '{stage}' is no list of paths.", "Write index=['data.price'].")
    pairs = list(given.items()) if isinstance(given, Mapping) else [(path, path) for path in given]
    if len(pairs) > MAX_INDEXED:
        raise _wrong(f"The stage '{stage}' has {len(pairs)} indexed fields; {MAX_INDEXED} are the most.")
    for name, path in pairs:
        if not isinstance(name, str) or not name or not isinstance(path, str):
            raise _wrong(f"index= of the stage '{stage}': {path!r} is no path.", "Write index=['data.price'].")
        _check_path(path, stage_type, stage)
        if name != path:
            _check_name(name, stage_type, stage)
    if len(dict(pairs)) < len(pairs):
        raise _wrong(f"index= of the stage '{stage}' names a field twice.")
    return [{"name": name, "path": path} for name, path in pairs]


def _check_path(path: str, stage_type: StageType, stage: str) -> None:
    root, *rest = path.split(".")
    if root in _INDEXED_ANYWAY and not rest:
        raise _wrong(f"index= of the stage '{stage}': '{path}' is indexed anyway.")
    if root in stage_type.columns and all(rest):
        return
    if root not in _ROOTS:
        hint = did_you_mean(root, (*_ROOTS, *stage_type.columns)) or f"Write data.{path} for a candidate's own field."
        raise _wrong(f"index= of the stage '{stage}': candidates have no '{root}'.", hint)
    if not rest or not all(rest):
        raise _wrong(
            f"index= of the stage '{stage}': '{path}' names no one field.", f"Write {root}. and a field: {root}.price."
        )


def _check_name(name: str, stage_type: StageType, stage: str) -> None:
    if any(character in name for character in ".=$") or len(name) > MAX_NAME_CHARS:
        raise _wrong(f"index= of the stage '{stage}': '{name[:50]}' is no name for a field.", "Write one word: price.")
    if name in _TAKEN or name in CANDIDATE_COLUMNS or name in stage_type.columns:
        raise _wrong(f"index= of the stage '{stage}': candidates have a '{name}' already.", "Take another name.")


def _wrong(message: str, hint: str | None = None) -> DecoratorError:
    return DecoratorError(message, path="index", hint=hint)
