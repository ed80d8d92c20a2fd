"""From a decoded batch to what has to be written: validated, measured, cut into pages. No store is asked.

It is a step of its own because it is most of the work, and another process can do it (:mod:`xray_server.workers`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from xray.exceptions import SchemaError, did_you_mean
from xray.ids import id_time_ms, now_ms
from xray.plugins import Plugins
from xray.schema import SCHEMA_VERSION
from xray.stage_types.base import Columns
from xray_server.documents import merge_into
from xray_server.measure import declarations_for, measure
from xray_server.pages import paginate
from xray_server.run_fields import Said, said
from xray_server.stores.base import WriteBatch
from xray_server.validation import RunCheck, ValidEvent, validate_event
from xray_server.zones import alias_declarations, declared_fields

_BATCH_KEYS = ("analyze", "events", "schema")


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
    to_analyze: dict[str, None] = field(default_factory=dict)
    """The runs that ended in the batch, where it asks for their analysis."""


@dataclass(slots=True)
class Prepared:
    """A batch on its way: what to write, and what to bring up to date after that."""

    result: IngestResult = field(default_factory=IngestResult)
    batch: WriteBatch = field(default_factory=WriteBatch)
    sayings: dict[str, set[Said]] = field(default_factory=dict)
    to_measure: set[str] = field(default_factory=set)


class Batch(NamedTuple):
    """What a body holds.

    Args:
        events: The events, not looked at yet.
        schema_version: The version of the wire schema that the sender wrote.
        analyze: Whether the runs that end in it are to be analyzed.
    """

    events: list[Any]
    schema_version: int = SCHEMA_VERSION
    analyze: bool = False


def batch_of(body: Any, max_events: int) -> Batch:
    """What a decoded body holds.

    Args:
        body: What a JSON or msgpack decoder gave.
        max_events: The most events that are taken at once.

    Raises:
        SchemaError: It is no batch.
    """
    if not isinstance(body, dict):
        raise SchemaError("A batch is an object.", code="bad_batch", hint='Send {"events": […]}.')
    schema_version = body.get("schema", SCHEMA_VERSION)
    if not isinstance(schema_version, int) or isinstance(schema_version, bool) or schema_version < 1:
        raise SchemaError("'schema' is the version of the wire schema, from 1.", code="bad_value", path="schema")
    for name in body:
        if name not in _BATCH_KEYS and schema_version <= SCHEMA_VERSION:
            raise SchemaError(
                f"A batch has no field '{name}'.",
                code="unknown_field",
                path=str(name),
                hint=did_you_mean(str(name), _BATCH_KEYS),
            )
    events = body.get("events")
    if not isinstance(events, list):
        raise SchemaError("A batch has a list of events.", code="bad_batch", path="events")
    if len(events) > max_events:
        raise SchemaError(
            f"A batch has at most {max_events} events.",
            code="too_many_events",
            path="events",
            hint="Send them in several batches.",
        )
    return Batch(events, schema_version, bool(body.get("analyze")))


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """A batch whose events are still msgpack."""

    events: list[msgspec.Raw]
    schema: Any = SCHEMA_VERSION
    analyze: Any = False


_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_event = msgspec.msgpack.Decoder().decode


def prepare_body(body: bytes, max_events: int, plugins: Plugins) -> Prepared:
    """Prepare a batch of msgpack, event by event: what one is decoded into is in no cache any more after all others.

    Args:
        body: The batch.
        max_events: The most events that are taken at once.
        plugins: The stage types that the service has.

    Raises:
        SchemaError: It is no batch.
        msgspec.MsgspecError: It is malformed, or has a field that a batch of this version has not.
    """
    found = _decode_body(body)
    batch = batch_of({name: getattr(found, name) for name in _BATCH_KEYS}, max_events)
    return prepare(map(_decode_event, batch.events), batch.schema_version, plugins, analyze=batch.analyze)


def prepare(events: Iterable[Any], schema_version: int, plugins: Plugins, *, analyze: bool = False) -> Prepared:
    """Validate, measure and paginate the events of a batch; bad ones are named in the result.

    Args:
        events: The events.
        schema_version: The version of the wire schema that the sender wrote.
        plugins: The stage types that the service has.
        analyze: Whether the runs that end in the batch are to be analyzed.
    """
    prepared = Prepared()
    run_check = RunCheck()
    for index, event in enumerate(events):
        try:
            valid = validate_event(
                event, f"events[{index}]", plugins, schema_version=schema_version, run_check=run_check
            )
        except SchemaError as error:
            prepared.result.errors.append(RejectedEvent(index, error))
            continue
        _add(prepared, valid, plugins)
        if analyze and valid.type == "run.end":
            prepared.result.to_analyze[valid.run["id"]] = None
        prepared.result.accepted += 1
    return prepared


def _add(prepared: Prepared, event: ValidEvent, plugins: Plugins) -> None:
    batch, run, stage = prepared.batch, event.run, event.stage
    sayings = prepared.sayings.setdefault(run["id"], set())
    saying = said(run)
    if stage is None or saying not in sayings:
        # The events of a run's stages mostly say the same of it.
        sayings.add(saying)
        merge_into(batch.runs.setdefault(run["id"], {}), run)
    if stage is None:
        return
    columns = event.columns or Columns([])
    # For retention: a run whose start nobody says is as old as its id, or else as young as its candidates.
    started_at = run.get("started_at") or id_time_ms(run["id"]) or now_ms()
    indexed = declared_fields(stage.get("facts"))
    batch.pages += paginate(run["id"], stage["id"], started_at, columns, event.from_seq, indexed=indexed.values())
    if event.type == "stage":
        measured = measure(stage, columns, event.metrics, plugins)
        merge_into(stage, measured.partial)
        declared = declarations_for(stage["type"], event.metrics, event.declarations, plugins)
        declared += alias_declarations(indexed)
        if declared:
            batch.declarations.setdefault(stage["type"], []).extend(declared)
        if measured.may_have_more:
            prepared.to_measure.add(stage["id"])
    else:
        prepared.to_measure.add(stage["id"])
    if stage["id"] in batch.stages:
        merge_into(batch.stages[stage["id"]], stage)
    else:
        batch.stages[stage["id"]] = stage
