"""Retention: what is too old goes, and what does not fit, so that no disk fills.

In this order: candidate pages that are too old; runs that are too old; and where the data takes more than it may,
candidates before runs, the oldest first, the last day's of both only where nothing older is left. On a server that
frees what is removed only later, runs go first while writers are too fast for that.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from xray import wording
from xray.ids import now_ms
from xray_server.daemons.daemon import Daemon
from xray_server.daemons.spare import Spare
from xray_server.quantities import parse_duration_ms, parse_size_bytes, show_duration
from xray_server.settings import PREFIX, ServerSettings
from xray_server.stores.base import Removed, Store, Usage

AUTO = "auto"
SHARE_OF_DISK = 0.5
"""What the embedded store may take by default of its own size and the free disk together."""

RECENT_MS = 24 * 3_600_000
"""What is younger than this goes only where nothing older is left: else runs that fill the disk would leave room for
no candidates at all."""

TARGET = 0.95
"""Removal begins above this share of the limit and ends below it: the rest is for what is written meanwhile."""

TARGET_OF_SERVERS = 0.9
"""The same of a store on a server that frees what is removed only later."""

FIRST_BATCH = 32
MAX_BATCH = 4096
"""Pages that are removed at once. Within these bounds a batch grows while the data grows all the same, so that removal
keeps up with any writer and delays it no more than it has to."""

PAGES_PER_RUN = 8
"""A run goes for so many pages."""

LEAST_BATCHES = 25
"""All pages are so many batches at the least: what some stores say that they take is an estimate, and removing much by
it would remove too much."""

MIN_PAUSE_S, MAX_PAUSE_S = 0.02, 10.0
FASTEST_WRITER = 50_000_000
"""Bytes a second that may come at any moment, also after a quiet time."""

HURRY_FROM = 0.03
"""The share of the target that writers fill while a server frees what was removed, from which whole runs go first: to
remove the candidates of a stage such a server writes the rest of it anew, which takes room before it gives any."""

LOOK_EVERY_S = 0.25
"""How often a store is asked, at the most, that has to ask a server."""

AGE_EVERY_S = 60.0
RECLAIM_FROM = 0.25
"""The share of what is there that has to go at once for its space to be given back, as after a limit was lowered; less
is soon used again."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept.

    Args:
        keep_candidates_ms: How long candidates are kept after their run's start; None means for ever.
        keep_runs_ms: How long runs are kept.
        max_disk_bytes: What the data may take; None means anything.
    """

    keep_candidates_ms: int | None = None
    keep_runs_ms: int | None = None
    max_disk_bytes: int | None = None

    def __str__(self) -> str:
        times = [
            "for ever" if time is None else show_duration(time) for time in (self.keep_candidates_ms, self.keep_runs_ms)
        ]
        size = "any size" if self.max_disk_bytes is None else f"at most {wording.size(self.max_disk_bytes)}"
        return f"candidates {times[0]}, runs {times[1]}, {size} on disk"


async def policy_of(settings: ServerSettings, store: Store) -> Policy:
    """What the settings say for a store.

    Args:
        settings: ``max_disk`` may be ``auto``: for the embedded store a share of the disk, for others no limit.
        store: The store, open.

    Raises:
        ConfigurationError: A setting is not of its form.
        StoreError: The store could not say what it takes.
    """
    keep_candidates_ms = parse_duration_ms(settings.keep_candidates, f"{PREFIX}KEEP_CANDIDATES")
    keep_runs_ms = parse_duration_ms(settings.keep_runs, f"{PREFIX}KEEP_RUNS")
    if settings.max_disk != AUTO:
        return Policy(keep_candidates_ms, keep_runs_ms, parse_size_bytes(settings.max_disk, f"{PREFIX}MAX_DISK"))
    limit = None
    if store.kind == "sqlite":
        used = (await store.usage()).size_bytes
        free = shutil.disk_usage(store.describe()["location"]).free
        limit = int((used + free) * SHARE_OF_DISK)
    return Policy(keep_candidates_ms, keep_runs_ms, limit)


async def planned(store: Store, policy: Policy) -> Removed:
    """What is too old by a policy; nothing is removed.

    Raises:
        StoreError: The data could not be read.
    """
    total = Removed()
    now = now_ms()
    for project in await store.projects():
        runs = pages = Removed()
        if policy.keep_runs_ms is not None:
            runs = await store.remove_runs(project, before=now - policy.keep_runs_ms, limit=1, dry_run=True)
        if policy.keep_candidates_ms is not None:
            before = now - policy.keep_candidates_ms
            pages = await store.remove_candidates(project, before=before, limit=1, dry_run=True)
        # Of two bounds, the pages beyond the older one are among those beyond the other.
        total += Removed(
            runs.runs,
            runs.stages + pages.stages,
            max(runs.pages, pages.pages),
            max(runs.candidates, pages.candidates),
            (runs + pages).up_to,
        )
    return total


class Retention(Daemon):
    """Removes what a policy does not keep.

    Args:
        store: The store, open while this runs.
        policy: What is kept.
        target: Removal for want of space ends below this share of the limit; None takes what suits the store while
            others write to it.
    """

    name: ClassVar[str] = "retention"

    def __init__(self, store: Store, policy: Policy, *, target: float | None = None) -> None:
        super().__init__()
        self._store = store
        self.policy = policy
        self._target = target
        self.removed = Removed()
        """All that was removed so far."""
        self._batch = FIRST_BATCH
        self._last_look: tuple[float, int] | None = None
        self._growth = 0.0  # bytes a second, while nothing is removed
        self._next_by_age = 0.0
        self._up_to: dict[str, int] = {}
        self._step = 0
        self._was_hurried = False
        self._spare = Spare()
        self._next_first_step = 0.0
        self.is_over = False
        """Whether the data takes more than it may although nothing is left that could go."""

    async def tick(self) -> float:
        """Remove what is too old every minute, and what does not fit each time."""
        if time.monotonic() >= self._next_by_age:
            await self.remove_by_age()
            self._next_by_age = time.monotonic() + AGE_EVERY_S
        return await self.remove_by_size()

    def state(self) -> dict[str, Any]:
        """How it is doing, and what it has removed."""
        return {
            **super().state(),
            "policy": str(self.policy),
            "runs_removed": self.removed.runs,
            "candidates_removed": self.removed.candidates,
            "is_over": self.is_over,
        }

    # --- by age -------------------------------------------------------------------------------------------------

    async def remove_by_age(self) -> Removed:
        """Remove what is too old."""
        usage = await self._store.usage()
        total = Removed()
        for project in await self._store.projects():
            if self.policy.keep_candidates_ms is not None:
                before = now_ms() - self.policy.keep_candidates_ms
                total += await self._remove_all(self._store.remove_candidates, project, before, lambda r: r.pages)
            if self.policy.keep_runs_ms is not None:
                before = now_ms() - self.policy.keep_runs_ms
                total += await self._remove_all(self._store.remove_runs, project, before, lambda r: r.runs)
        if total.pages > RECLAIM_FROM * usage.page_count or total.runs > RECLAIM_FROM * usage.run_count:
            await self._store.reclaim()
        return total

    async def _remove_all(
        self, remove: Callable[..., Any], project: str, before: int, count: Callable[[Removed], int]
    ) -> Removed:
        total = Removed()
        batch = FIRST_BATCH
        while True:
            began = time.monotonic()
            removed: Removed = await remove(project, before=before, limit=batch)
            total += removed
            self.removed += removed
            if count(removed) < batch:
                return total
            # Where there is much to do it is done faster, but half of the time is everybody else's.
            batch = min(batch * 2, MAX_BATCH)
            await asyncio.sleep(time.monotonic() - began)

    # --- by size ------------------------------------------------------------------------------------------------

    async def remove_by_size(self) -> float:
        """Remove the oldest until the data takes no more than it may.

        Returns:
            How many seconds may pass before the next look, by the pace at which the data grows.
        """
        if self.policy.max_disk_bytes is None:
            return MAX_PAUSE_S
        first = usage = await self._store.usage()
        usual = TARGET if usage.held_bytes is None else TARGET_OF_SERVERS
        target = int(self.policy.max_disk_bytes * (usual if self._target is None else self._target))
        self._note_growth(usage)
        took_s = MIN_PAUSE_S
        while usage.size_bytes + (spare := self._spare_bytes(usage, target)) > target:
            # At least what is written meanwhile, as far as is known, and never much of what there is.
            page_bytes = max(usage.size_bytes / max(usage.page_count, 1), 1)
            most = min(max(usage.page_count // LEAST_BATCHES, FIRST_BATCH), MAX_BATCH)
            self._batch = min(max(self._batch, int(self._growth * took_s / page_bytes)), most)
            began = time.monotonic()
            removed = await self._remove_oldest(self._batch, is_hurried=usage.lately_bytes > HURRY_FROM * target)
            if removed == Removed():
                break
            self.removed += removed
            before, usage = usage.size_bytes, await self._store.usage()
            is_behind = usage.size_bytes >= before
            self._batch = min(self._batch * 2, MAX_BATCH) if is_behind else max(self._batch * 7 // 8, FIRST_BATCH)
            took_s = time.monotonic() - began
            if usage.size_bytes <= self.policy.max_disk_bytes:
                await asyncio.sleep(took_s / 4)
        self.is_over = usage.size_bytes > self.policy.max_disk_bytes
        if usage.size_bytes < first.size_bytes * (1 - RECLAIM_FROM):
            await self._store.reclaim()
        return self._pause_s(usage, target - spare)

    async def _remove_oldest(self, batch: int, *, is_hurried: bool = False) -> Removed:
        """Remove the oldest pages of all projects, or where there are none the oldest runs; the last day's last.

        Args:
            batch: How many pages, at the most.
            is_hurried: Whether runs go before candidates.
        """
        # The project of which the least is known to be gone may have the oldest.
        projects = sorted(await self._store.projects(), key=lambda project: self._up_to.get(project, -1))
        kinds = [(self._store.remove_candidates, batch), (self._store.remove_runs, max(1, batch // PAGES_PER_RUN))]
        steps = [
            (remove, before, limit)
            for before in (now_ms() - RECENT_MS, None)
            for remove, limit in (reversed(kinds) if is_hurried else kinds)
        ]
        if is_hurried != self._was_hurried:
            self._was_hurried, self._next_first_step = is_hurried, 0.0
        # Where a step found nothing, it is passed over until some of what there is may have become older.
        if time.monotonic() >= self._next_first_step:
            self._step, self._next_first_step = 0, time.monotonic() + AGE_EVERY_S
        while self._step < len(steps):
            remove, before, limit = steps[self._step]
            for project in projects:
                removed = await remove(project, before=before, limit=limit)
                if removed != Removed():
                    if removed.up_to is not None:
                        self._up_to[project] = removed.up_to
                    return removed
            self._step += 1
        self._step = 0
        return Removed()

    def _note_growth(self, usage: Usage) -> None:
        """Learn from what was written since the last look how fast that goes; a burst is remembered for a while."""
        if self._last_look is not None:
            then, last = self._last_look
            growth = (usage.size_bytes - last) / max(time.monotonic() - then, 0.001)
            self._growth = max(growth, self._growth * 0.9)

    def _pause_s(self, usage: Usage, target: int) -> float:
        """How long the fastest writer needs to the target, or where that is reached for a fiftieth of it."""
        self._last_look = time.monotonic(), usage.size_bytes
        least = MIN_PAUSE_S if usage.held_bytes is None else LOOK_EVERY_S
        return min(max(max(target - usage.size_bytes, target / 50) / FASTEST_WRITER, least), MAX_PAUSE_S)

    def _spare_bytes(self, usage: Usage, target: int) -> int:
        if usage.held_bytes is None or self._target is not None or self.policy.max_disk_bytes is None:
            return 0
        removed = self.removed.runs + self.removed.pages
        return self._spare.size_bytes(usage.held_bytes, usage.lately_bytes, target, self.policy.max_disk_bytes, removed)
