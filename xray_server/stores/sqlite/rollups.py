"""Rollups and dirty marks in the SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec
import zstandard

from xray_server.half_days import HALF_DAY_MS, half_day_of
from xray_server.stores.base import Bucket, HalfDays, Rollup
from xray_server.stores.unread import UnreadMetrics

_encode = msgspec.json.Encoder(order="deterministic").encode
_BUCKET = "hour, label, name, type, version"
_THIS_BUCKET = "project = ? AND hour = ? AND label IS ? AND name IS ? AND type IS ? AND version IS ?"


HOURS = ("rollups", "dirty_buckets")
HALF_DAYS = ("half_days", "dirty_half_days")
"""The table of what is kept, and the one of what is out of date."""


def mark_dirty(connection: sqlite3.Connection, buckets: Iterable[tuple[str, Bucket]], table: str = HOURS[1]) -> None:
    """Mark buckets, given with their projects, inside a transaction."""
    connection.executemany(
        f"INSERT OR REPLACE INTO {table} (project, {_BUCKET}) VALUES (?, ?, ?, ?, ?, ?)",
        [_place(project, bucket) for project, bucket in buckets],
    )


def dirty(
    connection: sqlite3.Connection,
    project: str,
    limit: int,
    label: str | None,
    since: int | None,
    until: int | None,
    table: str = HOURS[1],
) -> list[tuple[Bucket, int]]:
    """What ``Store.dirty_buckets`` returns."""
    where, values = _range(project, label, since, until)
    found = connection.execute(
        f"SELECT {_BUCKET}, mark FROM {table} WHERE {where} ORDER BY hour, mark LIMIT ?", (*values, limit)
    )
    return [(_bucket(row), row[5]) for row in found]


def keep(connection: sqlite3.Connection, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
    """What ``Store.keep_rollups`` does, inside a transaction."""
    kept_now = _keep(connection, project, rollups, HOURS)
    mark_dirty(connection, {(project, half_day_of(bucket)) for bucket in kept_now}, HALF_DAYS[1])


def keep_half_days(connection: sqlite3.Connection, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
    """What ``Store.keep_half_days`` does, inside a transaction."""
    _keep(connection, project, rollups, HALF_DAYS)


def _keep(
    connection: sqlite3.Connection, project: str, rollups: Sequence[tuple[Rollup, int]], tables: tuple[str, str]
) -> list[Bucket]:
    """Keep rollups, and return the buckets of those that were not passed over."""
    of_kept, of_dirty = tables
    kept_now = []
    for rollup, mark in rollups:
        place = _place(project, rollup.bucket)
        current = connection.execute(f"SELECT mark FROM {of_dirty} WHERE {_THIS_BUCKET}", place).fetchone()
        if current is None:
            continue  # somebody has kept a rollup of a later state
        kept_now.append(rollup.bucket)
        if rollup.stage_count:
            metrics = zstandard.ZstdCompressor(level=3).compress(_encode(dict(rollup.metrics)))
            connection.execute(
                f"INSERT OR REPLACE INTO {of_kept} (project, {_BUCKET}, stage_count, failure_count, metrics)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, rollup.stage_count, rollup.failure_count, metrics),
            )
        else:
            connection.execute(f"DELETE FROM {of_kept} WHERE {_THIS_BUCKET}", place)
        if current[0] <= mark:
            connection.execute(f"DELETE FROM {of_dirty} WHERE mark = ?", current)
    return kept_now


def kept(
    connection: sqlite3.Connection,
    project: str,
    label: str | None,
    name: str | None,
    since: int,
    until: int,
    table: str = HOURS[0],
) -> list[Rollup]:
    """What ``Store.rollups`` returns."""
    where, values = _range(project, label, since, until)
    if name is not None:
        where, values = f"{where} AND name = ?", [*values, name]
    found = connection.execute(
        f"SELECT {_BUCKET}, stage_count, failure_count, metrics FROM {table} WHERE {where}"
        " ORDER BY hour, label, name, type, version",
        values,
    )
    decompress = zstandard.ZstdDecompressor().decompress
    return [Rollup(_bucket(row), row[5], row[6], UnreadMetrics(decompress(row[7]))) for row in found]


def half_days(
    connection: sqlite3.Connection, project: str, label: str | None, name: str | None, since: int, until: int
) -> HalfDays:
    """What ``Store.half_days`` returns, of one state of the file."""
    marked = dirty(connection, project, -1, label, since, until, HALF_DAYS[1])
    return HalfDays(
        kept(connection, project, label, name, since, until, HALF_DAYS[0]),
        {bucket for bucket, _ in marked if name is None or bucket.name == name},
    )


def remove_older(connection: sqlite3.Connection, project: str, hour: int | None) -> None:
    """Remove what is kept and marked of hours before this one; of all hours where it is None."""
    for table in (*HOURS, *HALF_DAYS):
        if hour is None:
            connection.execute(f"DELETE FROM {table} WHERE project = ?", (project,))
        else:
            before = hour if table in HOURS else hour - HALF_DAY_MS + 1
            connection.execute(f"DELETE FROM {table} WHERE project = ? AND hour < ?", (project, before))
    if hour is not None:
        # The half day that lost only some of its hours.
        cut = connection.execute(
            f"SELECT {_BUCKET} FROM {HALF_DAYS[0]} WHERE project = ? AND hour < ?", (project, hour)
        ).fetchall()
        mark_dirty(connection, [(project, _bucket(row)) for row in cut], HALF_DAYS[1])


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
