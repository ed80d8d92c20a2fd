"""The zones of pages in SQLite: a row for each declared field of each page, beside the page.

They lie in a table of their own, because most pages have none. A trigger takes them away with their page, whoever
removes it.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xray_server.query.ast import Compare, In, Test
from xray_server.stores.sqlite.sql import TRUE, Sql, all_of, any_of
from xray_server.stores.sqlite.values import WORD, word_expression
from xray_server.zones import Zone, Zones, is_number, mark

TABLE = """
CREATE TABLE page_zones (
    page INTEGER NOT NULL,
    field INTEGER NOT NULL,
    low,
    high,
    marks BLOB,
    PRIMARY KEY (page, field)
) WITHOUT ROWID;

CREATE TRIGGER page_zones_go AFTER DELETE ON pages BEGIN DELETE FROM page_zones WHERE page = OLD.row; END
"""
"""The migration; ``marks`` is NULL where the texts are too many."""

ROWS_PER_STATEMENT = 200


def keep(connection: sqlite3.Connection, word: Callable[[str], int], zones: Mapping[int, Zones]) -> None:
    """Keep the zones of pages that have just been inserted.

    Args:
        connection: The writer's, in a transaction.
        word: The number of a text that repeats.
        zones: The page's row → its zones.
    """
    values = [
        (row, word(path), zone.low, zone.high, _packed(zone.marks))
        for row, of_page in zones.items()
        for path, zone in of_page.items()
    ]
    if values:
        connection.executemany("INSERT INTO page_zones (page, field, low, high, marks) VALUES (?, ?, ?, ?, ?)", values)


def read(connection: sqlite3.Connection, rows: Iterable[int]) -> dict[int, dict[str, Zone]]:
    """The zones of pages by their rows; those without any are left out."""
    wanted = list(rows)
    found: dict[int, dict[str, Zone]] = {}
    for start in range(0, len(wanted), ROWS_PER_STATEMENT):
        some = wanted[start : start + ROWS_PER_STATEMENT]
        query = (
            f"SELECT page, {word_expression('field')}, low, high, marks FROM page_zones"
            f" WHERE page IN ({', '.join('?' * len(some))})"
        )
        for page, path, low, high, marks in connection.execute(query, some):
            found.setdefault(page, {})[path] = Zone(low, high, _unpacked(marks))
    return found


def condition(test: Test) -> Sql:
    """What a page must satisfy to hold a candidate that satisfies a test on a path, over the columns of ``p``."""
    holds = _holds(test.operator)
    if holds == TRUE:
        return TRUE
    return Sql(
        f"(NOT EXISTS (SELECT 1 FROM page_zones AS z WHERE z.page = p.row AND z.field = {WORD} AND NOT {holds.text}))",
        (str(test.reference), *holds.params),
    )


def _holds(operator: Any) -> Sql:
    """That one of the values of the zone ``z`` may satisfy an operator; never NULL."""
    match operator:
        case In(values):
            return any_of(_holds(Compare("eq", value)) for value in values)
        case Compare(op, value) if is_number(value) and -(2**63) <= value < 2**63:
            parts = []
            if op in ("eq", "lt", "lte"):
                parts.append(Sql(f"(ifnull(z.low {'<' if op == 'lt' else '<='} ?, 0))", (value,)))
            if op in ("eq", "gt", "gte"):
                parts.append(Sql(f"(ifnull(z.high {'>' if op == 'gt' else '>='} ?, 0))", (value,)))
            return all_of(parts)
        case Compare("eq", str() as text):
            return Sql("(ifnull(instr(z.marks, ?), 1) > 0)", (mark(text).to_bytes(2, "big"),))
        case Compare(_, str()):
            return Sql("(ifnull(length(z.marks), 1) > 0)")
    return TRUE


def _packed(marks: frozenset[int] | None) -> bytes | None:
    return None if marks is None else struct.pack(f">{len(marks)}H", *sorted(marks))


def _unpacked(marks: bytes | None) -> frozenset[int] | None:
    return None if marks is None else frozenset(struct.unpack(f">{len(marks) // 2}H", marks))
