"""The lines of an export, one JSON object each; ``docs/stores.md`` describes them for people.

The first line is ``{"xray_export": 1, …}``. The others have a ``kind``: ``declarations``, ``run``, ``stage``,
``candidates``, and ``end`` for the last one, which counts the others. Documents are as stores keep them: times are
milliseconds since 1970, UTC. A line stands alone, and importing one twice is harmless.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from xray.exceptions import PluginError, SchemaError, did_you_mean
from xray.ids import is_id
from xray.metrics import Metric
from xray_server.candidate_rows import from_columns
from xray_server.documents import PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Document, Kind, merge_into
from xray_server.field_values import check_declarations, check_metrics
from xray_server.json_rules import clean
from xray_server.pages import CandidatePage, paginate
from xray_server.stores.base import WriteBatch

VERSION = 1
"""The form of the lines; a reader knows all forms up to its own."""

KINDS = ("declarations", "run", "stage", "candidates", "end")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_INT64 = range(-(2**63), 2**63)


# --- writing ----------------------------------------------------------------------------------------------------


def to_line(value: Mapping[str, Any]) -> bytes:
    """An object as one line."""
    return _encode(value) + b"\n"


def candidates_line(page: CandidatePage) -> dict[str, Any]:
    """The candidates of one page, by column."""
    columns = page.columns()
    return {
        "kind": "candidates",
        "run_id": page.run_id,
        "stage_id": page.stage_id,
        "started_at": page.started_at,
        "seqs": list(page.seqs),
        "columns": {"candidate_id": columns.candidate_id, **columns.values},
    }


# --- reading ----------------------------------------------------------------------------------------------------


def parse_line(line: bytes) -> dict[str, Any]:
    """The object of a line.

    Raises:
        SchemaError: It is no JSON object.
    """
    try:
        value = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(f"The line is not JSON: {error}.", code="bad_json") from None
    if not isinstance(value, dict):
        raise SchemaError("A line is a JSON object.", code="bad_json")
    return value


def check_first(value: Mapping[str, Any]) -> None:
    """Hold the first line to being that of an export that can be read.

    Raises:
        SchemaError: It is not.
    """
    version = value.get("xray_export")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SchemaError(
            "The file does not begin with the first line of an export.",
            code="no_export",
            hint="'xray export' writes such a file.",
        )
    if version > VERSION:
        raise SchemaError(
            f"The export has form {version}; this version of X-Ray knows forms up to {VERSION}.", code="newer_export"
        )


def add_line(batch: WriteBatch, value: Mapping[str, Any]) -> str:
    """Add what a line says to a batch, or nothing where it cannot be.

    Args:
        batch: What is written next; changed in place.
        value: A line after the first one.

    Returns:
        The line's kind.

    Raises:
        SchemaError: The line is not of the published form; ``path`` names the place.
    """
    kind = value.get("kind")
    match kind:
        case "run":
            run = _document(value.get("run"), RUN_FIELDS, "run")
            merge_into(batch.runs.setdefault(run["id"], {}), run)
        case "stage":
            stage = _document(value.get("stage"), STAGE_FIELDS, "stage")
            _check_id(stage.get("run_id"), "stage.run_id")
            if "pipeline" in stage:
                _check_fields(stage["pipeline"], PIPELINE_FIELDS, "stage.pipeline")
            if "metrics" in stage:
                check_metrics(stage["metrics"], "stage.metrics")
            merge_into(batch.stages.setdefault(stage["id"], {}), stage)
        case "candidates":
            batch.pages += list(_pages(value))
        case "declarations":
            stage_type = value.get("stage_type")
            if not isinstance(stage_type, str):
                raise SchemaError("A stage type is a string.", code="bad_value", path="stage_type")
            declared = check_declarations(value.get("metrics"), "metrics")
            try:
                batch.declarations[stage_type] = [Metric(**declaration).as_dict() for declaration in declared]
            except PluginError as error:
                raise SchemaError(str(error), code="bad_value", path="metrics") from None
        case "end":
            pass
        case _:
            raise SchemaError(
                f"There is no kind of line {kind!r:.50}.",
                code="unknown_kind",
                path="kind",
                hint=did_you_mean(str(kind), KINDS) or f"It is one of {', '.join(KINDS)}.",
            )
    return str(kind)


def _document(value: Any, fields: Mapping[str, Kind], path: str) -> Document:
    _check_fields(value, fields, path)
    _check_id(value.get("id"), f"{path}.id")
    return {
        name: clean(entry) if fields[name] == "json" else entry for name, entry in value.items() if entry is not None
    }


def _check_fields(value: Any, fields: Mapping[str, Kind], path: str) -> None:
    if not isinstance(value, dict):
        raise SchemaError("The value is an object.", code="bad_value", path=path)
    for name, entry in value.items():
        if name not in fields:
            raise SchemaError(
                f"There is no field '{name:.50}'.",
                code="unknown_field",
                path=f"{path}.{name}",
                hint=did_you_mean(name, fields),
            )
        if entry is not None and not _is_of(fields[name], entry):
            raise SchemaError(f"'{name}' is no {fields[name]}.", code="bad_value", path=f"{path}.{name}")
    for name in ("metadata", "facts", "llm", "capture", "trace", "metrics", "pipeline"):
        if name in fields and value.get(name) is not None and not isinstance(value[name], dict):
            raise SchemaError("The value is an object.", code="bad_value", path=f"{path}.{name}")


def _is_of(kind: Kind, value: Any) -> bool:
    match kind:
        case "id" | "string":
            return isinstance(value, str)
        case "time" | "count":
            return isinstance(value, int) and not isinstance(value, bool) and value in _INT64
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1023
        case "strings":
            return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return True


def _check_id(value: Any, path: str) -> None:
    if not is_id(value):
        raise SchemaError("An id is a UUID in lower case.", code="bad_value", path=path)


def _pages(value: Mapping[str, Any]) -> Iterator[CandidatePage]:
    for name in ("run_id", "stage_id"):
        _check_id(value.get(name), name)
    started_at, seqs, columns = value.get("started_at"), value.get("seqs"), value.get("columns")
    if started_at is not None and not _is_of("time", started_at):
        raise SchemaError("'started_at' is no time.", code="bad_value", path="started_at")
    if not isinstance(seqs, list) or not all(_is_of("count", seq) and seq >= 0 for seq in seqs):
        raise SchemaError("'seqs' is a list of whole numbers, 0 or more.", code="bad_value", path="seqs")
    whole = from_columns(columns, "columns", None)
    if len(whole) != len(seqs):
        raise SchemaError("'seqs' is as long as the columns.", code="bad_value", path="seqs")
    # What follows each other without a gap is cut into pages together.
    start = 0
    for _, group in itertools.groupby(enumerate(seqs), key=lambda item: item[1] - item[0]):
        length = len(list(group))
        part = whole.slice(start, start + length)
        yield from paginate(value["run_id"], value["stage_id"], started_at, part, seqs[start])
        start += length
