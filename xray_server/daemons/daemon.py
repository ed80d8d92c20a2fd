"""A task that the service runs beside answering; it never ends by itself and never raises."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

log = logging.getLogger("xray.server")

FIRST_PAUSE_S = 1.0
PAUSE_AFTER_ERROR_S = 10.0


class Daemon(ABC):
    """Work that is done again and again."""

    name: ClassVar[str]
    """What the service calls it in ``/health`` and in its log."""

    def __init__(self) -> None:
        self.errors = 0
        """How often a part of the work failed."""
        self.succeeded_at_s: float | None = None
        """When a part of it was last done, in seconds since 1970; None where none was yet."""
        self._last_error: str | None = None

    @abstractmethod
    async def tick(self) -> float:
        """Do a bounded part of the work.

        Returns:
            How many seconds to wait before the next part.
        """

    async def run(self) -> None:
        """Work until cancelled; an error is logged and counted, and the work goes on later."""
        pause_s = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                pause_s = await self.tick()
                self.succeeded_at_s = time.time()
            except Exception as error:
                # Whatever it was, the service goes on answering, and the next attempt may do.
                self.errors += 1
                self._last_error = f"{type(error).__name__}: {error}"[:500]
                log.exception("The background task '%s' failed; it goes on in %g s", self.name, PAUSE_AFTER_ERROR_S)
                pause_s = PAUSE_AFTER_ERROR_S

    def state(self) -> dict[str, Any]:
        """How it is doing, for ``/health``."""
        return {"errors": self.errors, "last_error": self._last_error}


@asynccontextmanager
async def running(daemons: Sequence[Daemon]) -> AsyncIterator[None]:
    """Have some daemons run within a block; they have ended when it is left."""
    tasks = [asyncio.create_task(daemon.run(), name=f"xray-{daemon.name}") for daemon in daemons]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
