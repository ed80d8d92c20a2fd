"""How documents and pages become rows of the tables, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from xray.exceptions import StoreError
from xray_server.documents import PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Document, Kind
from xray_server.pages import CandidatePage
from xray_server.stores.encoding import from_json, is_number, pack, to_json, unpack

_COMPRESSED = frozenset({"error", "input", "output", "analysis", "metrics"})


@dataclass(frozen=True, slots=True)
class Table:
    """One of the two tables of documents.

    Args:
        name: The table's name.
        kinds: Column → the kind of its values, in the order of the columns.
        copied: Fields of ``pipeline`` that lie in columns of their own, named ``pipeline_…``.
    """

    name: str
    kinds: Mapping[str, Kind]
    copied: tuple[str, ...] = ()

    def columns(self, alias: str = "") -> str:
        """The columns as a select list."""
        prefix = f"{alias}." if alias else ""
        return ", ".join(f'{prefix}"{name}"' for name in self.kinds)

    def encode(self, document: Mapping[str, Any]) -> list[Any]:
        """The values of the columns.

        Raises:
            StoreError: The document has a field that the table has no column for.
        """
        flat = {name: value for name, value in document.items() if value is not None}
        if self.copied:
            pipeline = flat.pop("pipeline", None) or {}
            flat |= {f"pipeline_{name}": value for name, value in pipeline.items() if value is not None}
        unknown = flat.keys() - self.kinds.keys()
        if unknown:
            raise StoreError(f"A document of {self.name} has no field '{min(unknown)}'.", path=min(unknown))
        return [_encode(name, kind, flat.get(name)) for name, kind in self.kinds.items()]

    def decode(self, row: Sequence[Any]) -> Document:
        """The document of a row that was selected with :meth:`columns`."""
        document: Document = {}
        for (name, kind), value in zip(self.kinds.items(), row, strict=True):
            if value is not None:
                document[name] = unpack(value) if kind in ("json", "strings") else value
        pipeline = {name: document.pop(f"pipeline_{name}") for name in self.copied if f"pipeline_{name}" in document}
        if pipeline:
            document["pipeline"] = pipeline
        return document


RUNS = Table("runs", RUN_FIELDS)
_STAGE_KINDS: dict[str, Kind] = {
    **{name: kind for name, kind in STAGE_FIELDS.items() if name != "pipeline"},
    **{f"pipeline_{name}": kind for name, kind in PIPELINE_FIELDS.items()},
}
STAGES = Table("stages", _STAGE_KINDS, tuple(PIPELINE_FIELDS))


def _encode(name: str, kind: Kind, value: Any) -> Any:
    if value is None or kind not in ("json", "strings"):
        return value
    return pack(value) if name in _COMPRESSED else to_json(value)


class MetricRow(IntEnum):
    """What a row of ``stage_metrics`` says; all but ``NUMBER`` have no value."""

    NUMBER = 0
    NULL = 1
    TABLE = 2  # all of its entries are numbers and have rows
    OTHER = 3  # may hold anything, so that only the evaluator knows


def metric_rows(metrics: Mapping[str, Any] | None) -> Iterator[tuple[str, int | float | None, MetricRow]]:
    """The rows of a stage's metrics: name (``label_share.price_too_high``), value, and what the row says."""
    for name, value in (metrics or {}).items():
        if is_number(value):
            yield name, value, MetricRow.NUMBER
        elif value is None:
            yield name, None, MetricRow.NULL
        elif isinstance(value, dict):
            numbers = {key: entry for key, entry in value.items() if is_number(entry)}
            yield name, None, MetricRow.TABLE if len(numbers) == len(value) else MetricRow.OTHER
            for key, number in numbers.items():
                yield f"{name}.{key}", number, MetricRow.NUMBER
        else:
            yield name, None, MetricRow.OTHER


PAGE_COLUMNS = "stage_id, page, run_id, started_at, seqs, ids, reason_labels, block"


def encode_page(page: CandidatePage) -> tuple[Any, ...]:
    """The values of ``PAGE_COLUMNS``; ``seqs`` without gaps is kept as its first number and its length."""
    seqs = list(page.seqs)
    if seqs == list(range(seqs[0], seqs[0] + len(seqs))):
        seqs = [seqs[0], -len(seqs)]
    return (
        page.stage_id,
        page.page,
        page.run_id,
        page.started_at,
        to_json(seqs),
        to_json(page.ids),
        to_json(page.reason_labels),
        page.block,
    )


def decode_page(row: Sequence[Any]) -> CandidatePage:
    """The page of a row that was selected with ``PAGE_COLUMNS``."""
    stage_id, page, run_id, started_at, seqs, ids, reason_labels, block = row
    places = from_json(seqs)
    if len(places) == 2 and places[1] < 0:
        places = range(places[0], places[0] - places[1])
    return CandidatePage(
        run_id=run_id,
        stage_id=stage_id,
        page=page,
        started_at=started_at,
        seqs=tuple(places),
        ids=tuple(from_json(ids)),
        reason_labels=tuple(from_json(reason_labels)),
        block=block,
    )
