"""An export as Parquet files, for data frames and SQL engines: runs, stages and candidates, a file each.

Times are timestamps, plain fields columns of their type, everything else is JSON text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from xray.exceptions import XRayError
from xray_server.documents import CANDIDATE_FIELDS, PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Document, Kind
from xray_server.pages import CandidatePage
from xray_server.stores.base import Store
from xray_server.transfer.export import Wanted, everything

ROWS_PER_GROUP = 20_000

_encode = msgspec.json.Encoder().encode
_STAGE_KINDS: dict[str, Kind] = {
    **{name: kind for name, kind in STAGE_FIELDS.items() if name != "pipeline"},
    **{f"pipeline_{name}": kind for name, kind in PIPELINE_FIELDS.items()},
}
_CANDIDATE_KINDS: dict[str, Kind] = {"run_id": "id", "stage_id": "id", **CANDIDATE_FIELDS, "more": "json"}
TABLES: dict[str, dict[str, Kind]] = {"runs": RUN_FIELDS, "stages": _STAGE_KINDS, "candidates": _CANDIDATE_KINDS}
"""File → column → the kind of its values. ``more`` has a stage type's own columns."""


async def write_parquet(store: Store, wanted: Wanted, folder: Path) -> AsyncIterator[dict[str, int]]:
    """Write ``runs.parquet``, ``stages.parquet`` and ``candidates.parquet``; say again and again how far it is.

    Args:
        store: The store, open.
        wanted: What is exported.
        folder: Made where it is missing; files of these names are replaced.

    Raises:
        XRayError: pyarrow is not installed.
        StoreError: The data could not be read.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise XRayError(
            "Parquet files need pyarrow, which is not installed.", code="missing_package", hint="pip install pyarrow"
        ) from None
    types: dict[Kind, Any] = {
        "id": pa.string(), "string": pa.string(), "json": pa.string(), "number": pa.float64(),
        "count": pa.int64(), "time": pa.timestamp("ms", tz="UTC"), "strings": pa.list_(pa.string()),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - files are written on this thread anyway
    schemas = {name: pa.schema([(n, types[kind]) for n, kind in kinds.items()]) for name, kinds in TABLES.items()}
    writers = {
        name: parquet.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
        for name, schema in schemas.items()
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    counts = dict.fromkeys(TABLES, 0)

    def flush(name: str) -> None:
        writers[name].write_table(pa.Table.from_pylist(rows[name], schema=schemas[name]))
        rows[name] = []

    try:
        async for found in everything(store, wanted):
            if isinstance(found, CandidatePage):
                name, new = "candidates", _candidates(found)
            elif "run_id" in found:
                name, new = "stages", [_stage(found)]
            else:
                name, new = "runs", [_row(found, RUN_FIELDS)]
            rows[name] += new
            counts[name] += len(new)
            if len(rows[name]) >= ROWS_PER_GROUP:
                flush(name)
            yield counts
        for name in TABLES:
            flush(name)
        yield counts
    finally:
        for writer in writers.values():
            writer.close()


def _row(document: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    return {
        name: _encode(value).decode() if kinds[name] == "json" and value is not None else value
        for name, value in document.items()
    }


def _stage(stage: Document) -> dict[str, Any]:
    flat = {name: value for name, value in stage.items() if name != "pipeline"}
    flat |= {f"pipeline_{name}": value for name, value in (stage.get("pipeline") or {}).items()}
    return _row(flat, _STAGE_KINDS)


def _candidates(page: CandidatePage) -> list[dict[str, Any]]:
    found = []
    for seq, row in zip(page.seqs, page.columns().rows(), strict=True):
        own = {name: value for name, value in row.items() if name not in _CANDIDATE_KINDS and value is not None}
        known = {name: value for name, value in row.items() if name in _CANDIDATE_KINDS}
        known |= {"run_id": page.run_id, "stage_id": page.stage_id, "seq": seq, "more": own or None}
        found.append(_row(known, _CANDIDATE_KINDS))
    return found
