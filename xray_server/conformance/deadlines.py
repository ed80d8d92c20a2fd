"""What a store owes to scans that have to come to an end, and to those that name several stages, as tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from pathlib import Path

from xray_server.conformance.suite import StoreSuite
from xray_server.query.ast import EVERYTHING, Compare, Condition, Exists, Field, Metric, Not, Scan, SortKey, Test
from xray_server.query.evaluate import matches
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import ScanCut, Store, WriteBatch
from xray_server.testing_data import BY_ID, PROJECT, RUN_ID, ids, sample_batch, sample_runs

_SCANS = (
    Scan("stages", sort=DEFAULT_SORT),
    Scan("stages", sort=(SortKey(Metric("fail_ratio"), descending=True), BY_ID)),
    Scan("stages", pipeline=Not(Test(Field(("status",)), Compare("eq", "failure"))), sort=DEFAULT_SORT),
    Scan("stages", candidate=Test(Field(("candidate_id",)), Compare("eq", "candidate 3"))),
    Scan("runs", sort=(SortKey(Field(("label",))), BY_ID)),
    Scan("runs", stage=Test(Metric("failed"), Exists(wanted=True)), sort=DEFAULT_SORT),
)
_SOON_S = (0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008)
"""From "nothing can be done" to "most is done"; whatever comes out has to be right."""


class DeadlineContract(StoreSuite):
    """``Scan.deadline``, which a store may not look at, and ``Scan.stages``."""

    def test_until_its_deadline_a_scan_finds_the_beginning_of_its_answer(self, tmp_path: Path) -> None:
        """Cut off or not: what is found comes first in the whole answer, and the same scan is answered afterwards."""

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            for scan in _SCANS:
                whole = await store.scan(PROJECT, scan)
                for left_s in (-1.0, *_SOON_S, 60.0):
                    cut = replace(scan, deadline=time.monotonic() + left_s)
                    try:
                        found, is_cut = await store.scan(PROJECT, cut), False
                    except ScanCut as error:
                        found, is_cut = error.rows, True
                    assert is_cut is False or left_s < 60
                    assert ids(found) == ids(whole)[: len(found)]
                    assert is_cut or len(found) == len(whole)
                    assert await store.scan(PROJECT, scan) == whole

        self.with_store(tmp_path, use)

    def test_scans_that_are_cut_off_at_once_harm_nobody(self, tmp_path: Path) -> None:
        """While many scans come to their deadline, others read and write as ever."""

        async def scan_until(store: Store, scan: Scan, left_s: float) -> None:
            with contextlib.suppress(ScanCut):
                await store.scan(PROJECT, replace(scan, deadline=time.monotonic() + left_s))

        async def use(store: Store) -> None:
            await store.write(PROJECT, sample_batch())
            whole = await asyncio.gather(*(store.scan(PROJECT, scan) for scan in _SCANS * 3))
            doomed = [scan_until(store, scan, left_s) for scan in _SCANS for left_s in (-1.0, 0.002)]
            write = store.write(PROJECT, WriteBatch(runs={RUN_ID: {"id": RUN_ID, "label": "late"}}))
            *_, rows, _ = await asyncio.gather(*doomed, store.scan(PROJECT, _SCANS[0]), write)
            assert rows == whole[0]
            assert await store.scan(PROJECT, _SCANS[1]) == whole[1]
            assert len(await store.scan(PROJECT, Scan("runs"))) == len(sample_runs()) + 1

        self.with_store(tmp_path, use)

    def test_runs_of_several_stages_are_never_too_few(self, tmp_path: Path) -> None:
        """A run that has a stage for each of the conditions is found; any one condition beside them is exact."""
        batch = sample_batch()
        first = Test(Field(("type",)), Compare("eq", "filtering"))
        second = Test(Metric("failed"), Compare("gte", 5))
        third = Test(Metric("never_seen"), Exists(wanted=True))
        free = Not(Test(Field(("metadata", "n")), Compare("eq", {"a": [1]})))
        conditions: list[tuple[Condition, ...]] = [
            (first,),
            (first, second),
            (second, first, Not(third)),
            (third, first),
            (free, first),
        ]

        async def use(store: Store) -> None:
            await store.write(PROJECT, batch)
            for stages in conditions:
                for stage in (EVERYTHING, *stages):
                    found = set(ids(await store.scan(PROJECT, Scan("runs", stage=stage, stages=stages))))
                    having = [
                        {one["run_id"] for one in batch.stages.values() if matches(condition, one)}
                        for condition in (*stages, stage)
                    ]
                    wanted = set.intersection(*having) & set(batch.runs)
                    assert wanted <= found <= having[-1]

        self.with_store(tmp_path, use)
