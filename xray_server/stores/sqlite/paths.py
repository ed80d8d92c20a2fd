"""By which way SQLite gets to the rows of a scan.

SQLite knows nothing of how the values are spread, and without that its own choice reads whole projects where an index
would lead to a few rows. So each statement says its way: ``INDEXED BY`` one index, or the rows that the index over
metrics gives. Where many stages fit a metric it is faster to go through the stages in the order that is asked for and
to look at each; a bounded count decides.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from xray.ids import is_id
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Field, In, Metric, Reference, Scan, Test
from xray_server.stores.sqlite import compiler, metrics
from xray_server.stores.sqlite.sql import Sql

ROWS_OF_AN_ANSWER = 50
"""How many rows an answer mostly has."""

LOOKS_BEFORE_LISTING = 20_000
"""Stages that are looked at in order until those that the index over metrics gives are taken after all."""


ROWS_FOR_A_LOOK = 4
"""As many rows of the index over metrics are taken, and sorted, in the time of looking at one stage's metrics."""

PASSED_BY_FOR_A_ROW = 5
"""As many stages are passed by in an index in the time of taking one row."""

MOST_PASSED_BY = 100_000
"""In a larger store nobody knows how long it takes to get past all stages that do not fit."""

FEW_IDS = 20
"""The documents of so many ids are read in one short step."""


@dataclass(frozen=True, slots=True)
class Path:
    """A way to the rows of ``s`` or ``r``.

    Args:
        index: The index that leads to them; None for the rows of ``listed``, or where a metric's order leads.
        by: What it finds them by, in words.
        ordered: Whether they come in the order of the scan's first key.
        narrows: Whether it serves a condition, and does not just go through all rows.
        listed: For stages: a query for the rows of those that may fit.
        else_listed: The same, to be taken where going through the rows takes too long.
        served: What of the condition on the stage those of ``listed`` or ``else_listed`` satisfy, but for stages whose
            metric may hold anything.
    """

    index: str | None
    by: str
    ordered: bool = False
    narrows: bool = True
    listed: Sql | None = None
    else_listed: Sql | None = None
    served: Condition | None = None

    @property
    def is_short(self) -> bool:
        """Whether it leads to so few rows that sorting these whole is no loss."""
        return self.listed is None and self.index in ("runs_by_key", "stages_by_id", "stages_by_run")

    @property
    def hint(self) -> str:
        """What follows the table's name in ``FROM``."""
        return f"INDEXED BY {self.index}" if self.index else "NOT INDEXED"


_START: Final = ("started_at",)
_ID: Final = ("id",)
_REMOVED_AT: Final = ("candidates_removed_at",)


def parts(condition: Condition) -> Iterator[Condition]:
    """The conditions of a conjunction."""
    if isinstance(condition, And):
        for part in condition.conditions:
            yield from parts(part)
    else:
        yield condition


def equal_fields(condition: Condition) -> frozenset[tuple[str, ...]]:
    """The fields that must equal a text, or one of some."""
    return frozenset(
        part.reference.path
        for part in parts(condition)
        if isinstance(part, Test) and isinstance(part.reference, Field) and _is_equality(part)
    )


def ranged_fields(condition: Condition) -> frozenset[tuple[str, ...]]:
    """The fields that a number bounds."""
    return frozenset(
        part.reference.path
        for part in parts(condition)
        if isinstance(part, Test)
        and isinstance(part.reference, Field)
        and isinstance(part.operator, Compare)
        and isinstance(part.operator.value, int | float)
    )


def _is_equality(test: Test) -> bool:
    match test.operator:
        case Compare("eq", str()):
            return True
        case In(values):
            return all(isinstance(value, str) for value in values)
    return False


def leads_to_few(scan: Scan) -> bool:
    """Whether a scan asks for what few rows of an index lead to, mostly, and for no candidates."""
    if scan.candidate is not None or (scan.of == "runs" and (scan.stages or scan.stage != EVERYTHING)):
        return False
    if scan.of == "stages" and _REMOVED_AT in ranged_fields(scan.stage):
        return True  # mostly there are none
    condition, fields = (scan.pipeline, (_ID,)) if scan.of == "runs" else (scan.stage, (_ID, ("run_id",)))
    for part in parts(condition):
        match part:
            case Test(Field(path), Compare("eq", str())) if path in fields:
                return True
            case Test(Field(path), In(values)) if path in fields and len(values) <= FEW_IDS:
                return all(isinstance(value, str) for value in values)
    return False


