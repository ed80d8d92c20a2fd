"""What the commands print for people: tables and trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from xray.cli.printing import Grid, number
from xray.wording import Document, duration, error_line, figures, inert, moment, percent, top_labels

_STATUS_STYLES = {"success": "green", "failure": "red", "running": "yellow"}


def print_runs(console: Console, answer: Document) -> None:
    """A table of runs."""
    rows = answer["rows"]
    if not rows:
        console.print("No runs.")
        return
    grid = Grid(
        "run", "pipeline", "version", "started", "duration", "stages", "status", "key",
        numbers=("duration", "stages"), whole=("run", "started"), spare=("stages", "version", "duration", "started"),
    )  # fmt: skip
    for run in rows:
        status = inert(run.get("status"))
        grid.row(
            run["id"], run.get("label"), run.get("version"), moment(run.get("started_at")),
            duration(run.get("duration_ms")), run.get("stage_count"),
            Text(status, style=_STATUS_STYLES.get(status, "")), run.get("key"),
        )  # fmt: skip
    grid.print(console)
    _print_more(console, answer)


def print_run(console: Console, run: Document) -> None:
    """A run as a tree of its stages."""
    head = f"[bold]{_text(run.get('label')) or 'run'}[/] {run['id']}"
    facts = [run.get("version"), run.get("environment"), run.get("key"), run.get("started_at")]
    known = "  ".join(_text(fact) for fact in facts if fact)
    status = str(run.get("status") or "")
    tree = Tree(
        f"{head}  [{_STATUS_STYLES.get(status, 'default')}]{status}[/]  {duration(run.get('duration_ms'))}  {known}"
    )
    _add_error(tree, run)
    nodes: dict[str | None, Tree] = {None: tree}
    for stage in run["stages"]:
        parent = nodes.get(stage.get("parent_id"), tree)
        nodes[stage["id"]] = node = parent.add(stage_line(stage))
        _add_error(node, stage)
    if not run["stages"]:
        tree.add("no stages")
    console.print(tree, soft_wrap=True)


def stage_line(stage: Document) -> str:
    """One stage in a line: type, name, counts, fail ratio, top labels, duration."""
    parts = [f"[bold]{_text(stage.get('name'))}[/]", f"[dim]{_text(stage.get('type'))}[/]"]
    parts += map(escape, figures(stage))
    if stage.get("candidates_removed_at"):
        parts.append(f"[dim]candidates removed {_text(stage['candidates_removed_at'])[:10]}[/]")
    if stage.get("status") == "failure":
        parts.append("[red]failure[/]")
    parts.append(f"[dim]{duration(stage.get('duration_ms'))}[/]")
    return "  ".join(part for part in parts if part)


def print_answer(console: Console, question: Document, answer: Document) -> None:
    """A table of what a question found."""
    rows: Sequence[Document] = answer["rows"]
    returns = question.get("return", "stages")
    if not rows:
        console.print(f"Nothing found. {_coverage(answer)}")
    elif returns in ("runs", "pipelines"):
        print_runs(console, answer)
        return
    elif returns == "candidates":
        grid = Grid(
            "candidate", "verdict", "reason label", "score", "rank", "stage", "run",
            numbers=("score", "rank"), whole=("candidate", "run"), spare=("rank", "score"),
        )  # fmt: skip
        for row in rows:
            grid.row(
                row.get("candidate_id"), row.get("verdict"), row.get("reason_label"), number(row.get("score")),
                row.get("rank"), row.get("stage_name") or row.get("stage_id"), row.get("run_id"),
            )  # fmt: skip
        grid.print(console)
    else:
        grid = Grid(
            "pipeline", "stage", "type", "in", "out", "fail ratio", "labels", "duration", "run",
            numbers=("in", "out", "fail ratio", "duration"), whole=("run",), spare=("duration", "type", "labels"),
        )  # fmt: skip
        for row in rows:
            metrics = row.get("metrics") or {}
            ratio = metrics.get("fail_ratio")
            grid.row(
                (row.get("pipeline") or {}).get("label"), row.get("name"), row.get("type"), metrics.get("input_count"),
                metrics.get("output_count"), percent(ratio) if ratio is not None else "",
                top_labels(metrics.get("label_counts") or {}), duration(row.get("duration_ms")), row.get("run_id"),
            )  # fmt: skip
        grid.print(console)
    _print_more(console, answer)


def print_explanation(console: Console, explanation: Document) -> None:
    """How a question is read and run."""
    console.print(_text(explanation["question"]), soft_wrap=True)
    for place, step in enumerate(explanation["steps"], 1):
        console.print(f"[dim]{place}.[/] {_text(step)}", soft_wrap=True)
    known = {True: "an index serves it", False: "no index serves it", None: "not known"}[explanation["indexed"]]
    console.print(f"[dim]Index:[/] {known}. {_text(explanation['plan'])}", soft_wrap=True)


def print_groups(console: Console, answer: Document) -> None:
    """A table of an aggregation's groups."""
    rows: Sequence[Document] = answer["rows"]
    if not rows:
        console.print("Nothing found.")
        return
    first = rows[0]
    names, figures_ = list(first["group"]), list(first["values"])
    has_time = "bucket" in first
    grid = Grid(*(["time"] if has_time else []), *names, *figures_, numbers=figures_)
    for row in rows:
        numbers = (row["values"].get(name) for name in figures_)
        grid.row(
            *([moment(row.get("bucket"))] if has_time else []),
            *(row["group"].get(name) for name in names),
            *(
                "" if number is None else f"{number:,}" if isinstance(number, int) else f"{number:.6g}"
                for number in numbers
            ),
        )
    grid.print(console)
    coverage = answer.get("coverage") or {}
    if coverage.get("complete") is False:
        console.print(f"[yellow]Only the latest {coverage['matched']:,} stages were read; ask about less.[/]")


def _add_error(node: Tree, document: Document) -> None:
    line = error_line(document)
    if line:
        node.add(f"[red]{escape(line)}[/]")


def _print_more(console: Console, answer: Document) -> None:
    if answer.get("cursor"):
        console.print(f"[dim]More: --cursor {answer['cursor']}[/]", soft_wrap=True)


def _coverage(answer: Document) -> str:
    coverage = answer.get("coverage") or {}
    missing = coverage.get("without_all_candidates")
    return f"{missing} stages no longer hold all their candidates." if missing else ""


def _text(value: Any) -> str:
    """A value as inert text: no markup, no control characters."""
    return escape(inert(value))
