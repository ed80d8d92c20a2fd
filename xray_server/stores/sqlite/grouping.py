"""The numbers of many stages by what these have in common, read off columns and metrics, without the documents.

SQL groups the stages, and a function of ours collects the rows of each group: so the numbers of a metric are taken out
of the index over metrics in one go, and no figure depends on how SQLite adds up.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from xray_server.query.ast import Field, Metric, Reference, Scan
from xray_server.stores.base import Group, Grouped
from xray_server.stores.encoding import is_number
from xray_server.stores.sqlite import compiler, metrics
from xray_server.stores.sqlite.compiler import Column
from xray_server.stores.sqlite.dictionaries import Decompressor
from xray_server.stores.sqlite.paths import path_to_stages
from xray_server.stores.sqlite.sql import TRUE, Sql, all_of
from xray_server.stores.sqlite.values import WORD, id_text

Execute = Callable[[str, Sequence[Any]], sqlite3.Cursor]
Numbers = list[list[Any]]
"""The numbers of a field or metric, group by group."""

_START = Field(("started_at",))
_ALL = "xray_all"
"""SQL function that collects the values of a group, and gives their place in ``Grouping.lists``."""

ENTRIES_FOR_A_STAGE = 50
"""As many entries of the index over metrics are gone through in the time of unpacking one stage."""


class Grouping:
    """Groups stages on one connection; for its thread alone.

    Args:
        connection: The connection.
        execute: Executes a statement on it, also where an index is missing.
        decompressor: Of the same file.
    """

    def __init__(self, connection: sqlite3.Connection, execute: Execute, decompressor: Decompressor) -> None:
        self._connection = connection
        self._execute = execute
        self._decompressor = decompressor
        self._lists: list[list[Any]] = []
        connection.create_aggregate(_ALL, 1, lambda: _All(self._lists))

    def grouped(
        self, project: str, scan: Scan, by: Sequence[Field], span_ms: int | None, numbers: Sequence[Reference]
    ) -> Grouped | None:
        """What ``Store.grouped`` returns; its ``last`` is a start, or None, and a row."""
        keys = _columns(by)
        fields = _columns([one for one in numbers if isinstance(one, Field)])
        if keys is None or fields is None or scan.of != "stages" or scan.candidate is not None:
            return None
        conditions = _conditions(self._connection, project, scan)
        if conditions is None:
            return None
        self._lists.clear()
        found: list[tuple[Any, ...]] = []
        stages = 0
        for source in _sources(self._connection, project, scan, conditions):
            if stages < scan.limit:
                statement = _grouping(source.text, keys, span_ms, fields)
                some = self._execute(statement, (*source.params, scan.limit - stages)).fetchall()
                stages += sum(len(self._lists[row[0]]) for row in some)
                found += some
        rows = [self._lists[row[0]] for row in found]
        last = self._last(project, [row[1] for row in found], rows) if stages == scan.limit else None
        texts = [self._texts(column, [row[3 + place] for row in found]) for place, column in enumerate(keys)]
        each = self._numbers(project, numbers, rows, [row[3 + len(keys) :] for row in found])
        self._lists.clear()
        groups = [
            Group(tuple(text[place] for text in texts), row[2], len(rows[place]), [one[place] for one in each])
            for place, row in enumerate(found)
        ]
        return Grouped(groups, stages, last)

    def _last(self, project: str, starts: Sequence[int | None], rows: Sequence[Sequence[int]]) -> tuple[Any, ...]:
        """The start and the row of the last stage in the order of the statements.

        Args:
            project: The project.
            starts: The earliest start in each group.
            rows: The rows of each group.
        """
        start = None if None in starts else min(start for start in starts if start is not None)
        last = [row for earliest, some in zip(starts, rows, strict=True) if earliest == start for row in some]
        if start is not None:
            query = f"SELECT row FROM stages INDEXED BY stages_by_start WHERE project = {WORD} AND started_at = ?"
            last = list({row for (row,) in self._execute(query, (project, start))}.intersection(last))
        return start, min(last)

    def _texts(self, column: Column, values: Sequence[Any]) -> list[str | None]:
        """The texts of values as they lie in the file."""
        if column.storage != "word":
            return [None if value is None else id_text(value) for value in values]
        texts: dict[int | None, str] = {}
        for number in set(values):
            row = self._connection.execute("SELECT text FROM words WHERE word = ?", (number,)).fetchone()
            if row is not None:
                texts[number] = row[0]
        return [texts.get(number) for number in values]

    def _numbers(
        self,
        project: str,
        wanted: Sequence[Reference],
        rows: Sequence[Sequence[int]],
        of_fields: Sequence[Sequence[int]],
    ) -> list[Numbers]:
        """The numbers of each field and metric; of the fields they were collected, group by group."""
        metrics_wanted = [one for one in wanted if isinstance(one, Metric)]
        of_metrics: dict[Metric, Numbers] = {}
        for metric in metrics_wanted:
            found = _numbers_by_index(self._connection, project, metric, rows)
            if found is not None:
                of_metrics[metric] = found
        others = [metric for metric in metrics_wanted if metric not in of_metrics]
        if others:
            unpacked = _unpacked_numbers(self._connection, others, rows, self._decompressor)
            of_metrics |= zip(others, unpacked, strict=True)
        fields = iter(
            [list(filter(is_number, self._lists[place])) for place in of_field]
            for of_field in zip(*of_fields, strict=True)
        )
        return [of_metrics[one] if isinstance(one, Metric) else next(fields, []) for one in wanted]


class _All:
    """Collects the values of one group.

    Args:
        lists: Where to put them.
    """

    __slots__ = ("_lists", "_values", "step")

    def __init__(self, lists: list[list[Any]]) -> None:
        self._lists = lists
        self._values: list[Any] = []
        self.step = self._values.append

    def finalize(self) -> int:
        self._lists.append(self._values)
        return len(self._lists) - 1


def _numbers_by_index(
    connection: sqlite3.Connection, project: str, metric: Metric, groups: Sequence[Sequence[int]]
) -> Numbers | None:
    """The numbers of a metric, off the index over metrics; None where it has many more than are wanted."""
    number = metrics.metric_id(project, metrics.metric_row_name(metric))
    of_metric = f"FROM stage_metrics AS m WHERE m.metric = {number.text} AND m.value < ''"
    most = sum(map(len, groups)) * ENTRIES_FOR_A_STAGE
    counted = f"SELECT count(*) FROM (SELECT 1 {of_metric} LIMIT ?)"
    if connection.execute(counted, (*number.params, most + 1)).fetchone()[0] > most:
        return None
    among = f"SELECT m.stage, m.value {of_metric} AND m.stage BETWEEN ? AND ?"
    bounds = min(map(min, groups), default=0), max(map(max, groups), default=0)
    value_of = dict(connection.execute(among, (*number.params, *bounds))).get
    return [[value for value in map(value_of, rows) if value is not None] for rows in groups]


def _unpacked_numbers(
    connection: sqlite3.Connection,
    wanted: Sequence[Metric],
    groups: Sequence[Sequence[int]],
    decompressor: Decompressor,
) -> list[Numbers]:
    """The same of several metrics, out of the stages themselves."""
    names = tuple(dict.fromkeys(metric.name for metric in wanted))
    decode, decompress = _decoder(names), decompressor.decompress
    places = [(f"m{names.index(metric.name)}", metric.key) for metric in wanted]
    found: list[Numbers] = [[[] for _ in groups] for _ in wanted]
    for group, rows in enumerate(groups):
        for row in rows:
            (rest,) = connection.execute("SELECT rest FROM stages WHERE row = ?", (row,)).fetchone()
            whole = None if rest is None else decode(decompress(rest) if isinstance(rest, bytes) else rest)
            table = whole and whole.metrics
            for numbers, (name, key) in zip(found, places, strict=True):
                value = getattr(table, name, None)
                if key is not None:
                    value = value.get(key) if type(value) is dict else None
                if is_number(value):
                    numbers[group].append(value)
    return found


@functools.lru_cache(maxsize=64)
def _decoder(names: tuple[str, ...]) -> Callable[[bytes | str], Any]:
    """A decoder of what a stage's ``rest`` holds that passes over everything but some metrics."""
    fields = [(f"m{place}", Any, msgspec.field(name=name, default=None)) for place, name in enumerate(names)]
    table: Any = msgspec.defstruct("Metrics", fields)
    document = msgspec.defstruct("Document", [("metrics", table | None, None)])
    return msgspec.json.Decoder(document).decode


