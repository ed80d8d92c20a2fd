"""A question whose scan is cut off at its deadline: what was found counts, and the cursor goes on behind it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from xray_server.errors import status_of
from xray_server.query import ast
from xray_server.query.run import answer
from xray_server.stores.base import ScanCut, WriteBatch
from xray_server.stores.sqlite import SqliteStore, reader
from xray_server.testing_data import PROJECT, ids, sample_runs, sample_stages

HIGH = ast.Test(ast.Metric("fail_ratio"), ast.Compare("gte", 0))


class CutsOff(SqliteStore):
    """Every scan that has a deadline is cut off after three rows."""

    async def scan(self, project, scan):
        rows = await super().scan(project, replace(scan, deadline=None))
        if scan.deadline is not None and len(rows) > 3:
            raise ScanCut(rows[:3])
        return rows


def with_sample(store, use):
    async def run():
        await store.open()
        try:
            runs = sample_runs()
            await store.write(PROJECT, WriteBatch(runs=runs, stages=sample_stages(runs)))
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.mark.parametrize("returns", ["stages", "runs", "candidates"])
def test_following_the_cursor_of_cut_scans_finds_everything(tmp_path, returns):
    """Page by page, cut off again and again, the answer is the one of a store that is never cut off."""
    question = ast.Question(returns=returns, stage=HIGH, limit=50)

    async def pages(store):
        found, after, incomplete = [], None, 0
        while True:
            page = await answer(store, PROJECT, replace(question, after=after))
            found += [row["id"] for row in page.rows if "id" in row]
            incomplete += not page.coverage.complete
            if page.next is None:
                return found, incomplete
            assert page.next != after
            after = page.next

    whole, _ = with_sample(SqliteStore(tmp_path / "whole.sqlite3"), pages)
    found, incomplete = with_sample(CutsOff(tmp_path / "cut.sqlite3"), pages)
    assert found == whole
    assert incomplete > 3


def test_a_scan_with_nothing_until_its_deadline_is_a_clear_error(tmp_path, monkeypatch):
    """Where nothing was found there is nowhere to go on from: the error says what to do."""
    monkeypatch.setattr(reader, "STEPS_BETWEEN_LOOKS", 1)

    async def use(store):
        with pytest.raises(ScanCut) as caught:
            await answer(store, PROJECT, ast.Question(stage=HIGH), time_budget_s=-1)
        assert (caught.value.code, status_of(caught.value)) == ("too_slow", 422)
        assert len(await store.scan(PROJECT, ast.Scan("stages", limit=50))) == 24  # the next one is not cut off

    with_sample(SqliteStore(tmp_path / "xray.sqlite3"), use)


def test_sqlite_stops_at_the_deadline_with_what_it_has(tmp_path, monkeypatch):
    """What SQLite gives until the deadline is the beginning of the whole answer."""
    looks = itertools.count()
    monkeypatch.setattr(reader, "STEPS_BETWEEN_LOOKS", 20)

    async def use(store):
        whole = ids(await store.scan(PROJECT, ast.Scan("stages", limit=50)))
        monkeypatch.setattr(reader, "now_s", lambda: next(looks))
        with pytest.raises(ScanCut) as caught:
            await store.scan(PROJECT, ast.Scan("stages", limit=50, deadline=40))
        monkeypatch.undo()
        found = ids(caught.value.rows)
        assert 0 < len(found) < len(whole)
        assert found == whole[: len(found)]

    with_sample(SqliteStore(tmp_path / "xray.sqlite3"), use)
