"""How documents and pages become BSON documents, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.max_key import MaxKey
from bson.min_key import MinKey

from xray.exceptions import StoreError
from xray_server.documents import PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Document, Kind
from xray_server.pages import CandidatePage
from xray_server.stores.encoding import is_number, pack, unpack

Raw = dict[str, Any]
"""A document as PyMongo takes and gives it."""

# Python's datetime ends in the year 9999 and starts in 1; a date of MongoDB does not.
CODEC: CodecOptions[Raw] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)

LONGEST_WORD = 200
"""Characters of a key and a text in metadata up to which questions are narrowed by them."""

_ESCAPES = str.maketrans({"%": "%25", ".": "%2E", "$": "%24", "\0": "%00"})


@dataclass(frozen=True, slots=True)
class Form:
    """The form of the documents of one collection.

    Args:
        collection: The collection's name.
        fields: Field → the kind of its values.
    """

    collection: str
    fields: Mapping[str, Kind]

    def encode(self, project: str, document: Mapping[str, Any]) -> Raw:
        """A document as it lies in the collection, but for its revision.

        Raises:
            StoreError: The document has a field that there is no place for.
        """
        raw: Raw = {"_id": key(project, document["id"])}
        for name, value in document.items():
            if value is None or name == "id":
                continue
            kind = self.fields.get(name)
            if kind is None:
                raise StoreError(f"A document of {self.collection} has no field '{name}'.", path=name)
            if name == "metrics":
                raw |= _encode_metrics(value)
            elif name == "pipeline":
                raw[name] = {
                    inner: to_bson(PIPELINE_FIELDS[inner], held) for inner, held in value.items() if held is not None
                }
            else:
                raw[name] = to_bson(kind, value)
                words = sorted(_words(value)) if name == "metadata" else ()
                if words:
                    raw["words"] = words
        return raw

    def decode(self, raw: Mapping[str, Any]) -> Document:
        """The document that :meth:`encode` was given."""
        document: Document = {"id": raw["_id"]["i"]}
        for name, value in raw.items():
            kind = self.fields.get(name)
            if kind is None:
                continue
            if name == "metrics":
                document[name] = _decode_metrics(raw)
            elif name == "pipeline":
                document[name] = {inner: from_bson(PIPELINE_FIELDS[inner], held) for inner, held in value.items()}
            else:
                document[name] = from_bson(kind, value)
        return document


RUNS = Form("runs", RUN_FIELDS)
STAGES = Form("stages", STAGE_FIELDS)


def key(project: str, document_id: Any) -> Raw:
    """The ``_id`` of a run or a stage."""
    return {"p": project, "i": document_id}


def to_bson(kind: Kind, value: Any) -> Any:
    """A field's value as it is stored."""
    if kind == "time":
        return DatetimeMS(value)
    return pack(value) if kind == "json" else value


def from_bson(kind: Kind, value: Any) -> Any:
    """A field's value as it was given."""
    if kind == "time":
        return int(value)
    if kind == "json":
        return unpack(value)
    return plain(value)


def plain(value: Any) -> Any:
    """A number as Python's own; PyMongo has a type of its own for long integers."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def of_key_prefix(project: str, second: str) -> Raw:
    """The filter for a project's documents by the index over ``_id``, whose second part has the given name."""
    return {"_id": {"$gte": {"p": project, second: MinKey()}, "$lte": {"p": project, second: MaxKey()}}}


# --- metadata ---------------------------------------------------------------------------------------------------


def word(name: str, text: str) -> str | None:
    """What is searched for where a text in metadata is asked for, or None where it is too long to be kept."""
    return f"{name}={text}" if len(name) + len(text) <= LONGEST_WORD else None


def _words(metadata: Any) -> set[str]:
    found: set[str] = set()
    for name, value in metadata.items() if isinstance(metadata, dict) else ():
        for text in value if isinstance(value, list) else (value,):
            known = word(name, text) if isinstance(text, str) else None
            if known is not None:
                found.add(known)
    return found


