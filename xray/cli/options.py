"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Server = Annotated[
    str | None,
    typer.Option(
        "--server", envvar="XRAY_SERVER_URL", help="The service's address.", show_default="http://127.0.0.1:7350"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many rows at most.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="Go on where an earlier answer stopped.")]
Pipeline = Annotated[str | None, typer.Option("--pipeline", "-p", help="Only runs with this label.")]
