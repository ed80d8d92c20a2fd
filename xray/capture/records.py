"""Records: what the caller's thread hands to the worker, and how the worker turns it into events.

A record holds snapshots and plain values only, never the user's objects, so that nothing of the user's lives longer
or is read later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xray.capture.accessors import Accessor
from xray.capture.call import Items, StageCall
from xray.capture.snapshot import restore, to_json
from xray.plugins import BUILT_IN, installed
from xray.stage_types.base import Columns, StageType

log = logging.getLogger("xray")

_OVERHEAD_BYTES = 600


@dataclass(slots=True)
class RunRecord:
    """A ``run.start`` or ``run.end`` event: its fields, with ``input`` or ``output`` as a snapshot."""

    fields: dict[str, Any]
    value_field: str
    value: bytes | None

    @property
    def size_bytes(self) -> int:
        """What the record weighs in the buffer."""
        return _OVERHEAD_BYTES + (len(self.value) if self.value else 0)

    def event(self) -> dict[str, Any]:
        """The event, as the wire schema has it."""
        event = dict(self.fields)
        if self.value is not None:
            event[self.value_field] = to_json(restore(self.value))
        return event


@dataclass(slots=True)
class ItemsPlan:
    """How the ids and fields of one list of candidates are read: see ``xray.capture.call.Items``."""

    live: dict[str, list[Any]] = field(default_factory=dict)
    ordinals: list[int] | None = None
    id_name: str | None = None


@dataclass(slots=True)
class StageRecord:
    """One stage: the event's fields, the snapshots of what came in and went out, and how to read them.

    ``came`` holds ``[candidates, arguments]``, ``went`` holds ``[result, parts]``; ``plans`` has one entry for the
    candidates that came in (None where none did) and one for each part.
    """

    fields: dict[str, Any]
    stage_type: StageType
    accessors: Mapping[str, Accessor]
    options: Mapping[str, Any]
    facts: dict[str, Any]
    markers: list[dict[str, Any]]
    came: bytes
    went: bytes | None = None
    input_plan: ItemsPlan | None = None
    part_plans: list[ItemsPlan] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What the record weighs in the buffer."""
        numbers = sum(
            8 * len(plan.ordinals or ()) + sum(64 * len(values) for values in plan.live.values())
            for plan in (*self.part_plans, *([self.input_plan] if self.input_plan else ()))
        )
        return _OVERHEAD_BYTES + len(self.came) + (len(self.went) if self.went else 0) + numbers

    def event(self) -> dict[str, Any]:
        """The event, as the wire schema has it, with the candidates by column."""
        markers = list(self.markers)
        candidates, arguments = to_json(restore(self.came), markers)
        result, parts = to_json(restore(self.went), markers) if self.went is not None else (None, [])
        columns = Columns([])
        facts = dict(self.facts)
        try:
            columns = self.stage_type.extract(self._call(candidates, arguments, result, parts))
        except Exception as error:
            # A third party's extraction may fail on any input; the stage is worth keeping without its candidates.
            facts["extract_error"] = f"{type(error).__name__}: {error}"
            log.debug("X-Ray: extraction of stage %s failed", self.fields.get("name"), exc_info=True)
        event = {name: value for name, value in self.fields.items() if value is not None}
        event["facts"] = facts | columns.facts
        if arguments:
            event["input"] = arguments
        if result is not None:
            event["output"] = result
        event["capture"] = {"mode": "full", "seen": len(columns), "kept": len(columns), "markers": markers}
        if len(columns):
            event["columns"] = {"candidate_id": columns.candidate_id, **columns.values}
        if type(self.stage_type).__module__ not in BUILT_IN:
            event |= self._own_metrics(columns, event["facts"])
        return event

    def _call(self, candidates: Any, arguments: dict[str, Any], result: Any, parts: list[Any]) -> StageCall:
        inputs = None
        if self.input_plan is not None:
            inputs = self._items(candidates, self.input_plan)
        outputs = [self._items(values, plan) for values, plan in zip(parts, self.part_plans, strict=True)]
        return StageCall(inputs, outputs, result, self.options, arguments)

    def _items(self, values: list[Any], plan: ItemsPlan) -> Items:
        return Items(values, self.accessors, plan.live, plan.ordinals, plan.id_name)

    def _own_metrics(self, columns: Columns, facts: dict[str, Any]) -> dict[str, Any]:
        # The service need not have the plugin: it takes the metrics from here, with what they mean.
        try:
            metrics = self.stage_type.compute(columns)
        except Exception as error:
            facts["metrics_error"] = f"{type(error).__name__}: {error}"
            return {}
        declarations = [metric.as_dict() for metric in installed().metrics().get(self.stage_type.name, ())]
        return {"metrics": to_json(metrics), "metric_declarations": declarations}
