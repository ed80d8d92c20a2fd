"""``xray why``, ``lost``, ``funnel``, ``diff``, ``compare``, ``whatif`` and ``analyze``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from xray.cli.options import AsJson, Pipeline, Server
from xray.cli.printing import Grid, new_console, number, print_json
from xray.client import Client
from xray.exceptions import XRayError
from xray.insight import Insight
from xray.wording import inert, moment, percent, top_labels

Run = Annotated[str, typer.Argument(help="A run's id, its key, or 'latest'.")]
Candidate = Annotated[str, typer.Argument(help="The candidate's id.")]
Since = Annotated[str | None, typer.Option("--since", help="Runs that started in the last 7d, 12h, or since a time.")]

out = new_console()


def install(app: typer.Typer) -> None:
    """Add the commands.

    Args:
        app: The command line.
    """
    for command in (why, lost, funnel, diff, compare, whatif, analyze):
        app.command()(command)


def why(run: Run, candidate: Candidate, server: Server = None, as_json: AsJson = False) -> None:
    """Follow a candidate through every stage of a run: what was decided, why, and where it was lost."""
    with Client(server) as client:
        answer = client.why(run, candidate)
    if _printed(answer, as_json):
        return
    table = Grid(
        "stage", "type", "seen", "verdict", "why", "score", "from cutoff", "rank", "before",
        numbers=("score", "from cutoff", "rank", "before"), spare=("type",),
    )  # fmt: skip
    for step in answer.rows:
        reason = ": ".join(inert(step[name]) for name in ("reason_label", "reason_text") if step.get(name))
        verdict = inert(step.get("verdict"))
        if step.get("lost") and verdict != "failed":
            verdict = f"{verdict} lost here".strip()
        if step["seen"] == "not kept":
            capture = step["capture"]
            reason = f"{capture['kept']:,} of {capture['seen']:,} candidates are kept ({capture['why']})"
        distance = (step.get("cutoff") or {}).get("distance")
        table.row(
            step["path"], step["type"], step["seen"], verdict, reason, number(step.get("score")),
            "" if distance is None else f"{distance:+.4g}", step.get("rank"), step.get("rank_before"),
        )  # fmt: skip
    table.print(out)


def lost(
    candidate: Candidate,
    since: Since = None,
    pipeline: Pipeline = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Say across runs and pipelines which stages dropped a candidate, how often, and for what reasons."""
    with Client(server) as client:
        answer = client.lost(candidate, since=since, label=pipeline)
    if _printed(answer, as_json):
        return
    table = Grid(
        "pipeline", "stage", "type", "seen", "lost", "reasons", "last", "a run",
        numbers=("seen", "lost"), whole=("a run",), spare=("type", "last"),
    )  # fmt: skip
    for row in answer.rows:
        reasons = top_labels({label or "no label": count for label, count in row["reasons"].items()})
        example = row["runs"][0] if row["runs"] else ""
        table.row(
            row["label"], row["path"], row["type"], row["seen"], row["lost"], reasons, moment(row["last_at"]), example
        )
    table.print(out)
    if not answer["complete"]:
        out.print("[dim]There may be more: narrow it with --since or --pipeline.[/]")
    coverage = answer["coverage"]
    if coverage["without_all_candidates"]:
        hidden, looked_at = coverage["without_all_candidates"], coverage["stages_looked_at"]
        out.print(f"[dim]{hidden:,} of the latest {looked_at:,} stages hold not all of their candidates.[/]")


