"""A service of one's own for as long as a ``with`` block lasts, on the embedded store."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xray.client import Client
from xray.exceptions import ClientError

HOST = "127.0.0.1"

Question = dict[str, Any]
"""A question in the query language: the body of ``POST /v1/query``."""

Row = dict[str, Any]
"""One row of an answer: a run, a stage or a candidate."""


class ServiceFailedError(RuntimeError):
    """The service did not start."""


def ask(client: Client, question: Question) -> list[Row]:
    """Put a question, and go on with the cursor until every row is there.

    Raises:
        ClientError: The answer is an error, or there is none.
    """
    rows: list[Row] = []
    cursor: str | None = None
    while True:
        answer = client.query(question if cursor is None else {**question, "cursor": cursor})
        rows += answer["rows"]
        cursor = answer["cursor"]
        if cursor is None:
            return rows


@contextmanager
def running_service(folder: Path, port: int = 0, deadline_s: float = 30.0) -> Iterator[Client]:
    """Start ``xray serve`` on a store in this folder; it is stopped when the block is left, however it is left.

    Args:
        folder: Takes the store's file and the service's log.
        port: The port, or 0 for one that is free.
        deadline_s: How long it may take to become healthy.

    Raises:
        ServiceFailedError: The port is taken; or the service ended or was not healthy in time, and the message has the
            end of its log.
    """
    port = _free_port(port)
    log_path = folder / "service.log"
    store = f"sqlite:///{folder / 'xray.db'}"
    address = ["--host", HOST, "--port", str(port)]
    command = [sys.executable, "-m", "xray.cli", "serve", *address, "--store", store]
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the command is our own
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with Client(f"http://{HOST}:{port}") as client:
            deadline = time.monotonic() + deadline_s
            while not _is_healthy(client):
                if process.poll() is not None or time.monotonic() > deadline:
                    how = "was not healthy in time" if process.poll() is None else "ended at once"
                    tail = log_path.read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise ServiceFailedError(f"The service {how}: {' '.join(command)}\n{tail}")
                time.sleep(0.05)
            yield client
    finally:
        _stop(process)


def _is_healthy(client: Client) -> bool:
    try:
        client.health()
    except ClientError:
        return False
    return True


def _free_port(wanted: int) -> int:
    # Looked at before the service starts: another service at a taken port would pass for ours.
    with socket.socket() as probe:
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise ServiceFailedError(f"Port {wanted} is taken: {error}") from error
        port: int = probe.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
