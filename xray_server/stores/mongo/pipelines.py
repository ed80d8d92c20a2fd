"""The pipelines of a project, summed up from its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.stores.base import PipelineSummary
from xray_server.stores.mongo.forms import Raw
from xray_server.stores.mongo.words import Word, Words


async def summaries(words: Words, database: AsyncDatabase[Raw], project: str) -> Sequence[PipelineSummary]:
    """What ``Store.pipelines`` returns."""
    group = {
        "_id": "$l",
        "runs": {"$sum": 1},
        "first": {"$min": "$s"},
        "last": {"$max": "$s"},
        "versions": {"$addToSet": "$y"},
        "environments": {"$addToSet": "$e"},
    }
    number = await words.project(database, project)
    # By the numbers of the labels, so that everything is read off one index.
    labels = await words.of_field(database, number, "label")
    failure = (await words.numbers(database, [Word(number, "status", "failure")])).values()
    group["failures"] = {"$sum": {"$cond": [{"$in": ["$x", list(failure)]}, 1, 0]}}
    steps: list[Raw] = [{"$match": {"l": {"$in": sorted(labels.values())}}}, {"$group": group}]
    found = [raw async for raw in await database["runs"].aggregate(steps)]
    named = {number for raw in found for number in (raw["_id"], *raw["versions"], *raw["environments"])}
    texts = await words.words(database, named - {None})
    return sorted((_summary(raw, texts) for raw in found), key=_latest_first)


def _latest_first(summary: PipelineSummary) -> tuple[bool, int, str]:
    last = summary.last_started_at
    return last is None, -(last or 0), summary.label or ""


def _summary(raw: Mapping[str, Any], texts: Mapping[int, Word]) -> PipelineSummary:
    first, last = (None if raw[name] is None else int(raw[name]) for name in ("first", "last"))
    versions, environments = (
        tuple(sorted(str(texts[number].text) for number in raw[name] if number is not None))
        for name in ("versions", "environments")
    )
    label = texts[raw["_id"]].text
    return PipelineSummary(label, int(raw["runs"]), int(raw["failures"]), first, last, versions, environments)
