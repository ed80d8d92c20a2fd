"""Limits: how much of a stage is kept at the most, and the markers that say what was not.

Nothing is cut without a marker. A marker is ``{path, kind, size}``; the kinds made here, with what ``size`` counts:

=============== ====================================================================================================
``candidates``  candidates were left out; size: how many there were
``value``       a value was larger than a value may be; size: its bytes as msgpack
``stage``       a value was dropped because the stage was full; size: its bytes as msgpack
``text``        a text was cut; size: its characters before
``more``        there were more markers than are kept; size: how many more
=============== ====================================================================================================

Paths name the place among the candidates that were kept: ``candidates.17.data``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any, NamedTuple

import msgspec

from xray.capture.fields import FieldColumns
from xray.capture.items import Packed
from xray.capture.snapshot import marker, snapshot
from xray.exceptions import ConfigurationError
from xray.sampling import Strategy, boundary, choose, per_label, top
from xray.stage_types.base import Columns

MAX_MARKERS = 100
"""Markers that are kept of one stage; one of kind ``more`` counts the others."""

_SHOWN = frozenset({"data", "output", "returned", "reason_text"})
"""Columns in which a text may stand for a value. In the others a value that is left out is None."""

_SMALL = frozenset({"verdict", "reason_label", "score", "rank", "rank_before"})
"""Columns that are never cut: without them nobody would know what was decided."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a stage is kept at the most.

    Args:
        max_candidates: Candidates of a stage.
        max_value_bytes: Bytes of one value as msgpack: a candidate's ``data``, the ``input`` of a stage.
        max_stage_bytes: Bytes of all candidates of a stage together, as msgpack.
        max_text_chars: Characters of a reason text.

    Raises:
        ConfigurationError: One of them is no whole number above 0.
    """

    max_candidates: int = 100_000
    max_value_bytes: int = 1 << 20
    max_stage_bytes: int = 32 << 20
    max_text_chars: int = 2_000

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if type(value) is not int or value < 1:
                raise ConfigurationError(
                    f"{limit.name} is a whole number above 0, not {value!r}.", code="bad_limit", path=limit.name
                )


@dataclass(frozen=True, slots=True)
class Limited:
    """What :func:`apply_limits` kept.

    Args:
        columns: The candidates that were kept; the given columns themselves where nothing was over a limit.
        reason: Which limits were passed, in words, or None.
        markers: What was cut, as ``{path, kind, size}``.
        kept: The positions, among the given candidates, of those that were kept.
    """

    columns: Columns
    reason: str | None
    markers: list[dict[str, Any]]
    kept: Sequence[int]


def surely_within(columns: Columns, limits: Limits, snapshot_bytes: int) -> bool:
    """Whether candidates that were made of a small snapshot are within every limit, without measuring them.

    Args:
        columns: Columns that a built-in stage type made.
        limits: The limits.
        snapshot_bytes: What they were made of.
    """
    return (
        len(columns) <= limits.max_candidates
        and snapshot_bytes * _MOST_GROWTH <= min(limits.max_value_bytes, limits.max_stage_bytes)
        and (snapshot_bytes <= limits.max_text_chars or "reason_text" not in columns.values)
    )


_MOST_GROWTH = 32
"""A byte of a snapshot may become a marker or a word, as many bytes at the most."""


def apply_limits(columns: Columns, limits: Limits, seed: int) -> Limited:
    """Hold the candidates of a stage to the limits.

    In this order:

    1. Past ``max_candidates`` a sample is kept: ``per_label(50) | boundary(100) | top(100)`` (in smaller numbers where
       these are too many already), filled up at random to the limit.
    2. A reason text past ``max_text_chars`` is cut, with its length at the end.
    3. A value past ``max_value_bytes`` is replaced with a marker.
    4. Past ``max_stage_bytes`` the largest values of all candidates are left out, largest first and at random among
       equals, until the rest fits; ids, verdicts, labels, scores and ranks stay. Where even these are too many,
       candidates are left out as a whole, those with the largest first.

    A value that is left out becomes a text that says so, in ``data``, ``output``, ``returned`` and ``reason_text``;
    in the other columns, whose form is fixed, it becomes None. ``msgspec.Raw`` is replaced with ``msgspec.Raw``.

    Args:
        columns: The candidates; they are not changed.
        limits: The limits.
        seed: Makes the choice repeatable.

    Returns:
        What was kept, and what was not.
    """
    markers: list[dict[str, Any]] = []
    reasons: list[str] = []
    cuts: list[_Cut] = []
    size = len(columns)
    kept: Sequence[int] = range(size)
    if size > limits.max_candidates:
        kept = _sample(columns, limits.max_candidates, seed)
        columns = columns.picked(kept)
        add_marker(markers, "candidates", "candidates", size)
        reasons.append(f"{size} candidates, of which max_candidates={limits.max_candidates} are kept")
    weights = _weights(columns, limits.max_value_bytes)
    large = [
        name
        for name, values in columns.values.items()
        if name not in _SMALL and not _values_fit(values, weights[name], limits.max_value_bytes)
    ]
    if large or not _texts_fit(columns, weights, limits.max_text_chars):
        columns = _cut_each(columns, large, limits, cuts)
        reasons.append(f"values beyond {limits.max_value_bytes} bytes or {limits.max_text_chars} characters")
        weights = _weights(columns, limits.max_value_bytes)
    total = _size(columns.candidate_id) + sum(weight.total for weight in weights.values())
    places: Sequence[int] = range(len(columns))
    if total > limits.max_stage_bytes and len(columns):
        reasons.append(f"{total} bytes, of which max_stage_bytes={limits.max_stage_bytes} are kept")
        columns, places = _cut_stage(columns, limits.max_stage_bytes, cuts, Random(seed))  # noqa: S311 - no secrets
        if len(places) < len(kept):
            add_marker(markers, "candidates", "candidates", len(kept))
            kept = [kept[place] for place in places]
    if cuts:
        now_at = {place: position for position, place in enumerate(places)}
        for cut in sorted(cuts, key=lambda cut: cut[:2]):
            if cut.place in now_at:
                add_marker(markers, f"candidates.{now_at[cut.place]}.{cut.column}", cut.kind, cut.size)
    return Limited(columns, "; ".join(reasons) or None, markers, kept)


def limit_value(value: Any, max_bytes: int, path: str, markers: list[dict[str, Any]]) -> Any:
    """Hold one value, the input or output of a stage or a run, to a limit.

    Args:
        value: Plain JSON or ``msgspec.Raw``.
        max_bytes: What it may have as msgpack.
        path: Its path, for the marker.
        markers: Takes a marker where it has more.

    Returns:
        The value, or a text (``msgspec.Raw`` for ``msgspec.Raw``) that says how large it was.
    """
    size = _size(value)
    if size <= max_bytes:
        return value
    add_marker(markers, path, "value", size)
    return _instead(value, f"value of {size} bytes")


def add_marker(markers: list[dict[str, Any]], path: str, kind: str, size: int) -> None:
    """Add a marker; past ``MAX_MARKERS`` the last one only counts."""
    if len(markers) < MAX_MARKERS:
        markers.append({"path": path, "kind": kind, "size": size})
    elif markers[-1]["kind"] == "more":
        markers[-1]["size"] += 1
    else:
        markers.append({"path": "", "kind": "more", "size": 1})


# --- sizes --------------------------------------------------------------------------------------------------------


def _size(value: Any) -> int:
    """The bytes of a value as msgpack."""
    if isinstance(value, (FieldColumns, Packed)):
        return value.size_bytes
    return len(value) if isinstance(value, msgspec.Raw) else len(snapshot(value))


@dataclass(frozen=True, slots=True)
class _Weight:
    """The bytes of a column, and of the largest of the runs that it was measured in: no value has more."""

    total: int
    largest_run: int


def _weights(columns: Columns, enough: int) -> dict[str, _Weight]:
    # Whole columns, or runs, rather than values: one encoder call for each of thousands of values is what would cost.
    weights = {}
    for name, values in columns.values.items():
        whole = _size(values)
        if whole <= enough:
            weights[name] = _Weight(whole, whole)
            continue
        run = max(512, len(values) // 10)
        sizes = [_size(values[start : start + run]) for start in range(0, len(values), run)]
        weights[name] = _Weight(sum(sizes), max(sizes, default=0))
    return weights


def _texts_fit(columns: Columns, weights: dict[str, _Weight], limit: int) -> bool:
    # No text can have more characters than the run that it is in has bytes.
    texts = columns.values.get("reason_text")
    return not texts or weights["reason_text"].largest_run <= limit or _longest(texts) <= limit


def _longest(texts: list[Any]) -> int:
    try:
        return max(map(len, filter(None, texts)), default=0)
    except TypeError:
        return max((len(text) for text in texts if isinstance(text, str)), default=0)


def _values_fit(values: list[Any], weight: _Weight, limit: int) -> bool:
    if weight.largest_run <= limit:
        return True
    run = max(1, len(values) * limit // (2 * weight.total))
    if all(_size(values[start : start + run]) <= limit for start in range(0, len(values), run)):
        return True
    return all(_size(value) <= limit for value in values)


# --- cuts ---------------------------------------------------------------------------------------------------------


def _sample(columns: Columns, limit: int, seed: int) -> list[int]:
    for n in (50, 25, 12, 6, 3, 1):
        strategy: Strategy = per_label(n) | boundary(2 * n) | top(2 * n)
        chosen = set(choose(strategy, columns, seed))
        if len(chosen) <= limit:
            break
    else:
        chosen = set()  # more labels than candidates may be kept: not each of them can survive
    others = [position for position in range(len(columns)) if position not in chosen]
    return sorted(chosen.union(Random(seed).sample(others, limit - len(chosen))))  # noqa: S311 - no secrets


class _Cut(NamedTuple):
    place: int
    column: str
    kind: str
    size: int


def _cut_each(columns: Columns, large: list[str], limits: Limits, cuts: list[_Cut]) -> Columns:
    """The columns without texts and values that are too large by themselves."""
    cut = dict(columns.values)
    limit = limits.max_text_chars
    if "reason_text" in cut:
        cut["reason_text"] = texts = list(cut["reason_text"])
        for place, text in enumerate(texts):
            if isinstance(text, str) and len(text) > limit:
                texts[place] = f"{text[:limit]}… {marker(f'text of {len(text)} characters')}"
                cuts.append(_Cut(place, "reason_text", "text", len(text)))
    for name in large:
        cut[name] = values = list(cut[name])
        for place, value in enumerate(values):
            size = _size(value)
            if size > limits.max_value_bytes:
                values[place] = _instead(value, f"value of {size} bytes") if name in _SHOWN else None
                cuts.append(_Cut(place, name, "value", size))
    return Columns(columns.candidate_id, cut, columns.facts)


def _cut_stage(columns: Columns, limit: int, cuts: list[_Cut], rng: Random) -> tuple[Columns, Sequence[int]]:
    """The columns without what does not fit together, and the places of the candidates that are left."""
    cut = {name: list(values) for name, values in columns.values.items()}
    cells = [
        (_size(value), rng.random(), name, place)
        for name, values in cut.items()
        if name not in _SMALL
        for place, value in enumerate(values)
        if value is not None
    ]
    cells.sort(reverse=True)
    total = _size([columns.candidate_id, *cut.values()])
    for size, _, name, place in cells:
        if total <= limit:
            break
        text = _instead(cut[name][place], f"value of {size} bytes, the stage was full") if name in _SHOWN else None
        if _size(text) < size:
            cut[name][place] = text
            cuts.append(_Cut(place, name, "stage", size))
            total += _size(text) - size
    columns = Columns(columns.candidate_id, cut, columns.facts)
    places: Sequence[int] = range(len(columns))
    if total > limit:
        lists = [columns.candidate_id, *cut.values()]
        sizes = [sum(_size(values[place]) for values in lists) for place in places]
        by_size = sorted(places, key=lambda place: (sizes[place], rng.random()))
        while by_size and total > limit:
            total -= sizes[by_size.pop()]
        places = sorted(by_size)
        columns = columns.picked(places)
    return columns, places


def _instead(value: Any, text: str) -> Any:
    """The text that stands for a value, in the form that the value had."""
    return msgspec.Raw(msgspec.msgpack.encode(marker(text))) if isinstance(value, msgspec.Raw) else marker(text)
