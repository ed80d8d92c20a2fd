"""What a decorated call costs on the caller's thread, against one ``orjson.dumps`` of the same inputs and outputs.

Run: ``python benchmarks/call_overhead.py``. Each line gives medians of interleaved repetitions and their ratio.
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import orjson

import xray
from xray.delivery.transport import SendResult, Transport

SIZES = {1: 2000, 100: 500, 5000: 40}  # candidates → repetitions


class Counting(Transport):
    """Takes everything and counts the candidates, so that the benchmark can check that they arrived."""

    def __init__(self) -> None:
        self.candidates = 0

    def send(self, events: Any) -> SendResult:
        self.candidates += sum(len(event["columns"]["candidate_id"]) for event in events if "columns" in event)
        return SendResult("stored", {})

    def close(self) -> None:
        pass


def make_pool(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"sku-{n:06d}", "title": f"A product title of forty characters {n:05d}", "price": n * 0.37,
         "rating": 3 + n % 20 / 10, "category": f"category-{n % 12}"}
        for n in range(count)
    ]  # fmt: skip


def judge(pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return RESULT[len(pool)]


RESULT = {
    count: [
        {**item, "passed": n % 3 == 0, "reason": None if n % 3 == 0 else "price_too_high"}
        for n, item in enumerate(make_pool(count))
    ]
    for count in SIZES
}


def timed(function: Callable[[], Any]) -> float:
    begin = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - begin) / 1000


def main() -> None:
    print(f"Python {platform.python_version()}, orjson {version('orjson')}, msgspec {version('msgspec')}")
    transport = Counting()
    xray.configure(transport=transport, buffer_bytes=1 << 30)
    decorated = xray.filtering_stage("judge", id="id", passed="passed", reason_label="reason")(judge)
    expected = 0
    print(f"{'candidates':>10} {'plain µs':>10} {'X-Ray µs':>10} {'orjson µs':>10} {'(X-Ray - plain) / orjson':>25}")

    @xray.pipeline("bench")
    def measure(count: int, repetitions: int) -> tuple[list[float], list[float], list[float]]:
        pool = make_pool(count)
        plain, recorded, dumped = [], [], []
        for _ in range(repetitions):
            plain.append(timed(lambda: judge(pool)))
            recorded.append(timed(lambda: decorated(pool)))
            dumped.append(timed(lambda: (orjson.dumps(pool), orjson.dumps(RESULT[count]))))
            if count >= 1000:
                xray.flush(10)  # the worker shares the interpreter: let it finish outside of the measurement
        return plain, recorded, dumped

    for count, repetitions in SIZES.items():
        gc.collect()
        plain, recorded, dumped = map(statistics.median, measure(count, repetitions))
        expected += count * repetitions
        print(f"{count:>10} {plain:>10.2f} {recorded:>10.1f} {dumped:>10.1f} {(recorded - plain) / dumped:>25.2f}")
    assert xray.flush(60), xray.stats()
    assert transport.candidates == expected, f"{transport.candidates} of {expected} candidates arrived"
    print(f"All {expected:,} candidates arrived.")


if __name__ == "__main__":
    main()
