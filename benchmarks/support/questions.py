"""The questions that are measured, each beside the same one written by hand for SQLite and for MongoDB.

Both give the same JSON: whole rows, with their times as the API writes them.

To measure another question, write a class with ``name``, ``indexed`` and ``needs_candidates``, and the methods of
:class:`Question`, and put it into ``QUESTIONS``. What the hands write is what somebody would who knows the tables and
indexes of the SQLite store, and unpacks the documents with its own functions: the same rows, as Python objects. In
MongoDB the hand has plain documents (``plain.py``), with their candidates inside and the indexes that it needs.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec

from support.filled import DAY_MS, LABELS, PROJECT
from xray_server.api.answers import Service, iso_time, presented
from xray_server.documents import Document
from xray_server.query.parser import MAX_LIMIT
from xray_server.stores.sqlite.dictionaries import Decompressor, read_dictionary
from xray_server.stores.sqlite.rows import PAGE_BITS, PAGE_READ, RUNS, STAGES, Table, decode_page, mark
from xray_server.stores.sqlite.values import id_value

LIMIT = 50
Parameters = dict[str, Any]


class ByHand:
    """A SQLite file, asked by hand.

    Args:
        connection: To the store's file.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.decompressor = Decompressor(partial(read_dictionary, connection))

    def documents(self, table: Table, rest: str, values: Mapping[str, Any]) -> list[Document]:
        """The documents of a query that begins with the table's columns, under the alias ``t``."""
        query = f"SELECT {table.columns('t')} FROM {rest}"  # noqa: S608 - every value is bound
        found = self.connection.execute(query, {"project": PROJECT, **values}).fetchall()
        return [table.decode(row, self.decompressor) for row in found]


class Question:
    """One question. The ways to ask it give equal answers, as far as :meth:`essence` goes."""

    name: ClassVar[str]
    indexed: ClassVar[bool] = True
    """Whether an index leads to the answer, so that it should not take longer in a larger store."""
    needs_candidates: ClassVar[bool] = False

    def draw(self, draw: random.Random, run_ids: Sequence[str]) -> Parameters:
        """What this asking of the question is about."""
        return {}

    async def ask(self, service: Service, given: Parameters) -> Any:
        """Ask the service, as the API does."""
        raise NotImplementedError

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        """Ask SQLite."""
        raise NotImplementedError

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        """Ask MongoDB."""
        raise NotImplementedError

    def shown(self, by_hand: Any) -> Any:
        """What the hand found as the API shows it, ready to be encoded."""
        return [presented(document) for document in by_hand]

    def essence(self, answer: Any) -> Any:
        """What has to be the same, however it was asked: here the rows in order, with all that is in them."""
        return answer["rows"] if isinstance(answer, dict) else answer

    def agree(self, answer: bytes, by_hand: bytes) -> bool:
        """Whether the service's answer, as JSON, is the hand's."""
        return bool(self.essence(msgspec.json.decode(answer)) == self.essence(msgspec.json.decode(by_hand)))


# --- written by hand: the pieces --------------------------------------------------------------------------------

_PROJECT = "(SELECT word FROM words WHERE text = :project)"
_METRIC = f"(SELECT metric FROM metric_names WHERE project = {_PROJECT} AND name = :metric)"  # noqa: S608
_TYPE = "(SELECT word FROM words WHERE text = :type)"
_LABEL = "(SELECT word FROM words WHERE text = :label)"
_WITH_METRIC = f"stage_metrics AS m CROSS JOIN stages AS t ON t.row = m.stage WHERE m.metric = {_METRIC}"


def _found(documents: Any) -> list[Document]:
    return [document | {"id": document.pop("_id")} for document in documents]


_LATEST = [("started_at", -1), ("_id", -1)]
_NO_CANDIDATES = {"candidates": 0}


# --- the questions ----------------------------------------------------------------------------------------------


