"""``xray trends`` and ``xray system``: what a service knows as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from xray.cli.options import AsJson, Server
from xray.cli.printing import Grid, new_console, number, print_json
from xray.client import Client
from xray.wording import duration, inert, moment, percent, size, top_labels

out = new_console()


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
        print_json(answer)
        return
    out.print(inert(answer.headline), markup=False, style="bold")
    figures = ("stages", "failed", "in", "out", "fail ratio", "p50", "p99", "score p50")
    grid = Grid(
        "from", *answer["by"], *figures, "labels",
        numbers=figures, whole=("from",), spare=("score p50", "p99", "failed", "p50"),
    )  # fmt: skip
    for row in answer.rows:
        time = row["duration_ms"] or {}
        ratio = "" if row["fail_ratio"] is None else percent(row["fail_ratio"])
        labels = top_labels({label: found["count"] for label, found in row["labels"].items()})
        grid.row(
            moment(row["from"]), *(row[name] for name in answer["by"]), row["stages"], row["failures"] or "", row["in"],
            row["out"], ratio, duration(time.get("p50")), duration(time.get("p99")),
            number((row["score"] or {}).get("p50")), labels,
        )  # fmt: skip
    grid.print(out)
    if not answer["complete"]:
        out.print("[dim]There are earlier rows: narrow it, or take a longer --bucket.[/]")


def system(server: Server = None, as_json: AsJson = False) -> None:
    """Say what the service holds, takes in, refuses and keeps, its plugins, and how its background tasks are doing."""
    with Client(server) as client:
        answer = client.system()
    if as_json:
        print_json(answer)
        return
    lines = _lines(answer)
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        out.print(Text.assemble((name.ljust(width), "bold"), "  ", inert(text)), soft_wrap=True)


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
        lines.append((f"task {inert(name)}", said or "no errors"))
    for plugin in answer["plugins"]:
        lines += [("problem", f"{plugin['name']}: {problem}") for problem in plugin["problems"]]
    outside = [plugin["name"] for plugin in answer["plugins"] if plugin["origin"] != "built-in"]
    lines.append(("plugins", ", ".join(outside) or "the built-in ones only"))
    return lines
