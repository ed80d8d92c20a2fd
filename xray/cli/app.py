"""The commands, their options and their exit codes: 0 done, 1 an error, 2 wrong use."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from xray.cli import alerts as alert_commands
from xray.cli import insight, overview, upkeep
from xray.cli import plugins as plugin_commands
from xray.cli import questions as question_commands
from xray.cli import show as views
from xray.cli import spool as spool_commands
from xray.cli.asked import read_question
from xray.cli.needed import needed
from xray.cli.options import AsJson, Cursor, Limit, Pipeline, Server
from xray.cli.printing import new_console, print_json
from xray.cli.settings import print_settings, settings_in_force
from xray.client import Client
from xray.exceptions import XRayError

app = typer.Typer(
    name="xray",
    help="Why did my pipeline decide this? Serve X-Ray, look at runs, ask questions.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(plugin_commands.app, name="plugins")
app.add_typer(question_commands.app, name="questions")
app.add_typer(alert_commands.app, name="alerts")


out = new_console()
err = new_console(stderr=True)


upkeep.install(app)
insight.install(app)
overview.install(app)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after ``xray``; those of the process by default.

    Returns:
        The exit code.
    """
    try:
        result = app(args=arguments, standalone_mode=False)
    except XRayError as error:
        _print_error(error, as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
        return 1
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough (``xray runs | head``).
        sys.stderr.close()
        return 0
    except typer.TyperException as error:
        # Wrong use of options and arguments; its message is rich text that only the error itself can print.
        show_usage: Callable[[], None] | None = getattr(error, "show", None)
        if show_usage is None:
            err.print(str(error), markup=False)
        else:
            show_usage()
        return int(getattr(error, "exit_code", 2))
    return result if isinstance(result, int) else 0


def _print_error(error: XRayError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": error.as_dict()}), file=sys.stderr)
        return
    place = f"  at: {error.path}" if error.path else None
    err.print("Error:", error.message, style="bold red", markup=False, soft_wrap=True)
    for line in (place, f"  {error.hint}" if error.hint else None):
        if line:
            err.print(line, markup=False, soft_wrap=True)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.", show_default="7350")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where the data lies: sqlite:///FILE or mongodb://HOST/DATABASE.",
            show_default="sqlite:///.xray/xray.sqlite3",
        ),
    ] = None,
    keep_candidates: Annotated[
        str | None, typer.Option(help="How long candidates are kept; metrics stay.", show_default="30d")
    ] = None,
    keep_runs: Annotated[str | None, typer.Option(help="How long runs are kept.", show_default="365d")] = None,
    max_disk: Annotated[
        str | None,
        typer.Option(help="What the data may take: 20GB, or unlimited.", show_default="half of the disk that is free"),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the dashboard in the browser.")] = False,
) -> int:
    """Run the service; with no options on the embedded store, in one file below the current folder."""
    start: Callable[..., int] = needed("xray_server.serve", by="The service").serve
    return start(
        host=host, port=port, store=store, keep_candidates=keep_candidates, keep_runs=keep_runs, max_disk=max_disk,
        open_browser=open_browser,
    )  # fmt: skip


@app.command()
def runs(
    server: Server = None,
    pipeline: Pipeline = None,
    status: Annotated[str | None, typer.Option(help="running, success or failure.")] = None,
    version: Annotated[str | None, typer.Option(help="Only runs of this version.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only runs in this environment.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs of the last 7d, 12h, or since a time.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    with Client(server) as client:
        answer = client.runs(
            label=pipeline,
            status=status,
            version=version,
            environment=environment,
            since=since,
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json(answer)
    else:
        views.print_runs(out, answer)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's id, its key, or 'latest'.")],
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show a run as a tree of stages: counts, fail ratio, top reason labels, durations."""
    with Client(server) as client:
        answer = client.run(client.run_id(run))
    if as_json:
        print_json(answer)
    else:
        views.print_run(out, answer)


@app.command()
def query(
    question: Annotated[
        str | None, typer.Argument(help="The question as a JSON object, or - for standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the question from a file.")] = None,
    server: Server = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, max=1000, help="Overrides the question's limit.")
    ] = None,
    cursor: Cursor = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how the question is read and run, instead of asking it.")
    ] = False,
    save: Annotated[
        str | None, typer.Option("--save", help="Keep the question under this name, see 'xray questions'.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question.

    For example: xray query '{"stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}}}'
    """
    asked = read_question(question, file)
    asked |= {} if limit is None else {"limit": limit}
    with Client(server) as client:
        if save is not None:
            client.save_question(save, asked)
        given = (("cursor", cursor), ("explain", explain or None))
        asked |= {name: value for name, value in given if value is not None}
        answer = client.query(asked)
    if as_json:
        print_json(answer)
    elif "explanation" in answer:
        views.print_explanation(out, answer["explanation"])
    else:
        views.print_answer(out, asked, answer)


@app.command()
def aggregate(
    question: Annotated[
        str | None, typer.Argument(help="The conditions and figures as a JSON object, or - for standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read them from a file.")] = None,
    server: Server = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how the figures would be worked out, instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Work out figures over many stages, by group and by time.

    For example: xray aggregate '{"group_by": ["name"], "bucket": "day", "values": {"median": {"$p50": "$failRatio"}}}'
    """
    with Client(server) as client:
        answer = client.aggregate(read_question(question, file) | ({"explain": True} if explain else {}))
    if as_json:
        print_json(answer)
    elif "explanation" in answer:
        views.print_explanation(out, answer["explanation"])
    else:
        views.print_groups(out, answer)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Keep the data and say where it lies.")] = False,
    as_json: AsJson = False,
) -> int:
    """Run example pipelines on real data, ask about them, and walk a planted fault to its cause."""
    run_demo: Callable[..., int] = needed("xray_examples.demo", by="The demo", extras="server,examples").run_demo
    return run_demo(out, keep=keep, as_json=as_json)


@app.command()
def settings(as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False) -> None:
    """Show each setting of the SDK: the value in force, where it comes from, its variable, what it does."""
    found = settings_in_force(os.environ)
    if as_json:
        print_json(found)
    else:
        print_settings(out, found)


app.add_typer(spool_commands.app, name="spool")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed_version

    print(installed_version("xray-decisions"))