def one_id(scan: Scan) -> tuple[tuple[str, ...], str] | None:
    """The field that must equal an id, and the id, of a scan that asks for nothing else; None for any other scan."""
    if scan.after is not None or scan.candidate is not None or scan.stages:
        return None
    condition, other = (scan.pipeline, scan.stage) if scan.of == "runs" else (scan.stage, scan.pipeline)
    if other != EVERYTHING:
        return None
    match list(parts(condition)):
        case [Test(Field((("id" | "run_id"),) as path), Compare("eq", str() as text))] if is_id(text):
            return path, text
    return None


def path_to_runs(connection: sqlite3.Connection, project: str, scan: Scan, order: Reference) -> Path:
    """The way to the runs of a scan.

    Args:
        connection: To count with.
        project: The project.
        scan: The scan.
        order: The first sort key.
    """
    equal = equal_fields(scan.pipeline)
    if _ID in equal:
        return Path("runs_by_id", "id")
    if ("key",) in equal:
        return Path("runs_by_key", "key")
    for condition in (scan.stage, *scan.stages):
        few = few_stages(connection, project, condition)
        if few is not None:
            return Path("runs_by_id", f"their stages, these by {few.by}")
    by_start = order == Field(_START)
    by_metric, else_listed, _ = _many(project, scan.stage)
    if ("label",) in equal:
        return Path("runs_by_label", f"label{by_metric}", ordered=by_start, else_listed=else_listed)
    in_order = else_listed is not None or (scan.pipeline == scan.stage == EVERYTHING and scan.candidate is None)
    if order == Field(_ID):
        return Path("runs_by_id", f"id{by_metric}", ordered=True, narrows=in_order, else_listed=else_listed)
    by_time = _START in ranged_fields(scan.pipeline)
    narrows = by_time or (by_start and in_order)
    return Path("runs_by_start", f"started_at{by_metric}", ordered=by_start, narrows=narrows, else_listed=else_listed)


def path_to_few_stages(
    connection: sqlite3.Connection, project: str, scan: Scan, *, besides: Reference | None = None
) -> Path | None:
    """A way to few stages, whose order does not matter; None where there are many whatever leads to them.

    Args:
        connection: To count with.
        project: The project.
        scan: The scan.
        besides: A metric that does not count.
    """
    by_id = _path_by_id(scan)
    if by_id is not None:
        return by_id
    few = few_stages(connection, project, scan.stage, besides)
    return None if few is None else few.path


def _path_by_id(scan: Scan) -> Path | None:
    equal = equal_fields(scan.stage)
    if _ID in equal:
        return Path("stages_by_id", "id")
    if ("run_id",) in equal or _ID in _equal_of_run(scan):
        return Path("stages_by_run", "run_id")
    return None


def _equal_of_run(scan: Scan) -> frozenset[tuple[str, ...]]:
    return equal_fields(scan.pipeline) if compiler.only_copied(scan.pipeline) else frozenset()


def path_to_stages(connection: sqlite3.Connection, project: str, scan: Scan, order: Reference) -> Path:
    """The way to the stages of a scan, where no index over metrics gives their order.

    Args:
        connection: To count with.
        project: The project.
        scan: The scan.
        order: The first sort key that is not the same for all.
    """
    if _REMOVED_AT in ranged_fields(scan.stage) and _ID not in equal_fields(scan.stage):
        return Path("stages_by_removal", "candidates_removed_at", ordered=order == Field(_REMOVED_AT))
    by_id = _path_by_id(scan)
    if by_id is not None:
        return by_id
    few = few_stages(connection, project, scan.stage)
    if few is not None:
        return _few_in_order(few, _stage_count(connection), scan, order) or few.path
    by_metric, rows, served = _many(project, scan.stage)
    path = _path_by_fields(scan, order, by_metric, is_asked=rows is not None)
    return replace(path, else_listed=rows, served=served)


def _few_in_order(few: Few, stages: int, scan: Scan, order: Reference) -> Path | None:
    """A way through the stages in order, past those that are not among few; None where it takes longer than sorting."""
    if few.number <= most_sorted(stages) or stages > MOST_PASSED_BY:
        return None
    path = _path_by_fields(scan, order, f", those that {few.by} gives", is_asked=True)
    return replace(path, listed=few.rows, served=few.served) if path.ordered else None


