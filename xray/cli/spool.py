"""``xray spool``: what waits on disk to be sent, and sending it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xray.cli.printing import Grid, new_console
from xray.delivery.http import HttpTransport
from xray.delivery.spool_files import destination_of
from xray.delivery.spool_view import flush as flush_spool
from xray.delivery.spool_view import status_of
from xray.exceptions import ServiceUnreachable
from xray.settings import load_settings
from xray.wording import inert

app = typer.Typer(
    help="What could not be sent and waits on disk: look at it, send it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[
    Path | None, typer.Option("--dir", help="The spool's folder.", envvar="XRAY_SPOOL_DIR", show_default=".xray_spool")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]

_out = new_console()
_err = new_console(stderr=True)


def _folder(given: Path | None) -> Path:
    return (given or Path(load_settings()[0].spool_dir)).expanduser().absolute()


@app.command()
def status(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show what lies in the spool: how many records of which processes, and what the service does not take."""
    found = status_of(_folder(folder))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found["processes"] and not found["rejected"]["events"]:
        _out.print(f"Nothing waits in {found['folder']}.", soft_wrap=True)
        return
    grid = Grid("process", "records", "bytes", "oldest", "is for", "", numbers=("records", "bytes", "oldest"))
    for row in found["processes"]:
        grid.row(
            row["process"], f"{row['records']:,}", f"{row['bytes']:,}", _age(row["oldest_s"]),
            row["destination"] or "unknown", "still runs and sends it itself" if row["lives"] else "has ended",
        )  # fmt: skip
    grid.print(_out)
    _out.print(f"{found['records']:,} records wait in {found['folder']}.", soft_wrap=True)
    if found["rejected"]["events"]:
        text = f"{found['rejected']['events']:,} events were not taken by the service and lie in *.rejected.jsonl; "
        _out.print(
            text + f"the last error: {inert(str(found['rejected']['last_error']))}", markup=False, soft_wrap=True
        )


@app.command()
def flush(
    folder: Folder = None,
    server: Annotated[
        str | None,
        typer.Option("--server", envvar="XRAY_SERVER_URL", help="The service.", show_default="http://127.0.0.1:7350"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Send also what was to go to another service.")] = False,
    as_json: AsJson = False,
) -> int:
    """Send what ended processes left in the spool; those that still run send theirs themselves.

    The exit code is 1 where something is left that could not be sent.
    """
    settings, _ = load_settings({"server_url": server} if server else None)
    place = _folder(folder)
    transport = HttpTransport(
        settings.server_url,
        connect_timeout_s=settings.connect_timeout_s,
        request_timeout_s=settings.request_timeout_s,
    )
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=_err, disable=as_json, transient=True) as bar:
            task = bar.add_task("sending", total=None)
            result = flush_spool(
                place,
                transport,
                None if everything else destination_of(settings.server_url),
                lambda done, total: bar.update(task, completed=done, total=total),
            )
    finally:
        transport.close()
    found: dict[str, Any] = {"sent": result.sent, "left": result.left, "lost": dict(result.lost)}
    if as_json:
        print(json.dumps(found | {"problem": result.problem}, indent=2))
    else:
        _out.print(f"{result.sent:,} records were sent.")
        for reason, records in result.lost.items():
            _out.print(f"{records:,} records were lost: {reason}.")
    if result.problem is not None:
        if not as_json:
            raise ServiceUnreachable(
                f"{settings.server_url} does not take what is left ({result.problem}): {result.left:,} records.",
                hint="They stay in the spool. Is the service up, and --server right?",
            )
        return 1
    return 0


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
