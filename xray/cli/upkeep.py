"""``xray gc``, ``store``, ``export`` and ``import``: what is done to a store itself, not to a service."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from xray.cli.needed import needed
from xray.cli.printing import Grid, new_console, print_json
from xray.wording import size

StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Where the data lies: sqlite:///FILE or mongodb://HOST/DATABASE.",
        show_default="sqlite:///.xray/xray.sqlite3",
    ),
]
Project = Annotated[str, typer.Option(help="The project.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

out = new_console()
err = new_console(stderr=True)
store_commands = typer.Typer(help="Look after a store.", no_args_is_help=True)


def install(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(gc)
    app.command("export")(export)
    app.command("import")(import_)
    store_commands.command()(check)
    store_commands.command()(usage)
    app.add_typer(store_commands, name="store")


# --- commands ---------------------------------------------------------------------------------------------------


def gc(
    store: StoreUrl = None,
    keep_candidates: Annotated[
        str | None, typer.Option(help="Remove older candidates; metrics stay.", show_default="30d")
    ] = None,
    keep_runs: Annotated[str | None, typer.Option(help="Remove older runs.", show_default="365d")] = None,
    max_disk: Annotated[
        str | None,
        typer.Option(help="What the data may take: 20GB, or unlimited.", show_default="half of the disk that is free"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what is too old or does not fit, as the service does by itself, and give the space back."""
    found = _commands().gc(
        dry_run=dry_run, store=store, keep_candidates=keep_candidates, keep_runs=keep_runs, max_disk=max_disk
    )
    if as_json:
        print_json(found)
        return
    gone = found["removed"]
    out.print(f"Kept: {found['policy']['text']}.", markup=False)
    counts = f"{gone['runs']:,} runs, {gone['stages']:,} stages, {gone['candidates']:,} candidates"
    out.print(f"{'Too old' if dry_run else 'Removed'}: {counts} in {gone['pages']:,} pages.", markup=False)
    if dry_run and found["over_bytes"]:
        out.print(f"{size(found['over_bytes'])} too much: the oldest would go besides.", markup=False)
    taken = size(found["size_bytes"])
    out.print(
        f"The data takes {taken}."
        if dry_run
        else f"The data took {taken} and takes {size(found['size_after_bytes'])}.",
        markup=False,
    )


def check(store: StoreUrl = None, as_json: AsJson = False) -> int:
    """Look at every index, and at how every question is answered; exit with 1 where something is wrong."""
    found = _commands().check(store)
    if as_json:
        print_json(found)
        return 0 if found["ok"] else 1
    grid = Grid("", "what", "how it stands")
    for finding in found["findings"]:
        mark = Text("ok", style="green") if finding["ok"] else Text("bad", style="red")
        hint = Text(f"\n{finding['hint']}" if finding["hint"] else "", style="yellow")
        grid.row(mark, finding["what"], Text(finding["detail"]) + hint)
    grid.print(out)
    bad = sum(not finding["ok"] for finding in found["findings"])
    out.print(
        f"{bad} of {len(found['findings'])} are not as they should be." if bad else "Everything is as it should be."
    )
    return 1 if bad else 0


def usage(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Say what the data takes on disk, and of how many runs, stages and candidate pages; large counts are estimates."""
    found = _commands().usage(store)
    if as_json:
        print_json(found)
        return
    counts = f"{found['run_count']:,} runs, {found['stage_count']:,} stages, {found['page_count']:,} candidate pages"
    out.print(f"{size(found['size_bytes'])}: {counts}.", markup=False)


def export(
    store: StoreUrl = None,
    project: Project = "default",
    file: Annotated[
        str,
        typer.Option("--out", "-o", help="A file (.gz is compressed), or - for standard output; for Parquet a folder."),
    ] = "-",
    form: Annotated[str, typer.Option("--format", help="jsonl, parquet, or a plugin's exporter.")] = "jsonl",
    label: Annotated[str | None, typer.Option("--label", "-p", help="Only runs of this pipeline.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs of the last 7d, 12h, or since a time.")] = None,
    until: Annotated[str | None, typer.Option(help="Only runs from before 7d, 12h, or a time.")] = None,
) -> None:
    """Write runs with their stages and candidates as JSON Lines, which 'xray import' takes, or as Parquet files."""
    _commands().export(
        store, file, form=form, project=project, label=label, since=since, until=until,
        progress=lambda total: _progress("runs", total),
    )  # fmt: skip


def import_(
    file: Annotated[
        str, typer.Argument(help="A file that 'xray export' wrote (.gz is decompressed), or - for standard input.")
    ],
    store: StoreUrl = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> int:
    """Bring an export into a store. Doing it again is harmless; bad lines are named, and the good ones stored."""
    done = _commands().import_(store, file, project=project, progress=lambda total: _progress("bytes", total))
    if as_json:
        print_json(done)
    else:
        for error in done["errors"]:
            err.print(f"line {error['line']}: {error['text']}", markup=False, soft_wrap=True, style="red")
        if done["bad_lines"] > len(done["errors"]):
            err.print(f"{done['bad_lines'] - len(done['errors']):,} more lines are bad.", style="red")
        if not done["is_whole"]:
            err.print("The file has no last line: the export was broken off.", style="yellow")
        counts = f"{done['runs']:,} runs, {done['stages']:,} stages, {done['candidates']:,} candidates"
        out.print(f"{counts} are stored.", markup=False)
    return 1 if done["bad_lines"] or not done["is_whole"] else 0


# --- helpers ----------------------------------------------------------------------------------------------------


def _commands() -> ModuleType:
    return needed("xray_server.commands", by="This")


@contextlib.contextmanager
def _progress(unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal; what it gives takes how much is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda done: progress.update(task, completed=done)