def _conditions(connection: sqlite3.Connection, project: str, scan: Scan) -> Sql | None:
    """What the stages satisfy, and no others; None where SQL cannot say so."""
    named = [found for found in compiler.references(scan.stage) if isinstance(found, Metric)]
    odd = metrics.has_odd(connection, project, named)
    stage = compiler.stage_condition(compiler.cheap_first(scan.stage), odd=odd)
    copied = compiler.only_copied(scan.pipeline)
    run = (compiler.stage_run_condition if copied else compiler.run_condition)(scan.pipeline)
    if stage.under != stage.over or run.under != run.over:
        return None
    return all_of([run.over, stage.over])


def _columns(fields: Sequence[Field]) -> list[Column] | None:
    """The columns of some fields; None where one has none."""
    found = [compiler.column(one, "s") for one in fields]
    columns = [column for column in found if column is not None]
    return columns if len(columns) == len(fields) else None


def _grouping(source: str, keys: Sequence[Column], span_ms: int | None, numbers: Sequence[Column]) -> str:
    """A statement that groups the latest stages of a source; its last value is how many stages there are to be.

    Its rows are: where the rows of the group are, the earliest start, the start of the span, the keys, and where the
    numbers of each field are.
    """
    # The remainder of what began before 1970 is below zero.
    span = "NULL" if span_ms is None else f"s.started_at - (s.started_at % {span_ms} + {span_ms}) % {span_ms}"
    names = [column.name for column in (*keys, *numbers)]
    chosen = ", ".join(f"{name} AS v{place}" for place, name in enumerate((span, *names)))
    by = ", ".join(f"f.v{place}" for place in range(len(keys) + 1))
    lists = "".join(f", {_ALL}(f.v{place})" for place in range(len(keys) + 1, len(names) + 1))
    return (
        f"SELECT {_ALL}(f.row), min(f.started_at), {by}{lists} FROM (SELECT s.row AS row, s.started_at AS started_at, "
        f"{chosen} FROM {source} ORDER BY s.started_at DESC, s.row DESC LIMIT ?) AS f GROUP BY {by}"
    )


