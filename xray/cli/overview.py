"""``xray trends`` and ``xray system``: what a service knows as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xray.client import Client
from xray.wording import duration, inert, percent, size, top_labels

Server = Annotated[
    str | None,
    typer.Option(
        "--server", envvar="XRAY_SERVER_URL", help="The service's address.", show_default="http://127.0.0.1:7350"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]

out = Console(highlight=False)


def install(app: typer.Typer) -> None:
    """Add the commands.

    Args:
        app: The command line.
    """
    app.command()(trends)
    app.command()(system)


def trends(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline.", show_default="all")] = None,
    stage: Annotated[str | None, typer.Option(help="Only stages of this name.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only stages of this type.")] = None,
    version: Annotated[str | None, typer.Option(help="Only this version of the pipeline.")] = None,
    since: Annotated[str, typer.Option(help="From then on: 7d, 12h, or an ISO 8601 time.")] = "30d",
    until: Annotated[str | None, typer.Option(help="Up to then.")] = None,
    bucket: Annotated[
        str | None, typer.Option(help="How long one stretch of time is: 1h, 1d.", show_default="what suits the span")
    ] = None,
    by: Annotated[str, typer.Option(help="What rows are told apart by, of label, name, type, version.")] = (
        "label,name,type"
    ),
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show how fail ratio, reason labels, scores, durations and volume moved, per pipeline, stage and version."""
    with Client(server) as client:
        answer = client.trends(
            pipeline, name=stage, type=type_, version=version, since=since, until=until, bucket=bucket, by=by
        )
    if as_json:
        _print_json(answer)
        return
    out.print(inert(answer.headline), markup=False, style="bold")
    table = Table("from", *answer["by"], "stages", "failed", "in", "out", "fail ratio", "labels", "p50", "p99",
                  "score p50", box=None, pad_edge=False)  # fmt: skip
    for row in answer.rows:
        time = row["duration_ms"] or {}
        ratio = "" if row["fail_ratio"] is None else percent(row["fail_ratio"])
        labels = top_labels({label: found["count"] for label, found in row["labels"].items()})
        _row(
            table, row["from"], *(row[name] for name in answer["by"]), row["stages"], row["failures"] or "", row["in"],
            row["out"], ratio, labels, duration(time.get("p50")), duration(time.get("p99")),
            _number((row["score"] or {}).get("p50")),
        )  # fmt: skip
    out.print(table)
    if not answer["complete"]:
        out.print("[dim]There are earlier rows: narrow it, or take a longer --bucket.[/]")


def system(server: Server = None, as_json: AsJson = False) -> None:
    """Say what the service holds, takes in, refuses and keeps, its plugins, and how its background tasks are doing."""
    with Client(server) as client:
        answer = client.system()
    if as_json:
        _print_json(answer)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, text in _lines(answer):
        table.add_row(f"[bold]{name}[/]", escape(inert(text)))
    out.print(table)


def _lines(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    holds, intake, disk = answer["holds"], answer["intake"], answer["disk"]
    counts = f"{holds['runs']:,} runs, {holds['stages']:,} stages, {holds['candidate_pages']:,} candidate pages"
    lines = [
        ("version", f"{answer['version']}, Python {answer['python']}, up for {duration(answer['uptime_ms'])}"),
        ("store", f"{answer['store']['kind']} at {answer['store']['location']}"),
        ("holds", f"{counts} in {size(holds['size_bytes'])}"),
    ]
    if disk is not None:
        lines.append(("disk", f"{size(disk['free_bytes'])} of {size(disk['total_bytes'])} free"))
    lines.append(("taken in", f"{intake['events']:,} events, {intake['events_last_hour']:,} in the last hour"))
    for name, what in (("refused_events", "events"), ("refused_batches", "batches")):
        lines += [("refused", f"{count:,} {what}: {reason}") for reason, count in intake[name].items()]
    if answer["retention"] is not None:
        lines.append(("keeps", answer["retention"]["text"]))
    if answer["model"] is not None:
        lines.append(("model", answer["model"]))
    for name, state in answer["tasks"].items():
        said = ", ".join(f"{key} {value}" for key, value in state.items() if value not in (None, False))
        lines.append((f"task {inert(name)}", said))
    for plugin in answer["plugins"]:
        lines += [("problem", f"{plugin['name']}: {problem}") for problem in plugin["problems"]]
    outside = [plugin["name"] for plugin in answer["plugins"] if plugin["origin"] != "built-in"]
    lines.append(("plugins", ", ".join(outside) or "the built-in ones only"))
    return lines


def _print_json(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer, indent=2, ensure_ascii=False, default=repr))


def _row(table: Table, *cells: Any) -> None:
    table.add_row(*(escape(inert(cell)) for cell in cells))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
