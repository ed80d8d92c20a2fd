"""Inserting rows by the hundred.

Each statement lets go of the interpreter's lock and has to wait for it again, which costs far more than the statement
where another thread is busy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

VALUES_PER_STATEMENT = 2000


def insert(connection: sqlite3.Connection, table: str, columns: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    """Insert rows, as many in a statement as it takes values."""
    names = ", ".join(f'"{name}"' for name in columns)
    marks = f"({', '.join('?' * len(columns))})"
    for some in in_groups(values, max(1, VALUES_PER_STATEMENT // len(columns))):
        connection.execute(
            f"INSERT INTO {table} ({names}) VALUES {', '.join([marks] * len(some))}", list(chain.from_iterable(some))
        )


def in_groups(values: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """The values, so many at a time."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])
