"""What the commands print for people: tables and trees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

Document = Mapping[str, Any]

_STATUS_STYLES = {"success": "green", "failure": "red", "running": "yellow"}


def print_runs(console: Console, answer: Document) -> None:
    """A table of runs."""
    rows = answer["rows"]
    if not rows:
        console.print("No runs.")
        return
    table = Table(
        "run", "pipeline", "version", "started", "duration", "stages", "status", "key", box=None, pad_edge=False
    )
    for run in rows:
        status = str(run.get("status") or "")
        table.add_row(
            run["id"],
            _text(run.get("label")),
            _text(run.get("version")),
            _text(run.get("started_at")),
            duration(run.get("duration_ms")),
            _text(run.get("stage_count")),
            f"[{_STATUS_STYLES.get(status, 'default')}]{escape(status)}[/]",
            _text(run.get("key")),
        )
    console.print(table)
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
    metrics = stage.get("metrics") or {}
    parts = [f"[bold]{_text(stage.get('name'))}[/]", f"[dim]{_text(stage.get('type'))}[/]"]
    went_in, went_out = metrics.get("input_count"), metrics.get("output_count")
    if went_in is not None and went_out is not None:
        parts.append(f"{went_in:,} → {went_out:,}")
    elif went_out is not None:
        parts.append(f"→ {went_out:,}")
    if metrics.get("fail_ratio") is not None:
        parts.append(f"fail {percent(metrics['fail_ratio'])}")
    labels = top_labels(metrics.get("label_counts") or {})
    if labels:
        parts.append(labels)
    score = metrics.get("score")
    if isinstance(score, dict):
        parts.append(f"score p50 {score['p50']:.3g} max {score['max']:.3g}")
    if metrics.get("kendall_tau") is not None:
        parts.append(f"tau {metrics['kendall_tau']:.2f}")
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
        table = Table("candidate", "verdict", "reason label", "score", "rank", "stage", "run", box=None, pad_edge=False)
        for row in rows:
            score = row.get("score")
            table.add_row(
                _text(row.get("candidate_id")), _text(row.get("verdict")), _text(row.get("reason_label")),
                f"{score:.4g}" if isinstance(score, (int, float)) else "", _text(row.get("rank")),
                _text(row.get("stage_name") or row.get("stage_id")), _text(row.get("run_id")),
            )  # fmt: skip
        console.print(table)
    else:
        table = Table(
            "pipeline",
            "stage",
            "type",
            "in",
            "out",
            "fail ratio",
            "labels",
            "duration",
            "run",
            box=None,
            pad_edge=False,
        )
        for row in rows:
            metrics = row.get("metrics") or {}
            ratio = metrics.get("fail_ratio")
            table.add_row(
                _text((row.get("pipeline") or {}).get("label")), _text(row.get("name")), _text(row.get("type")),
                _text(metrics.get("input_count")), _text(metrics.get("output_count")),
                percent(ratio) if ratio is not None else "", top_labels(metrics.get("label_counts") or {}),
                duration(row.get("duration_ms")), _text(row.get("run_id")),
            )  # fmt: skip
        console.print(table)
    _print_more(console, answer)


def top_labels(counts: Mapping[str, int], most: int = 3) -> str:
    """The most frequent labels with their counts, as text for the console."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{escape(label)} {count:,}" for label, count in ordered[:most])
    return shown + (f", {len(ordered) - most} more" if len(ordered) > most else "")


def percent(ratio: float) -> str:
    """A ratio as a percentage; never rounded up to 100 % or down to 0 %."""
    text = f"{ratio:.1%}"
    if text == "100.0%" and ratio < 1:
        return "> 99.9%"
    if text == "0.0%" and ratio > 0:
        return "< 0.1%"
    return text


def duration(duration_ms: float | None) -> str:
    """A duration in the unit that suits it."""
    if duration_ms is None:
        return ""
    if duration_ms < 1:
        return f"{duration_ms * 1000:.0f} µs"
    if duration_ms < 1000:
        return f"{duration_ms:.1f} ms"
    return f"{duration_ms / 1000:.2f} s"


def _add_error(node: Tree, document: Document) -> None:
    error = document.get("error")
    if isinstance(error, dict):
        where = f" (in {_text(error['stage'])})" if error.get("stage") else ""
        node.add(f"[red]{_text(error.get('type'))}: {_text(error.get('message'))}{where}[/]")


def _print_more(console: Console, answer: Document) -> None:
    if answer.get("cursor"):
        console.print(f"[dim]More: --cursor {answer['cursor']}[/]", soft_wrap=True)


def _coverage(answer: Document) -> str:
    coverage = answer.get("coverage") or {}
    missing = coverage.get("without_all_candidates")
    return f"{missing} stages no longer hold all their candidates." if missing else ""


def _text(value: Any) -> str:
    """A value as inert text: no markup, no control characters."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape("".join(c if c.isprintable() else "�" for c in text))
