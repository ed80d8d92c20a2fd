"""The tables of the SQLite store, and how a file of an older form is brought up to date.

Runs and stages have a column for each field that a question may name, and one column, ``rest``, for what is only read
back: compressed JSON. Conditions on the fields are served by the indexes below, conditions on metrics by
``stage_metrics``: one narrow row for each number, in one tree by (metric, value), so that every metric of every type
can be filtered and sorted by. Tables refer to each other by integer rows, and texts that repeat (labels, names,
versions, projects) lie in ``words`` and everywhere else as numbers: most of the file would be indexes otherwise. The
documents' own ids are unique within a project.

The columns of kind *word* hold numbers of ``words``, those of kind *id* 16 bytes; ``values.py`` says how.
"""

from __future__ import annotations

import sqlite3

from xray.exceptions import StoreError
from xray_server.stores.sqlite import zones

APPLICATION_ID = 0x58526179
"""Marks a file as X-Ray's in SQLite's header: ``XRay`` in ASCII."""

_VERSION_1 = """
CREATE TABLE words (
    word INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

CREATE TABLE runs (
    row INTEGER PRIMARY KEY,
    project INTEGER NOT NULL,
    id NOT NULL,
    "key" TEXT,
    label INTEGER,
    version INTEGER,
    environment INTEGER,
    started_at INTEGER,
    repository INTEGER,
    finished_at INTEGER,
    duration_ms,
    status INTEGER,
    metadata TEXT,
    tags TEXT,
    stage_count INTEGER,
    completeness INTEGER,
    sample_rate,
    rest
);
CREATE UNIQUE INDEX runs_by_id ON runs (project, id);
CREATE INDEX runs_by_start ON runs (project, started_at, id);
CREATE INDEX runs_by_label ON runs (project, label, started_at, id, status, version, environment);
CREATE INDEX runs_by_key ON runs (project, "key") WHERE "key" IS NOT NULL;

CREATE TABLE stages (
    row INTEGER PRIMARY KEY,
    project INTEGER NOT NULL,
    id NOT NULL,
    run_id,
    parent_id,
    "order" INTEGER,
    path INTEGER,
    name INTEGER,
    type INTEGER,
    started_at INTEGER,
    duration_ms,
    status INTEGER,
    metadata TEXT,
    reasoning,
    metrics_over INTEGER,
    pipeline_id,
    pipeline_key TEXT,
    pipeline_label INTEGER,
    pipeline_version INTEGER,
    pipeline_environment INTEGER,
    pipeline_started_at INTEGER,
    rest
);
CREATE UNIQUE INDEX stages_by_id ON stages (project, id);
CREATE INDEX stages_by_run ON stages (project, run_id);
CREATE INDEX stages_by_start ON stages (project, started_at);
CREATE INDEX stages_by_type ON stages (project, type, started_at);
CREATE INDEX stages_by_label ON stages (project, pipeline_label, started_at);
CREATE INDEX stages_by_name ON stages (project, name, started_at);

CREATE TABLE metric_names (
    metric INTEGER PRIMARY KEY,
    project INTEGER NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (project, name)
);

CREATE TABLE stage_metrics (
    metric INTEGER NOT NULL,
    value NOT NULL,
    stage INTEGER NOT NULL,
    PRIMARY KEY (metric, value, stage)
) WITHOUT ROWID;

CREATE TABLE pages (
    row INTEGER PRIMARY KEY,
    project INTEGER NOT NULL,
    started_at INTEGER,
    candidates INTEGER NOT NULL,
    score_low,
    score_high,
    marks BLOB NOT NULL,
    block BLOB NOT NULL
);

CREATE TABLE dictionaries (
    dictionary INTEGER PRIMARY KEY,
    kind TEXT NOT NULL UNIQUE,
    data BLOB NOT NULL
);

CREATE TABLE declarations (
    project TEXT NOT NULL,
    stage_type TEXT NOT NULL,
    metrics TEXT NOT NULL,
    PRIMARY KEY (project, stage_type)
) WITHOUT ROWID;
"""
# A page's row is its stage's row and its number in one (``rows.page_row``). Candidates may come before anything else
# is known of their stage: then the stage's row has its id only, and no scan finds it. Pages are searched by ``marks``,
# two bytes for each id and each reason label: a tenth of what the texts take, and wrong once in a hundred pages, which
# costs the reader a look.

