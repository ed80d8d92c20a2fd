"""The command line: ``xray serve``, ``runs``, ``show``, ``query``, ``why`` and others."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the console command ``xray``."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        sys.exit(
            f"The command line needs {error.name}: pip install 'xray-decisions[cli]' (or [server] for the service)"
        )
    from xray.cli.app import run

    sys.exit(run())
