"""The indexes: made at start, and looked at together with how questions are served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pymongo
from beanie import Document
from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from xray_server.query.ast import Scan
from xray_server.stores.base import Finding, ScanPlan
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.connection import LONG_TIMEOUT_S
from xray_server.stores.mongo.documents import DECLARED, collection_of, indexes_of
from xray_server.stores.mongo.filters import Filter
from xray_server.stores.mongo.finds import Sort
from xray_server.stores.mongo.forms import Raw
from xray_server.stores.mongo.scans import Scanner
from xray_server.stores.questions import offered_questions

log = logging.getLogger("xray.server")

BUILD_AT_ONCE_UP_TO = 100_000
"""Documents of a collection up to which opening the store waits for a missing index."""

FEW = 1000
"""Documents of a collection up to which a server may rightly read them all, although it has an index."""

_PROJECT = "default"


async def build_indexes(database: AsyncDatabase[Raw]) -> asyncio.Task[None] | None:
    """Build the declared indexes that are missing.

    A server goes on reading and writing while it builds an index. Opening a store waits for that only where it takes
    a moment; over many documents the service works meanwhile, with slower answers.

    Returns:
        What goes on, or None.
    """
    large: list[tuple[str, list[IndexModel]]] = []
    for model in DECLARED:
        missing = [index for index, there in await _indexes(database, model) if there is None]
        if not missing:
            continue
        name = collection_of(model)
        if await database[name].estimated_document_count() > BUILD_AT_ONCE_UP_TO:
            large.append((name, missing))
        else:
            await database[name].create_indexes(missing)
    return asyncio.create_task(_build(database, large)) if large else None


async def _build(database: AsyncDatabase[Raw], missing: Sequence[tuple[str, list[IndexModel]]]) -> None:
    for name, indexes in missing:
        names = ", ".join(index.document["name"] for index in indexes)
        log.info("Building %s of %s; until then, some answers are slow", names, name)
        try:
            with pymongo.timeout(LONG_TIMEOUT_S):
                await database[name].create_indexes(indexes)
        except PyMongoError as error:
            log.warning("Building %s of %s failed: %s; see 'xray store check'", names, name, type(error).__name__)


async def _indexes(
    database: AsyncDatabase[Raw], model: type[Document]
) -> list[tuple[IndexModel, Mapping[str, Any] | None]]:
    """The declared indexes of a collection, each with the one that is there."""
    declared = indexes_of(model)
    there = await database[collection_of(model)].index_information() if declared else {}
    return [(index, there.get(index.document["name"])) for index in declared]


async def check(codec: Codec, database: AsyncDatabase[Raw]) -> list[Finding]:
    """What ``Store.check`` returns."""
    findings = []
    may_be_read_whole = set()
    for model in DECLARED:
        of_model = await _check_indexes(database, model)
        name = collection_of(model)
        if all(finding.ok for finding in of_model) and await database[name].estimated_document_count() < FEW:
            may_be_read_whole.add(name)
        findings += of_model
    for words, scan in offered_questions():
        for plan in await _plans(codec, database, _PROJECT, scan):
            may_read_all = plan.collection in may_be_read_whole
            slow = not plan.indexed and not may_read_all
            findings.append(
                Finding(
                    f"question: {words}",
                    ok=not slow,
                    detail=plan.detail,
                    hint="Every document is read for an answer. See which index is missing." if slow else None,
                )
            )
    return findings


async def explain(codec: Codec, database: AsyncDatabase[Raw], project: str, scan: Scan) -> ScanPlan:
    """What ``Store.explain`` returns."""
    plans = await _plans(codec, database, project, scan)
    return ScanPlan(all(plan.indexed for plan in plans), " ".join(dict.fromkeys(plan.detail for plan in plans)))


async def _check_indexes(database: AsyncDatabase[Raw], model: type[Document]) -> list[Finding]:
    name = collection_of(model)
    findings = []
    for index, there in await _indexes(database, model):
        wanted = [(path, int(direction)) for path, direction in index.document["key"].items()]
        keys = ", ".join(f"{path}: {direction}" for path, direction in wanted)
        what = f"index {index.document['name']} of {name}"
        remedy = f'db.{name}.createIndex({{{_quoted(wanted)}}}, {{name: "{index.document["name"]}"}})'
        if there is None:
            findings.append(
                Finding(
                    what,
                    ok=False,
                    detail="The index is missing, or is still being built.",
                    hint=f"Start the service again, or run {remedy}",
                )
            )
        elif [(path, int(direction)) for path, direction in there["key"]] != wanted:
            findings.append(
                Finding(
                    what,
                    ok=False,
                    detail=f"The index is another one, over {there['key']}.",
                    hint=f"Drop it, and run {remedy}",
                )
            )
        else:
            findings.append(Finding(what, ok=True, detail=keys))
    return findings


def _quoted(keys: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f'"{path}": {direction}' for path, direction in keys)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the server would answer one find of a scan."""

    collection: str
    indexed: bool
    detail: str


async def _plans(codec: Codec, database: AsyncDatabase[Raw], project: str, scan: Scan) -> list[_Plan]:
    scanner = await Scanner.of(codec, database, project, scan)
    plans = []
    for collection, where, sort in scanner.finds():
        command = {"find": collection, "filter": where, "sort": dict(sort), "limit": 50}
        reply = await database.command("explain", command, verbosity="queryPlanner")
        stages = list(_stages(reply["queryPlanner"]["winningPlan"]))
        names = sorted({stage["indexName"] for stage in stages if "indexName" in stage})
        kinds = sorted({str(stage["stage"]) for stage in stages})
        # Without the index over the field, the one over _id may be read from end to end.
        reads_all = "COLLSCAN" in kinds or (names == ["_id_"] and not _asks_for_id(where, sort))
        detail = f"Served by {', '.join(names)} of {collection}." if names else f"Served by {', '.join(kinds)}."
        plans.append(_Plan(collection, not reads_all, detail))
    return plans


def _asks_for_id(where: Filter, sort: Sort) -> bool:
    """Whether a question is about ids, or in their order."""
    return any("_id" in part for part in where.get("$and", [where])) or "_id" in dict(sort)


def _stages(plan: Any) -> Iterator[Mapping[str, Any]]:
    """Every step of a plan, also of the plans of shards and of the newer engine."""
    if isinstance(plan, Mapping):
        if "stage" in plan:
            yield plan
        for name, inner in plan.items():
            if name != "postgresPlan":
                yield from _stages(inner)
    elif isinstance(plan, list):
        for inner in plan:
            yield from _stages(inner)