class HighestFailRatio(Question):
    """The stages with the highest fail ratio."""

    name = "highest $failRatio"

    def draw(self, draw: random.Random, run_ids: Sequence[str]) -> Parameters:
        return {"ratio": draw.uniform(0.5, 0.95), "type": "filtering", "metric": "fail_ratio"}

    async def ask(self, service: Service, given: Parameters) -> Any:
        stage = {"type": given["type"], "$failRatio": {"$gt": given["ratio"]}}
        return await service.ask({"stage": stage, "sort": {"$failRatio": -1}, "limit": LIMIT})

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        rest = f"{_WITH_METRIC} AND m.value > :ratio AND m.value < '' AND t.type = {_TYPE}"
        return hand.documents(STAGES, f"{rest} ORDER BY m.value DESC, t.id DESC LIMIT {LIMIT}", given)

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        asked = {"type": given["type"], "metrics.fail_ratio": {"$gt": given["ratio"]}}
        sort = [("metrics.fail_ratio", -1), ("_id", -1)]
        return _found(database.stages.find(asked, _NO_CANDIDATES).sort(sort).limit(LIMIT))


class FailRatio(HighestFailRatio):
    """The latest stages with a high fail ratio."""

    name = "latest with $failRatio"

    async def ask(self, service: Service, given: Parameters) -> Any:
        return await service.ask(
            {"stage": {"type": given["type"], "$failRatio": {"$gt": given["ratio"]}}, "limit": LIMIT}
        )

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        rest = f"{_WITH_METRIC} AND m.value > :ratio AND m.value < '' AND t.type = {_TYPE}"
        return hand.documents(STAGES, f"{rest} ORDER BY t.started_at DESC, t.id DESC LIMIT {LIMIT}", given)

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        asked = {"type": given["type"], "metrics.fail_ratio": {"$gt": given["ratio"]}}
        return _found(database.stages.find(asked, _NO_CANDIDATES).sort(_LATEST).limit(LIMIT))


class FailRatioOfPipeline(Question):
    """The latest stages of a pipeline with a high fail ratio."""

    name = "$failRatio of a pipeline"

    def draw(self, draw: random.Random, run_ids: Sequence[str]) -> Parameters:
        return {"ratio": draw.uniform(0.5, 0.95), "label": draw.choice(list(LABELS)), "metric": "fail_ratio"}

    async def ask(self, service: Service, given: Parameters) -> Any:
        return await service.ask(
            {
                "pipeline": {"label": given["label"]},
                "stage": {"$failRatio": {"$gt": given["ratio"]}},
                "limit": LIMIT,
            }
        )

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        rest = f"{_WITH_METRIC} AND m.value > :ratio AND m.value < '' AND t.pipeline_label = {_LABEL}"
        return hand.documents(STAGES, f"{rest} ORDER BY t.started_at DESC, t.id DESC LIMIT {LIMIT}", given)

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        asked = {"pipeline.label": given["label"], "metrics.fail_ratio": {"$gt": given["ratio"]}}
        return _found(database.stages.find(asked, _NO_CANDIDATES).sort(_LATEST).limit(LIMIT))


