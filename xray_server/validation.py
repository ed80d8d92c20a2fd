"""One event, as a sender gave it, to checked partial documents.

``xray.schema`` says which fields an event has; :mod:`xray_server.field_values` how each kind of value is checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from xray.exceptions import PluginError, SchemaError, did_you_mean
from xray.plugins import Plugins
from xray.schema import EVENT_FIELDS, RUN_FIELDS, SCHEMA_VERSION, EventField, EventType
from xray.stage_types.base import Columns
from xray_server import candidate_rows
from xray_server.documents import Document
from xray_server.field_values import CHECKS, Check, check_capture, check_declarations, check_id, check_metrics

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
_TYPES: dict[str, EventType] = {event_type: event_type for event_type in EVENT_TYPES}

MAX_SEQ = 2**31
"""The last place that candidates of an event may begin at."""

_CANDIDATE_FIELDS = ("candidates", "columns")
_WITH_CHECKS_OF_THEIR_OWN = frozenset({*_CANDIDATE_FIELDS, "metrics", "metric_declarations"})
_COMMON_KEYS = ("type", "id", "run")


@dataclass(frozen=True, slots=True)
class _Form:
    """What an event, or a run, may and must have: its fields' checks, its required fields, all of its names."""

    checks: dict[str, Check]
    required: tuple[EventField, ...]
    names: dict[str, None]

    @classmethod
    def of(cls, fields: Iterable[EventField], common: tuple[str, ...] = ()) -> _Form:
        known = {field.name: field for field in fields}
        checks = {name: CHECKS[field.kind] for name, field in known.items() if name not in _WITH_CHECKS_OF_THEIR_OWN}
        return cls(checks, tuple(field for field in known.values() if field.required), dict.fromkeys((*common, *known)))


_FORMS = {event_type: _Form.of(fields, _COMMON_KEYS) for event_type, fields in EVENT_FIELDS.items()}
_RUN_FORM = _Form.of(RUN_FIELDS)


@dataclass(slots=True)
class ValidEvent:
    """What an event brings, checked.

    Args:
        type: The event's type.
        run: A partial run document; every event brings one.
        stage: A partial stage document, or None for events about a run.
        columns: The candidates that came with it, or None where it has no such field.
        from_seq: The place of the first of them in the stage.
        metrics: The metrics that the sender computed, or None.
        declarations: What the sender said about its metrics, as ``Metric.as_dict`` has it.
    """

    type: EventType
    run: Document
    stage: Document | None = None
    columns: Columns | None = None
    from_seq: int = 0
    metrics: dict[str, Any] | None = None
    declarations: list[dict[str, Any]] = field(default_factory=list)


def validate_event(
    event: Any,
    path: str,
    plugins: Plugins,
    *,
    schema_version: int = SCHEMA_VERSION,
    run_check: RunCheck | None = None,
) -> ValidEvent:
    """Check one event.

    Args:
        event: What a JSON or msgpack decoder gave; not changed.
        path: Where it stands in the batch (``events[3]``).
        plugins: Says which columns a stage type's candidates may have.
        schema_version: The version that the sender wrote; fields that a newer version added are left out.
        run_check: Checks what the event says of its run; that of the batch, all of whose events are of one version.

    Raises:
        SchemaError: It is not of the published form; ``path`` names the place, ``hint`` what would be right.
    """
    if not isinstance(event, dict):
        raise SchemaError("An event is an object.", code="bad_event", path=path)
    event_type = _event_type(event, path)
    is_strict = schema_version <= SCHEMA_VERSION
    run = (run_check or RunCheck()).check(event, path, is_strict=is_strict)
    form = _FORMS[event_type]
    if is_strict and not event.keys() <= form.names.keys():
        _refuse_unknown(event, form, path, f"An event '{event_type}'")
    if event_type in ("run.start", "run.end"):
        if event.get("id") is not None and event["id"] != run["id"]:
            raise SchemaError(
                "The id of a run's event is the run's.",
                code="bad_value",
                path=f"{path}.id",
                hint="Leave it out, or give the same as in 'run'.",
            )
        run |= _fields(event, form, path)
        _default_status(run, is_final=event_type == "run.end")
        return ValidEvent(event_type, run)
    if event.get("id") is None:
        raise SchemaError("The event has no stage id.", code="missing_stage_id", path=f"{path}.id")
    stage = {"id": check_id(event["id"], f"{path}.id"), "run_id": run["id"], "pipeline": dict(run)}
    found = _fields(event, form, path)
    if "stage_type" in found:
        found["type"] = found.pop("stage_type")
    from_seq = found.pop("from_seq", 0)
    if from_seq > MAX_SEQ:
        raise SchemaError(f"A stage has at most {MAX_SEQ} candidates.", code="bad_value", path=f"{path}.from_seq")
    stage |= found
    if "capture" in stage:
        check_capture(stage["capture"], f"{path}.capture")
    _default_status(stage, is_final=event_type == "stage" or (event_type == "stage.update" and says_the_end(found)))
    run["status"] = "running"
    metrics, declarations = event.get("metrics"), event.get("metric_declarations")
    return ValidEvent(
        type=event_type,
        run=run,
        stage=stage,
        columns=_candidates(event, stage.get("type"), path, plugins),
        from_seq=from_seq,
        metrics=None if metrics is None else check_metrics(metrics, f"{path}.metrics"),
        declarations=[] if declarations is None else check_declarations(declarations, f"{path}.metric_declarations"),
    )


