"""Processes that prepare batches, so that the service uses more than one processor.

Each is a child that reads a body from its standard input and answers on its standard output; it ends when its input
does, so that none outlives a service that was killed. What a child cannot do, for whatever reason, is done in the
service's own process: that also gives a bad body its error.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from xray.plugins import installed
from xray_server.prepare import Prepared, prepare_body

log = logging.getLogger("xray.server")

FROM_BYTES = 64 * 1024
"""Smaller bodies take less time than the way to another process and back."""

MAX_FAILURES = 3
"""After as many failures in a row a process is not started again."""

MAX_PROCESSES = 4


def default_processes() -> int:
    """As many as there are processors, within reason; none where there is one only.

    The service's own process writes what they prepare, which takes a third of the time: with one process less, a
    processor would wait for work.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if available == 1 else min(MAX_PROCESSES, available)


class Workers:
    """The processes, as the service sees them; each is started when it is first needed.

    Args:
        count: How many; with 0 nothing is prepared here.
        max_events: The most events that a batch has.
    """

    def __init__(self, count: int, max_events: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="xray-worker") if count else None
        self._command = [sys.executable, "-m", "xray_server.workers", str(max_events)]
        self._local = threading.local()
        self._running: list[subprocess.Popen[bytes]] = []

    async def prepare(self, body: bytes) -> Prepared | None:
        """Prepare a batch in another process.

        Args:
            body: The msgpack of the batch, decompressed.

        Returns:
            None where that is not possible, or not worth it.
        """
        if self._threads is None or len(body) < FROM_BYTES:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, body)

    async def close(self) -> None:
        """End the processes, after what they are doing."""
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown, wait=True)
            self._threads = None
        for process in self._running:
            _end(process)
        self._running.clear()

    def _ask(self, body: bytes) -> Prepared | None:
        """Ask this thread's process."""
        failures: int = getattr(self._local, "failures", 0)
        if failures >= MAX_FAILURES:
            return None
        process: subprocess.Popen[bytes] | None = getattr(self._local, "process", None)
        try:
            if process is None:
                process = self._local.process = subprocess.Popen(  # noqa: S603 - this module itself
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                self._running.append(process)
            assert process.stdin is not None
            assert process.stdout is not None
            _write(process.stdin, body)
            answer = _read(process.stdout)
            found: Prepared | None = pickle.loads(answer)  # noqa: S301 - our own child's
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            log.warning("A process that prepares batches failed (%s); its work is done in the service itself", error)
            self._local.failures = failures + 1
            self._local.process = None
            if process is not None:
                self._running.remove(process)
                process.kill()
                _end(process)
            return None
        self._local.failures = 0
        return found


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what could not be written any more
                stream.close()
    process.wait()


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    head = stream.read(8)
    size = int.from_bytes(head, "little")
    data = stream.read(size)
    if len(head) < 8 or len(data) < size:
        raise EOFError("it ended")
    return data


# --- the child --------------------------------------------------------------------------------------------------


def main() -> None:
    """Prepare bodies until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the service, which ends this process by itself
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a plugin prints is not an answer
    max_events, plugins = int(sys.argv[1]), installed()
    # A batch is many small objects and no cycles: looking for these again and again takes a third of the time.
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    while True:
        try:
            body = _read(sys.stdin.buffer)
        except EOFError:
            return
        found: Prepared | None = None
        with contextlib.suppress(Exception):  # the service finds out what is wrong with it
            found = prepare_body(body, max_events, plugins)
        try:
            _write(answers, pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL))
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
