"""Some values of many stages, read off their columns and metrics, without their documents."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from xray_server.query.ast import Field, Metric, Reference, Scan
from xray_server.stores.encoding import is_number
from xray_server.stores.sqlite import compiler, metrics
from xray_server.stores.sqlite.dictionaries import Decompressor
from xray_server.stores.sqlite.paths import path_to_stages
from xray_server.stores.sqlite.sql import TRUE, Sql, all_of
from xray_server.stores.sqlite.values import WORD, id_expression

_START = Field(("started_at",))

ENTRIES_FOR_A_STAGE = 50
"""As many entries of the index over metrics are gone through in the time of unpacking one stage."""


def statements(
    connection: sqlite3.Connection, project: str, scan: Scan, references: Sequence[Reference]
) -> Iterator[Sql] | None:
    """The statements whose rows are the values of exactly those stages that the conditions hold for, the latest first.

    Args:
        connection: To choose the way with.
        project: The project.
        scan: A scan of stages; its ``after`` is a start, or None, and a row.
        references: Fields and metrics; of a field that holds words the rows have the number.

    Returns:
        None where SQL does not decide the conditions, or has no column for a field. The rows begin with what the next
        ``after`` has, a start and a row; then come the fields. The statements' last value is how many rows there are to
        be.
    """
    chosen = ["s.started_at", "s.row"]
    for reference in references:
        if isinstance(reference, Field):
            found = compiler.column(reference, "s")
            if found is None:
                return None
            chosen.append(id_expression(found.name) if found.storage == "id" else found.name)
    if scan.of != "stages" or scan.candidate is not None:
        return None
    where = _conditions(connection, project, scan)
    return None if where is None else _statements(connection, project, scan, chosen, where)


def holds_words(reference: Reference) -> bool:
    """Whether a field of a stage lies in the file as the number of a word."""
    found = compiler.column(reference, "s") if isinstance(reference, Field) else None
    return found is not None and found.storage == "word"


def numbers_of(
    connection: sqlite3.Connection,
    project: str,
    wanted: Sequence[Metric],
    rows: Sequence[int],
    decompressor: Decompressor,
) -> list[list[Any]]:
    """The numbers of some metrics.

    Args:
        connection: Of the file.
        project: The project.
        wanted: The metrics.
        rows: The rows of some stages.
        decompressor: Of the same file.

    Returns:
        A list for each metric, with None for each stage without such a number.
    """
    found: dict[Metric, list[Any]] = {}
    for metric in wanted:
        numbers = _numbers_by_index(connection, project, metric, rows)
        if numbers is not None:
            found[metric] = numbers
    others = [metric for metric in wanted if metric not in found]
    if others:
        found |= zip(others, _unpacked_numbers(connection, others, rows, decompressor), strict=True)
    return [found[metric] for metric in wanted]


def _numbers_by_index(
    connection: sqlite3.Connection, project: str, metric: Metric, rows: Sequence[int]
) -> list[Any] | None:
    """The numbers of a metric, off the index over metrics; None where it has many more than are wanted."""
    number = metrics.metric_id(project, metrics.metric_row_name(metric))
    of_metric = f"FROM stage_metrics AS m WHERE m.metric = {number.text} AND m.value < ''"
    most = len(rows) * ENTRIES_FOR_A_STAGE
    counted = f"SELECT count(*) FROM (SELECT 1 {of_metric} LIMIT ?)"
    if connection.execute(counted, (*number.params, most + 1)).fetchone()[0] > most:
        return None
    among = f"SELECT m.stage, m.value {of_metric} AND m.stage BETWEEN ? AND ?"
    values = dict(connection.execute(among, (*number.params, min(rows, default=0), max(rows, default=0))).fetchall())
    return list(map(values.get, rows))


def _unpacked_numbers(
    connection: sqlite3.Connection, wanted: Sequence[Metric], rows: Sequence[int], decompressor: Decompressor
) -> list[list[Any]]:
    """The same, out of the stages themselves."""
    names = tuple(dict.fromkeys(metric.name for metric in wanted))
    decode, decompress = _decoder(names), decompressor.decompress
    tables: list[Any] = []
    for row in rows:
        (rest,) = connection.execute("SELECT rest FROM stages WHERE row = ?", (row,)).fetchone()
        whole = None if rest is None else decode(decompress(rest) if isinstance(rest, bytes) else rest)
        tables.append(whole and whole.metrics)
    found = []
    for metric in wanted:
        name = f"m{names.index(metric.name)}"
        values = [getattr(table, name, None) for table in tables]
        if metric.key is not None:
            values = [value.get(metric.key) if type(value) is dict else None for value in values]
        found.append([value if type(value) is float or is_number(value) else None for value in values])
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


def _statements(
    connection: sqlite3.Connection, project: str, scan: Scan, chosen: Sequence[str], conditions: Sql
) -> Iterator[Sql]:
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
        where = all_of([Sql(f"s.project = {WORD}", (project,)), *after, Sql("+s.run_id IS NOT NULL"), rows, conditions])
        yield Sql(
            f"SELECT {', '.join(chosen)} FROM {source} WHERE {where.text}"
            " ORDER BY s.started_at DESC, s.row DESC LIMIT ?",
            where.params,
        )
