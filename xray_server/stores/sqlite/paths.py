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
from dataclasses import dataclass
from typing import Final

from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Field, In, Metric, Reference, Scan, Test
from xray_server.stores.sqlite import compiler, metrics
from xray_server.stores.sqlite.sql import Sql

ROWS_OF_AN_ANSWER = 50
"""How many rows an answer mostly has."""

LOOKS_BEFORE_LISTING = 20_000
"""Stages that are looked at in order until those that the index over metrics gives are taken after all."""


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
    """

    index: str | None
    by: str
    ordered: bool = False
    narrows: bool = True
    listed: Sql | None = None
    else_listed: Sql | None = None

    @property
    def hint(self) -> str:
        """What follows the table's name in ``FROM``."""
        return f"INDEXED BY {self.index}" if self.index else "NOT INDEXED"


_START: Final = ("started_at",)
_ID: Final = ("id",)


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
            return Path("runs_by_id", f"their stages, these by {few[0]}")
    by_start = order == Field(_START)
    by_metric, else_listed = _many(project, scan.stage)
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
    equal = equal_fields(scan.stage)
    if _ID in equal:
        return Path("stages_by_id", "id")
    if ("run_id",) in equal or _ID in _equal_of_run(scan):
        return Path("stages_by_run", "run_id")
    few = few_stages(connection, project, scan.stage, besides)
    return None if few is None else Path(None, few[0], listed=few[1])


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
    if ("candidates_removed_at",) in ranged_fields(scan.stage) and _ID not in equal_fields(scan.stage):
        return Path("stages_by_removal", "candidates_removed_at", ordered=order == Field(("candidates_removed_at",)))
    few = path_to_few_stages(connection, project, scan)
    if few is not None:
        return few
    equal, of_run = equal_fields(scan.stage), _equal_of_run(scan)
    by_start = order == Field(_START)
    by_metric, else_listed = _many(project, scan.stage)
    for fields, index in (
        ((("name",), ()), "stages_by_name"),
        ((("pipeline", "label"), ("label",)), "stages_by_label"),
        ((("type",), ()), "stages_by_type"),
    ):
        if fields[0] in equal or fields[1] in of_run:
            by = f"{'.'.join(fields[0])}{' and started_at' if by_start else ''}{by_metric}"
            return Path(index, by, ordered=by_start, else_listed=else_listed)
    in_order = else_listed is not None or (scan.pipeline == scan.stage == EVERYTHING and scan.candidate is None)
    if order == Field(_ID):
        return Path("stages_by_id", f"id{by_metric}", ordered=True, narrows=in_order, else_listed=else_listed)
    by_time = _START in ranged_fields(scan.stage)
    narrows = by_time or (by_start and in_order)
    return Path("stages_by_start", f"started_at{by_metric}", ordered=by_start, narrows=narrows, else_listed=else_listed)


# --- metrics ----------------------------------------------------------------------------------------------------


def most_listed(stages: int) -> int:
    """Up to how many rows of the index over metrics are taken, rather than going through the stages in order.

    Taking *n* rows takes as long as looking at *n* stages; of *n* among *stages*, those of an answer are found among
    the first ``stages * ROWS_OF_AN_ANSWER / n`` where they are spread evenly.

    Args:
        stages: How many stages there are.
    """
    return math.isqrt(stages * ROWS_OF_AN_ANSWER)


def few_stages(
    connection: sqlite3.Connection, project: str, condition: Condition, besides: Reference | None = None
) -> tuple[str, Sql] | None:
    """The metric that the fewest stages fit, in words, and the query for their rows.

    Args:
        connection: To count with.
        project: The project.
        condition: The condition on a stage.
        besides: A metric that does not count.

    Returns:
        None where there are many for each metric.
    """
    found = None
    for metric, rows in _metric_parts(project, condition):
        if metric == besides:
            continue
        most = found[0] - 1 if found else most_listed(_stage_count(connection))
        number = _count(connection, rows, most + 1)
        if number <= most:
            found = (number, f"the metric {metrics.metric_row_name(metric)}", rows)
    return None if found is None else found[1:]


def _many(project: str, condition: Condition) -> tuple[str, Sql | None]:
    """What many stages fit, in words, and the query for them."""
    for metric, rows in _metric_parts(project, condition):
        name = metrics.metric_row_name(metric)
        return f", in order, because many stages fit the metric {name}", rows
    return "", None


def _metric_parts(project: str, condition: Condition) -> Iterator[tuple[Metric, Sql]]:
    for part in parts(condition):
        rows = metrics.metric_rows_of(project, part)
        if rows is not None and isinstance(part, Test) and isinstance(part.reference, Metric):
            yield part.reference, rows


def _count(connection: sqlite3.Connection, rows: Sql, most: int) -> int:
    counted = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM ({rows.text}) LIMIT ?)", (*rows.params, most))
    return int(counted.fetchone()[0])


def _stage_count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT ifnull(max(row), 0) FROM stages").fetchone()[0])
