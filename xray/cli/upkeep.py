"""``xray gc``, ``xray store``, ``xray export`` and ``xray import``: what is done to a store itself, not to a service.

They open the store beside whatever service uses it; what they write waits for its turn like any other write.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from xray.exceptions import XRayError, did_you_mean

if TYPE_CHECKING:
    from xray_server.settings import ServerSettings
    from xray_server.stores.base import Store

T = TypeVar("T")

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

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
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
    from xray_server.daemons.retention import Retention, planned, policy_of
    from xray_server.quantities import show_size

    settings = _settings(store, keep_candidates=keep_candidates, keep_runs=keep_runs, max_disk=max_disk)

    async def use(opened: Store) -> dict[str, Any]:
        policy = await policy_of(settings, opened)
        before = (await opened.usage()).size_bytes
        if dry_run:
            removed, after = await planned(opened, policy), before
        else:
            retention = Retention(opened, policy, target=1.0)
            await retention.remove_by_age()
            await retention.remove_by_size()
            await opened.reclaim()
            removed, after = retention.removed, (await opened.usage()).size_bytes
        over = max(0, before - policy.max_disk_bytes) if policy.max_disk_bytes is not None else 0
        return {
            "dry_run": dry_run, "policy": dataclasses.asdict(policy) | {"text": str(policy)}, "size_bytes": before,
            "size_after_bytes": after, "over_bytes": over, "removed": dataclasses.asdict(removed),
        }  # fmt: skip

    found = _with_store(settings, use)
    if as_json:
        _print_json(found)
        return
    gone = found["removed"]
    out.print(f"Kept: {found['policy']['text']}.", markup=False)
    counts = f"{gone['runs']:,} runs, {gone['stages']:,} stages, {gone['candidates']:,} candidates"
    out.print(f"{'Too old' if dry_run else 'Removed'}: {counts} in {gone['pages']:,} pages.", markup=False)
    if dry_run and found["over_bytes"]:
        out.print(f"{show_size(found['over_bytes'])} too much: the oldest would go besides.", markup=False)
    size = show_size(found["size_bytes"])
    out.print(
        f"The data takes {size}."
        if dry_run
        else f"The data took {size} and takes {show_size(found['size_after_bytes'])}.",
        markup=False,
    )


def check(store: StoreUrl = None, as_json: AsJson = False) -> int:
    """Look at every index, and at how every question is answered; exit with 1 where something is wrong."""
    found = _with_store(_settings(store), lambda opened: opened.check())
    bad = [finding for finding in found if not finding.ok]
    if as_json:
        _print_json({"ok": not bad, "findings": [dataclasses.asdict(finding) for finding in found]})
        return 1 if bad else 0
    table = Table("", "what", "how it stands", box=None, pad_edge=False)
    for finding in found:
        mark = "[green]ok[/]" if finding.ok else "[red]bad[/]"
        detail = escape(finding.detail) + (f"\n[yellow]{escape(finding.hint)}[/]" if finding.hint else "")
        table.add_row(mark, escape(finding.what), detail)
    out.print(table)
    out.print("Everything is as it should be." if not bad else f"{len(bad)} of {len(found)} are not as they should be.")
    return 1 if bad else 0


def usage(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Say what the data takes on disk, and of how many runs, stages and candidate pages; large counts are estimates."""
    from xray_server.quantities import show_size

    found = _with_store(_settings(store), lambda opened: opened.usage())
    if as_json:
        _print_json(dataclasses.asdict(found))
        return
    counts = f"{found.run_count:,} runs, {found.stage_count:,} stages, {found.page_count:,} candidate pages"
    out.print(f"{show_size(found.size_bytes)}: {counts}.", markup=False)


def export(
    store: StoreUrl = None,
    project: Project = "default",
    file: Annotated[
        str,
        typer.Option("--out", "-o", help="A file (.gz is compressed), or - for standard output; for Parquet a folder."),
    ] = "-",
    form: Annotated[str, typer.Option("--format", help="jsonl or parquet.")] = "jsonl",
    label: Annotated[str | None, typer.Option("--label", "-p", help="Only runs of this pipeline.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs that began at or after this ISO 8601 time.")] = None,
    until: Annotated[str | None, typer.Option(help="Only runs that began before this ISO 8601 time.")] = None,
) -> None:
    """Write runs with their stages and candidates as JSON Lines, which 'xray import' takes, or as Parquet files."""
    from xray_server.field_values import check_time
    from xray_server.transfer.export import Wanted, lines_of
    from xray_server.transfer.lines import to_line
    from xray_server.transfer.parquet import write_parquet

    if form not in ("jsonl", "parquet"):
        hint = did_you_mean(form, ["jsonl", "parquet"]) or "Write jsonl or parquet."
        raise XRayError(f"There is no format '{form}'.", code="bad_usage", path="--format", hint=hint)
    if form == "parquet" and file == "-":
        raise XRayError("Parquet files go into a folder.", code="bad_usage", path="--out", hint="Name one with --out.")
    times = [
        None if text is None else check_time(text, name) for name, text in (("--since", since), ("--until", until))
    ]
    wanted = Wanted(project, label, *times)

    async def use(opened: Store) -> None:
        total = (await opened.usage()).run_count if not (label or since or until) else None
        with _progress("runs", total) as advance:
            if form == "parquet":
                async for counts in write_parquet(opened, wanted, Path(file)):
                    advance(counts["runs"])
                return
            runs = 0
            with _output(file) as stream:
                async for line in lines_of(opened, wanted):
                    stream.write(to_line(line))
                    if line.get("kind") == "run":
                        runs += 1
                        advance(runs)

    _with_store(_settings(store), use)


