"""How metrics should lie in MongoDB: under one wildcard index, or in an array of names and values with one index.

    python benchmarks/mongodb_metrics.py mongodb://127.0.0.1:27017/

Writes the same numbers in both forms into a database of its own on that server, asks the same questions of both, and
drops the database. Without an address it does nothing.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

STAGES = 50_000
AT_ONCE = 1000
REPEATS = 5
LABELS = ("price_too_high", "rating_too_low", "out_of_stock", "wrong_category", "duplicate")
INDEXES = {"wildcard": [("metrics.$**", 1)], "array": [("_id.p", 1), ("m.k", 1), ("m.v", 1)]}
QUESTIONS = (("n.fail_ratio", 0.99), ("n.fail_ratio", 0.5), ("t.label_counts.price_too_high", 7))


def main(uri: str) -> None:
    with MongoClient[Any](uri) as client:
        database = client["xray_benchmark"]
        print(f"{STAGES:,} stages of 17 numbers, MongoDB {client.server_info()['version']} as the server says")
        for form, keys in INDEXES.items():
            collection = database[form]
            collection.create_index(keys, name="by_metric")
            seconds = write(collection, form)
            stats = database.command({"collStats": form})
            print(
                f"{form}: {STAGES / seconds:,.0f} inserted/s, data {stats['storageSize'] / 1e6:.0f} MB,"
                f" index {stats['indexSizes']['by_metric'] / 1e6:.0f} MB"
            )
            for path, bound in QUESTIONS:
                found, greatest = questions(collection, form, path, bound)
                print(f"  {path} > {bound}: first 1,000 {found:.0f} ms; 50 greatest {greatest:.0f} ms")
        client.drop_database("xray_benchmark")


def stages() -> Sequence[tuple[dict[str, float], dict[str, dict[str, float]]]]:
    generator = random.Random(3)
    names = ("output_count", "passed", "failed")
    return [
        (
            {"duration_ms": generator.random() * 50, "input_count": 20, "fail_ratio": generator.randrange(1001) / 1000}
            | {name: generator.randrange(21) for name in names}
            | {"unlabelled": 0},
            {
                "label_counts": {label: generator.randrange(9) for label in LABELS},
                "label_share": {label: generator.random() for label in LABELS},
            },
        )
        for _ in range(STAGES)
    ]


def write(collection: Collection[Any], form: str) -> float:
    """Seconds that inserting takes."""
    documents = []
    for number, (numbers, tables) in enumerate(stages()):
        document: dict[str, Any] = {"_id": {"p": "default", "i": f"{number:036d}"}, "type": "filtering"}
        if form == "wildcard":
            document["metrics"] = {"n": numbers, "t": tables}
        else:
            inside = {f"{name}.{key}": value for name, table in tables.items() for key, value in table.items()}
            document["m"] = [{"k": name, "v": value} for name, value in (numbers | inside).items()]
        documents.append(document)
    began = time.perf_counter()
    for start in range(0, STAGES, AT_ONCE):
        collection.insert_many(documents[start : start + AT_ONCE], ordered=False)
    return time.perf_counter() - began


def questions(collection: Collection[Any], form: str, path: str, bound: float) -> tuple[float, float]:
    """Milliseconds for the first that are above a bound, and for the greatest of these."""
    if form == "wildcard":
        place = f"metrics.{path}"
        where: dict[str, Any] = {"_id.p": "default", place: {"$gt": bound}}
        greatest = median_ms(lambda: list(collection.find(where, sort=[(place, -1)], limit=50)))
    else:
        name = path[2:]
        where = {"_id.p": "default", "m": {"$elemMatch": {"k": name, "v": {"$gt": bound}}}}
        value = {"$first": {"$filter": {"input": "$m", "cond": {"$eq": ["$$this.k", name]}}}}
        steps = [{"$match": where}, {"$set": {"found": value}}, {"$sort": {"found.v": -1}}, {"$limit": 50}]
        greatest = median_ms(lambda: list(collection.aggregate(steps)))
    return median_ms(lambda: list(collection.find(where, {"_id": 1}, limit=1000))), greatest


def median_ms(ask: Callable[[], Any]) -> float:
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        print("Name a MongoDB server to measure on: python benchmarks/mongodb_metrics.py mongodb://127.0.0.1:27017/")
