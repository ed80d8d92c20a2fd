"""Rollups and dirty marks in the SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec
import zstandard

from xray_server.stores.base import Bucket, Rollup
from xray_server.stores.unread import UnreadMetrics

_encode = msgspec.json.Encoder(order="deterministic").encode
_BUCKET = "hour, label, name, type, version"
_THIS_BUCKET = "project = ? AND hour = ? AND label IS ? AND name IS ? AND type IS ? AND version IS ?"


def mark_dirty(connection: sqlite3.Connection, buckets: Iterable[tuple[str, Bucket]]) -> None:
    """Mark buckets, given with their projects, inside a transaction."""
    connection.executemany(
        f"INSERT OR REPLACE INTO dirty_buckets (project, {_BUCKET}) VALUES (?, ?, ?, ?, ?, ?)",
        [_place(project, bucket) for project, bucket in buckets],
    )


def dirty(
    connection: sqlite3.Connection, project: str, limit: int, label: str | None, since: int | None, until: int | None
) -> list[tuple[Bucket, int]]:
    """What ``Store.dirty_buckets`` returns."""
    where, values = _range(project, label, since, until)
    found = connection.execute(
        f"SELECT {_BUCKET}, mark FROM dirty_buckets WHERE {where} ORDER BY hour, mark LIMIT ?", (*values, limit)
    )
    return [(_bucket(row), row[5]) for row in found]


def keep(connection: sqlite3.Connection, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
    """What ``Store.keep_rollups`` does, inside a transaction."""
    for rollup, mark in rollups:
        place = _place(project, rollup.bucket)
        current = connection.execute(f"SELECT mark FROM dirty_buckets WHERE {_THIS_BUCKET}", place).fetchone()
        if current is None:
            continue  # somebody has kept a rollup of a later state
        if rollup.stage_count:
            metrics = zstandard.ZstdCompressor(level=3).compress(_encode(rollup.metrics))
            connection.execute(
                f"INSERT OR REPLACE INTO rollups (project, {_BUCKET}, stage_count, failure_count, metrics)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, rollup.stage_count, rollup.failure_count, metrics),
            )
        else:
            connection.execute(f"DELETE FROM rollups WHERE {_THIS_BUCKET}", place)
        if current[0] <= mark:
            connection.execute("DELETE FROM dirty_buckets WHERE mark = ?", current)


def kept(
    connection: sqlite3.Connection, project: str, label: str | None, name: str | None, since: int, until: int
) -> list[Rollup]:
    """What ``Store.rollups`` returns."""
    where, values = _range(project, label, since, until)
    if name is not None:
        where, values = f"{where} AND name = ?", [*values, name]
    found = connection.execute(
        f"SELECT {_BUCKET}, stage_count, failure_count, metrics FROM rollups WHERE {where}"
        " ORDER BY hour, label, name, type, version",
        values,
    )
    decompress = zstandard.ZstdDecompressor().decompress
    return [Rollup(_bucket(row), row[5], row[6], UnreadMetrics(decompress(row[7]))) for row in found]


def remove_older(connection: sqlite3.Connection, project: str, hour: int | None) -> None:
    """Remove what is kept and marked of hours before this one; of all hours where it is None."""
    for table in ("rollups", "dirty_buckets"):
        if hour is None:
            connection.execute(f"DELETE FROM {table} WHERE project = ?", (project,))
        else:
            connection.execute(f"DELETE FROM {table} WHERE project = ? AND hour < ?", (project, hour))


def _place(project: str, bucket: Bucket) -> tuple[str, int, str | None, str | None, str | None, str | None]:
    return project, bucket.hour, bucket.label, bucket.name, bucket.type, bucket.version


def _bucket(row: Sequence[object]) -> Bucket:
    hour, label, name, stage_type, version = row[:5]
    return Bucket(label, name, stage_type, version, hour)  # type: ignore[arg-type]  # as the table's columns are


def _range(project: str, label: str | None, since: int | None, until: int | None) -> tuple[str, list[object]]:
    where, values = "project = ?", list[object]([project])
    for condition, value in (("label = ?", label), ("hour >= ?", since), ("hour < ?", until)):
        if value is not None:
            where, values = f"{where} AND {condition}", [*values, value]
    return where, values
