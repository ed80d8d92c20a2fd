"""A store that is full of runs: drawn at random, the same ones for the same seed, written by the store itself.

A run has five stages of five types, and one of three pipelines. Runs are spread evenly over ninety days, so that a
larger store is a busier one, not an older one. Candidates come from a few hundred pages that are drawn once: what is
asked of them does not depend on how many different ones there are.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from support.catalogue import product
from xray.ids import id_text
from xray.stage_types.base import Columns
from xray_server.pages import CandidatePage, paginate
from xray_server.stores.base import Store, WriteBatch

PROJECT = "default"
STAGES_PER_RUN = 5
RUNS_PER_BATCH = 200
WRITES_AT_ONCE = 2
BATCHES_PER_WORD = 50
"""After so many batches it is said how far it is."""

PAGES_DRAWN = 400
DAYS = 90
BEGIN_MS = 1_780_000_000_000
DAY_MS = 86_400_000

LABELS = {"competitor_discovery": 0.5, "search": 0.3, "recommendation": 0.2}
VERSIONS = ("2026.9", "2026.10", "2026.11")
REASONS = {"price_too_high": 0.3, "rating_too_low": 0.1, "out_of_stock": 0.03, "banned_seller": 0.0005}
"""Reason → the share of the candidates that have it."""

_STAGES = (("fetch", "retrieval"), ("price_filter", "filtering"), ("relevance", "scoring"),
           ("order", "ranking"), ("pick", "selection"))  # fmt: skip


async def fill(
    store: Store, stages: int, *, candidates: int, seed: int = 1, beside: Callable[[WriteBatch], None] | None = None
) -> float:
    """Fill a store.

    Args:
        store: The store, open and empty.
        stages: How many stages; a multiple of ``STAGES_PER_RUN``.
        candidates: Candidates a stage; 0 means stages without candidate pages.
        seed: The same seed draws the same stages.
        beside: Told each batch after it was written.

    Returns:
        The seconds that it took, without what is done beside it.
    """
    begin, beside_s, written = time.perf_counter(), 0.0, 0
    batches = _batches(stages, candidates, seed)

    async def write() -> None:
        nonlocal beside_s, written
        for batch in batches:
            await store.write(PROJECT, batch)
            written += len(batch.stages)
            if written % (STAGES_PER_RUN * RUNS_PER_BATCH * BATCHES_PER_WORD) < len(batch.stages):
                say(f"{store.kind}: {written:,} of {stages:,} stages in {time.perf_counter() - begin:.0f} s")
            if beside is not None:
                began = time.perf_counter()
                beside(batch)
                beside_s += time.perf_counter() - began

    await asyncio.gather(*(write() for _ in range(WRITES_AT_ONCE)))
    return time.perf_counter() - begin - beside_s


def say(text: str) -> None:
    """Tell whoever waits how far it is; the tables go to standard output."""
    print(text, file=sys.stderr, flush=True)


def _batches(stages: int, candidates: int, seed: int) -> Iterator[WriteBatch]:
    draw = random.Random(seed)
    drawn = _draw_pages(draw, candidates) if candidates else []
    runs = stages // STAGES_PER_RUN
    for first in range(0, runs, RUNS_PER_BATCH):
        batch = WriteBatch()
        for number in range(first, min(first + RUNS_PER_BATCH, runs)):
            _add_run(batch, draw, BEGIN_MS + number * DAYS * DAY_MS // runs, drawn)
        yield batch


def _add_run(batch: WriteBatch, draw: random.Random, start: int, drawn: list[CandidatePage]) -> None:
    run_id = id_text(start * 1_000_000, draw.getrandbits(62))
    (label,) = draw.choices(tuple(LABELS), tuple(LABELS.values()))
    pipeline = {
        "id": run_id, "label": label, "version": draw.choice(VERSIONS), "environment": "production",
        "started_at": start,
    }  # fmt: skip
    batch.runs[run_id] = pipeline | {
        "finished_at": start + 5000, "duration_ms": draw.uniform(1, 5000), "stage_count": STAGES_PER_RUN,
        "status": "failure" if draw.random() < 0.02 else "success", "completeness": "complete",
        "input": {"query": f"query {draw.randrange(1000)}"}, "metadata": {"team": draw.choice(("ads", "core"))},
    }  # fmt: skip
    for order, (name, type_) in enumerate(_STAGES):
        began = start + order * 10
        stage_id = id_text(began * 1_000_000, draw.getrandbits(62))
        page = draw.choice(drawn) if drawn else None
        count = 20 if page is None else len(page.seqs)
        duration_ms = draw.uniform(0.1, 900)
        batch.stages[stage_id] = {
            "id": stage_id, "run_id": run_id, "pipeline": pipeline, "order": order, "path": f"{name}[0]", "name": name,
            "type": type_, "started_at": began, "duration_ms": duration_ms, "status": "success",
            "capture": {"mode": "full", "seen": count, "kept": count}, "metrics_over": count,
            "metrics": {"duration_ms": duration_ms, "input_count": count} | _metrics(draw, type_, count),
        }  # fmt: skip
        if page is not None:
            batch.pages.append(
                CandidatePage(
                    run_id,
                    stage_id,
                    0,
                    start,
                    page.seqs,
                    page.ids,
                    page.reason_labels,
                    packed=page.packed,
                    ranges=page.ranges,
                )
            )


def _metrics(draw: random.Random, type_: str, count: int) -> dict[str, Any]:
    if type_ == "filtering":
        failed = min(count, int(draw.random() * (count + 1)))
        share = failed / count
        return {
            "passed": count - failed, "failed": failed, "fail_ratio": share, "unlabelled": 0,
            "label_counts": {"price_too_high": failed}, "label_share": {"price_too_high": share},
        }  # fmt: skip
    if type_ == "scoring":
        return {"score": {"min": draw.random() / 9, "mean": draw.random(), "max": 1 - draw.random() / 9}, "nulls": 0}
    if type_ == "ranking":
        return {"kendall_tau": draw.uniform(-1, 1), "top10_overlap": draw.randrange(11) / 10}
    if type_ == "selection":
        return {"selected": 1, "margin": draw.random()}
    return {"returned": count, "requested": 100, "duplicates": draw.randrange(3)}


def _draw_pages(draw: random.Random, candidates: int) -> list[CandidatePage]:
    """Pages to take candidates from; a stage gets one with its own ids in place of these."""
    pages = []
    for _ in range(PAGES_DRAWN):
        products = [product(draw, draw.randrange(100_000)) for _ in range(candidates)]
        reasons = [_reason(draw.random()) for _ in products]
        columns = Columns(
            [item.pop("id") for item in products],
            {
                "verdict": ["passed" if reason is None else "failed" for reason in reasons],
                "reason_label": reasons,
                "data": products,
            },
        )
        pages += paginate("", "", None, columns)
    return pages


def _reason(drawn: float) -> str | None:
    for reason, share in REASONS.items():
        if drawn < share:
            return reason
        drawn -= share
    return None