def _sources(connection: sqlite3.Connection, project: str, scan: Scan, conditions: Sql) -> Iterator[Sql]:
    """The stages that satisfy some conditions, as what follows ``FROM``: those with a start, then those without."""
    path = path_to_stages(connection, project, scan, _START)
    source = f"stages AS s {path.hint}"
    if not compiler.only_copied(scan.pipeline):
        source += " CROSS JOIN runs AS r ON r.project = s.project AND r.id = s.run_id"
    rows = TRUE if path.listed is None else Sql(f"s.row IN ({path.listed.text})", path.listed.params)
    start, row = (None, None) if scan.after is None else scan.after
    for has_start in (True, False):
        after = [Sql(f"s.started_at IS {'NOT ' if has_start else ''}NULL")]
        if row is not None:
            if has_start and start is None:
                continue  # all of them come before
            if has_start:
                later = Sql("(s.started_at < ? OR s.row < ?)", (start, row))
                after += [Sql("s.started_at <= ?", (start,)), later]
            elif start is None:
                after.append(Sql("s.row < ?", (row,)))
        if not has_start:
            after.append(Sql("+s.run_id IS NOT NULL"))  # else nothing but candidates came of it so far
        where = all_of([Sql(f"s.project = {WORD}", (project,)), *after, rows, conditions])
        yield Sql(f"{source} WHERE {where.text}", where.params)
