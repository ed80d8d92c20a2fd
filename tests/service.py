"""A real service on loopback, for tests."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from xray.client import Client


@dataclasses.dataclass
class Service:
    """A service that runs: where it listens, what it said, and its process."""

    url: str
    announcement: str
    process: subprocess.Popen[str]

    def client(self) -> Client:
        return Client(self.url)


KEPT: Final = {"keep_candidates": "forever", "keep_runs": "forever", "max_disk": "unlimited"}
"""What tests write began long ago, or will have: a service's first look around would take it from a slow test."""


@contextmanager
def start_service(folder: Path, *arguments: str, store: str | None = None, **environment: str) -> Iterator[Service]:
    """``xray serve`` on a free port, with its data in ``folder`` or where ``store`` says; stopped at the end."""
    store = store or f"sqlite:///{folder}/xray.sqlite3"
    command = [sys.executable, "-m", "xray.cli", "serve", "--port", "0", "--store", store]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("XRAY_SERVER")}
        | {f"XRAY_SERVER_{name.upper()}": value for name, value in KEPT.items()}
        | environment,
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
        try:
            process.wait(60)
        finally:
            process.kill()  # one that has ended is left alone
            process.stdout.close()


def all_rows(service: Service, **question: Any) -> list[dict[str, Any]]:
    """Every row that answers a question."""
    rows: list[dict[str, Any]] = []
    cursor = None
    with service.client() as client:
        while True:
            page = client.query({**question, "limit": 1000, "cursor": cursor})
            rows += page["rows"]
            cursor = page["cursor"]
            if cursor is None:
                return rows
