"""The threads that read the file, each with a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from xray.exceptions import StoreClosed

T = TypeVar("T")


class ReaderThreads:
    """Threads that read, of which the one that read last is taken first: its connection has most in its memory.

    Args:
        count: How many threads there are.
    """

    def __init__(self, count: int) -> None:
        self._threads = [ThreadPoolExecutor(1, f"xray-sqlite-reader-{number}") for number in range(count)]
        self._idle = list(self._threads)
        self._some_idle = asyncio.Semaphore(count)
        self._ended = False

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in one of the threads, once one is idle.

        Raises:
            StoreClosed: The threads have been told to end.
        """
        await self._some_idle.acquire()
        if self._ended:
            self._some_idle.release()
            raise StoreClosed("The store was closed.")
        thread = self._idle.pop()
        future = thread.submit(function)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.done():
                self._release(thread)
            else:  # whoever waited was cancelled, and the thread goes on
                loop = asyncio.get_running_loop()
                future.add_done_callback(lambda _: self._release_in(loop, thread))

    def _release_in(self, loop: asyncio.AbstractEventLoop, thread: ThreadPoolExecutor) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._release, thread)

    def _release(self, thread: ThreadPoolExecutor) -> None:
        self._idle.append(thread)
        self._some_idle.release()

    def end(self) -> None:
        """Take nothing more on."""
        self._ended = True

    def join(self) -> None:
        """Wait for what is being read, and end the threads."""
        for thread in self._threads:
            thread.shutdown(wait=True)