# --- metrics ----------------------------------------------------------------------------------------------------


def escaped(name: str) -> str:
    """A metric's name, or a key in a table, as the name of a field: it can be reached by a dotted path."""
    return name.translate(_ESCAPES) or "%"


def unescaped(name: str) -> str:
    """What :func:`escaped` was given."""
    if "%" not in name:
        return name
    return "" if name == "%" else name.replace("%2E", ".").replace("%24", "$").replace("%00", "\0").replace("%25", "%")


def metric_path(name: str, key: str | None) -> str:
    """The path to a metric's number: it leads to a number or to nothing."""
    return f"metrics.n.{escaped(name)}" if key is None else f"metrics.t.{escaped(name)}.{escaped(key)}"


def _encode_metrics(metrics: Mapping[str, Any]) -> Raw:
    numbers: Raw = {}
    tables: Raw = {}
    other: Raw = {}
    for name, value in metrics.items():
        if is_number(value):
            numbers[escaped(name)] = value
        elif isinstance(value, dict) and all(map(is_number, value.values())):
            tables[escaped(name)] = {escaped(key): number for key, number in value.items()}
        else:
            other[name] = value
    raw: Raw = {"metrics": {name: held for name, held in (("n", numbers), ("t", tables)) if held}}
    if other:
        raw["metrics_other"] = pack(other)
        odd = [name for name, value in other.items() if value is not None]
        nulls = [name for name, value in other.items() if value is None]
        raw |= {field: names for field, names in (("odd_metrics", odd), ("null_metrics", nulls)) if names}
    return raw


def _decode_metrics(raw: Mapping[str, Any]) -> Document:
    stored = raw["metrics"]
    metrics = {unescaped(name): plain(number) for name, number in stored.get("n", {}).items()}
    for name, table in stored.get("t", {}).items():
        metrics[unescaped(name)] = {unescaped(entry): plain(number) for entry, number in table.items()}
    return metrics | (unpack(raw["metrics_other"]) if "metrics_other" in raw else {})


# --- pages ------------------------------------------------------------------------------------------------------


def page_key(project: str, stage_id: str, number: Any) -> Raw:
    """The ``_id`` of a page."""
    return {"p": project, "s": stage_id, "n": number}


def pages_of(project: str, stage_id: str, first: int = 0) -> Raw:
    """The filter for the pages of a stage from one on, by the index over ``_id``."""
    return {
        "_id": {
            "$gte": page_key(project, stage_id, first),
            "$lte": page_key(project, stage_id, MaxKey()),
        }
    }


def encode_page(project: str, page: CandidatePage) -> Raw:
    """A page as it lies in the collection, but for its revision."""
    raw: Raw = {"_id": page_key(project, page.stage_id, page.page), "run_id": page.run_id}
    if page.started_at is not None:
        raw["started_at"] = DatetimeMS(page.started_at)
    raw["candidates"] = len(page.seqs)
    if page.seqs == tuple(range(page.seqs[0], page.seqs[0] + len(page.seqs))):
        raw["first"] = page.seqs[0]
    else:
        raw["seqs"] = pack(page.seqs)
    return raw | {"ids": list(page.ids), "reason_labels": list(page.reason_labels), "block": page.block}


def decode_page(raw: Mapping[str, Any]) -> CandidatePage:
    """The page that :func:`encode_page` was given."""
    first = raw.get("first")
    seqs = unpack(raw["seqs"]) if first is None else range(int(first), int(first) + int(raw["candidates"]))
    started_at = raw.get("started_at")
    return CandidatePage(
        run_id=raw["run_id"],
        stage_id=raw["_id"]["s"],
        page=int(raw["_id"]["n"]),
        started_at=None if started_at is None else int(started_at),
        seqs=tuple(seqs),
        ids=tuple(raw["ids"]),
        reason_labels=tuple(raw["reason_labels"]),
        block=raw["block"],
    )
