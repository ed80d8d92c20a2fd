"""What the conformance suite of stores writes, and what it asks about it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xray.stage_types.base import Columns
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, CandidatePage, paginate
from xray_server.query.ast import (
    And,
    Compare,
    Condition,
    Exists,
    Field,
    In,
    Metric,
    Not,
    Operator,
    Or,
    Reference,
    Scan,
    SortKey,
    Test,
)
from xray_server.stores.base import Row, Store, WriteBatch

PROJECT = "default"
BY_ID = SortKey(Field(("id",)))
RUN_ID = "00000000-0000-7000-8000-00000000000a"
STAGE_ID = "00000000-0000-7000-9000-00000000000a"

# --- data -------------------------------------------------------------------------------------------------------


def sample_runs() -> dict[str, Document]:
    """Runs with every kind of scalar field; which of them a run has differs."""
    runs: dict[str, Document] = {}
    for n in range(12):
        run: Document = {"id": f"00000000-0000-7000-8000-{n:012d}", "status": ("running", "success", "failure")[n % 3]}
        if n % 4:
            run |= {"label": f"pipeline {n % 2}", "started_at": 1_800_000_000_000 + n // 2, "version": str(n)}
        if n % 3:
            run |= {"duration_ms": n / 2 if n % 2 else n, "stage_count": n % 5, "key": "n\u00e9\u00a0\U0001f600"}
        if n % 5:
            run |= {"metadata": {"team": ["search", "ads"][n % 2], "n": n}, "tags": sorted({"a", f"t{n % 3}"})}
        runs[run["id"]] = run
    return runs


def sample_stages(runs: Mapping[str, Document]) -> dict[str, Document]:
    """Two stages of each run, with and without metrics."""
    stages: dict[str, Document] = {}
    for n, run in enumerate(itertools.chain(runs.values(), runs.values())):
        stage: Document = {
            "id": f"00000000-0000-7000-9000-{n:012d}",
            "run_id": run["id"],
            "pipeline": {name: run[name] for name in ("id", "key", "label", "version", "started_at") if name in run},
            "type": ("filtering", "scoring", "plugin_type")[n % 3],
            "order": n // len(runs),
        }
        if n % 4:
            metrics: Document = {"fail_ratio": n % 6 / 5, "failed": n}
            if n % 3:
                metrics["label_counts"] = {"price.too high": n % 4, "other": 1}
            if n % 5 == 0:
                metrics["histogram"] = {"edges": [0, 1.5], "counts": [3]}
            stage |= {"metrics": metrics, "metrics_over": n, "name": f"stage {n % 7}", "duration_ms": n * 0.1}
        stages[stage["id"]] = stage
    return stages


def sample_columns(count: int) -> Columns:
    """Candidates with verdicts, reason labels, scores and data."""
    return Columns(
        [f"candidate {n}" for n in range(count)],
        {
            "verdict": ["failed" if n % 2 else "passed" for n in range(count)],
            "reason_label": ["too_dear" if n % 2 else None for n in range(count)],
            "score": [n / 8 for n in range(count)],
            "data": [{"n": n, "words": ["a", "\u00e9"]} for n in range(count)],
        },
    )


def sample_batch() -> WriteBatch:
    """All sample runs and stages, and candidates of one stage."""
    runs = sample_runs()
    pages = paginate(RUN_ID, STAGE_ID, 1_800_000_000_000, sample_columns(PAGE_SIZE + 10))
    return WriteBatch(runs, sample_stages(runs), pages, {"plugin_type": [{"name": "oddness", "kind": "number"}]})


def tests_on(reference: Reference, values: Iterable[Any]) -> Iterator[Condition]:
    """Conditions on one field or metric with these values: every operator, null, and the complements."""
    given = list(values)
    operators: list[Operator] = [Exists(wanted=True), Exists(wanted=False), In(()), In((*given[:2], None))]
    for value in (*given, None):
        operators += [
            Compare("eq", value),
            Compare("gt", value),
            Compare("gte", value),
            Compare("lt", value),
            Compare("lte", value),
        ]
    for operator in operators:
        yield Test(reference, operator)
        yield Not(Test(reference, operator))


RUN_CONDITIONS = tuple(
    condition
    for path, values in (
        (("id",), ["00000000-0000-7000-8000-000000000003"]),
        (("key",), ["n\u00e9\u00a0\U0001f600", "k"]),
        (("label",), ["pipeline 1"]),
        (("version",), ["10", "2"]),
        (("status",), ["success"]),
        (("started_at",), [1_800_000_000_003]),
        (("duration_ms",), [2, 2.5]),
        (("stage_count",), [0, 3]),
    )
    for condition in tests_on(Field(path), values)
)
STAGE_CONDITIONS = tuple(
    condition
    for reference, values in (
        (Field(("type",)), ["scoring"]),
        (Field(("name",)), ["stage 3"]),
        (Field(("order",)), [0]),
        (Field(("pipeline", "label")), ["pipeline 1"]),
        (Metric("fail_ratio"), [0.4, 1]),
        (Metric("failed"), [7]),
        (Metric("label_counts", "price.too high"), [2]),
        (Metric("never_seen"), [1]),
    )
    for condition in tests_on(reference, values)
)


def in_order(documents: Iterable[Document], sort: Sequence[SortKey]) -> list[Document]:
    """The documents as a scan has to order them: stable sorts, from the last key to the first."""
    ordered = list(documents)
    for key in reversed(sort):

        def rank(document: Document, reference: Reference = key.reference) -> tuple[bool, Any]:
            value = value_of(document, reference)
            return value is not None, value

        ordered.sort(key=rank, reverse=key.descending)
    return ordered


def value_of(document: Document, reference: Reference) -> Any:
    """The single value of a field or metric, or None."""
    path = reference.path if isinstance(reference, Field) else ("metrics", reference.name, reference.key)
    value: Any = document
    for name in path:
        if name is not None:
            value = value.get(name) if isinstance(value, dict) else None
    return value


# --- reading ----------------------------------------------------------------------------------------------------


def combined(conditions: Sequence[Condition]) -> Iterator[Condition]:
    """Conjunctions, disjunctions and complements of neighbours far enough apart to be about different fields."""
    for left, right in zip(conditions, (*conditions[17:], *conditions[:17]), strict=True):
        yield And((left, right))
        yield Not(Or((left, Not(right))))


def ids(rows: Iterable[Row]) -> list[str]:
    """The ids of the documents that a scan found."""
    return [row.document["id"] for row in rows]


async def documents(store: Store, of: Any, project: str = PROJECT) -> dict[str, Document]:
    """Every run or stage of a project by id, read in several scans."""
    found: dict[str, Document] = {}
    after: tuple[Any, ...] | None = None
    while True:
        rows = await store.scan(project, Scan(of, after=after, limit=7))
        found |= {row.document["id"]: copy.deepcopy(row.document) for row in rows}
        if len(rows) < 7:
            return found
        after = rows[-1].sort_values


async def pages_of(store: Store, project: str = PROJECT) -> list[CandidatePage]:
    """The pages of the sample stage."""
    return [page async for page in store.pages(project, STAGE_ID)]
