"""Whether the SQLite file has what it should have, and how it answers what it is asked."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

from xray_server.stores.base import Finding
from xray_server.stores.questions import offered_questions
from xray_server.stores.sqlite.reader import Reader
from xray_server.stores.sqlite.schema import migrate

_PROJECT = "default"


def check(connection: sqlite3.Connection, reader: Reader) -> list[Finding]:
    """What ``Store.check`` returns.

    Args:
        connection: To the file.
        reader: On the same connection.
    """
    return [*_indexes(connection), *_questions(reader), _shrinking(connection)]


def _indexes(connection: sqlite3.Connection) -> Iterator[Finding]:
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(fresh)
        wanted = _statements(fresh)
    finally:
        fresh.close()
    there = _statements(connection)
    for name, statement in wanted.items():
        what = f"index {name}"
        remedy = f"While no service uses the file, run this on it: {statement};"
        if name not in there:
            yield Finding(what, ok=False, detail="The index is missing.", hint=remedy)
        elif there[name] != statement:
            yield Finding(
                what,
                ok=False,
                detail=f"The index is another one: {there[name]}.",
                hint=f"{remedy} Drop the other one before.",
            )
        else:
            yield Finding(what, ok=True, detail=statement.partition(" ON ")[2])


def _statements(connection: sqlite3.Connection) -> dict[str, str]:
    found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    return {name: re.sub(r"\s+", " ", statement) for name, statement in sorted(found)}


def _questions(reader: Reader) -> Iterator[Finding]:
    for words, scan in offered_questions():
        plan = reader.explain(_PROJECT, scan)
        hint = None if plan.indexed else "Many rows are read for an answer. See which index is missing."
        yield Finding(f"question: {words}", ok=plan.indexed, detail=plan.detail, hint=hint)


def _shrinking(connection: sqlite3.Connection) -> Finding:
    mode = connection.execute("PRAGMA auto_vacuum").fetchone()[0]
    return Finding(
        "giving space back",
        ok=mode == 2,
        detail="The file becomes smaller when data is removed."
        if mode == 2
        else "What is removed is used again, but the file never becomes smaller: it was made by an older version.",
        hint=None
        if mode == 2
        else "While no service uses the file, with as much free disk as it has data: "
        "sqlite3 FILE 'PRAGMA auto_vacuum = 2; VACUUM'",
    )
