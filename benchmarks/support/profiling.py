"""Where the time goes: on the caller's thread, and on the worker's, each alone.

The caller's calls leave their records in a list instead of the buffer. What the worker does with such records is then
done in the foreground: making them into events, and sending those to the sink.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import msgspec
import orjson
import zstandard

import xray
from support.recorders import decorated, in_run
from support.report import X_ORJSON
from support.sink import Sink
from support.workload import POOLS, RESULTS, SIZES, Pool
from xray.delivery.http import HttpTransport
from xray.runtime import runtime

CALLS = {1: 3000, 100: 300, 5000: 20}
SHOWN = 14


def profile(tier: str) -> None:
    """Print, for each size, the floors, the steps and the functions that take the time.

    Args:
        tier: The capture tier.
    """
    stage = decorated(tier)
    with Sink() as sink:
        xray.configure(server_url=sink.url)
        transport = HttpTransport(sink.url, connect_timeout_s=2.0, request_timeout_s=30.0)
        for size in SIZES:
            print(f"## {size:,} candidates, {tier}\n")
            _profile_size(stage, size, transport)
        transport.close()


def _profile_size(stage: Callable[[Pool], Pool], size: int, transport: HttpTransport) -> None:
    pool, calls = POOLS[size], CALLS[size]
    records: list[Any] = []
    stages: list[Any] = []
    profiler = cProfile.Profile()
    call_us = 0.0

    def call() -> None:
        for _ in range(calls):
            stage(pool)

    def work() -> None:
        nonlocal call_us
        call_us = _median_us(lambda: stage(pool), calls)
        records.clear()
        profiler.runcall(call)
        stages.extend(records)  # before the run's own end comes

    with patch.object(runtime, "submit", records.append):
        in_run(work)
    assert len(stages) == calls, "Records do not come through runtime.submit any more."
    _print_steps(size, stages, transport, call_us)
    _print_functions("Caller's thread", profiler, calls)
    profiler = cProfile.Profile()
    profiler.runcall(_work_off, stages, transport)
    _print_functions("Worker's thread", profiler, calls)


def _work_off(records: Sequence[Any], transport: HttpTransport) -> None:
    size = max(1, 4 * len(records) // max(1, sum(record.size_bytes for record in records) >> 20))
    for start in range(0, len(records), size):  # about as large as the worker's own batches
        transport.send([record.event() for record in records[start : start + size]])


def _print_steps(size: int, records: Sequence[Any], transport: HttpTransport, call_us: float) -> None:
    """The steps and their floors without a profiler, whose own cost makes many small calls look dear."""
    pool, result, count = POOLS[size], RESULTS[size], CALLS[size]
    encoder, buffer = msgspec.msgpack.Encoder(), bytearray()
    packed = [encoder.encode(pool), encoder.encode(result)]
    turns = cycle(records)
    events = [record.event() for record in records]
    body = msgspec.msgpack.encode({"events": events[:1]})
    compressor = zstandard.ZstdCompressor(level=1)

    def snapshots() -> None:
        for value in (pool, result):
            encoder.encode_into(value, buffer)
            bytes(buffer)

    steps: list[tuple[str, Callable[[], object]]] = [
        ("yardstick: `orjson.dumps` of inputs and outputs", lambda: (orjson.dumps(pool), orjson.dumps(result))),
        ("floor for the caller: msgpack of inputs and outputs into a kept buffer", snapshots),
        ("floor for the worker: msgpack decode of both", lambda: [msgspec.msgpack.decode(data) for data in packed]),
        ("worker: record to event", lambda: next(turns).event()),
        ("worker: msgpack encode of the event", lambda: msgspec.msgpack.encode({"events": events[:1]})),
        (f"worker: zstd of its {len(body):,} bytes", lambda: compressor.compress(body)),
        ("worker: send one event alone, waiting for the sink's answer", lambda: transport.send(events[:1])),
    ]
    rows = [(name, _median_us(step, count)) for name, step in steps]
    rows.insert(2, ("caller: the recorded call, without the buffer", call_us))
    print(f"| step, without a profiler | µs a call | {X_ORJSON} |\n| :--- | ---: | ---: |")
    for name, microseconds in rows:
        print(f"| {name} | {microseconds:,.1f} | {microseconds / rows[0][1]:.2f} |")
    print()


def _print_functions(title: str, profiler: cProfile.Profile, calls: int) -> None:
    stats = pstats.Stats(profiler).get_stats_profile()
    total = stats.total_tt
    print(f"{title}: cProfile, {total / calls * 1e6:,.0f} µs a call under the profiler\n")
    print("| own µs a call | share | with callees | times called | function |\n| ---: | ---: | ---: | ---: | :--- |")
    raw: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    dearest = sorted(raw.items(), key=lambda item: -item[1][2])[:SHOWN]
    for (file, line, name), (_, times, own, cumulative, _callers) in dearest:
        where = f"{_short(file)}:{line} {name}" if line else name.strip("<>")
        print(
            f"| {own / calls * 1e6:,.1f} | {own / total:.0%} | {cumulative / total:.0%} | {times / calls:,.1f} "
            f"| `{where}` |"
        )
    print()


def _short(file: str) -> str:
    parts = Path(file).parts
    for root in ("xray", "benchmarks"):
        if root in parts:
            return "/".join(parts[len(parts) - 1 - parts[::-1].index(root) :])
    return parts[-1]


def _median_us(step: Callable[[], object], count: int) -> float:
    took = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        step()
        took.append((time.perf_counter_ns() - begin) / 1000)
    return median(took)
