"""A store as somebody else might write one: everything in memory, and in one file after each change.

It knows of X-Ray what plugins may know: the contract, the documents' merge, the evaluator.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cmp_to_key
from pathlib import Path
from typing import Any, ClassVar

import xray
from tests.server.query.memory_store import comparison, sort_value
from xray.exceptions import StoreClosed, StoreError
from xray.ids import id_time_ms, now_ms
from xray_server.documents import RUN_FIELDS, STAGE_FIELDS, Document, merge_into
from xray_server.pages import PAGE_SIZE, CandidatePage, merge_pages
from xray_server.query.ast import EVERYTHING, Condition, Scan
from xray_server.query.evaluate import compile_condition
from xray_server.query.narrowing import PageFilter, concerns_only_pipeline
from xray_server.rollups import HOUR_MS, changed_buckets, order
from xray_server.stores.base import (
    Bucket,
    Finding,
    NamedDocument,
    PipelineSummary,
    Removed,
    Rollup,
    Row,
    Store,
    Usage,
    WriteBatch,
)
from xray_server.stores.encoding import merge_declarations

Page = tuple[str, int]


class Project:
    """What one project has."""

    def __init__(self) -> None:
        self.runs: dict[str, Document] = {}
        self.stages: dict[str, Document] = {}
        self.pages: dict[Page, CandidatePage] = {}
        self.declarations: dict[str, list[dict[str, Any]]] = {}
        self.dirty: dict[Bucket, int] = {}
        self.kept: dict[Bucket, Rollup] = {}
        self.marks = 0
        self.named: dict[tuple[str, str], NamedDocument] = {}


class FileStore(Store):
    """A store in one file, for small data.

    Args:
        path: The file.
    """

    kind: ClassVar[str] = "file"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._projects: dict[str, Project] | None = None

    async def open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._projects is None:
            self._projects = pickle.loads(self.path.read_bytes()) if self.path.exists() else {}

    async def close(self) -> None:
        self._projects = None

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "location": str(self.path)}

    def _all(self) -> dict[str, Project]:
        if self._projects is None:
            raise StoreClosed("The store is not open.")
        return self._projects

    def _of(self, project: str) -> Project:
        return self._all().get(project) or Project()

    def _save(self) -> None:
        """Write everything beside the file and put it in its place, as one step."""
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            pickle.dump(self._all(), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    # --- documents ----------------------------------------------------------------------------------------------

    async def write(self, project: str, batch: WriteBatch) -> None:
        there = self._all()
        if batch.is_empty():
            return
        for fields, partials in ((RUN_FIELDS, batch.runs), (STAGE_FIELDS, batch.stages)):
            for name in (name for partial in partials.values() for name in partial):
                if name not in fields:
                    raise StoreError(f"There is no field '{name}'.", path=name)
        known = there.setdefault(project, Project())
        given = copy.deepcopy(batch)
        for run_id, partial in given.runs.items():
            merge_into(known.runs.setdefault(run_id, {"id": run_id}), partial)
        for stage_id, partial in given.stages.items():
            before = copy.deepcopy(known.stages.get(stage_id, {}))
            after = merge_into(known.stages.setdefault(stage_id, {"id": stage_id}), partial)
            for bucket in changed_buckets(before, after):
                known.marks += 1
                known.dirty[bucket] = known.marks
        for page in given.pages:
            key = page.stage_id, page.page
            known.pages[key] = merge_pages(known.pages[key], page) if key in known.pages else page
        for stage_type, declared in given.declarations.items():
            merged = merge_declarations(known.declarations.get(stage_type, ()), declared)
            known.declarations[stage_type] = [dict(each) for each in merged]
        self._save()

    async def scan(self, project: str, scan: Scan) -> Sequence[Row]:
        known = self._of(project)
        documents = known.stages.values() if scan.of == "stages" else known.runs.values()
        holds = self._stage_holds(known, scan) if scan.of == "stages" else self._run_holds(known, scan)
        rows = [
            Row(copy.deepcopy(each), tuple(sort_value(each, key.reference) for key in scan.sort))
            for each in documents
            if holds(each)
        ]
        compare = comparison(scan.sort)
        rows = [row for row in rows if scan.after is None or compare(row.sort_values, scan.after) > 0]
        rows.sort(key=cmp_to_key(lambda left, right: compare(left.sort_values, right.sort_values)))
        return rows[: scan.limit]

    def _stage_holds(self, known: Project, scan: Scan) -> Any:
        stage, run = compile_condition(scan.stage), compile_condition(scan.pipeline)
        by_copy = concerns_only_pipeline(scan.pipeline)

        def holds(document: Document) -> bool:
            run_id = document["run_id"]
            of_run = {**document.get("pipeline", {}), "id": run_id} if by_copy else known.runs.get(run_id)
            return of_run is not None and stage(document) and run(of_run) and self._has(known, document, scan.candidate)

        return holds

    def _run_holds(self, known: Project, scan: Scan) -> Any:
        run, stage = compile_condition(scan.pipeline), compile_condition(scan.stage)
        if scan.stage == EVERYTHING and scan.candidate is None:
            return run
        of_run = defaultdict(list)
        for each in known.stages.values():
            of_run[each["run_id"]].append(each)
        return lambda document: (
            run(document)
            and any(stage(each) and self._has(known, each, scan.candidate) for each in of_run[document["id"]])
        )

    @staticmethod
    def _has(known: Project, stage: Document, candidate: Condition | None) -> bool:
        if candidate is None or candidate == EVERYTHING:
            return True
        may_match = PageFilter(candidate).may_match
        return any(may_match(page) for (stage_id, _), page in known.pages.items() if stage_id == stage["id"])

    async def pages(self, project: str, stage_id: str, *, from_seq: int = 0) -> AsyncIterator[CandidatePage]:
        pages = self._of(project).pages
        for key in sorted(key for key in pages if key[0] == stage_id and key[1] >= from_seq // PAGE_SIZE):
            yield pages[key]

    async def pipelines(self, project: str) -> Sequence[PipelineSummary]:
        by_label = defaultdict(list)
        for run in self._of(project).runs.values():
            by_label[run.get("label")].append(run)
        found = []
        for label, runs in by_label.items():
            starts = [run["started_at"] for run in runs if run.get("started_at") is not None]
            words = [sorted({run[name] for run in runs if run.get(name)}) for name in ("version", "environment")]
            failures = sum(run.get("status") == "failure" for run in runs)
            first, last = min(starts, default=None), max(starts, default=None)
            found.append(PipelineSummary(label, len(runs), failures, first, last, tuple(words[0]), tuple(words[1])))
        return sorted(found, key=lambda each: -(each.last_started_at or 0))

    async def declarations(self, project: str) -> Mapping[str, list[dict[str, Any]]]:
        return copy.deepcopy(self._of(project).declarations)

    # --- rollups ------------------------------------------------------------------------------------------------

    async def dirty_buckets(
        self, project: str, *, limit: int, label: str | None = None, since: int | None = None, until: int | None = None
    ) -> Sequence[tuple[Bucket, int]]:
        dirty = self._of(project).dirty
        return [(bucket, dirty[bucket]) for bucket in _within(dirty, label, None, since, until)][:limit]

    async def keep_rollups(self, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
        known = self._all().get(project)
        if known is None:
            return
        for rollup, mark in rollups:
            there = known.dirty.get(rollup.bucket)
            if there is None:
                continue
            if rollup.stage_count:
                known.kept[rollup.bucket] = rollup
            else:
                known.kept.pop(rollup.bucket, None)
            if there <= mark:
                del known.dirty[rollup.bucket]
        self._save()

    async def rollups(
        self, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
    ) -> Sequence[Rollup]:
        kept = self._of(project).kept
        return [kept[bucket] for bucket in _within(kept, label, name, since, until)]

    # --- keeping house ------------------------------------------------------------------------------------------

    async def keep_named(self, project: str, kind: str, name: str, document: Document) -> NamedDocument:
        known, now = self._all().setdefault(project, Project()), now_ms()
        there = known.named.get((kind, name))
        # As text: to Python the order of keys is no difference.
        if there is None or repr(there.document) != repr(document):
            created = now if there is None else there.created_at
            there = known.named[kind, name] = NamedDocument(kind, name, copy.deepcopy(document), created, now)
            self._save()
        return copy.deepcopy(there)

    async def named(self, project: str, kind: str, name: str) -> NamedDocument | None:
        return copy.deepcopy(self._of(project).named.get((kind, name)))

    async def all_named(self, project: str, kind: str) -> Sequence[NamedDocument]:
        return [copy.deepcopy(each) for key, each in sorted(self._of(project).named.items()) if key[0] == kind]

    async def remove_named(self, project: str, kind: str, name: str) -> bool:
        found = self._of(project).named.pop((kind, name), None)
        self._save()
        return found is not None

    async def projects(self) -> Sequence[str]:
        return sorted(name for name, known in self._all().items() if known.runs or known.stages or known.pages)

    async def usage(self) -> Usage:
        all_ = self._all().values()
        size = self.path.stat().st_size if self.path.exists() else 0
        counts = (sum(len(getattr(known, of)) for known in all_) for of in ("runs", "stages", "pages"))
        return Usage(size, *counts)

    async def remove_candidates(
        self, project: str, *, before: int | None, limit: int, dry_run: bool = False
    ) -> Removed:
        known = self._of(project)
        old = [page for page in known.pages.values() if before is None or (page.started_at or 0) < before]
        old.sort(key=lambda page: (page.started_at or 0, page.stage_id, page.page))
        going = old if dry_run else old[:limit]
        removed = _removed(going)
        if not dry_run and going:
            for page in going:
                del known.pages[page.stage_id, page.page]
                if page.stage_id in known.stages:
                    known.stages[page.stage_id]["candidates_removed_at"] = now_ms()
            self._save()
        return removed

    async def remove_runs(self, project: str, *, before: int | None, limit: int, dry_run: bool = False) -> Removed:
        known = self._of(project)
        ages = {run_id: run.get("started_at") or id_time_ms(run_id) for run_id, run in known.runs.items()}
        old = [each for each, age in ages.items() if before is None or (age is not None and age < before)]
        old.sort(key=lambda run_id: (ages[run_id] or 0, run_id))
        going = set(old if dry_run else old[:limit])
        stages = {stage_id for stage_id, stage in known.stages.items() if stage["run_id"] in going}
        pages = [page for page in known.pages.values() if page.run_id in going or page.stage_id in stages]
        up_to = max((age for run_id in going if (age := ages[run_id]) is not None), default=None)
        counted = _removed(pages)
        removed = Removed(len(going), len(stages), counted.pages, counted.candidates, up_to)
        if dry_run or not going:
            return removed
        for page in pages:
            del known.pages[page.stage_id, page.page]
        known.stages = {key: stage for key, stage in known.stages.items() if key not in stages}
        known.runs = {key: run for key, run in known.runs.items() if key not in going}
        first = min((ages[run_id] or 0 for run_id in known.runs), default=None)
        for buckets in (known.dirty, known.kept):
            for bucket in list(buckets):
                if first is None or bucket.hour < first // HOUR_MS * HOUR_MS:
                    del buckets[bucket]
        self._save()
        return removed

    async def reclaim(self) -> None:
        self._all()

    async def check(self) -> Sequence[Finding]:
        size = (await self.usage()).size_bytes
        return [Finding("the file", ok=True, detail=f"{size} bytes"), Finding("questions", ok=True, detail="in memory")]


def _within(
    buckets: Mapping[Bucket, Any], label: str | None, name: str | None, since: int | None, until: int | None
) -> Iterator[Bucket]:
    for bucket in sorted(buckets, key=order):
        if (
            (label is None or bucket.label == label)
            and (name is None or bucket.name == name)
            and (since is None or bucket.hour >= since)
            and (until is None or bucket.hour < until)
        ):
            yield bucket


def _removed(pages: Sequence[CandidatePage]) -> Removed:
    up_to = max((page.started_at for page in pages if page.started_at is not None), default=None)
    return Removed(0, len({page.stage_id for page in pages}), len(pages), sum(len(page.seqs) for page in pages), up_to)


@xray.hookimpl
def xray_stores() -> dict[str, Any]:
    """What X-Ray asks this module for, as a plugin: ``file:///path``."""
    return {"file": lambda url: FileStore(Path(url.removeprefix("file://")))}