_VERSION_2 = """
ALTER TABLE stages ADD COLUMN candidates_removed_at INTEGER;
CREATE INDEX stages_by_removal ON stages (project, candidates_removed_at, id)
    WHERE candidates_removed_at IS NOT NULL;
CREATE INDEX pages_by_start ON pages (project, started_at);

CREATE TABLE dirty_buckets (
    mark INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    hour INTEGER NOT NULL,
    label TEXT,
    name TEXT,
    type TEXT,
    version TEXT
);
CREATE UNIQUE INDEX dirty_buckets_by_hour ON dirty_buckets (
    project, hour, ifnull(label, x''), ifnull(name, x''), ifnull(type, x''), ifnull(version, x'')
);

CREATE TABLE rollups (
    row INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    hour INTEGER NOT NULL,
    label TEXT,
    name TEXT,
    type TEXT,
    version TEXT,
    stage_count INTEGER NOT NULL,
    failure_count INTEGER NOT NULL,
    metrics NOT NULL
);
CREATE UNIQUE INDEX rollups_by_hour ON rollups (
    project, hour, ifnull(label, x''), ifnull(name, x''), ifnull(type, x''), ifnull(version, x'')
);
CREATE INDEX rollups_by_label ON rollups (project, label, hour);

INSERT INTO dirty_buckets (project, hour, label, name, type, version)
SELECT p.text, hour, l.text, n.text, t.text, v.text
FROM (
    SELECT DISTINCT project, started_at - (started_at % 3600000 + 3600000) % 3600000 AS hour,
           pipeline_label, name, type, pipeline_version
    FROM stages WHERE started_at IS NOT NULL
) AS s
JOIN words AS p ON p.word = s.project
LEFT JOIN words AS l ON l.word = s.pipeline_label
LEFT JOIN words AS n ON n.word = s.name
LEFT JOIN words AS t ON t.word = s.type
LEFT JOIN words AS v ON v.word = s.pipeline_version;
"""
# A mark is an AUTOINCREMENT number, so that it is never given twice: a bucket that is marked anew gets a greater one.
# Absent words are empty blobs in the unique indexes, which no text equals, because SQL takes two NULLs for different.

_VERSION_3 = """
CREATE TABLE named_documents (
    project TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project, kind, name)
) WITHOUT ROWID;
"""

_VERSION_5 = """
CREATE TABLE sighting_tail (
    mark INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    data BLOB NOT NULL
);

CREATE TABLE sighting_segments (
    segment INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    last_at INTEGER,
    has_timeless INTEGER NOT NULL
);

CREATE TABLE sighting_parts (row INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE sighting_blocks (row INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE sighting_backlogs (
    project INTEGER PRIMARY KEY,
    next INTEGER NOT NULL,
    "end" INTEGER NOT NULL
);

INSERT INTO sighting_backlogs (project, next, "end") SELECT project, 0, max(row) + 1 FROM pages GROUP BY project;
"""
# Numbers of records and segments are never given twice: what was read under one is not removed as another's. Pages that
# are there already are the backlog of the index.

_VERSION_6 = """
CREATE TABLE dirty_half_days (
    mark INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    hour INTEGER NOT NULL,
    label TEXT,
    name TEXT,
    type TEXT,
    version TEXT
);
CREATE UNIQUE INDEX dirty_half_days_by_hour ON dirty_half_days (
    project, hour, ifnull(label, x''), ifnull(name, x''), ifnull(type, x''), ifnull(version, x'')
);

CREATE TABLE half_days (
    row INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    hour INTEGER NOT NULL,
    label TEXT,
    name TEXT,
    type TEXT,
    version TEXT,
    stage_count INTEGER NOT NULL,
    failure_count INTEGER NOT NULL,
    metrics NOT NULL
);
CREATE UNIQUE INDEX half_days_by_hour ON half_days (
    project, hour, ifnull(label, x''), ifnull(name, x''), ifnull(type, x''), ifnull(version, x'')
);
CREATE INDEX half_days_by_label ON half_days (project, label, hour);

INSERT INTO dirty_half_days (project, hour, label, name, type, version)
SELECT DISTINCT project, hour - (hour % 43200000 + 43200000) % 43200000, label, name, type, version FROM rollups;
"""

_VERSION_7 = ""
# The tables stay as they are. What is compressed in them, and pages, lie from here on in a form that earlier versions
# cannot read, so that these have to refuse the file; what they wrote is read as it is.

MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3, zones.TABLE, _VERSION_5, _VERSION_6, _VERSION_7)
"""Version *n* of the form is reached from the one before by the statements at *n* - 1; a released one never changes."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to the newest form, each step in a transaction of its own.

    Args:
        connection: In autocommit mode.

    Raises:
        StoreError: The file was written by a newer version of X-Ray, or by something else.
    """
    newest = len(MIGRATIONS)
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > newest:
                raise StoreError(
                    f"The SQLite file has form {version}; this version of X-Ray knows forms up to {newest}.",
                    code="newer_store",
                    hint="Use the version of X-Ray that wrote it, or a newer one.",
                )
            if version == 0 and connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                raise StoreError("The SQLite file holds tables that are not X-Ray's.", code="foreign_store")
            if version and not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'words'").fetchone():
                raise StoreError(
                    "The SQLite file was written by X-Ray before its first release, in a form that is no longer read.",
                    code="older_store",
                    hint="Move it away; a new one is made at the next start.",
                )
            if version == newest:
                return
            for statement in MIGRATIONS[version].split(";\n"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
