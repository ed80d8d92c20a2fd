"""Stages in the order of a metric and then of their ids, without reading all that share a value.

The index over metrics has the stages that share a value in the order of their rows, the order in which they came. Ids
begin with a time, so that this is nearly the order of the ids; nearly is not enough. So as many as are wanted are taken
by their rows, and the worst id among them says what is missing: stages with a better id, and a row that was not looked
at. The index over ids has all better ids together, and mostly they are few.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xray_server.stores.sqlite.sql import Sql, all_of
from xray_server.stores.sqlite.values import id_value

FEW = 500
"""So many stages of one value are simply read and sorted."""

MOST = 4000
"""So many are counted."""

IDS_FOR_ONE = 10
"""As many ids are gone through in the time that it takes to read one stage."""

NUMBERS = Sql("k0.value < ''")
"""What of a metric's rows are numbers; what stands for other values is text."""

Row = tuple[Any, ...]
Execute = Callable[[str, Sequence[Any]], sqlite3.Cursor]


@dataclass(frozen=True, slots=True)
class Tied:
    """Stages by a metric and then by id, both in one direction.

    Args:
        columns: What is read of ``s``.
        project: That ``s`` is of the project.
        metric: That ``k0`` is of the metric.
        where: What else a stage ``s`` satisfies, wherever it comes in the order; other tables stand in ``joined``.
        joined: What follows ``s`` in ``FROM``.
        descending: The direction.
        after: The value and the id of the stage after which to go on; None for the first of all.
    """

    columns: str
    project: Sql
    metric: Sql
    where: Sql
    joined: str
    descending: bool
    after: tuple[float, str] | None


def read(execute: Execute, tied: Tied, limit: int) -> Iterator[Row]:
    """The rows in order: the columns, the metric's value, the id; at least as many as the limit says, where there are.

    Args:
        execute: Executes a statement.
        tied: Which stages.
        limit: How many are wanted.
    """
    return _Reading(execute, tied, limit).rows()


