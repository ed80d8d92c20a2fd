"""The background task that keeps the index over candidate ids compact."""

from __future__ import annotations

from typing import Any, ClassVar

from xray_server.daemons.daemon import Daemon
from xray_server.stores.base import Store

STEPS_PER_TICK = 8
BUSY_S = 0.1
IDLE_S = 5.0


class Indexer(Daemon):
    """Indexes candidates that were written lately, and merges what the index consists of.

    What is not indexed yet is found all the same, only not as fast.

    Args:
        store: The store, open while this runs.
    """

    name: ClassVar[str] = "sightings"

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._projects: set[str] = set()
        self._steps = 0

    async def tick(self) -> float:
        """Do some steps for each project, also for those that are gone since: their index goes too."""
        self._projects.update(await self._store.projects())
        is_behind = False
        for project in sorted(self._projects):
            for _ in range(STEPS_PER_TICK):
                if not await self._store.index_candidates(project):
                    break
                self._steps += 1
            else:
                is_behind = True
        return BUSY_S if is_behind else IDLE_S

    def state(self) -> dict[str, Any]:
        """How it is doing, and how many steps it took."""
        return {**super().state(), "steps": self._steps}