def funnel(
    run: Annotated[str | None, typer.Argument(help="A run's id, its key, or 'latest'.", show_default="latest")] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="In place of a run: this pipeline over time.")
    ] = None,
    since: Since = None,
    bucket: Annotated[str, typer.Option(help="With --pipeline: how long one stretch of time is.")] = "1d",
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show what went into each stage and what came out, and whether every candidate is accounted for."""
    if run is not None and pipeline is not None:
        raise XRayError("Give a run or --pipeline, not both.", code="bad_usage")
    with Client(server) as client:
        if pipeline is not None:
            _print_over_time(client.pipeline_funnel(pipeline, since=since, bucket=bucket), as_json)
            return
        answer = client.funnel(run or "latest")
    if _printed(answer, as_json):
        return
    table = Grid(
        "stage", "type", "in", "out", "dropped", "balance", "checked by", "flags",
        numbers=("in", "out", "dropped"), spare=("type", "checked by"),
    )  # fmt: skip
    for row in answer.rows:
        flags = ", ".join(_flag(flag) for flag in row["flags"])
        table.row(
            row["path"], row["type"], row["in"], row["out"], row["dropped"], row["balance"], row["checked"],
            flags,
        )  # fmt: skip
    table.print(out)


def _print_over_time(answer: Insight, as_json: bool) -> None:
    if _printed(answer, as_json):
        return
    table = Grid(
        "from", "stage", "runs", "in", "out", "fail ratio", "labels", "failures",
        numbers=("runs", "in", "out", "fail ratio", "failures"), whole=("from",), spare=("failures",),
    )  # fmt: skip
    for row in answer.rows:
        ratio = "" if row["fail_ratio"] is None else percent(row["fail_ratio"])
        labels = top_labels(row["label_counts"])
        table.row(moment(row["from"]), row["path"], row["runs"], row["in"], row["out"], ratio, labels, row["failures"])
    table.print(out)


def diff(
    run: Run,
    other: Annotated[str, typer.Argument(help="The other run.")],
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show where two runs part: stages, verdicts, order, metrics and input."""
    with Client(server) as client:
        answer = client.diff(run, other)
    if _printed(answer, as_json):
        return
    for change in answer["input"][:10]:
        out.print(f"input {inert(change['path'])}: {inert(change['a'])} → {inert(change['b'])}", markup=False)
    table = Grid(
        "stage", "differs", "common", "only in A", "only in B", "flipped", "tau", "metrics",
        numbers=("common", "only in A", "only in B", "flipped", "tau"), spare=("tau",),
    )  # fmt: skip
    for row in answer.rows:
        tau = (row["rank_correlation"] or {}).get("kendall_tau")
        metrics = [change for change in row["metrics"] if change["name"] != "duration_ms"]
        named = ", ".join(f"{change['name']} {number(change['a'])} → {number(change['b'])}" for change in metrics[:3])
        table.row(
            row["path"], "yes" if row["differs"] else "no", row["common"], _count(row["only_in_a"]),
            _count(row["only_in_b"]), len(row["flips"]), number(tau), named,
        )  # fmt: skip
    for name in ("a", "b"):
        for path in answer[f"only_in_{name}"]:
            table.row(path, f"only in {name.upper()}")
    table.print(out)
    for flip in answer["flips"][:20]:
        before, after = (
            f"{flip['verdict'][side] or ('went on' if flip['went_on'][side] else 'lost')}"
            + (f" ({flip['reason_label'][side]})" if flip["reason_label"][side] else "")
            for side in (0, 1)
        )
        out.print(f"{inert(flip['path'])}: {inert(flip['candidate_id'])} {before} → {after}", markup=False)


