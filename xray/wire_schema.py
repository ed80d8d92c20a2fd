"""The wire schema as JSON Schema (draft 2020-12), made from the field tables of ``xray.schema``.

It says what version 1 takes. A sender of a later version may send more, and says so with ``"schema": 2`` in its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xray.schema import COMPLETENESS, EVENT_FIELDS, RUN_FIELDS, SCHEMA_VERSION, STATUSES, EventField

_LIST = {"type": "array"}
_KINDS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "id": {"type": "string", "format": "uuid"},
    "time": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}]},
    "number": {"type": "number"},
    "count": {"type": "integer", "minimum": 0},
    "strings": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object"},
    "json": {},
    "error": {"type": "object", "properties": {name: {} for name in ("type", "message", "code", "stage")}},
    "status": {"enum": list(STATUSES)},
    "completeness": {"enum": list(COMPLETENESS)},
    "rows": {"type": "array", "items": {"type": "object"}},
    # Of candidates as they came in there may be an object of lists, one for each field.
    "columns": {
        "type": "object",
        "additionalProperties": {"anyOf": [_LIST, {"type": "object", "additionalProperties": _LIST}]},
    },
}


def wire_schema() -> dict[str, Any]:
    """The schema of a batch, as plain values."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"X-Ray's wire schema, version {SCHEMA_VERSION}",
        "type": "object",
        "required": ["events"],
        "additionalProperties": False,
        "properties": {
            "schema": {"const": SCHEMA_VERSION},
            "events": {"type": "array", "items": {"oneOf": [_ref(name) for name in EVENT_FIELDS]}},
        },
        "$defs": {
            "run": {"type": "object", **_fields(RUN_FIELDS)},
            **{name: _event(name, fields) for name, fields in EVENT_FIELDS.items()},
        },
    }


def object_schema(fields: Sequence[EventField], **own: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with some fields.

    Args:
        fields: The fields; none of them has to be there.
        own: More of them, each with its schema.
    """
    properties = {**own, **_fields(fields)["properties"]}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _event(name: str, fields: Sequence[EventField]) -> dict[str, Any]:
    schema = _fields(fields)
    # The id of an event about a run is the run's, and may be left out.
    needs_id = [] if name.startswith("run.") else ["id"]
    schema["required"] = ["type", "run", *needs_id, *schema["required"]]
    own = {"type": {"const": name}, "id": _KINDS["id"], "run": _ref("run")}
    schema["properties"] = {**own, **schema["properties"]}
    return {"type": "object", **schema}


def _fields(fields: Sequence[EventField]) -> dict[str, Any]:
    properties = {}
    for field in fields:
        kind = _KINDS[field.kind]
        # A field that is null is as good as left out.
        value = kind if field.required or not kind else {"anyOf": [kind, {"type": "null"}]}
        properties[field.name] = {"description": field.meaning, **value}
    required = [field.name for field in fields if field.required]
    return {"properties": properties, "required": required, "additionalProperties": False}