class _Reading:
    """One reading; the arguments are those of :func:`read`."""

    def __init__(self, execute: Execute, tied: Tied, limit: int) -> None:
        self._execute = execute
        self._tied = tied
        self._limit = limit
        self._before, self._later = (">", "<") if tied.descending else ("<", ">")
        self._direction = "DESC" if tied.descending else "ASC"
        self._value: Any = None
        self._id: Any = None
        self._from: int | None = None
        """The row of the stage after which to go on; its value and id stand above."""
        if tied.after is not None:
            self._value, self._id = tied.after[0], id_value(tied.after[1])
            itself = all_of([tied.project, Sql("s.id = ?", (self._id,))])
            found = execute(f"SELECT s.row FROM stages AS s WHERE {itself.text}", itself.params).fetchone()
            # Where it was removed meanwhile, all that share its value are looked at.
            self._from = None if found is None else found[0]

    def rows(self) -> Iterator[Row]:
        """The rows in order."""
        group: list[Row] = []
        count = 0
        begun = self._tied.after is not None
        for row in self._first():
            value = row[-3]
            if begun and value != self._value:
                yield from self._in_order(group, self._others_of_begun())
                group, begun = [], False
            elif group and value != group[0][-3]:
                yield from self._in_order(group)
                group = []
            group.append(row)
            count += 1
        if count < self._limit:
            yield from self._in_order(group, self._others_of_begun() if begun else ())
        else:
            yield from self._in_order(group, self._others_of_last(group, begun=begun))

    def _in_order(self, group: list[Row], others: Sequence[Row] = ()) -> Iterator[Row]:
        whole = [*group, *others]
        whole.sort(key=_id_order, reverse=self._tied.descending)
        for row in whole:
            yield row[:-1]

    def _first(self) -> Iterator[Row]:
        """The first by value and then by row, as many as are wanted."""
        more = []
        if self._tied.after is not None:
            more.append(Sql(f"(k0.value {self._later} ? OR s.id {self._later} ?)", (self._value, self._id)))
            if self._from is None:
                more.append(Sql(f"k0.value {self._later}= ?", (self._value,)))
            else:
                more.append(Sql(f"(k0.value, k0.stage) {self._later} (?, ?)", (self._value, self._from)))
        where = all_of([self._tied.metric, NUMBERS, *more, self._tied.project, self._tied.where])
        text = (
            f"SELECT {self._tied.columns}, k0.value, s.id, s.row"
            f" FROM stage_metrics AS k0 CROSS JOIN stages AS s NOT INDEXED ON s.row = k0.stage {self._tied.joined}"
            f" WHERE {where.text} ORDER BY k0.value {self._direction}, k0.stage {self._direction} LIMIT ?"
        )
        return iter(self._execute(text, (*where.params, self._limit)))

    def _others_of_begun(self) -> list[Row]:
        """All others that share the value of the stage after which to go on: those that came after it."""
        if self._from is None:
            return []
        return self._of_value(
            self._value,
            Sql(f"k0.stage {self._before} ?", (self._from,)),
            Sql(f"s.id {self._later} ?", (self._id,)),
        )

    def _others_of_last(self, group: list[Row], *, begun: bool) -> list[Row]:
        """Those that share the last value and may have a better id than one of the group, which has them by row."""
        value, row = group[-1][-3], group[-1][-1]
        worst = (min if self._tied.descending else max)(group, key=_id_order)[-2]
        better = Sql(f"s.id {self._before} ?", (worst,))
        beyond = Sql(f"k0.stage {self._later} ?", (row,))
        if begun:
            better = all_of([better, Sql(f"s.id {self._later} ?", (self._id,))])
            if self._from is not None:
                beyond = Sql(f"({beyond.text} OR k0.stage {self._before} ?)", (row, self._from))
        of_value = [self._tied.metric, Sql("k0.value = ?", (value,)), beyond]
        others = self._count("stage_metrics AS k0", of_value, MOST)
        if others > FEW:
            most_ids = others * IDS_FOR_ONE
            ids = self._count("stages AS s INDEXED BY stages_by_id", [self._tied.project, better], most_ids + 1)
            if ids <= most_ids:
                return self._by_id(value, Sql(beyond.text.replace("k0.stage", "s.row"), beyond.params), better)
        return self._of_value(value, beyond, better) if others else []

    def _of_value(self, value: Any, beyond: Sql, better: Sql) -> list[Row]:
        """Those of a value in some span of rows and some span of ids, through the index over metrics."""
        where = all_of([
            self._tied.metric, Sql("k0.value = ?", (value,)), beyond, self._tied.project, better, self._tied.where,
        ])  # fmt: skip
        return self._sorted("stage_metrics AS k0 CROSS JOIN stages AS s NOT INDEXED ON s.row = k0.stage", where)

    def _by_id(self, value: Any, beyond: Sql, better: Sql) -> list[Row]:
        """The same through the index over ids."""
        where = all_of([
            self._tied.project, better, beyond, self._tied.metric, Sql("k0.value = ?", (value,)), self._tied.where,
        ])  # fmt: skip
        source = "stages AS s INDEXED BY stages_by_id CROSS JOIN stage_metrics AS k0 ON k0.stage = s.row"
        return self._sorted(source, where)

    def _sorted(self, source: str, where: Sql) -> list[Row]:
        # The columns are read of those that are wanted alone, not of all that are sorted.
        found = (
            f"SELECT s.row AS row, k0.value AS value FROM {source} {self._tied.joined} WHERE {where.text}"
            f" ORDER BY s.id {self._direction} LIMIT ?"
        )
        text = (
            f"SELECT {self._tied.columns}, f.value, s.id, s.row FROM ({found}) AS f CROSS JOIN stages AS s"
            " ON s.row = f.row"
        )
        return self._execute(text, (*where.params, self._limit)).fetchall()

    def _count(self, source: str, conditions: Sequence[Sql], most: int) -> int:
        where = all_of(conditions)
        text = f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {where.text} LIMIT ?)"
        return int(self._execute(text, (*where.params, most)).fetchone()[0])


def _id_order(row: Row) -> tuple[bool, Any]:
    """The order of a row's id, as SQLite has it: texts before bytes."""
    return isinstance(row[-2], bytes), row[-2]
