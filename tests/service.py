"""A real service on loopback, for tests."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xray.client import Client


@dataclasses.dataclass
class Service:
    """A service that runs: where it listens, what it said, and its process."""

    url: str
    announcement: str
    process: subprocess.Popen[str]

    def client(self) -> Client:
        return Client(self.url)


@contextmanager
def start_service(folder: Path, *arguments: str) -> Iterator[Service]:
    """``xray serve`` on a free port with its data in ``folder``; stopped at the end."""
    command = [sys.executable, "-m", "xray.cli", "serve", "--port", "0", "--store", f"sqlite:///{folder}/xray.sqlite3"]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("XRAY_SERVER")},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = []
        for first in process.stdout:  # plugins that are left out are said before
            said.append(first)
            if first.startswith("X-Ray listens on "):
                break
        else:
            raise AssertionError("".join(said))
        yield Service(first.split()[3], first, process)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
