"""How well the analyzer finds the step at fault: the examples' pipelines with a planted fault, and healthy.

Run: ``python benchmarks/faults.py [--quick] [--seed N] [--history N] [--json]``.

Every run is recorded by the SDK, taken in by the service's own ingest, read back from SQLite and analyzed against
healthy runs of the same pipeline on other inputs. *Top 1*: the run is called suspicious and the first suspect is the
stage that has the fault; *top 3*: it is among the first three. A faulty run that is not called suspicious counts as
not found. The baseline always blames the stage with the highest fail ratio; its alarm is a fail ratio above 0.9.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.planted import KINDS, PIPELINES, NotPlantedError, Pipeline, Plant

from xray.plugins import installed
from xray.testing import Recorder
from xray_server.analysis.reading import Reader
from xray_server.analysis.record import RunRecord
from xray_server.analysis.suspects import analyze
from xray_server.ingest import Ingest
from xray_server.stores.sqlite import SqliteStore

PROJECT = "default"


class Lab:
    """Runs pipelines into a store and reads them back.

    Args:
        store: The store, open.
        seed: Makes everything that is drawn repeatable.
    """

    def __init__(self, store: SqliteStore, seed: int) -> None:
        self._ingest = Ingest(store, installed())
        self._reader = Reader(store, PROJECT)
        self._rng = random.Random(seed)

    async def run(self, pipeline: Pipeline, kind: str | None = None) -> tuple[RunRecord, str | None]:
        """One run, and the stage that has the fault; inputs on which it would not matter are drawn again."""
        rng = self._rng
        while True:
            places = pipeline.stages if kind == "latency spike" else pipeline.faults.get(kind or "", ())
            stage = rng.choice(places) if kind else None
            plant = Plant(kind, stage, random.Random(rng.random()))
            with Recorder() as recorder:
                try:
                    pipeline.run(rng, plant)
                except NotPlantedError:
                    continue
                events = recorder.events
            plant.timed(events)
            result = await self._ingest.accept(PROJECT, events)
            assert not result.errors, result.errors
            return await self._reader.run(events[0]["run"]["id"]), stage

    async def faulty(self, kind: str) -> tuple[Pipeline, RunRecord, str | None]:
        """A run of a pipeline, drawn from those that can have the fault."""
        able = [pipeline for pipeline in PIPELINES if kind == "latency spike" or kind in pipeline.faults]
        pipeline = self._rng.choice(able)
        run, stage = await self.run(pipeline, kind)
        return pipeline, run, stage

    async def record(self, faulty: int, healthy: int, history: int) -> tuple[
        dict[str, list[RunRecord]], list[tuple[str, Pipeline, RunRecord, str | None]], list[tuple[Pipeline, RunRecord]]
    ]:  # fmt: skip
        """All runs, in an order that is drawn: what else the machine does meets all kinds of them alike."""
        work: list[tuple[str, Pipeline | str]] = [("history", p) for p in PIPELINES for _ in range(history)]
        work += [("healthy", PIPELINES[number % len(PIPELINES)]) for number in range(healthy)]
        work += [("faulty", KINDS[number % len(KINDS)]) for number in range(faulty)]
        self._rng.shuffle(work)
        past: dict[str, list[RunRecord]] = {pipeline.label: [] for pipeline in PIPELINES}
        planted, well = [], []
        for what, subject in work:
            if isinstance(subject, str):
                planted.append((subject, *await self.faulty(subject)))
            elif what == "healthy":
                well.append((subject, (await self.run(subject))[0]))
            else:
                past[subject.label].append((await self.run(subject))[0])
        return past, planted, well


def baseline(run: RunRecord) -> list[tuple[float, str]]:
    """The stages by their fail ratio, the highest first."""
    ratios = [(stage.metrics["fail_ratio"], stage.path) for stage in run.stages if "fail_ratio" in stage.metrics]
    return sorted(ratios, key=lambda pair: -pair[0])


async def measure(*, faulty: int, healthy: int, history: int, seed: int, show: bool) -> dict[str, Any]:
    """Run everything; the counts."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    healthy_runs: dict[str, Counter[str]] = {pipeline.label: Counter() for pipeline in PIPELINES}
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "faults.sqlite3")
        await store.open()
        try:
            lab = Lab(store, seed)
            past, planted, well = await lab.record(faulty, healthy, history)
            for kind, pipeline, run, stage in planted:
                answer = analyze(run, past[pipeline.label])
                named = [suspect["path"] for suspect in answer["suspects"]] if answer["suspicious"] else []
                blamed = [path for _, path in baseline(run)]
                found[kind].update(
                    runs=1, alarm=bool(answer["suspicious"]), top1=named[:1] == [stage], top3=stage in named[:3],
                    base1=blamed[:1] == [stage], base3=stage in blamed[:3],
                )  # fmt: skip
                if show and named[:1] != [stage]:
                    print(kind, pipeline.label, stage, "p", answer["p"], [
                        (s["path"], s["blame"], s["evidence"][0]["text"]) for s in answer["suspects"][:3]
                    ])  # fmt: skip
            for pipeline, run in well:
                answer = analyze(run, past[pipeline.label])
                worst = baseline(run)
                healthy_runs[pipeline.label].update(
                    runs=1, alarm=bool(answer["suspicious"]), base=bool(worst and worst[0][0] > 0.9)
                )
                if show and answer["suspicious"]:
                    print("FALSE", pipeline.label, answer["p"], answer["reason"])
        finally:
            await store.close()
    return {"faulty": found, "healthy": healthy_runs, "history": history, "seed": seed}


