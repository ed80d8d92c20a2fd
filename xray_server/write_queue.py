"""Batches that were answered before they were written, for senders that ask for that with ``?ack=enqueued``.

They are in memory only. The queue is bounded in bytes, and is emptied before the service ends; what could not be
written by then, or is in it when the process is killed, is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from xray.exceptions import StoreError
from xray_server.admission import Admission, Hold
from xray_server.prepare import Prepared

log = logging.getLogger("xray.server")

WRITERS = 4
"""How many batches are written at once; a store may write them together."""

MIN_BATCH_BYTES = 1024
"""What a batch weighs at least: many small ones are bounded too."""

_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    prepared: Prepared
    hold: Hold


class WriteQueue:
    """Writes batches after their senders were answered, each until the store takes it.

    Args:
        write: Writes one batch.
        max_bytes: What the bodies of the batches that wait may weigh together.
    """

    def __init__(self, write: Callable[[Prepared], Awaitable[object]], max_bytes: int) -> None:
        self._write = write
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._writers: list[asyncio.Task[None]] = []
        self.admission = Admission(max_bytes, code="queue_full", what="unwritten batches")
        self.waiting = 0
        """How many batches are not written yet."""
        self.written = 0
        """How many events were written."""
        self.retries = 0
        """How often a write failed and was tried again."""
        self.lost: Counter[str] = Counter()
        """Reason → how many events were lost: ``shutdown``, ``internal_error``."""

    def put(self, prepared: Prepared, size_bytes: int) -> None:
        """Take a batch.

        Args:
            prepared: The batch.
            size_bytes: What its body weighs.

        Raises:
            ApiError: There is no room for it (429).
        """
        hold = self.admission.hold()
        hold.grow(max(size_bytes, MIN_BATCH_BYTES))
        self.waiting += 1
        self._queue.put_nowait(_Waiting(prepared, hold))
        if len(self._writers) < min(WRITERS, self.waiting):
            name = f"xray-writer-{len(self._writers)}"
            self._writers.append(asyncio.create_task(self._run(), name=name))

    async def drain(self, timeout_s: float) -> None:
        """Write what waits, and end; nothing may be put in any more.

        Args:
            timeout_s: How long to take at most; what is not written by then is lost, counted and said.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        except TimeoutError:
            pass
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        self._writers.clear()
        while not self._queue.empty():
            self._lose(self._queue.get_nowait(), "shutdown")
        if self.lost["shutdown"]:
            log.error("%d events that were answered before they were written are lost", self.lost["shutdown"])

    async def _run(self) -> None:
        while True:
            waiting = await self._queue.get()
            try:
                await self._write_at_last(waiting.prepared)
                self.written += waiting.prepared.result.accepted
                self._done(waiting)
            except asyncio.CancelledError:
                self._lose(waiting, "shutdown")
                raise
            except Exception:
                log.exception("A batch that was answered before it was written is lost")
                self._lose(waiting, "internal_error")

    async def _write_at_last(self, prepared: Prepared) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._write(prepared)
                return
            except StoreError as error:
                log.warning("A batch could not be written (%s); it is tried again in %g s", error, pause_s)
                self.retries += 1
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _lose(self, waiting: _Waiting, reason: str) -> None:
        self.lost[reason] += waiting.prepared.result.accepted
        self._done(waiting)

    def _done(self, waiting: _Waiting) -> None:
        self.waiting -= 1
        waiting.hold.release()
        self._queue.task_done()
