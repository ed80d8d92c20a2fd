"""A run as the analyses see it: its document, its stages in order, and of each stage the candidates that are kept."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from xray.stage_types.base import Columns
from xray_server.documents import Document

Row = Mapping[str, Any]


class StageRecord:
    """One stage with the candidates that the store has of it.

    Args:
        document: The stage's document.
        rows: Its candidates in order: ``candidate_id`` and each column that has a value.
        columns: The candidates by column, in place of rows.
    """

    def __init__(self, document: Mapping[str, Any], rows: Iterable[Row] = (), columns: Columns | None = None) -> None:
        self.document = document
        self.columns = Columns.from_rows(list(rows)) if columns is None else columns
        self.id: str = document["id"]
        self.parent_id: str | None = document.get("parent_id")
        self.name: str = document.get("name") or ""
        self.path: str = document.get("path") or self.name
        self.type: str = document.get("type") or ""
        self.metrics: Mapping[str, Any] = document.get("metrics") or {}
        self.facts: Mapping[str, Any] = document.get("facts") or {}

    def __repr__(self) -> str:
        return f"<StageRecord {self.path!r} {self.type}, {len(self.columns)} candidates>"

    @functools.cached_property
    def rows(self) -> Sequence[Row]:
        """The candidates in order: ``candidate_id`` and each column that has a value."""
        return list(self.columns.rows())

    @property
    def seen(self) -> int:
        """How many candidates the stage looked at, as far as anybody said."""
        capture = self.document.get("capture") or {}
        return max(_count(capture.get("seen")), _count(self.document.get("metrics_over")), len(self.columns))

    @property
    def has_all(self) -> bool:
        """Whether every candidate that the stage looked at is there."""
        return not self.document.get("candidates_removed_at") and len(self.columns) >= self.seen

    @property
    def says_all_are_kept(self) -> bool:
        """Whether, by what the document says, every candidate that the stage looked at was kept, and is still there."""
        capture = self.document.get("capture") or {}
        kept = capture.get("kept")
        return not self.document.get("candidates_removed_at") and (not is_number(kept) or kept >= self.seen)

    @property
    def kept(self) -> dict[str, Any]:
        """What is kept of what was seen, and why that is not everything."""
        capture = self.document.get("capture") or {}
        why = None
        if self.document.get("candidates_removed_at"):
            why = "removed"
        elif not self.has_all:
            why = capture.get("mode") if capture.get("mode") != "full" else "limit"
        return {"seen": self.seen, "kept": len(self.columns), "all": self.has_all, "why": why}

    @functools.cached_property
    def places(self) -> dict[str, list[int]]:
        """Candidate id → the places of its rows."""
        found: dict[str, list[int]] = {}
        for place, candidate_id in enumerate(self.columns.candidate_id):
            found.setdefault(candidate_id, []).append(place)
        return found

    def row(self, candidate_id: str) -> Row | None:
        """The row of a candidate, or None where the stage has none of it; of several the first that went on."""
        rows = [self.rows[place] for place in self.places.get(candidate_id, ())]
        return next((row for row in rows if not self.lost(row)), rows[0] if rows else None)

    def lost(self, row: Row) -> bool:
        """Whether a candidate went no further than this stage.

        It did not where it failed; where others were passed, selected or ranked and it was not; where a stage that
        ranks gave it no rank.

        Args:
            row: The candidate's row.
        """
        if row.get("verdict") is not None:
            return bool(row["verdict"] == "failed")
        if self.type == "ranking":
            return row.get("rank") is None
        if self._passed or self._selected:
            return True
        return row.get("rank") is None and self._has_ranks

    def is_decided_by(self, rows: Iterable[Row]) -> bool:
        """Whether :meth:`lost` can be told of some rows without the others.

        Args:
            rows: The rows.
        """
        if self.type == "ranking" or self._passed or self._selected:
            return True
        return all(row.get("verdict") is not None or row.get("rank") is not None for row in rows)

    @functools.cached_property
    def survivors(self) -> set[str]:
        """The ids of the kept candidates that the stage let go on, of duplicates if any of them did."""
        return {row["candidate_id"] for row in self.rows if not self.lost(row)}

    @functools.cached_property
    def _has_ranks(self) -> bool:
        return any(rank is not None for rank in self.columns.column("rank"))

    @functools.cached_property
    def _passed(self) -> int:
        return max(_count(self.metrics.get("passed")), self.columns.column("verdict").count("passed"))

    @functools.cached_property
    def _selected(self) -> int:
        return max(_count(self.metrics.get("selected")), self.columns.column("verdict").count("selected"))


class RunRecord:
    """One run with its stages.

    Args:
        document: The run's document.
        stages: Its stages, in any order.
    """

    def __init__(self, document: Document, stages: Iterable[StageRecord]) -> None:
        self.document = document
        self.id: str = document["id"]
        self.stages: list[StageRecord] = sorted(
            stages, key=lambda stage: (_count(stage.document.get("order")), stage.id)
        )

    def later_siblings(self, stage: StageRecord) -> list[StageRecord]:
        """The stages with the same parent that began after this one, in order."""
        place = self.stages.index(stage)
        return [other for other in self.stages[place + 1 :] if other.parent_id == stage.parent_id]

    def groups(self) -> list[tuple[StageRecord | None, list[StageRecord]]]:
        """The stages by their parent, outermost first; a parent that is not there counts as none."""
        by_id = {stage.id: stage for stage in self.stages}
        found: dict[str | None, list[StageRecord]] = {}
        for stage in self.stages:
            found.setdefault(stage.parent_id if stage.parent_id in by_id else None, []).append(stage)
        return [(None if key is None else by_id[key], group) for key, group in found.items()]

    def head(self) -> dict[str, Any]:
        """The run in a few fields, for the head of an answer."""
        names = ("id", "key", "label", "version", "environment", "started_at", "duration_ms", "status", "error")
        return {name: self.document[name] for name in names if name in self.document}


def went_on_after(run: RunRecord, stage: StageRecord) -> tuple[set[str] | None, StageRecord | None]:
    """The candidates of a stage that were still there after the next decision about them, and who decided.

    The stage itself where it lets some go on and others not; else the next sibling that has some of its candidates,
    and either decides or lacks some of them.

    Args:
        run: The run.
        stage: One of its stages.

    Returns:
        The ids and the deciding stage; None for both where that stage does not hold all its candidates, or where
        there is no such stage.
    """
    ids = set(stage.places)
    if not ids or not stage.has_all:
        return None, None
    if stage.survivors != ids:
        return stage.survivors, stage
    for later in run.later_siblings(stage):
        if not later.has_all:
            return None, None
        shared = ids & set(later.places)
        if not shared:
            continue
        going_on = shared & later.survivors
        if going_on != ids:
            return going_on, later
    return None, None


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> int:
    return int(value) if is_number(value) else 0
