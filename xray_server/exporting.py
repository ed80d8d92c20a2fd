"""Handing what was stored on to exporters, behind the sender's back: never slower for it, and never lost in silence."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from xray.exceptions import ConfigurationError, did_you_mean
from xray.plugins import Plugins
from xray_server.api.answers import presented
from xray_server.daemons.daemon import Daemon
from xray_server.documents import Document
from xray_server.prepare import Prepared
from xray_server.settings import PREFIX

MAX_WAITING = 1000
"""Batches that may wait for an exporter; what comes beyond is lost to it, and counted."""

PAUSE_S = 0.5


def exported(project: str, prepared: Prepared) -> dict[str, Any] | None:
    """What exporters are given of a batch: the runs that ended in it and its stages; None where there are none.

    Args:
        project: The project.
        prepared: The batch, stored.
    """
    runs = [run for run in prepared.batch.runs.values() if run.get("status") in ("success", "failure")]
    stages = [stage for stage in prepared.batch.stages.values() if "name" in stage]
    return batch_of(project, runs, stages) if runs or stages else None


def batch_of(project: str, runs: Iterable[Document], stages: Iterable[Document]) -> dict[str, Any]:
    """A batch as exporters get it.

    Args:
        project: The project.
        runs: The runs' documents.
        stages: The stages' documents.
    """
    return {"project": project, "runs": [presented(run) for run in runs], "stages": [presented(s) for s in stages]}


class _Queue:
    """What waits for one exporter."""

    def __init__(self) -> None:
        self.batches: deque[Mapping[str, Any]] = deque()
        self.exported = self.lost = 0
        self.last_error: str | None = None


class Exporting(Daemon):
    """Gives each exporter one batch after the other, on a thread of its own.

    Args:
        plugins: They bring the exporters.
        names: Which exporters run.

    Raises:
        ConfigurationError: No plugin brings one of them.
    """

    name: ClassVar[str] = "exporters"

    def __init__(self, plugins: Plugins, names: Iterable[str]) -> None:
        super().__init__()
        self._plugins = plugins
        self._queues: dict[str, _Queue] = {}
        for name in names:
            exporter(plugins, name, f"{PREFIX}EXPORTERS")
            self._queues[name] = _Queue()

    def offer(self, project: str, prepared: Prepared) -> None:
        """Put a stored batch into every exporter's queue; it never waits.

        Args:
            project: The project.
            prepared: The batch.
        """
        batch = exported(project, prepared) if self._queues else None
        if batch is None:
            return
        for queue in self._queues.values():
            if len(queue.batches) >= MAX_WAITING:
                queue.lost += _size(batch)
                queue.last_error = f"{MAX_WAITING} batches wait already."
            else:
                queue.batches.append(batch)

    async def tick(self) -> float:
        """Give every exporter what waits for it."""
        await asyncio.gather(*(self._drain(name, queue) for name, queue in self._queues.items()))
        return PAUSE_S

    async def finish(self, within_s: float) -> None:
        """Give the exporters what is left when the service ends.

        Args:
            within_s: How long that may take; what then still waits is lost and counted.
        """
        try:
            await asyncio.wait_for(self.tick(), within_s)
        except TimeoutError:
            for queue in self._queues.values():
                queue.lost += sum(map(_size, queue.batches))
                queue.batches.clear()

    def state(self) -> dict[str, Any]:
        """How it is doing: of each exporter what was exported, waits and was lost, in runs and stages."""
        exporters = {
            name: {
                "exported": queue.exported, "waiting": sum(map(_size, queue.batches)), "lost": queue.lost,
                "last_error": queue.last_error,
            }
            for name, queue in self._queues.items()
        }  # fmt: skip
        return {**super().state(), "exporters": exporters}

    async def _drain(self, name: str, queue: _Queue) -> None:
        function, guard = exporter(self._plugins, name, f"{PREFIX}EXPORTERS")
        while queue.batches:
            batch = queue.batches.popleft()
            try:
                await asyncio.to_thread(guard.call_within, function, batch)
                queue.exported += _size(batch)
            except Exception as error:  # counted by the guard, and here by what it cost
                queue.lost += _size(batch)
                queue.last_error = f"{type(error).__name__}: {error}"[:500]


def exporter(plugins: Plugins, name: str, path: str) -> Any:
    """The exporter of that name and its guard.

    Args:
        plugins: They bring the exporters.
        name: The exporter's name.
        path: Where the name was given, for the error.

    Raises:
        ConfigurationError: No plugin brings it.
    """
    found = plugins.named("xray_exporters", name)
    if found is None:
        raise ConfigurationError(
            f"No plugin brings an exporter '{name:.50}'.",
            code="unknown_exporter",
            path=path,
            hint=did_you_mean(name, plugins.names("xray_exporters")) or "'xray plugins' lists what there is.",
        )
    return found


def _size(batch: Mapping[str, Any]) -> int:
    return len(batch["runs"]) + len(batch["stages"])
