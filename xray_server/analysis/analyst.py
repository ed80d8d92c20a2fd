"""Storing what an analysis found on its run, and asking the model in the background."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from xray.ids import now_ms
from xray.plugins import Plugins
from xray_server.analysis.llm import Model
from xray_server.analysis.opinions import opinions
from xray_server.analysis.reading import Reader
from xray_server.analysis.record import RunRecord
from xray_server.analysis.suspects import analyze
from xray_server.documents import analysis_of
from xray_server.stores.base import Store, WriteBatch

log = logging.getLogger("xray.server")

MAX_WAITING = 100
"""Runs that may wait for the model; more are turned away."""


MAX_HISTORY = 100

_OPINION = ("confidence", "faulty_stage", "reason", "suggestion")
_KEPT = {
    "statistics": (*_OPINION, "history", "p", "suspicious", "plugins"),
    "model": (*_OPINION, "model", "requests", "tokens"),
}


class Analyst:
    """Analyzes runs and stores the result as their ``analysis``.

    Args:
        store: The store, open when it is used.
        model: The model, or None where none is set up.
        plugins: They bring analyzers, whose opinions are stored beside; None for none.
    """

    def __init__(self, store: Store, model: Model | None, plugins: Plugins | None = None) -> None:
        self._store = store
        self._plugins = plugins
        self._model = model
        self._waiting: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._last_ms = 0

    @property
    def model_name(self) -> str | None:
        """The model that is asked, or None where none is set up."""
        return None if self._model is None else self._model.settings.model

    async def store(self, project: str, run_id: str, found: Mapping[str, Any]) -> dict[str, Any]:
        """Store the outcome of an analysis beside what the other analyst said; see ``documents.analysis_of``.

        Args:
            project: The project.
            run_id: The run's id.
            found: What was found: ``by`` says by whom; what of the rest is small is kept.

        Returns:
            What was stored.
        """
        # Within one millisecond two analyses would be told apart by chance.
        self._last_ms = max(now_ms(), self._last_ms + 1)
        kept: dict[str, Any] = {"analyzed_at": _iso(self._last_ms)}
        kept |= {name: found[name] for name in _KEPT[found["by"]] if found.get(name) is not None}
        if found["by"] == "statistics":
            suspects = found.get("suspects") or ()
            kept["suspects"] = [{name: suspect[name] for name in ("path", "blame")} for suspect in suspects[:5]]
        analysis = analysis_of({found["by"]: kept})
        await self._store.write(project, WriteBatch(runs={run_id: {"id": run_id, "analysis": analysis}}))
        return analysis

    async def others(self, run: RunRecord, history: Sequence[RunRecord]) -> dict[str, Any]:
        """What plugins' analyzers say about a run: ``{"plugins": {…}}``, or nothing where there are none."""
        if self._plugins is None:
            return {}
        found = await asyncio.to_thread(opinions, self._plugins, run, history)
        return {"plugins": found} if found else {}

    def ask_later(self, project: str, run_id: str) -> str:
        """Ask the model about a run in the background and store its answer.

        Returns:
            ``asked``; ``not set up``; or ``busy`` where too many runs are waiting already.
        """
        return "not set up" if self._model is None else self.analyze_later(project, run_id)

    def analyze_later(self, project: str, run_id: str) -> str:
        """Analyze a run in the background and store the outcome; then the model's, where one is set up.

        Returns:
            ``asked``; or ``busy`` where too many runs are waiting already.
        """
        key = (project, run_id)
        if key not in self._waiting:
            if len(self._waiting) >= MAX_WAITING:
                return "busy"
            task = asyncio.get_running_loop().create_task(self._analyze(project, run_id))
            self._waiting[key] = task
            task.add_done_callback(lambda _: self._waiting.pop(key, None))
        return "asked"

    async def close(self) -> None:
        """Give up what is waiting for the model."""
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until nothing waits for the model any more."""
        while self._waiting:
            await asyncio.gather(*self._waiting.values(), return_exceptions=True)
            await asyncio.sleep(0)

    async def _analyze(self, project: str, run_id: str) -> None:
        try:
            async with self._one_at_a_time:
                reader = Reader(self._store, project)
                run = await reader.run(run_id)
                past = await reader.history_of(run.document, limit=MAX_HISTORY)
                found = await asyncio.to_thread(analyze, run, past)
                found |= await self.others(run, past)
                await self.store(project, run_id, found)
                if self._model is None:
                    return
                answer = await asyncio.to_thread(self._model.review, run, found)
                if answer["asked"]:
                    by_model = {"by": "model", "model": self._model.settings.model}
                    await self.store(project, run_id, {**answer, **by_model})
                else:
                    log.warning("The model gave no opinion on run %s: %s", run_id, "; ".join(answer["failures"])[:500])
        except Exception:
            log.warning("Analyzing run %s failed", run_id, exc_info=True)


def _iso(milliseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