def compare(
    by: Annotated[
        str | None, typer.Option("--by", help="version, environment, status, key or label: what tells them apart.")
    ] = None,
    pipeline: Pipeline = None,
    values: Annotated[
        tuple[str, str] | None, typer.Option("--values", help="With --by: the two values.", show_default="the latest")
    ] = None,
    a: Annotated[str | None, typer.Option("--a", help="A filter on runs as a JSON object: the one group.")] = None,
    b: Annotated[str | None, typer.Option("--b", help="The other group.")] = None,
    level: Annotated[float, typer.Option(help="The false discovery rate up to which a difference counts.")] = 0.05,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Say which metrics and reason labels moved between two groups of runs, how far, and whether by chance."""
    if (by is None) == (a is None or b is None):
        raise XRayError(
            "Give --by, or both --a and --b.", code="bad_usage", hint="For example: xray compare --by version"
        )
    with Client(server) as client:
        if by is not None:
            answer = client.compare(by=by, label=pipeline, values=values, level=level)
        else:
            answer = client.compare(_filter(a, "--a"), _filter(b, "--b"), level=level)
    if _printed(answer, as_json):
        return
    table = Grid("stage", "what", "A", "B", "effect", "p", "q", "moved", numbers=("A", "B", "p", "q"), spare=("p",))
    for row in [row for row in answer.rows if row["moved"]] or answer.rows[:10]:
        what, pair = ("metric", "median") if "metric" in row else ("label", "share")
        sides = [percent(side) if what == "label" else number(side) for side in row[pair]]
        effect = f"{row['effect']:+.2f} {row['effect_is']}"
        moved = "yes" if row["moved"] else ""
        table.row(row["path"], f"{what} {row[what]}", *sides, effect, f"{row['p']:.2g}", f"{row['q']:.2g}", moved)
    table.print(out)


def whatif(
    stage: Annotated[str, typer.Argument(help="A stage's id, or its path or name within --run.")],
    threshold: Annotated[float | None, typer.Option(help="The score from which on a candidate passes.")] = None,
    below: Annotated[bool, typer.Option("--below", help="Lower scores are better.")] = False,
    without: Annotated[str | None, typer.Option(help="A reason label that nothing is rejected for.")] = None,
    score: Annotated[str | None, typer.Option(help="One of several scores by its name.")] = None,
    near: Annotated[int, typer.Option(min=0, max=1000, help="How many on each side of the threshold to show.")] = 5,
    run: Annotated[str, typer.Option(help="The run: its id, its key, or 'latest'.")] = "latest",
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Say who would have passed a stage under another threshold, or without a rule, by what is stored."""
    from xray.ids import is_id

    settings: dict[str, Any] = {
        "threshold": threshold,
        "below": below or None,
        "without": without,
        "score": score,
        "near": near,
    }
    with Client(server) as client:
        answer = client.whatif(stage, **settings) if is_id(stage) else client.whatif(run, stage, **settings)
    if _printed(answer, as_json):
        return
    for row in answer["labels"] if threshold is not None else ():
        out.print(f"without {inert(row['label'])}, {row['more']:,} more survive", markup=False)
    if threshold is not None:
        table = Grid(
            "candidate", "score", "from threshold", "would pass", "went on", "label",
            numbers=("score", "from threshold"), whole=("candidate",),
        )  # fmt: skip
        for row in answer.rows:
            now = {True: "yes", False: "no", None: "not known"}[row["now"]]
            table.row(
                row["candidate_id"], number(row["score"]), f"{row['distance']:+.4g}",
                "yes" if row["passes"] else "no", now, row.get("reason_label"),
            )  # fmt: skip
        table.print(out)


def analyze(
    run: Run,
    store: Annotated[
        bool, typer.Option("--store", help="Store the outcome on the run, and ask the model where one is set up.")
    ] = False,
    history: Annotated[int, typer.Option(min=1, max=500, help="How many other runs to compare with.")] = 100,
    version: Annotated[str | None, typer.Option(help="Compare with runs of this version only.")] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Compare each stage of a run with its own history, and rank the suspects with the evidence."""
    with Client(server) as client:
        answer = client.analyze(run, store=store, history=history, version=version)
    if _printed(answer, as_json):
        return
    table = Grid("suspect", "type", "blame", "evidence", numbers=("blame",), spare=("type",))
    for row in answer["suspects"]:
        table.row(row["path"], row["type"], f"{row['blame']:.2f}", row["evidence"][0]["text"])
        for evidence in row["evidence"][1:4]:
            table.row("", "", "", evidence["text"])
    if answer["suspects"]:
        table.print(out)
    for name, opinion in (answer.get("plugins") or {}).items():
        said = [f"{each['path']} ({'; '.join(each['evidence'])})" for each in opinion.get("suspects", ())]
        text = opinion.get("failed") or "; ".join([*filter(None, [opinion.get("reason")]), *said]) or "suspects nothing"
        out.print(inert(f"{name}: {text}"), markup=False, soft_wrap=True)
    if store:
        out.print(f"[dim]Stored. The model: {answer['asked_model']}.[/]")


def _printed(answer: Insight, as_json: bool) -> bool:
    """Print the answer as JSON, or its headline; whether that was all."""
    if as_json:
        print_json(answer)
        return True
    if answer.headline:
        out.print(inert(answer.headline), markup=False, style="bold", soft_wrap=True)
    return False


def _filter(text: str | None, option: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text or "")
    except json.JSONDecodeError as error:
        raise XRayError(f"{option} is not JSON: {error}.", code="bad_json", path=option) from None
    if not isinstance(parsed, dict):
        raise XRayError(f"{option} is a JSON object.", code="bad_json", path=option, hint='{"version": "2026.11"}')
    return parsed


def _count(named: Any) -> str:
    return "not known" if named is None else str(named["count"])


def _flag(flag: dict[str, Any]) -> str:
    some = f" ({', '.join(map(str, flag['ids'][:3]))}{', …' if flag['count'] > 3 else ''})" if flag["ids"] else ""
    return f"{flag['flag']} {flag['count']:,}{some}"
