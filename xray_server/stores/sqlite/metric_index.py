"""The writing side of ``stage_metrics``: one row for each number of each stage."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from xray_server.stores.sqlite.inserting import insert
from xray_server.stores.sqlite.rows import metric_rows

MAX_KNOWN_NAMES = 100_000

IndexRow = tuple[int, int | float | str, int]
"""The number of the metric's name, the value or what stands for it, and the stage's row."""


class MetricIndex:
    """Changes rows of ``stage_metrics``, in the writer's transactions.

    Args:
        connection: The writer's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[int, dict[tuple[str, str | None], int]] = defaultdict(dict)

    def forget(self) -> None:
        """Forget the numbers of all names: some of them may have been given in a transaction that was undone."""
        self._known.clear()

    def rows(self, project: int, stage: int, metrics: Mapping[str, Any] | None) -> list[IndexRow]:
        """The rows of a stage's metrics; names that have no number get one.

        Args:
            project: The project's number.
            stage: The stage's row.
            metrics: Its metrics, or None.
        """
        if not metrics:
            return []
        known = self._known[project]
        return [
            (known.get((name, key)) or self._numbered(project, name, key), value, stage)
            for name, key, value in metric_rows(metrics)
        ]

    def change(self, dropped: list[IndexRow], added: list[IndexRow]) -> None:
        """Take rows out, and then put rows in."""
        if dropped:
            self._connection.executemany(
                "DELETE FROM stage_metrics WHERE metric = ? AND value = ? AND stage = ?", dropped
            )
        insert(self._connection, "stage_metrics", ("metric", "value", "stage"), _in_order_of_the_tree(added))

    def _numbered(self, project: int, metric: str, key: str | None) -> int:
        """The number of the name of a metric, or of an entry of one that is a table, made where it has none."""
        name = metric if key is None else f"{metric}.{key}"
        self._connection.execute(
            "INSERT INTO metric_names (project, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (project, name)
        )
        number: int = self._connection.execute(
            "SELECT metric FROM metric_names WHERE project = ? AND name = ?", (project, name)
        ).fetchone()[0]
        # The names inside tables are the users' own: without a bound their number grows for ever.
        if sum(map(len, self._known.values())) >= MAX_KNOWN_NAMES:
            self._known.clear()
        self._known[project][metric, key] = number
        return number


def _in_order_of_the_tree(rows: list[IndexRow]) -> list[IndexRow]:
    """By metric, numbers before texts, so that neighbours go into the tree together."""
    try:
        return sorted(rows)
    except TypeError:  # a metric is a number here and none there
        return sorted(rows, key=lambda row: (row[0], type(row[1]) is str, row[1], row[2]))