def summary(result: dict[str, Any]) -> dict[str, float]:
    """The rates over all runs."""
    faulty, healthy = Counter[str](), Counter[str]()
    for counts in result["faulty"].values():
        faulty += counts
    for counts in result["healthy"].values():
        healthy += counts
    rates = {name: faulty[name] / faulty["runs"] for name in ("top1", "top3", "alarm", "base1", "base3")}
    return rates | {name: healthy[key] / healthy["runs"] for name, key in (("false", "alarm"), ("base_false", "base"))}


def print_tables(result: dict[str, Any], seconds: float) -> None:
    """Print what was measured."""
    print("| fault | runs | top 1 | top 3 | called suspicious | baseline top 1 | baseline top 3 |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, counts in result["faulty"].items():
        cells = [f"{counts[name] / max(counts['runs'], 1):.0%}" for name in ("top1", "top3", "alarm", "base1", "base3")]
        print(f"| {kind} | {counts['runs']} | {' | '.join(cells)} |")
    rates = summary(result)
    cells = [f"{rates[name]:.1%}" for name in ("top1", "top3", "alarm", "base1", "base3")]
    print(f"| all | {sum(c['runs'] for c in result['faulty'].values())} | {' | '.join(cells)} |\n")
    print("| healthy runs of | runs | false alarms | baseline: a fail ratio above 0.9 |")
    print("| :--- | ---: | ---: | ---: |")
    for label, counts in result["healthy"].items():
        print(f"| {label} | {counts['runs']} | {counts['alarm']} | {counts['base']} |")
    print(f"| all | {sum(c['runs'] for c in result['healthy'].values())} | {rates['false']:.1%} | "
          f"{rates['base_false']:.1%} |\n")  # fmt: skip
    print("| goal | wanted | measured |  |\n| :--- | ---: | ---: | :--- |")
    print(f"| top 1 | at least 80 % | {rates['top1']:.1%} | {'met' if rates['top1'] >= 0.8 else 'missed'} |")
    print(f"| false alarms | at most 5 % | {rates['false']:.1%} | {'met' if rates['false'] <= 0.05 else 'missed'} |")
    print(f"\nHistory: {result['history']} healthy runs of each pipeline; seed {result['seed']}; {seconds:.0f} s.")


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--history", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--show", action="store_true", help="print each fault that was not found")
    given = parser.parse_args()
    faulty, healthy = (80, 80) if given.quick else (240, 240)
    begin = time.perf_counter()
    result = asyncio.run(
        measure(faulty=faulty, healthy=healthy, history=given.history, seed=given.seed, show=given.show)
    )
    if given.json:
        print(json.dumps(result | {"rates": summary(result)}))
    else:
        print_tables(result, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
