"""How documents and pages become rows of the tables, and back."""

from __future__ import annotations

import functools
import sys
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from xray.exceptions import StoreError
from xray_server.documents import PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Document, Kind
from xray_server.pages import CandidatePage
from xray_server.stores.encoding import is_number, to_json
from xray_server.stores.frames import Opened, page_parts
from xray_server.stores.sqlite.dictionaries import Compressor, Decompressor
from xray_server.stores.sqlite.dictionaries import Kind as CompressedKind
from xray_server.stores.sqlite.values import Storage, Words, id_text, id_value, word_expression

COMPRESS_FROM_BYTES = 64
"""JSON shorter than this is kept as it is."""

PAGE_BITS = 24
"""A page's row is its stage's, shifted by as many bits, and its number in the stage."""

_WORDS = frozenset({
    "label", "version", "environment", "repository", "status", "completeness", "path", "name", "type",
    "pipeline_label", "pipeline_version", "pipeline_environment",
})  # fmt: skip
"""Texts that repeat from row to row, and hence lie in the tables and indexes as numbers."""

_IN_SQL = frozenset({"metadata", "tags"})
"""JSON that conditions reach into."""

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def _storage(name: str, kind: Kind) -> Storage:
    if name == "pipeline_id":
        return "own_id"
    if kind == "id":
        return "id"
    if name in _WORDS:
        return "word"
    if kind in ("json", "strings"):
        return "json" if name in _IN_SQL else "rest"
    return "plain"


class Table:
    """One of the two tables of documents.

    Args:
        name: The table's name.
        kinds: Field → the kind of its values.
        copied: Fields of ``pipeline`` that lie in columns of their own, named ``pipeline_…``.
    """

    def __init__(self, name: str, kinds: Mapping[str, Kind], copied: tuple[str, ...] = ()) -> None:
        self.name = name
        self.copied = copied
        self.kinds = dict(kinds)
        self.storage: dict[str, Storage] = {field: _storage(field, kind) for field, kind in kinds.items()}
        self.rest = tuple(field for field, storage in self.storage.items() if storage == "rest")
        self.stored = (*(field for field, storage in self.storage.items() if storage != "rest"), "rest")
        """The columns of a row, beside ``row`` and ``project``."""
        self._plan = [(field, self.storage[field]) for field in self.stored[:-1]]
        self._changed = [
            (place, storage) for place, (_, storage) in enumerate(self._plan) if storage not in ("plain", "word")
        ]
        self._words = [place for place, (_, storage) in enumerate(self._plan) if storage == "word"]
        self._names = frozenset(self.kinds)
        # The copied fields come last, in their own order, and the rest behind them.
        self._own = self.stored[: -1 - len(copied)]
        self._copied = [(name, f"pipeline_{name}") for name in copied]
        self._converted = [(field, storage) for field, storage in self._plan if storage in ("id", "json")]
        self._select: dict[str, str] = {}

    def columns(self, alias: str = "") -> str:
        """The columns as a select list for :meth:`decode`."""
        found = self._select.get(alias)
        if found is None:
            prefix = f"{alias}." if alias else ""
            quoted = {name: f'{prefix}"{name}"' for name in self.stored}
            found = self._select[alias] = ", ".join(
                word_expression(quoted[name]) if self.storage.get(name) == "word" else quoted[name]
                for name in self.stored
            )
        return found

    def encode(self, document: Mapping[str, Any], words: Words, compress: Callable[[bytes], str | bytes]) -> list[Any]:
        """The values of the columns in ``stored``.

        Raises:
            StoreError: The document has a field that the table has no column for.
        """
        flat = dict(document)
        if self.copied:
            pipeline = flat.pop("pipeline", None)
            if pipeline:
                for name, column in self._copied:
                    flat[column] = pipeline.get(name)
        if not flat.keys() <= self._names:
            unknown = min(flat.keys() - self._names)
            raise StoreError(f"A document of {self.name} has no field '{unknown}'.", path=unknown)
        values: list[Any] = list(map(flat.get, self.stored))
        values.pop()
        number = words.number
        for place in self._words:
            if values[place] is not None:
                values[place] = number(values[place])
        for place, storage in self._changed:
            value = values[place]
            if value is not None:
                if storage == "id":
                    values[place] = id_value(value)
                elif storage == "json":
                    values[place] = to_json(value)
                else:
                    values[place] = 1 if value == flat.get("run_id") else id_value(value)
        rest = {name: flat[name] for name in self.rest if flat.get(name) is not None}
        values.append(compress(_encode_json(rest)) if rest else None)
        return values

    def decode(self, row: Sequence[Any], decompressor: Decompressor) -> Document:
        """The document of a row that was selected with :meth:`columns`."""
        document: Document = {name: value for name, value in zip(self._own, row, strict=False) if value is not None}
        for name, storage in self._converted:
            value = document.get(name)
            if value is not None:
                document[name] = id_text(value) if storage == "id" else _decode_json(value)
        rest = row[-1]
        if rest is not None:
            document |= _decode_json(decompressor.decompress(rest) if isinstance(rest, bytes) else rest)
        if self.copied:
            copies = zip(self.copied, row[len(self._own) : -1], strict=True)
            pipeline = {name: value for name, value in copies if value is not None}
            if pipeline:
                of_run = pipeline.get("id")
                if of_run is not None:
                    pipeline["id"] = document["run_id"] if of_run == 1 else id_text(of_run)
                document["pipeline"] = pipeline
        return document


