"""A MongoDB server for tests: one that is started and thrown away, or one that is named.

``XRAY_TEST_MONGODB_URI`` names a server that runs. Else ``XRAY_TEST_MONGODB_COMMAND`` starts one, with ``{port}`` and
``{data}`` in it; by default it is ``mongod``, where that is on the path.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.ports import free_port

NO_SERVER = "there is no MongoDB server: no mongod on the path, no XRAY_TEST_MONGODB_COMMAND, no XRAY_TEST_MONGODB_URI"
"""The reason of a skip that a machine without MongoDB may have."""

DEFAULT_COMMAND = "mongod --port {port} --dbpath {data} --bind_ip 127.0.0.1"
START_TIMEOUT_S = 90


def command() -> str | None:
    """The template of the command that starts a server, or None where there is none."""
    return os.environ.get("XRAY_TEST_MONGODB_COMMAND") or (DEFAULT_COMMAND if shutil.which("mongod") else None)


class Server:
    """A server that the tests started; it can be killed and started again on the same data and port.

    Args:
        folder: Where its data lies.
    """

    def __init__(self, folder: Path) -> None:
        template = command()
        if template is None:
            pytest.skip(NO_SERVER)
        self.port = free_port()
        self._data = folder / "mongodb"
        self._data.mkdir(exist_ok=True)
        self._log = folder / "mongodb.log"
        self._command = [part.format(port=self.port, data=self._data) for part in shlex.split(template)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            said = self._log.read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, f"{self._command} ended:\n{said}"
            assert time.monotonic() < deadline, f"{self._command} does not answer:\n{said}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        try:
            with MongoClient(self.uri, serverSelectionTimeoutMS=2000) as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def kill(self) -> None:
        """End it as a crash of the machine's software would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server of a test's own; stopped at the end. Skips where this machine has none to start."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Databases:
    """Gives out databases by folder, and drops them.

    Args:
        uri: The server.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._session = uuid.uuid4().hex[:8]
        self._given: set[str] = set()

    def url(self, folder: Path) -> str:
        """The URL of a folder's database: the same folder means the same data."""
        name = f"xray_test_{self._session}_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
        self._given.add(name)
        base, _, options = self.uri.partition("?")
        return f"{base.rstrip('/')}/{name}" + (f"?{options}" if options else "")

    def drop(self) -> None:
        with MongoClient(self.uri) as client:
            while self._given:
                client.drop_database(self._given.pop())
