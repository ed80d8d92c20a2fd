"""Conditions on metrics as SQL, in two forms.

A stage's own row says whether they hold for it; and the index over (metric, value) leads to the stages for which they
do, where they ask for what is there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from xray_server.query.ast import Compare, Condition, Exists, In, Metric, Test
from xray_server.stores.sqlite.probe import NUMBER, VALUE
from xray_server.stores.sqlite.rows import METRIC_NULL, METRIC_OTHER
from xray_server.stores.sqlite.sql import FALSE, UNKNOWN, Bounds, Sql, all_of, any_of, either, exact
from xray_server.stores.sqlite.values import SYMBOLS, WORD, fits, is_plain


def metric_row_name(metric: Metric) -> str:
    """The name of the metric's numbers in ``stage_metrics``."""
    return metric.name if metric.key is None else f"{metric.name}.{metric.key}"


def metric_id(project: str, name: str) -> Sql:
    """The metric's number; NULL, which nothing equals, where no stage ever had it."""
    return Sql(f"(SELECT metric FROM metric_names WHERE project = {WORD} AND name = ?)", (project, name))


def metric_number(metric: Metric) -> Sql:
    """The metric's number, off the row of ``s``; NULL where it has none."""
    return Sql(f"{NUMBER}(s.rest, ?, ?)", (metric.name, metric.key))


def _metric_value(metric: Metric) -> Sql:
    return Sql(f"{VALUE}(s.rest, ?, ?)", (metric.name, metric.key))


def _is_odd(metric: Metric) -> Sql:
    """That the metric may hold anything, so that only the evaluator knows."""
    whole = _metric_value(Metric(metric.name))
    return Sql(f"ifnull({whole.text} = ?, 0)", (*whole.params, METRIC_OTHER))


def metric_test(metric: Metric, test: Test) -> Bounds:
    """A test on a metric of ``s``, by what is in the stage's row."""
    number, value = metric_number(metric), _metric_value(metric)

    def with_odd(condition: str, *params: Any) -> Bounds:
        under = Sql(f"ifnull({number.text} {condition}, 0)", (*number.params, *params))
        return Bounds(under, any_of([under, _is_odd(metric)]))

    match test.operator:
        case Exists(wanted):
            there = Sql(f"({value.text} IS NOT NULL)", value.params)
            found = Bounds(there, there if metric.key is None else any_of([there, _is_odd(metric)]))
            return found if wanted else ~found
        case Compare(op, None):
            if op not in ("eq", "gte", "lte"):
                return exact(FALSE)
            surely = Sql(f"(ifnull({value.text}, ?) = ?)", (*value.params, METRIC_NULL, METRIC_NULL))
            odd = _is_odd(metric)
            return Bounds(all_of([surely, Sql(f"NOT {odd.text}", odd.params)]), any_of([surely, odd]))
        case Compare(op, value_) if fits("number", value_) and is_plain(value_):
            return with_odd(f"{SYMBOLS[op]} ?", value_)
        case In(values) if None not in values and all(fits("number", v) and is_plain(v) for v in values):
            return with_odd(f"IN ({', '.join('?' * len(values))})", *values)
        case In(values):
            return either(metric_test(metric, Test(metric, Compare("eq", value))) for value in values)
    return UNKNOWN


def metric_rows_of(project: str, condition: Condition) -> Sql | None:
    """The rows of the index over metrics that lead to all stages that satisfy a test: a query for ``stage``.

    Args:
        project: The project.
        condition: Any condition.

    Returns:
        None where the index leads to none: it has only what is there.
    """
    match condition:
        case Test(Metric() as metric, Compare(op, value)) if fits("number", value) and is_plain(value):
            # Only numbers: what stands for other values is text, which is greater than every number.
            bound, params = f"m.value {SYMBOLS[op]} ? AND m.value < ''", [value]
        case Test(Metric() as metric, In(values)) if all(fits("number", v) and is_plain(v) for v in values):
            bound, params = f"m.value IN ({', '.join('?' * len(values))})", list(values)
        case Test(Metric() as metric, Exists(True)):
            bound, params = "1", []
        case _:
            return None
    row, odd = metric_id(project, metric_row_name(metric)), odd_rows_of(project, metric)
    return Sql(
        f"SELECT m.stage FROM stage_metrics AS m WHERE m.metric = {row.text} AND {bound} UNION ALL {odd.text}",
        (*row.params, *params, *odd.params),
    )


def odd_rows_of(project: str, metric: Metric) -> Sql:
    """The same for the stages whose metric may hold anything."""
    whole = metric_id(project, metric.name)
    return Sql(
        f"SELECT m.stage FROM stage_metrics AS m WHERE m.metric = {whole.text} AND m.value = ?",
        (*whole.params, METRIC_OTHER),
    )


def has_odd(connection: sqlite3.Connection, project: str, named: Iterable[Metric]) -> bool:
    """Whether some stage has something under one of the metrics that is neither a number nor a table of numbers."""
    for name in dict.fromkeys(metric.name for metric in named):
        rows = odd_rows_of(project, Metric(name))
        if connection.execute(f"{rows.text} LIMIT 1", rows.params).fetchone():
            return True
    return False
