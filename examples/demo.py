"""What ``xray demo`` does: record three pipelines, ask which filters reject nearly all, find a fault by asking.

It needs nothing that is not on this machine: the service runs on the embedded store in a temporary folder, and both
are gone at the end.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import xray
from xray.client import Client
from xray.exceptions import ClientError

from . import competitors, films, flights, history
from .data import DataNotInstalledError
from .service import Question, Row, ServiceFailedError, ask, running_service
from .walkthrough import NotSupportedError, Step, Walkthrough

PIPELINES: tuple[tuple[str, Callable[[], Sized]], ...] = (
    ("flight_rebooking", flights.run_all),
    ("film_recommendation", films.run_all),
    ("competitor_discovery", partial(competitors.run_all, fault=False)),
    ("competitor_discovery", partial(competitors.run_all, fault=True)),
)

HIGH_REJECTION: Question = {
    "stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}},
    "sort": {"$failRatio": -1},
    "limit": 100,
}
"""Every filter of any pipeline that rejected more than nine candidates in ten."""

RECORDED: Question = {"stage": {"type": {"$in": ["retrieval", "filtering"]}}, "limit": 200}
"""Every retrieval and every filter of any pipeline."""


class DeliveryFailedError(RuntimeError):
    """Not everything that was recorded reached the service."""


def run_demo(
    console: Console, *, keep: bool = False, port: int = 0, as_json: bool = False, data_dir: Path | None = None
) -> int:
    """Run the demo.

    Args:
        console: Where to print.
        keep: Whether to leave the recorded data where it is, to look at it with ``xray serve``.
        port: The service's port while the demo runs, or 0 for one that is free.
        as_json: Whether to print the results as one JSON object, and nothing else.
        data_dir: The folder in which the temporary folder is made; the system's where it is None.

    Returns:
        The exit code: 0; 1 where something failed or an answer was not as it must be; 130 after Ctrl-C.
    """
    try:
        with _sigterm_unwinds(), _folder(data_dir, keep) as folder:
            results = demonstrate(folder, port, _quiet if as_json else console.print, with_past=keep)
            if as_json:
                console.print_json(data=results)
            elif keep:
                console.print(
                    f"\nThe recorded data stays in {folder}. Look at it in the browser with:", highlight=False
                )
                command = f"  xray serve --store sqlite:///{folder / 'xray.db'} --open"
                console.print(command, highlight=False, soft_wrap=True)
            else:
                console.print("To look at all of it in the browser, keep it: xray demo --keep", highlight=False)
        return 0
    except KeyboardInterrupt:
        return 130
    except (ClientError, DataNotInstalledError, DeliveryFailedError, NotSupportedError, ServiceFailedError) as error:
        Console(stderr=True).print(f"[bold red]The demo failed.[/] {escape(str(error))}", highlight=False)
        return 1


def demonstrate(
    folder: Path, port: int = 0, say: Callable[..., None] = print, *, with_past: bool = False
) -> dict[str, Any]:
    """Do all that the demo does, in this folder.

    Args:
        folder: Takes the store's file.
        port: The service's port, or 0 for one that is free.
        say: Prints text and rich tables.
        with_past: Whether to record three weeks of another pipeline too, for the dashboard's trends.

    Returns:
        The results: ``runs``, ``stages``, ``high_rejection``, ``walkthrough`` and ``seconds``.
    """
    begun = time.monotonic()
    say("Starting a service on the embedded store …")
    with running_service(folder, port) as client:
        say(f"It listens at {client.server_url}.\n")
        runs = _record(client.server_url, say)
        stages = [_facts(row) for row in ask(client, RECORDED)]
        say(_summary_table(stages))
        high_rejection = [_facts(row) for row in ask(client, HIGH_REJECTION)]
        say("\n[bold]Which filters reject more than 90 %, in any pipeline?[/]")
        say(f"  [cyan]{escape(json.dumps(HIGH_REJECTION))}[/]\n", highlight=False, soft_wrap=True)
        say(_rejection_table(high_rejection))
        walkthrough = _walk_through(client, say)
        if with_past:
            for run in history.runs():
                client.send(run)
    seconds = time.monotonic() - begun
    say(f"\nDone in {seconds:.1f} s; the service is stopped.")
    return {
        "runs": runs,
        "stages": stages,
        "high_rejection": high_rejection,
        "walkthrough": walkthrough,
        "seconds": round(seconds, 3),
    }


def _record(server_url: str, say: Callable[..., None]) -> dict[str, int]:
    xray.configure(server_url=server_url, enabled=True)
    runs: dict[str, int] = {}
    for label, run_all in PIPELINES:
        begun = time.monotonic()
        count = len(run_all())
        runs[label] = runs.get(label, 0) + count
        say(f"Ran {label}: {count} runs in {time.monotonic() - begun:.1f} s.")
    begun = time.monotonic()
    if not xray.flush(timeout_s=30):
        raise DeliveryFailedError("Not everything that was recorded reached the service within 30 seconds.")
    say(f"Sent what was still waiting in {time.monotonic() - begun:.1f} s.\n")
    return runs


def _facts(stage: Row) -> dict[str, Any]:
    """What the tables show of a stage."""
    metrics = stage["metrics"]
    facts = {
        "pipeline": stage["pipeline"]["label"],
        "version": stage["pipeline"]["version"],
        "key": stage["pipeline"]["key"],
        "stage": stage["name"],
        "type": stage["type"],
    }
    if stage["type"] == "retrieval":
        return {**facts, "returned": metrics["returned"]}
    return {
        **facts,
        "fail_ratio": metrics.get("fail_ratio"),
        "seen": metrics["input_count"],
        "failed": metrics["failed"],
        "label_counts": metrics["label_counts"],
        "unlabelled": metrics["unlabelled"],
    }


def _summary_table(stages: list[dict[str, Any]]) -> Table:
    totals: dict[tuple[str, str], Counter[str]] = {}
    for stage in stages:
        total = totals.setdefault((stage["pipeline"], stage["stage"]), Counter())
        total["runs"] += 1
        total["seen"] += stage.get("seen", stage.get("returned", 0))
        total["failed"] += stage.get("failed", 0)
    table = _table("pipeline", "stage", numbers=("runs", "candidates", "rejected"))
    for (pipeline, name), total in sorted(totals.items()):
        table.add_row(pipeline, name, *(f"{total[column]:,}" for column in ("runs", "seen", "failed")))
    return table


def _rejection_table(rows: list[dict[str, Any]]) -> Table:
    table = _table("pipeline", "run", "stage", numbers=("ratio", "seen", "failed"))
    table.add_column("labels")
    for row in rows:
        labels = "\n".join(f"{count:,} {label}" for label, count in Counter(row["label_counts"]).most_common())
        numbers = f"{row['fail_ratio']:.3f}", f"{row['seen']:,}", f"{row['failed']:,}"
        table.add_row(row["pipeline"], row["key"], row["stage"], *numbers, labels or "no label")
    return table


def _table(*texts: str, numbers: tuple[str, ...]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in texts:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _walk_through(client: Client, say: Callable[..., None]) -> dict[str, Any]:
    say("\n[bold]A laptop stand was matched with a phone case. Why?[/]")
    steps: list[Step] = []

    def show(step: Step) -> None:
        steps.append(step)
        say(f"\n[bold]{len(steps)}. {escape(step.title)}[/]")
        for question in step.questions:
            say(f"  [cyan]{escape(json.dumps(question))}[/]", highlight=False, soft_wrap=True)
        say(Padding(Text(f"→ {step.finding}"), (0, 0, 0, 2), expand=False))

    result = Walkthrough(partial(ask, client), show).run(sold="laptop stand", matched="phone case")
    say(f"\n[bold green]The cause:[/] {escape(result['conclusion'])}", highlight=False)
    return {**result, "steps": [{"question": step.title, "finding": step.finding} for step in steps]}


def _quiet(*_: Any, **__: Any) -> None:
    """Print nothing."""


@contextmanager
def _folder(parent: Path | None, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="xray-demo-", dir=parent))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let a SIGTERM leave every ``with`` block, which it does not by itself: the service would be left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
