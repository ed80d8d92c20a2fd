"""The yardsticks: the same candidates as plain rows or documents, written without any service."""

from __future__ import annotations

import gzip
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.catalogue import ROW_FIELDS, Rows

_COLUMNS = ", ".join(ROW_FIELDS)


def sqlite_rows(file: Path, batches: Sequence[Rows]) -> tuple[float, int]:
    """A row per candidate, indexed by stage and by candidate; each batch a durable transaction.

    Returns:
        The seconds that it took, and the bytes on disk afterwards.
    """
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"CREATE TABLE candidates ({_COLUMNS})")
    connection.execute("CREATE INDEX by_stage ON candidates (stage_id)")
    connection.execute("CREATE INDEX by_id ON candidates (id)")
    begin = time.perf_counter()
    for rows in batches:
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO candidates VALUES ({', '.join('?' * len(ROW_FIELDS))})", rows)  # noqa: S608
        connection.execute("COMMIT")
    took_s = time.perf_counter() - begin
    connection.close()
    return took_s, file.stat().st_size


MOST_AT_ONCE = 25_000
"""Documents that every server takes at once."""


def mongodb_documents(uri: str, database: str, batches: Sequence[Rows]) -> tuple[float, int]:
    """A document per candidate, indexed by stage and by candidate; each batch an ``insert_many``, acknowledged.

    Returns:
        The seconds that it took, and the bytes on disk afterwards as the server says.
    """
    from pymongo import MongoClient, WriteConcern

    client: Any = MongoClient(uri)
    try:
        client.drop_database(database)
        candidates = client[database].get_collection("candidates", write_concern=WriteConcern(w=1, j=True))
        candidates.create_index("stage_id")
        candidates.create_index("id")
        documents = [[dict(zip(ROW_FIELDS, row, strict=True)) for row in rows] for rows in batches]
        begin = time.perf_counter()
        for batch in documents:
            for start in range(0, len(batch), MOST_AT_ONCE):
                candidates.insert_many(batch[start : start + MOST_AT_ONCE], ordered=False)
        took_s = time.perf_counter() - begin
        size = mongodb_bytes(client[database])
        client.drop_database(database)
    finally:
        client.close()
    return took_s, size


def mongodb_bytes(database: Any) -> int:
    """What a database takes, indexes included, as the server says."""
    stats = database.command("dbStats")
    return int(stats.get("storageSize", 0) + stats.get("indexSize", 0))


def json_lines(batches: Sequence[Rows]) -> tuple[int, int]:
    """The bytes of the same rows as JSON Lines, and of these gzipped (level 6, as one file)."""
    lines = (
        json.dumps(dict(zip(ROW_FIELDS, row, strict=True)), separators=(",", ":"), ensure_ascii=False)
        for rows in batches
        for row in rows
    )
    text = "\n".join(lines).encode()
    return len(text), len(gzip.compress(text, 6))
