"""From records to events: what the worker does with what the caller's thread took."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from xray.capture.call import StageCall
from xray.capture.fields import FieldColumns
from xray.capture.inside import Inside
from xray.capture.items import Items, Packed
from xray.capture.limits import apply_limits, limit_value, surely_within
from xray.capture.policy import Policy
from xray.capture.snapshot import restore, to_json
from xray.plugins import BUILT_IN, installed
from xray.sampling import choose
from xray.stage_types.base import Columns, StageType

if TYPE_CHECKING:
    from xray.capture.stage import ActiveStage
    from xray.capture.taken import Taken
    from xray.context import ActiveRun

log = logging.getLogger("xray")


@dataclass(slots=True)
class RunRecord:
    """A ``run.start`` or ``run.end`` event: its fields, with ``input`` or ``output`` as a snapshot."""

    fields: dict[str, Any]
    value_field: str
    value: bytes | bytearray | None
    run: ActiveRun

    @property
    def size_bytes(self) -> int:
        """What the record weighs in the buffer."""
        return 600 + (len(self.value) if self.value else 0)

    def release(self) -> None:
        """Nothing large to give back."""

    def lost(self) -> None:
        """The run lacks what this would have said."""
        self.run.lessen("partial")

    def event(self) -> dict[str, Any]:
        """The event, as the wire schema has it."""
        event, policy = dict(self.fields), self.run.policy
        if event["type"] == "run.end":
            # As it is by now: the worker may have lost something of the run since it ended.
            event["completeness"] = self.run.completeness
        for field in ("error", "metadata", "tags"):
            if field in event:
                event[field] = _redacted(event[field], field, policy)
        if self.value is not None:
            event[self.value_field] = _value(self.value, self.value_field, policy, [])
        return event


def stage_event(stage: ActiveStage) -> dict[str, Any]:
    """The event of a stage that has ended.

    Args:
        stage: The stage.
    """
    spec = stage.spec
    policy = spec.policy_under(stage.run.policy)
    markers = list(stage.markers)
    facts = dict(stage.facts or {})
    if stage.candidates_from is not None:
        facts["candidates_from"] = stage.candidates_from
    if spec.indexed:
        facts["indexed"] = spec.indexed
    event: dict[str, Any] = {
        "type": "stage",
        "id": stage.id,
        "run": stage.run.info,
        "order": stage.order,
        "path": stage.path,
        "name": spec.name,
        "stage_type": spec.stage_type.name,
        "started_at": stage.time_ns // 1_000_000,
        "duration_ms": stage.duration_ns / 1e6,
        "status": stage.status,
    }
    if stage.parent is not None:
        event["parent_id"] = stage.parent.id
    if stage.error is not None:
        event["error"] = _redacted(stage.error, "error", policy)
    if stage.run.trace is not None:
        event["trace"] = stage.run.trace
    columns = _extract(stage, facts)
    if stage.inside is not None:
        columns = _with_inside(event, columns, stage.inside, policy, markers)
    # What the list itself said about its ids (a frame's index) is nearer to the truth than how they were read.
    facts = {**facts, **columns.facts, **{name: facts[name] for name in ("id_from",) if name in facts}}
    columns.facts = facts
    for field, packed in (("input", stage.came), ("output", stage.went)):
        if packed is not None and field not in event:
            event[field] = _value(packed, field, policy, markers)
    _add_candidates(event, columns, spec.stage_type, policy, markers, stage.size_bytes)
    if facts:
        event["facts"] = _redacted(facts, "facts", policy)
    return event


def _redacted(value: Any, path: str, policy: Policy) -> Any:
    return value if policy.redactor is None else policy.redactor.apply(value, path)


def _value(packed: bytes | bytearray, path: str, policy: Policy, markers: list[dict[str, Any]]) -> Any:
    # Made unreadable before it is cut: half of a secret is a secret too.
    value = _redacted(to_json(restore(packed), markers, path), path, policy)
    return limit_value(value, policy.limits.max_value_bytes, path, markers)


# --- candidates ---------------------------------------------------------------------------------------------------


def _extract(stage: ActiveStage, facts: dict[str, Any]) -> Columns:
    spec = stage.spec

    def items(taken: Taken, fields: tuple[str, ...]) -> Items:
        facts.update(taken.facts or {})
        return Items(
            msgspec.Raw(taken.packed) if taken.fields is None else FieldColumns(*taken.fields),
            spec.snapshot_accessors,
            spec.defaults,
            taken.live,
            taken.ordinals,
            spec.names_of(fields, taken.live or ()),
            are_records=taken.are_records,
            picked=None if taken.picked is None else FieldColumns(*taken.picked),
        )

    try:
        inputs = None if stage.taken_in is None else items(stage.taken_in, spec.input_fields)
        outputs = [items(taken, spec.fields) for taken in stage.taken_out]
        arguments = None if stage.came is None else msgspec.Raw(stage.came)
        result = None if stage.went is None else msgspec.Raw(stage.went)
        is_abandoned = bool((stage.facts or {}).get("abandoned"))
        call = StageCall(inputs, outputs, result, spec.options, arguments, is_abandoned=is_abandoned)
        columns = spec.stage_type.extract(call)
        if not len(columns) and inputs is not None and not outputs:
            # Nothing came back, by an exception or by design: what came in is still worth knowing.
            pieces: Any = inputs.pieces
            columns = Columns(inputs.ids, {"data": pieces}, {**columns.facts, "id_from": inputs.id_from})
        return columns
    except Exception as error:
        # A third party's extraction may fail on any input; the stage is worth keeping without its candidates.
        facts["extract_error"] = f"{type(error).__name__}: {error}"
        log.debug("X-Ray: extraction of stage %s failed", spec.name, exc_info=True)
        return Columns([])


def _add_candidates(
    event: dict[str, Any],
    columns: Columns,
    stage_type: StageType,
    policy: Policy,
    markers: list[dict[str, Any]],
    snapshot_bytes: int,
) -> None:
    """Add the candidates that are kept, and the metrics where the service could not compute them from those."""
    seen = len(columns)
    mode, reason = policy.capture.mode, None
    metrics: dict[str, Any] = event.pop("metrics", {})
    counted = "counted" in columns.facts
    own_type = type(stage_type).__module__ not in BUILT_IN
    measured = columns
    if policy.redactor is not None and seen:
        columns = policy.redactor.apply_columns(columns)
        # Labels are counted as they may be read; what the type reads of the candidates stays, only numbers leave.
        measured = Columns(columns.candidate_id, {**columns.values, **_candidates_of(measured)}, columns.facts)
    kept = columns
    if mode == "summary":
        kept = Columns([], {}, columns.facts)
    elif mode == "sampled" and policy.capture.strategy is not None and seen:
        # Seeded by the stage, so that the same record gives the same sample when it is made into an event again.
        notes: list[str] = []
        kept = columns.picked(choose(policy.capture.strategy, columns, _seed(event["id"]), notes))
        reason = "; ".join([str(policy.capture.strategy), *notes])
    if len(kept) and (own_type or not surely_within(kept, policy.limits, snapshot_bytes)):
        limited = apply_limits(kept, policy.limits, _seed(event["id"]))
        kept = limited.columns
        markers += limited.markers
        reason = limited.reason or reason
    if (len(kept) < seen or own_type or markers or policy.redactor is not None) and not counted:
        metrics = _measure(stage_type, measured) | metrics
    if metrics:
        event["metrics"] = metrics
        if own_type:
            # The service need not have the plugin: it takes the metrics from here, with what they mean.
            event["metric_declarations"] = stage_type.declarations()
    capture: dict[str, Any] = {"mode": mode, "seen": seen, "kept": len(kept), "markers": markers}
    if counted:
        capture["seen"] = columns.facts["counted"]
    if len(kept) < seen and mode == "full":
        capture["mode"] = "sampled"
    if reason is not None:
        capture["reason"] = reason
    event["capture"] = capture
    if len(kept):
        columns_sent = {
            name: column.raw() if isinstance(column, (FieldColumns, Packed)) else column
            for name, column in kept.values.items()
        }
        event["columns"] = {"candidate_id": kept.candidate_id, **columns_sent}


def _candidates_of(columns: Columns) -> dict[str, list[Any]]:
    return {name: columns.values[name] for name in ("data", "returned") if name in columns.values}


def _measure(stage_type: StageType, columns: Columns) -> dict[str, Any]:
    try:
        found: dict[str, Any] = to_json(stage_type.measure(decoded_for_metrics(stage_type, columns)))
        return found
    except Exception as error:
        columns.facts["metrics_error"] = f"{type(error).__name__}: {error}"
        return {}


def decoded_for_metrics(stage_type: StageType, columns: Columns) -> Columns:
    """The columns with the candidates decoded, where the type looks at them."""
    if not stage_type.reads_candidates:
        return columns
    values = dict(columns.values)
    for name in ("data", "returned"):
        if name in values:
            values[name] = [
                to_json(restore(bytes(piece))) if isinstance(piece, msgspec.Raw) else piece for piece in values[name]
            ]
    return Columns(columns.candidate_id, values, columns.facts)


def _seed(stage_id: str) -> int:
    return int(stage_id[-12:], 16)


# --- what the user said from inside -------------------------------------------------------------------------------


def _with_inside(
    event: dict[str, Any], columns: Columns, inside: Inside, policy: Policy, markers: list[dict[str, Any]]
) -> Columns:
    """The columns and the event with what was said from inside the stage."""
    for field in ("input", "output"):
        if field in inside.values:
            event[field] = _value(inside.values[field], field, policy, markers)
    for field in ("llm", "metadata"):
        merged: dict[str, Any] = {}
        for name, packed in inside.values.items():
            if name.startswith(f"{field}."):
                merged |= _value(packed, field, policy, markers)
        if merged:
            event[field] = merged
    if inside.notes:
        reasoning = to_json("\n".join(inside.notes), markers, "reasoning")
        event["reasoning"] = reasoning if policy.redactor is None else policy.redactor.apply(reasoning, "reasoning")
    if inside.metrics:
        event["metrics"] = to_json(dict(inside.metrics), markers, "metrics")
    if inside.lost:
        columns.facts["said_too_late_or_too_much"] = inside.lost
    if inside.counted is not None:
        seen, passed = inside.counted
        columns.facts["counted"] = seen
        event["metrics"] = _counted_metrics(event["stage_type"], seen, passed) | event.get("metrics", {})
    return _with_said(columns, inside) if inside.said else columns


def _with_said(columns: Columns, inside: Inside) -> Columns:
    rows_of: dict[str, int] = {}
    for row, candidate_id in enumerate(columns.candidate_id):
        rows_of.setdefault(candidate_id, row)
    added = [key for key in inside.said if key not in rows_of]
    ids = columns.candidate_id + added
    rows_of |= {key: len(columns) + place for place, key in enumerate(added)}
    values = {name: [*column, *[None] * len(added)] for name, column in columns.values.items()}
    for key, said in inside.said.items():
        row = rows_of[key]
        for name, value in said.items():
            column = values.setdefault(name, [None] * len(ids))
            column[row] = to_json(value)
        if row >= len(columns) and key in inside.candidates:
            values.setdefault("data", [None] * len(ids))[row] = to_json(restore(inside.candidates[key]))
    return Columns(ids, values, columns.facts)


def _counted_metrics(stage_type: str, seen: int, passed: int | None) -> dict[str, Any]:
    metrics: dict[str, Any] = {"input_count": seen}
    if passed is None:
        return metrics
    metrics["output_count"] = passed
    declared = {metric.name for metric in installed().stage_type(stage_type).all_metrics()}
    if "fail_ratio" in declared:
        metrics |= {"passed": passed, "failed": seen - passed}
        if seen:
            metrics["fail_ratio"] = (seen - passed) / seen
    return metrics
