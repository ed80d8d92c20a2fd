"""From a batch of events to what the store keeps: validate, measure, cut into pages, write.

Every event stands alone: a bad one is reported and the others are stored. What is derived from several events, which
may come in any order and in different batches, is brought up to date after each write from what is then in the store:
the metrics of a stage whose candidates came apart from it, and the copy of the run's fields that each stage has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xray.exceptions import SchemaError
from xray.ids import id_time_ms, now_ms
from xray.plugins import Plugins
from xray.schema import SCHEMA_VERSION
from xray.stage_types.base import Columns
from xray_server.documents import Document, merge_into
from xray_server.measure import declarations_for, measure, remeasure
from xray_server.pages import paginate
from xray_server.query.ast import Field, In, Scan, Test
from xray_server.run_fields import RunFields, Said, said
from xray_server.stores.base import Store, WriteBatch
from xray_server.validation import ValidEvent, validate_event

IN_THREAD_FROM_EVENTS = 8
IN_THREAD_FROM_CANDIDATES = 500
"""Smaller batches take less time than the way to a thread and back."""

STAGES_PER_SCAN = 100


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that was not stored: its place in the batch, and what is wrong with it."""

    index: int
    error: SchemaError


@dataclass(slots=True)
class IngestResult:
    """What became of a batch: how many events are stored, and which are not."""

    accepted: int = 0
    errors: list[RejectedEvent] = field(default_factory=list)


@dataclass(slots=True)
class _Prepared:
    """A batch on its way: what to write, and what to bring up to date after that."""

    result: IngestResult = field(default_factory=IngestResult)
    batch: WriteBatch = field(default_factory=WriteBatch)
    sayings: dict[str, set[Said]] = field(default_factory=dict)
    to_measure: set[str] = field(default_factory=set)


class Ingest:
    """Takes events into a store.

    Args:
        store: The store, open.
        plugins: The stage types that the service has.
    """

    def __init__(self, store: Store, plugins: Plugins) -> None:
        self._store = store
        self._plugins = plugins
        self._run_fields = RunFields(store)

    async def accept(
        self, project: str, events: Sequence[Any], *, schema_version: int = SCHEMA_VERSION
    ) -> IngestResult:
        """Store the good events of a batch; they are durable when this returns.

        Args:
            project: The project.
            events: What a JSON or msgpack decoder gave.
            schema_version: The version of the wire schema that the sender wrote.

        Returns:
            How many events were stored, and what is wrong with the others.

        Raises:
            StoreError: Some or all of the events are not stored; sending all of them again is safe.
        """
        if len(events) >= IN_THREAD_FROM_EVENTS or _candidate_count(events) >= IN_THREAD_FROM_CANDIDATES:
            prepared = await asyncio.to_thread(self._prepare, events, schema_version)
        else:
            prepared = self._prepare(events, schema_version)
        await self._store.write(project, prepared.batch)
        # After the write: of two batches that come at once, at least the later one sees what both brought.
        later = WriteBatch(stages=await self._run_fields.missing_copies(project, prepared.sayings))
        for stage_id, partial in (await self._remeasured(project, prepared.to_measure)).items():
            merge_into(later.stages.setdefault(stage_id, {}), partial)
        await self._store.write(project, later)
        self._run_fields.remember(project, prepared.sayings)
        return prepared.result

    def _prepare(self, events: Sequence[Any], schema_version: int) -> _Prepared:
        prepared = _Prepared()
        for index, event in enumerate(events):
            try:
                valid = validate_event(event, f"events[{index}]", self._plugins, schema_version=schema_version)
            except SchemaError as error:
                prepared.result.errors.append(RejectedEvent(index, error))
                continue
            self._add(prepared, valid)
            prepared.result.accepted += 1
        return prepared

    def _add(self, prepared: _Prepared, event: ValidEvent) -> None:
        batch, run, stage = prepared.batch, event.run, event.stage
        prepared.sayings.setdefault(run["id"], set()).add(said(run))
        merge_into(batch.runs.setdefault(run["id"], {}), run)
        if stage is None:
            return
        columns = event.columns or Columns([])
        # For retention: a run whose start nobody says is as old as its id, or else as young as its candidates.
        started_at = run.get("started_at") or id_time_ms(run["id"]) or now_ms()
        batch.pages += paginate(run["id"], stage["id"], started_at, columns, event.from_seq)
        if event.type == "stage":
            measured = measure(stage, columns, event.metrics, self._plugins)
            merge_into(stage, measured.partial)
            declared = declarations_for(stage["type"], event.metrics, event.declarations, self._plugins)
            if declared:
                batch.declarations.setdefault(stage["type"], []).extend(declared)
            if measured.may_have_more:
                prepared.to_measure.add(stage["id"])
        else:
            prepared.to_measure.add(stage["id"])
        merge_into(batch.stages.setdefault(stage["id"], {}), stage)

    async def _remeasured(self, project: str, stage_ids: set[str]) -> dict[str, Document]:
        """What the stages' documents should say, by what the store has of them now."""
        found: dict[str, Document] = {}
        ids = sorted(stage_ids)
        for start in range(0, len(ids), STAGES_PER_SCAN):
            wanted = tuple(ids[start : start + STAGES_PER_SCAN])
            scan = Scan(of="stages", stage=Test(Field(("id",)), In(wanted)), limit=len(wanted))
            for row in await self._store.scan(project, scan):
                stage = row.document
                pages = [page async for page in self._store.pages(project, stage["id"])]
                partial = await asyncio.to_thread(remeasure, stage, pages, self._plugins)
                if partial:
                    found[stage["id"]] = {"id": stage["id"], "run_id": stage["run_id"]} | partial
        return found


def _candidate_count(events: Iterable[Any]) -> int:
    """About how many candidates there are in events that nobody has looked at yet."""
    count = 0
    for event in events:
        if isinstance(event, dict):
            rows, columns = event.get("candidates"), event.get("columns")
            count += len(rows) if isinstance(rows, list) else 0
            if isinstance(columns, dict):
                count += max((len(values) for values in columns.values() if isinstance(values, list)), default=0)
    return count
