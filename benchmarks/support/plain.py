"""The same runs and stages as plain documents of MongoDB: what somebody would keep who has no X-Ray."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING

from xray_server.stores.base import WriteBatch

_INDEXES = (
    ("type", "metrics.fail_ratio", "_id"),
    ("type", "started_at", "_id"),
    ("pipeline.label", "started_at", "_id"),
    ("run_id", "order"),
)


class PlainDocuments:
    """A database with the collections ``runs`` and ``stages``; times are numbers, as in what is written.

    Args:
        database: The database, empty.
    """

    def __init__(self, database: Any) -> None:
        self._database = database
        for fields in _INDEXES:
            database.stages.create_index([(name, ASCENDING) for name in fields])
        database.runs.create_index([("started_at", ASCENDING), ("_id", ASCENDING)])

    def add(self, batch: WriteBatch) -> None:
        """Insert what a batch has."""
        candidates: dict[str, list[Any]] = {}
        for page in batch.pages:
            found = candidates.setdefault(page.stage_id, [])
            found += [row | {"id": row.pop("candidate_id")} for row in page.columns().rows()]
        self._database.runs.insert_many([_document(run) for run in batch.runs.values()])
        self._database.stages.insert_many(
            [
                _document(stage) | {"candidates": candidates.get(stage_id, [])}
                for stage_id, stage in batch.stages.items()
            ]
        )


def _document(given: dict[str, Any]) -> dict[str, Any]:
    return {"_id": given["id"]} | {name: value for name, value in given.items() if name != "id"}
