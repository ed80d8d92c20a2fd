"""One process that records at a given rate, and says what that cost: ``python delivered.py JSON``.

A process of its own, so that the memory it reports is that of this way of delivering alone.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median, quantiles
from typing import Any

FLUSH_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to record.

    Args:
        url: The service.
        spool: The spool's folder.
        size: Candidates of a stage.
        calls: How many stages.
        per_s: How many a second; 0 for as many as it can.
        durability: The setting.
        waits: Whether to wait for a line on standard input before everything is to be delivered.
    """

    url: str
    spool: str
    size: int
    calls: int
    per_s: int
    durability: str = "memory"
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What it cost. Times of a call are over a plain call's; memory is over what there was before the first one."""

    median_us: float
    p99_us: float
    took_s: float
    cpu_us_per_call: float
    peak_mb: float
    delivered_s: float
    peak_delivered_mb: float
    counts: dict[str, Any]


def start(task: Task) -> subprocess.Popen[str]:
    """Start a process that does it; it prints its first counts, and at the end its cost."""
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(dataclasses.asdict(task))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Cost:
    """Let a process deliver everything; what it all cost."""
    out, _ = process.communicate("\n", timeout=2 * FLUSH_TIMEOUT_S)
    if process.returncode:
        raise RuntimeError("A recording process failed.")
    return Cost(**json.loads(out.splitlines()[-1]))


def work(task: Task) -> Cost:
    import xray
    from support.recorders import decorated, in_run
    from support.workload import POOLS, judge

    logging.getLogger("xray").setLevel(logging.CRITICAL)  # the counts say it
    xray.configure(server_url=task.url, spool_dir=task.spool, durability=task.durability)
    stage = decorated("full")
    assert stage is not None
    pool = POOLS[task.size]
    plain = median(_timed(judge, pool) for _ in range(1000))
    times: list[int] = []
    before_mb = _rss_mb()

    def record() -> None:
        due = time.perf_counter()
        for _ in repeat(None, task.calls):
            times.append(_timed(stage, pool))
            if task.per_s:
                due += 1 / task.per_s
                time.sleep(max(0.0, due - time.perf_counter()))

    began, cpu = time.perf_counter(), time.process_time()
    in_run(record)
    took_s = time.perf_counter() - began
    peak_mb = _peak_mb() - before_mb
    print(json.dumps(dataclasses.asdict(xray.stats())), flush=True)
    if task.waits:
        sys.stdin.readline()
    began_to_deliver = time.perf_counter()
    xray.flush(FLUSH_TIMEOUT_S)
    return Cost(
        median_us=(median(times) - plain) / 1000,
        p99_us=(quantiles(times, n=100)[98] - plain) / 1000,
        took_s=took_s,
        cpu_us_per_call=(time.process_time() - cpu) / task.calls * 1e6,
        peak_mb=peak_mb,
        delivered_s=time.perf_counter() - began_to_deliver,
        peak_delivered_mb=_peak_mb() - before_mb,
        counts=dataclasses.asdict(xray.stats()),
    )


def _timed(call: Any, pool: Any) -> int:
    begin = time.perf_counter_ns()
    call(pool)
    return time.perf_counter_ns() - begin


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    print(json.dumps(dataclasses.asdict(work(Task(**json.loads(sys.argv[1]))))))