class CandidateLabel(Question):
    """The latest stages of a pipeline in which a candidate was rejected for a reason."""

    name = "candidate's reason label"
    needs_candidates = True

    def draw(self, draw: random.Random, run_ids: Sequence[str]) -> Parameters:
        return {"label": draw.choice(list(LABELS)), "reason": draw.choice(("out_of_stock", "rating_too_low"))}

    async def ask(self, service: Service, given: Parameters) -> Any:
        return await service.ask(
            {
                "pipeline": {"label": given["label"]},
                "candidate": {"reason_label": given["reason"]},
                "limit": LIMIT,
            }
        )

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        # The marks of a page may name a reason that it has not: a hand has to look into it too.
        columns = ", ".join(f"p.{name.strip()}" for name in PAGE_READ.split(","))
        query = (
            f"SELECT {STAGES.columns('t')}, {columns} FROM stages AS t CROSS JOIN pages AS p"  # noqa: S608
            f" ON p.row >= (t.row << {PAGE_BITS}) AND p.row < ((t.row + 1) << {PAGE_BITS})"
            f" WHERE t.project = {_PROJECT} AND t.pipeline_label = {_LABEL} AND instr(p.marks, :mark)"
            " ORDER BY t.started_at DESC, t.id DESC"
        )
        values = {"project": PROJECT, "label": given["label"], "mark": mark("reason_label", given["reason"])}
        found: dict[str, Document] = {}
        width = len(STAGES.stored)
        for row in hand.connection.execute(query, values):
            page = decode_page("", None, row[width:], hand.decompressor)
            if given["reason"] in page.reason_labels:
                stage = STAGES.decode(row[:width], hand.decompressor)
                found[stage["id"]] = stage
                if len(found) == LIMIT:
                    break
        return list(found.values())

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        asked = {"pipeline.label": given["label"], "candidates.reason_label": given["reason"]}
        return _found(database.stages.find(asked, _NO_CANDIDATES).sort(_LATEST).limit(LIMIT))


class RareLabel(CandidateLabel):
    """The same with a reason that one stage in a hundred has."""

    name = "candidate's rare reason label"

    def draw(self, draw: random.Random, run_ids: Sequence[str]) -> Parameters:
        return {"label": draw.choice(list(LABELS)), "reason": "banned_seller"}


class TwoStages(Question):
    """The latest runs with one stage that fails most, and another that reorders most."""

    name = "two stages of a run"

    def draw(self, draw: random.Random, run_ids: Sequence[str]) -> Parameters:
        return {"ratio": draw.uniform(0.6, 0.9), "overlap": draw.choice((0.2, 0.3, 0.4))}

    async def ask(self, service: Service, given: Parameters) -> Any:
        return await service.ask(
            {
                "stages": [
                    {"type": "filtering", "$failRatio": {"$gt": given["ratio"]}},
                    {"type": "ranking", "$top10Overlap": {"$lt": given["overlap"]}},
                ],
                "return": "runs",
                "limit": LIMIT,
            }
        )

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        def runs_with(metric: str, bound: str, type_: str) -> str:
            number = _METRIC.replace(":metric", f"'{metric}'")
            return (
                f"t.id IN (SELECT s.run_id FROM stage_metrics AS m CROSS JOIN stages AS s ON s.row = m.stage"  # noqa: S608
                f" WHERE m.metric = {number} AND m.value {bound} AND m.value < ''"
                f" AND s.type = (SELECT word FROM words WHERE text = '{type_}'))"
            )

        rest = (
            f"runs AS t WHERE t.project = {_PROJECT} AND {runs_with('fail_ratio', '> :ratio', 'filtering')}"
            f" AND {runs_with('top10_overlap', '< :overlap', 'ranking')}"
            f" ORDER BY t.started_at DESC, t.id DESC LIMIT {LIMIT}"
        )
        return hand.documents(RUNS, rest, given)

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        def stage(type_: str, metric: str, bound: Any) -> Any:
            return {"$elemMatch": {"type": type_, f"metrics.{metric}": bound}}

        pipeline: list[Any] = [
            {"$sort": {"started_at": -1, "_id": -1}},
            {"$lookup": {"from": "stages", "localField": "_id", "foreignField": "run_id", "as": "held"}},
            {
                "$match": {
                    "$and": [
                        {"held": stage("filtering", "fail_ratio", {"$gt": given["ratio"]})},
                        {"held": stage("ranking", "top10_overlap", {"$lt": given["overlap"]})},
                    ]
                }
            },
            {"$limit": LIMIT},
            {"$unset": "held"},
        ]
        return _found(database.runs.aggregate(pipeline))