RUNS: Final = Table("runs", RUN_FIELDS)
_STAGE_KINDS: dict[str, Kind] = {
    **{name: kind for name, kind in STAGE_FIELDS.items() if name != "pipeline"},
    **{f"pipeline_{name}": kind for name, kind in PIPELINE_FIELDS.items()},
}
STAGES: Final = Table("stages", _STAGE_KINDS, tuple(PIPELINE_FIELDS))


def compressed_document(compressor: Compressor, table: Table, project: str, document: Mapping[str, Any]) -> Any:
    """What :meth:`Table.encode` compresses a document's rest with: documents of one name are compressed alike."""
    if table is RUNS:
        kind: CompressedKind = ("run", project, document.get("label") or "")
    else:
        kind = ("stage", project, (document.get("pipeline") or {}).get("label") or "", document.get("name") or "")
    return functools.partial(_compressed, compressor, kind)


def _compressed(compressor: Compressor, kind: CompressedKind, data: bytes) -> str | bytes:
    if len(data) < COMPRESS_FROM_BYTES:
        return data.decode()
    compressed = compressor.compress(kind, data)
    return compressed if len(compressed) < len(data) else data.decode()


# --- metrics ----------------------------------------------------------------------------------------------------

METRIC_NULL: Final = "n"
METRIC_TABLE: Final = "t"  # all of its entries are numbers and have rows
METRIC_OTHER: Final = "o"  # may hold anything, so that only the evaluator knows
"""What stands for a metric's value in ``stage_metrics`` where it is no number; every number is less than a text."""


MetricRow = tuple[str, str | None, int | float | str]
"""Name, key (``price_too_high`` of ``label_share``), and the number or what stands for it."""


def metric_rows(metrics: Mapping[str, Any]) -> list[MetricRow]:
    """The rows of a stage's metrics."""
    found: list[MetricRow] = []
    for name, value in metrics.items():
        if type(value) is dict:
            entries: list[MetricRow] = [(name, key, number) for key, number in value.items() if is_number(number)]
            found += entries
            found.append((name, None, METRIC_TABLE if len(entries) == len(value) else METRIC_OTHER))
        elif is_number(value):
            found.append((name, None, value))
        else:
            found.append((name, None, METRIC_NULL if value is None else METRIC_OTHER))
    return found


# --- pages ------------------------------------------------------------------------------------------------------

PAGE_COLUMNS = (
    "row", "project", "started_at", "candidates", "score_low", "score_high", "marks", "block",
)  # fmt: skip


PAGE_READ = "row, started_at, candidates, block"
"""What :func:`decode_page` reads."""


def page_row(stage: int, page: int) -> int:
    """The row of a page of a stage, by the stage's row."""
    return stage << PAGE_BITS | page


def mark(kind: str, text: str) -> bytes:
    """Two bytes that stand for an id (``candidate_id``) or a ``reason_label`` in a page's marks."""
    return (zlib.crc32(f"{kind}\0{text}".encode()) & 0xFFFF).to_bytes(2, "big")


def encode_page(
    page: CandidatePage, row: int, project: int, run_id: str | None, compress: Callable[[bytes], bytes]
) -> tuple[Any, ...]:
    """The values of ``PAGE_COLUMNS``; ``run_id`` is what the stage's own row has."""
    marked = _id_marks(page.checksums) + b"".join(map(_label_mark, page.reason_labels))
    named = None if page.run_id == run_id else page.run_id
    text, digits = page_parts(page, named)
    low, high = page.ranges.get("score", (None, None))
    return row, project, page.started_at, len(page.seqs), low, high, marked, compress(text) + digits


def _id_marks(checksums: array[int]) -> bytes:
    """The marks of a page's ids."""
    low, high = (0, 1) if sys.byteorder == "little" else (3, 2)
    raw, marks = checksums.tobytes(), bytearray(2 * len(checksums))
    marks[0::2], marks[1::2] = raw[high::4], raw[low::4]
    return bytes(marks)


@functools.lru_cache(maxsize=4096)  # a few words in page after page
def _label_mark(label: str) -> bytes:
    return mark("reason_label", label)


def decode_page(stage_id: str, run_id: str | None, row: Sequence[Any], decompressor: Decompressor) -> CandidatePage:
    """The page of a row that was selected with ``PAGE_READ``; ``run_id`` is what the stage's own row has."""
    number, started_at, count, block = row
    opened = Opened(block, count, decompressor.decompress, before=1)
    (named,) = opened.before
    return CandidatePage(
        run_id=named or run_id or "",
        stage_id=stage_id,
        page=number & (1 << PAGE_BITS) - 1,
        started_at=started_at,
        seqs=opened.seqs,
        ids=opened.ids,
        reason_labels=opened.reason_labels,
        packed=opened.packed,
    )
