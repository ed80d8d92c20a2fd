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
        ``after`` has, and with what :func:`numbers_of` takes; then come the fields. The statements' last value is how
        many rows there are to be.
    """
    chosen = ["s.started_at", "s.row", "s.rest" if any(isinstance(one, Metric) for one in references) else "NULL"]
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


def numbers_of(wanted: Sequence[Metric], rests: Sequence[Any], decompressor: Decompressor) -> list[list[Any]]:
    """The numbers of some metrics.

    Args:
        wanted: The metrics.
        rests: The column ``rest`` of each stage.
        decompressor: Of the same file.

    Returns:
        A list for each metric, with None for each stage without such a number.
    """
    names = tuple(dict.fromkeys(metric.name for metric in wanted))
    decode, decompress = _decoder(names), decompressor.decompress
    tables: list[Any] = [
        None if rest is None else decode(decompress(rest) if isinstance(rest, bytes) else rest).metrics
        for rest in rests
    ]
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
    named = {found for found in compiler.references(scan.stage) if isinstance(found, Metric)}
    odd_rows = [metrics.odd_rows_of(project, metric) for metric in named]
    odd = any(connection.execute(f"{rows.text} LIMIT 1", rows.params).fetchone() for rows in odd_rows)
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
