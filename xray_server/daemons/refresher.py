"""The background task that brings rollups up to date."""

from __future__ import annotations

from typing import Any, ClassVar

from xray.ids import now_ms
from xray_server.daemons.daemon import Daemon
from xray_server.rollups import HOUR_MS, refresh, refresh_half_days
from xray_server.stores.base import Store

GRACE_MS = 5 * 60_000
"""How long after its end an hour is left alone: most of what comes late has come by then."""

BUCKETS_PER_TICK = 100
SHARE = 0.25
IDLE_S = 30.0


class Refresher(Daemon):
    """Brings the dirty buckets of past hours up to date, the oldest first.

    The hour that is under way stays dirty: it would be dirty again with the next write, and who reads it has it
    computed from its stages. Once no hour is left to be done, the half days that have ended are summed up.

    Args:
        store: The store, open while this runs.
    """

    name: ClassVar[str] = "rollups"

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._refreshed = 0

    async def tick(self) -> float:
        """Bring some buckets of each project up to date."""
        until = (now_ms() - GRACE_MS) // HOUR_MS * HOUR_MS
        count = 0
        for project in await self._store.projects():
            hours = await refresh(self._store, project, until=until, limit=BUCKETS_PER_TICK, share=SHARE)
            self._refreshed += hours
            # Half days are made of hours that are up to date: others would be computed once more for them.
            count += hours or await refresh_half_days(self._store, project, until=until, limit=BUCKETS_PER_TICK)
        return 0.1 if count else IDLE_S

    def state(self) -> dict[str, Any]:
        """How it is doing, and how many buckets it has brought up to date."""
        return {**super().state(), "buckets_refreshed": self._refreshed}
