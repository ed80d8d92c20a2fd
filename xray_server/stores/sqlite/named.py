"""Named documents in the SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from xray_server.documents import Document
from xray_server.stores.base import NamedDocument
from xray_server.stores.encoding import from_json, to_json

_COLUMNS = "kind, name, document, created_at, updated_at"
_THIS = "project = ? AND kind = ? AND name = ?"


def keep(
    connection: sqlite3.Connection, project: str, kind: str, name: str, document: Document, now: int
) -> NamedDocument:
    """What ``Store.keep_named`` does, inside a transaction, at a time in milliseconds since 1970."""
    connection.execute(
        f"INSERT INTO named_documents (project, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (project, kind, name) DO UPDATE"
        " SET document = excluded.document, updated_at = max(updated_at, excluded.updated_at)"
        " WHERE document <> excluded.document",
        (project, kind, name, to_json(document), now, now),
    )
    found = one(connection, project, kind, name)
    assert found is not None
    return found


def one(connection: sqlite3.Connection, project: str, kind: str, name: str) -> NamedDocument | None:
    """What ``Store.named`` returns."""
    query = f"SELECT {_COLUMNS} FROM named_documents WHERE {_THIS}"
    row = connection.execute(query, (project, kind, name)).fetchone()
    return None if row is None else _decode(row)


def every(connection: sqlite3.Connection, project: str, kind: str) -> list[NamedDocument]:
    """What ``Store.all_named`` returns."""
    query = f"SELECT {_COLUMNS} FROM named_documents WHERE project = ? AND kind = ? ORDER BY name"
    return [_decode(row) for row in connection.execute(query, (project, kind))]


def remove(connection: sqlite3.Connection, project: str, kind: str, name: str) -> bool:
    """What ``Store.remove_named`` does, inside a transaction."""
    return connection.execute(f"DELETE FROM named_documents WHERE {_THIS}", (project, kind, name)).rowcount > 0


def _decode(row: Sequence[Any]) -> NamedDocument:
    kind, name, document, created_at, updated_at = row
    return NamedDocument(kind, name, from_json(document), created_at, updated_at)
