"""What delivery costs the recording process while the service is up, slow and down, and with ``spool-first``.

Run: ``python benchmarks/delivery.py [--quick] [--json]``. Needs Linux (it reads ``/proc``).

Each row is a process of its own that records at a given rate, and then delivers everything. *Down* means that nothing
listens while it records; the service starts afterwards. The script fails where a loss was not counted, or where memory
grew beyond the buffer's bound and 50 MB. A goal that is missed is said, and fails nothing: where others use the
processor too, records may come faster than they can be written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.delivered import Cost, Task, finish, start
from support.sink import Arrived, Sink

BUFFER_MB = 128
MARGIN_MB = 50
SLOW_S = 0.5
STAGE = "judge_full"


@dataclass(frozen=True, slots=True)
class Row:
    """One way of delivering, and what it cost."""

    name: str
    size: int
    calls: int
    per_s: int
    cost: Cost
    arrived: Arrived

    @property
    def dropped(self) -> int:
        """How many records the process says are lost."""
        return int(sum(self.cost.counts["dropped"].values()))

    @property
    def candidates_per_s(self) -> float:
        """What was recorded and delivered in a second, all in all."""
        return self.arrived.candidates / (self.cost.took_s + self.cost.delivered_s)

    def problems(self) -> list[str]:
        """What is not as promised."""
        counts = self.cost.counts
        settled = counts["acknowledged"] + counts["buffered"] + counts["spooled"] + self.dropped
        found = []
        if settled != counts["recorded"]:
            found.append(f"{self.name}: {counts['recorded']} recorded, {settled} accounted for")
        # A stage may be lost where the call cannot be slower than the disk; it is counted then.
        stages = self.calls - self.dropped
        if (self.arrived.stages, self.arrived.candidates) != (stages, stages * self.size):
            found.append(f"{self.name}: {self.arrived.stages} stages arrived, {stages} should have")
        if self.cost.peak_delivered_mb > BUFFER_MB + MARGIN_MB:
            found.append(f"{self.name}: memory grew by {self.cost.peak_delivered_mb:.0f} MB")
        return found


def measure(name: str, size: int, calls: int, per_s: int, *, durability: str = "memory") -> Row:
    """Record and deliver in one way."""
    folder = tempfile.mkdtemp(prefix="xray-benchmark-")
    port = _free_port()
    try:
        task = Task(f"http://127.0.0.1:{port}", f"{folder}/spool", size, calls, per_s, durability, waits=True)
        if "down" in name:
            process = start(task)
            assert process.stdout is not None
            process.stdout.readline()
            with Sink(port) as sink:
                cost = finish(process)
                arrived = sink.arrived(STAGE)
        else:
            with Sink(port, SLOW_S if "slow" in name else 0.0) as sink:
                cost = finish(start(task))
                arrived = sink.arrived(STAGE)
        if any(Path(folder, "spool").glob("*.seg")):
            raise RuntimeError(f"{name}: something is left in the spool")
    finally:
        shutil.rmtree(folder)
    return Row(name, size, calls, per_s, cost, arrived)


def run(*, quick: bool) -> list[Row]:
    """Measure everything."""
    few = 5 if quick else 1
    rows = []
    for size, calls, per_s in ((5000, 1000 // few, 100), (100, 10_000 // few, 1000)):
        rows += [measure(name, size, calls, per_s) for name in ("up", "slow", "down")]
        rows += [
            measure(f"{name}, spool-first", size, calls, per_s, durability="spool-first") for name in ("up", "down")
        ]
    rows.append(measure("down, at full speed", 5000, 1000 // few, 0))
    rows.append(measure("up, at full speed", 5000, 1000 // few, 0))
    return rows


def print_table(rows: list[Row]) -> None:
    print(
        "The caller's time is over a plain call's, CPU that of the whole process until everything is delivered, "
        f"memory what was added to what there was before. A slow service takes {SLOW_S} s over each request.\n"
    )
    heads = ("candidates", "a second", "service", "caller median µs", "p99 µs", "CPU µs a call", "added MB", "lost")
    _print_row(*heads, "candidates/s")
    _print_row(*("---:" for _ in heads), "---:")
    for row in rows:
        cost = row.cost
        _print_row(
            f"{row.size:,}",
            f"{row.per_s:,}" if row.per_s else "all",
            row.name,
            f"{cost.median_us:,.1f}",
            f"{cost.p99_us:,.0f}",
            f"{cost.cpu_us_per_call:,.0f}",
            f"{cost.peak_delivered_mb:.0f}",
            f"{row.dropped} of {cost.counts['recorded']:,}",
            f"{row.candidates_per_s:,.0f}",
        )
    by_name = {(row.name, row.size): row for row in rows}
    up, down = by_name["up", 5000], by_name["down", 5000]
    bound = BUFFER_MB + MARGIN_MB
    ratio = down.cost.median_us / up.cost.median_us
    print()
    _print_row("goal, 5,000 candidates, 100 a second, service down", "at most", "measured", "")
    _print_row(":---", "---:", "---:", ":---")
    _print_row("caller's median, over that with the service up", "1.3", f"{ratio:.2f}", _verdict(ratio, 1.3))
    added = down.cost.peak_delivered_mb
    _print_row("added memory", f"{bound} MB", f"{added:.0f} MB", _verdict(added, bound))
    _print_row("lost", "0", str(down.dropped), _verdict(down.dropped, 0))


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def _verdict(measured: float, at_most: float) -> str:
    return "ok" if measured <= at_most else "over"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the calls")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("This benchmark reads /proc: it needs Linux.")
    began = time.perf_counter()
    rows = run(quick=options.quick)
    if options.json:
        shown: list[Any] = [dataclasses.asdict(row) for row in rows]
        print(json.dumps(shown, indent=2))
    else:
        print_table(rows)
        print(f"\nTook {time.perf_counter() - began:.0f} s.")
    if problems := [problem for row in rows for problem in row.problems()]:
        sys.exit("Not as promised: " + "; ".join(problems))


if __name__ == "__main__":
    main()