def _path_by_fields(scan: Scan, order: Reference, by_metric: str, *, is_asked: bool) -> Path:
    """The way to stages by their fields.

    Args:
        scan: The scan.
        order: The first sort key that is not the same for all.
        by_metric: What to add, in words.
        is_asked: Whether going through all of them in order is what is asked for.
    """
    equal, of_run = equal_fields(scan.stage), _equal_of_run(scan)
    by_start = order == Field(_START)
    for fields, index in (
        ((("name",), ()), "stages_by_name"),
        ((("pipeline", "label"), ("label",)), "stages_by_label"),
        ((("type",), ()), "stages_by_type"),
    ):
        if fields[0] in equal or fields[1] in of_run:
            by = f"{'.'.join(fields[0])}{' and started_at' if by_start else ''}{by_metric}"
            return Path(index, by, ordered=by_start)
    in_order = is_asked or (scan.pipeline == scan.stage == EVERYTHING and scan.candidate is None)
    if order == Field(_ID):
        return Path("stages_by_id", f"id{by_metric}", ordered=True, narrows=in_order)
    by_time = _START in ranged_fields(scan.stage)
    narrows = by_time or (by_start and in_order)
    return Path("stages_by_start", f"started_at{by_metric}", ordered=by_start, narrows=narrows)


# --- metrics ----------------------------------------------------------------------------------------------------


def most_listed(stages: int) -> int:
    """Up to how many rows of the index over metrics are taken, rather than going through the stages in order.

    Of *n* rows that fit among *stages*, those of an answer are found among the first ``stages * ROWS_OF_AN_ANSWER / n``
    where they are spread evenly. Looking at a stage's metrics takes as long as taking a few of the rows.

    Args:
        stages: How many stages there are.
    """
    return math.isqrt(stages * ROWS_OF_AN_ANSWER * ROWS_FOR_A_LOOK)


def most_sorted(stages: int) -> int:
    """Up to how many of these rows are read and sorted, rather than passing by all others in an index in order.

    Args:
        stages: How many stages there are.
    """
    return math.isqrt(stages * ROWS_OF_AN_ANSWER // PASSED_BY_FOR_A_ROW)


@dataclass(frozen=True, slots=True)
class Few:
    """Few stages that the index over metrics gives.

    Args:
        by: The metric, in words.
        rows: A query for their rows.
        served: The condition that it serves.
        number: How many they are.
    """

    by: str
    rows: Sql
    served: Condition
    number: int

    @property
    def path(self) -> Path:
        """The way to them, in no order."""
        return Path(None, self.by, listed=self.rows, served=self.served)


def few_stages(
    connection: sqlite3.Connection, project: str, condition: Condition, besides: Reference | None = None
) -> Few | None:
    """The stages of the metric that the fewest fit.

    Args:
        connection: To count with.
        project: The project.
        condition: The condition on a stage.
        besides: A metric that does not count.

    Returns:
        None where there are many for each metric.
    """
    found = None
    for test, metric, rows in _metric_parts(project, condition):
        if metric == besides:
            continue
        most = found.number - 1 if found else most_listed(_stage_count(connection))
        number = _count(connection, rows, most + 1)
        if number <= most:
            found = Few(f"the metric {metrics.metric_row_name(metric)}", rows, test, number)
    return found


def _many(project: str, condition: Condition) -> tuple[str, Sql | None, Condition | None]:
    """What many stages fit, in words, the query for them, and the condition."""
    for test, metric, rows in _metric_parts(project, condition):
        name = metrics.metric_row_name(metric)
        return f", in order, because many stages fit the metric {name}", rows, test
    return "", None, None


def _metric_parts(project: str, condition: Condition) -> Iterator[tuple[Test, Metric, Sql]]:
    for part in parts(condition):
        rows = metrics.metric_rows_of(project, part)
        if rows is not None and isinstance(part, Test) and isinstance(part.reference, Metric):
            yield part, part.reference, rows


def _count(connection: sqlite3.Connection, rows: Sql, most: int) -> int:
    counted = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM ({rows.text}) LIMIT ?)", (*rows.params, most))
    return int(counted.fetchone()[0])


def _stage_count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT ifnull(max(row), 0) FROM stages").fetchone()[0])