def import_(
    file: Annotated[
        str, typer.Argument(help="A file that 'xray export' wrote (.gz is decompressed), or - for standard input.")
    ],
    store: StoreUrl = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> int:
    """Bring an export into a store. Doing it again is harmless; bad lines are named, and the good ones stored."""
    from xray_server.transfer.importing import Imported, import_lines

    async def use(opened: Store) -> Imported:
        imported = Imported()
        with _input(file) as (lines, position, total), _progress("bytes", total) as advance:
            async for done in import_lines(opened, project, lines):
                imported = done
                advance(position())
        return imported

    done = _with_store(_settings(store), use, is_new=True)
    result = {name: getattr(done, name) for name in ("lines", "runs", "stages", "candidates", "bad_lines", "is_whole")}
    if as_json:
        errors = [{"line": number, **error.as_dict()} for number, error in done.errors]
        _print_json(result | {"errors": errors})
    else:
        for number, error in done.errors:
            err.print(f"line {number}: {error}", markup=False, soft_wrap=True, style="red")
        if done.bad_lines > len(done.errors):
            err.print(f"{done.bad_lines - len(done.errors):,} more lines are bad.", style="red")
        if not done.is_whole:
            err.print("The file has no last line: the export was broken off.", style="yellow")
        out.print(f"{done.runs:,} runs, {done.stages:,} stages, {done.candidates:,} candidates are stored.")
    return 1 if done.bad_lines or not done.is_whole else 0


# --- helpers ----------------------------------------------------------------------------------------------------


def _settings(store: str | None, **given: str | None) -> ServerSettings:
    try:
        from xray_server.settings import ServerSettings
    except ImportError as error:
        raise XRayError(
            f"This needs {error.name}, which is not installed.", hint="pip install 'xray-decisions[server]'"
        ) from None
    known = {name: value for name, value in {"store": store, **given}.items() if value is not None}
    return dataclasses.replace(ServerSettings.from_environment(), **known)  # type: ignore[arg-type]  # all are texts


def _with_store(settings: ServerSettings, use: Callable[[Store], Awaitable[T]], *, is_new: bool = False) -> T:
    """Use the store of the settings in an event loop; one that is not there yet is an error unless it may be new."""
    from xray_server.app import open_store

    async def run() -> T:
        opened = open_store(settings.store)
        location = str(opened.describe()["location"])
        if opened.kind == "sqlite" and not is_new and not Path(location).exists():  # noqa: ASYNC240 - nothing else runs
            raise XRayError(
                f"There is no data in {location}.", code="no_store", path="--store", hint="Name it: sqlite:///FILE."
            )
        await opened.open()
        try:
            return await use(opened)
        finally:
            await opened.close()

    return asyncio.run(run())


def _print_json(answer: Any) -> None:
    import json

    print(json.dumps(answer, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def _progress(unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal; what it gives takes how much is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextlib.contextmanager
def _output(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with gzip.open(file, "wb") if file.endswith(".gz") else Path(file).open("wb") as stream:
            yield stream  # type: ignore[misc]  # a gzip file writes bytes like any other
    except OSError as error:
        raise XRayError(f"{file} cannot be written: {error.strerror or error}.", code="unwritable_file") from None


@contextlib.contextmanager
def _input(file: str) -> Iterator[tuple[Iterator[bytes], Callable[[], int], int | None]]:
    """Lines, how many bytes were read, and of how many."""
    if file == "-":
        yield iter(sys.stdin.buffer), lambda: 0, None
        return
    try:
        with Path(file).open("rb") as stream:
            lines = gzip.GzipFile(fileobj=stream) if file.endswith(".gz") else stream
            yield iter(lines), stream.tell, Path(file).stat().st_size
    except (OSError, EOFError) as error:
        raise XRayError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.", code="unreadable_file"
        ) from None
