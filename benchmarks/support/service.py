"""The service as a process, and a sender that costs next to nothing: bodies made beforehand, posted as they are."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CONNECTIONS = 4
_HEADERS = {"Content-Type": "application/msgpack"}


class Service:
    """``xray serve`` on a free port; use it as a context manager.

    Args:
        store: The store's URL.
        settings: Variables of its environment (``XRAY_SERVER_KEEP_RUNS``); none of ours are taken over.
    """

    def __init__(self, store: str, settings: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "xray.cli", "serve", "--port", "0", "--store", store]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XRAY_")}
        environment |= settings or {}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first.startswith("X-Ray listens on "):
            raise RuntimeError(f"The service did not start: {first}")
        address = urlsplit(first.split()[3])
        self._place = (str(address.hostname), int(address.port or 80))
        _get(self._place, "/health")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def place(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        return self._place

    @property
    def process_id(self) -> int:
        """The process's number."""
        return self._process.pid

    def memory_mb(self, what: str = "VmRSS") -> float | None:
        """The memory of the service and its child processes in MiB, or None where nobody says.

        Args:
            what: ``VmRSS``, what they have now, or ``VmHWM``, what each of them had at most.
        """
        process_id = self._process.pid
        try:
            threads = Path(f"/proc/{process_id}/task").iterdir()
            children = [child for one in threads for child in (one / "children").read_text(encoding="ascii").split()]
            processes = [str(process_id), *children]
            return sum(_memory_mb(Path(f"/proc/{process}/status"), what) for process in processes)
        except OSError:
            return None

    def post_all(self, bodies: Sequence[bytes]) -> float:
        """Post all bodies over several connections; the seconds until the last one is acknowledged.

        Raises:
            RuntimeError: One was not taken whole.
        """
        waiting = list(reversed(bodies))
        problems: list[str] = []

        def post() -> None:
            connection = http.client.HTTPConnection(*self._place, timeout=120)
            try:
                while not problems:
                    try:
                        body = waiting.pop()
                    except IndexError:
                        return
                    connection.request("POST", "/v1/ingest", body, _HEADERS)
                    response = connection.getresponse()
                    answer = response.read()
                    if response.status != 200:
                        problems.append(f"{response.status} {answer[:500]!r}")
            except (OSError, http.client.HTTPException) as error:
                problems.append(repr(error))
            finally:
                connection.close()

        threads = [threading.Thread(target=post) for _ in range(CONNECTIONS)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - begin
        if problems:
            raise RuntimeError(f"The service did not take a batch: {problems[0]}")
        return took_s

    def count_stages(self) -> int:
        """How many stages there are, at least: a page of the list of stages, as a check that something is there."""
        return len(json.loads(_get(self._place, "/v1/stages?limit=5"))["rows"])


def _memory_mb(status: Path, what: str) -> float:
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))


def _get(place: tuple[str, int], path: str) -> bytes:
    connection = http.client.HTTPConnection(*place, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()
