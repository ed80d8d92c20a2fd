"""A store in memory, deliberately naive: what the contract leaves open it does in the least helpful way.

It returns every document in order and narrows by nothing but ids, which the contract wants exact; a page of
candidates comes whatever the condition on candidates says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cmp_to_key
from typing import Any, ClassVar

from tests.judge import order_key
from xray_server.documents import Document
from xray_server.pages import CandidatePage
from xray_server.query import ast
from xray_server.stores.base import PipelineSummary, Row, Store, WriteBatch

IDS = ast.Field(("id",)), ast.Field(("run_id",))


class MemoryStore(Store):
    kind: ClassVar[str] = "memory"

    def __init__(
        self, runs: list[Document], stages: list[Document], pages: Mapping[str, Sequence[CandidatePage]]
    ) -> None:
        self.documents: dict[str, list[Document]] = {"runs": runs, "stages": stages}
        self.all_pages = pages
        self.scans: list[ast.Scan] = []

    async def scan(self, project: str, scan: ast.Scan) -> list[Row]:
        assert scan.limit > 0
        assert scan.sort[-1].reference == ast.Field(("id",))
        self.scans.append(scan)
        own = scan.pipeline if scan.of == "runs" else scan.stage
        rows = [
            Row(document, tuple(sort_value(document, key.reference) for key in scan.sort))
            for document in self.documents[scan.of]
            if ids_allow(own, document)
        ]
        compare = comparison(scan.sort)
        rows = [row for row in rows if scan.after is None or compare(row.sort_values, scan.after) > 0]
        rows.sort(key=cmp_to_key(lambda left, right: compare(left.sort_values, right.sort_values)))
        return rows[: scan.limit]

    async def pages(self, project: str, stage_id: str, *, from_seq: int = 0) -> AsyncIterator[CandidatePage]:
        for page in self.all_pages.get(stage_id, ()):
            if page.seqs[-1] >= from_seq:
                yield page

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind}

    async def write(self, project: str, batch: WriteBatch) -> None:
        raise NotImplementedError

    async def pipelines(self, project: str) -> list[PipelineSummary]:
        return []

    async def declarations(self, project: str) -> dict[str, list[dict[str, Any]]]:
        return {}

    # Questions have no use for the rest; whoever calls it learns that it is not there.

    async def dirty_buckets(self, project: str, **narrowed: Any) -> Any:
        raise NotImplementedError

    async def keep_rollups(self, project: str, rollups: Any) -> None:
        raise NotImplementedError

    async def rollups(self, project: str, **narrowed: Any) -> Any:
        raise NotImplementedError

    async def keep_named(self, project: str, kind: str, name: str, document: Any) -> Any:
        raise NotImplementedError

    async def named(self, project: str, kind: str, name: str) -> Any:
        raise NotImplementedError

    async def all_named(self, project: str, kind: str) -> Any:
        raise NotImplementedError

    async def remove_named(self, project: str, kind: str, name: str) -> Any:
        raise NotImplementedError

    async def projects(self) -> Any:
        raise NotImplementedError

    async def usage(self) -> Any:
        raise NotImplementedError

    async def remove_candidates(self, project: str, **bounds: Any) -> Any:
        raise NotImplementedError

    async def remove_runs(self, project: str, **bounds: Any) -> Any:
        raise NotImplementedError

    async def reclaim(self) -> None:
        raise NotImplementedError

    async def check(self) -> Any:
        raise NotImplementedError


def ids_allow(condition: ast.Condition, document: Document) -> bool:
    if isinstance(condition, ast.And):
        return all(ids_allow(inner, document) for inner in condition.conditions)
    if isinstance(condition, ast.Test) and condition.reference in IDS and isinstance(condition.operator, ast.In):
        return document[str(condition.reference)] in condition.operator.values
    return True


def sort_value(document: Document, reference: ast.Reference) -> Any:
    value: Any = document
    steps = (
        reference.path
        if isinstance(reference, ast.Field)
        else ("metrics", reference.name, *([] if reference.key is None else [reference.key]))
    )
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def comparison(sort: Sequence[ast.SortKey]) -> Any:
    def compare(left: Sequence[Any], right: Sequence[Any]) -> int:
        for key, one, other in zip(sort, left, right, strict=True):
            a, b = order_key(one), order_key(other)
            if a != b:
                return (1 if a > b else -1) * (-1 if key.descending else 1)
        return 0

    return compare