def _event_type(event: Mapping[str, Any], path: str) -> EventType:
    given = event.get("type")
    found = _TYPES.get(given) if isinstance(given, str) else None
    if found is not None:
        return found
    if given is None:
        raise SchemaError(
            "The event has no type.",
            code="unknown_event_type",
            path=f"{path}.type",
            hint=f"It is one of {', '.join(EVENT_TYPES)}.",
        )
    raise SchemaError(
        f"There is no event type {given!r:.100}.",
        code="unknown_event_type",
        path=f"{path}.type",
        hint=(did_you_mean(given, EVENT_TYPES) if isinstance(given, str) else None)
        or f"It is one of {', '.join(EVENT_TYPES)}.",
    )


class RunCheck:
    """Checks what events say of their runs; events that follow each other mostly say the same."""

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        self._kinds: list[type] = []
        self._found: Document = {}

    def check(self, event: Mapping[str, Any], path: str, *, is_strict: bool) -> Document:
        """The partial document of an event's run; the caller's own.

        Raises:
            SchemaError: It is not of the published form.
        """
        given = event.get("run")
        # Equal values of other types (1 and 1.0) are not taken for the same.
        if given and given == self._given and list(map(type, given.values())) == self._kinds:
            return dict(self._found)
        self._given = {}
        found = _run(event, path, is_strict)
        self._given, self._kinds, self._found = event["run"], list(map(type, event["run"].values())), found
        return dict(found)


def _run(event: Mapping[str, Any], path: str, is_strict: bool) -> Document:
    run = event.get("run")
    if not isinstance(run, dict) or run.get("id") is None:
        raise SchemaError(
            "The event does not say which run it belongs to.",
            code="missing_run_id",
            path=f"{path}.run.id" if isinstance(run, dict) else f"{path}.run",
            hint='Every event has "run": {"id": "<uuid>", …}.',
        )
    if is_strict and not run.keys() <= _RUN_FORM.names.keys():
        _refuse_unknown(run, _RUN_FORM, f"{path}.run", "A run")
    return _fields(run, _RUN_FORM, f"{path}.run")


def _refuse_unknown(found: Mapping[Any, Any], form: _Form, path: str, what: str) -> None:
    name = next(name for name in found if name not in form.names)
    raise SchemaError(
        f"{what} has no field '{name}'.",
        code="unknown_field",
        path=f"{path}.{name}",
        hint=did_you_mean(str(name), form.names),
    )


def _fields(found: Mapping[str, Any], form: _Form, path: str) -> Document:
    """The checked values of the fields that are given; null counts as not given."""
    document: Document = {}
    for known in form.required:
        if found.get(known.name) is None:
            raise SchemaError(
                f"'{known.name}' is missing.", code="missing_field", path=f"{path}.{known.name}", hint=known.meaning
            )
    checks = form.checks
    for name, value in found.items():
        if value is not None and name in checks:
            try:
                document[name] = checks[name](value, "")
            except SchemaError:
                # Where it stands is put together for the few that are wrong.
                document[name] = checks[name](value, f"{path}.{name}")
    return document


def says_the_end(found: Mapping[str, Any]) -> bool:
    """Whether what is said of a run or a stage says that it has ended."""
    return any(found.get(name) is not None for name in ("status", "error", "duration_ms", "finished_at"))


def _default_status(document: Document, *, is_final: bool) -> None:
    if not is_final:
        document["status"] = "running"
    elif "status" not in document:
        document["status"] = "failure" if "error" in document else "success"


def _candidates(event: Mapping[str, Any], stage_type: str | None, path: str, plugins: Plugins) -> Columns | None:
    given = [name for name in _CANDIDATE_FIELDS if event.get(name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise SchemaError(
            "Candidates come as rows or as columns, not both.", code="bad_value", path=f"{path}.{given[1]}"
        )
    own_columns = None
    if stage_type is not None:
        with contextlib.suppress(PluginError):  # a type of the sender's own may have any column
            own_columns = plugins.stage_type(stage_type).columns
    read = candidate_rows.from_rows if given[0] == "candidates" else candidate_rows.from_columns
    return read(event[given[0]], f"{path}.{given[0]}", own_columns)