class ByLabelAndDay(Question):
    """Figures by label and day: every stage of a type counts."""

    name = "aggregate by label and day"
    indexed = False

    async def ask(self, service: Service, given: Parameters) -> Any:
        return await service.aggregate(
            {
                "stage": {"type": "filtering"},
                "group_by": ["pipeline.label"],
                "bucket": "day",
                "values": {"stages": {"$count": {}}, "mean": {"$avg": "$failRatio"}, "most": {"$max": "$failRatio"}},
            }
        )

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        query = f"""
            SELECT (SELECT text FROM words WHERE word = t.pipeline_label), t.started_at / {DAY_MS} AS day, count(*),
                   avg(m.value), max(m.value)
            FROM {_WITH_METRIC} AND m.value < '' AND t.project = {_PROJECT} AND t.type = {_TYPE}
            GROUP BY t.pipeline_label, day
        """  # noqa: S608 - every value is bound
        given = {"project": PROJECT, "metric": "fail_ratio", "type": "filtering"}
        return hand.connection.execute(query, given).fetchall()

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        day = {"$dateToString": {"date": {"$toDate": "$started_at"}, "format": "%Y-%m-%d"}}
        ratio = "$metrics.fail_ratio"
        found = database.stages.aggregate(
            [
                {"$match": {"type": "filtering"}},
                {
                    "$group": {
                        "_id": {"label": "$pipeline.label", "day": day},
                        "stages": {"$sum": 1},
                        "mean": {"$avg": ratio},
                        "most": {"$max": ratio},
                    }
                },
            ]
        )
        return [(raw["_id"]["label"], raw["_id"]["day"], raw["stages"], raw["mean"], raw["most"]) for raw in found]

    def shown(self, by_hand: Any) -> Any:
        # SQLite numbers the days, MongoDB writes them.
        rows = [
            {
                "group": {"pipeline.label": label},
                "bucket": iso_time(day * DAY_MS) if isinstance(day, int) else f"{day}T00:00:00.000Z",
                "values": {"stages": stages, "mean": mean, "most": most},
            }
            for label, day, stages, mean, most in by_hand
        ]
        return sorted(rows, key=lambda row: (row["bucket"], row["group"]["pipeline.label"]))

    def essence(self, answer: Any) -> Any:
        if isinstance(answer, dict) and not answer["coverage"]["complete"]:
            return "not over all stages"
        rows = answer["rows"] if isinstance(answer, dict) else answer
        return [
            (row["group"], row["bucket"][:10], row["values"] | {"mean": round(row["values"]["mean"], 9)})
            for row in rows
        ]


class ARun(Question):
    """A run with all of its stages."""

    name = "a run with its stages"

    def draw(self, draw: random.Random, run_ids: Sequence[str]) -> Parameters:
        return {"id": draw.choice(run_ids)}

    async def ask(self, service: Service, given: Parameters) -> Any:
        run = await service.ask({"pipeline": {"id": given["id"]}, "return": "runs", "limit": 1})
        stages = await service.ask({"stage": {"run_id": given["id"]}, "sort": {"order": 1}, "limit": MAX_LIMIT})
        return {"rows": run["rows"] + stages["rows"]}

    def by_sqlite(self, hand: ByHand, given: Parameters) -> Any:
        values = {"id": id_value(given["id"])}
        run = hand.documents(RUNS, f"runs AS t WHERE t.project = {_PROJECT} AND t.id = :id", values)
        rest = f'stages AS t WHERE t.project = {_PROJECT} AND t.run_id = :id ORDER BY t."order", t.id'
        return run + hand.documents(STAGES, rest, values)

    def by_mongodb(self, database: Any, given: Parameters) -> Any:
        run = database.runs.find({"_id": given["id"]})
        stages = database.stages.find({"run_id": given["id"]}, _NO_CANDIDATES).sort([("order", 1), ("_id", 1)])
        return _found(run) + _found(stages)


QUESTIONS: tuple[Question, ...] = (
    HighestFailRatio(),
    FailRatio(),
    FailRatioOfPipeline(),
    CandidateLabel(),
    RareLabel(),
    TwoStages(),
    ByLabelAndDay(),
    ARun(),
)
"""What is measured, in the order of the tables."""
