"""A question whose scan is cut off at its deadline: what was found counts, and the cursor goes on behind it."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace

import pytest

from tests.server.query.catalogs import catalog
from xray_server.errors import status_of
from xray_server.pages import paginate
from xray_server.query import ast, windows
from xray_server.query.aggregate import aggregate
from xray_server.query.aggregate_parser import parse_aggregation
from xray_server.query.cursor import decode_cursor, encode_cursor
from xray_server.query.run import answer
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import ScanCut, WriteBatch
from xray_server.stores.sqlite import SqliteStore, reader
from xray_server.testing_data import PROJECT, ids, sample_columns, sample_runs, sample_stages

HOUR_MS = 3_600_000
LATEST = 1_800_000_000_000
EARLIEST = LATEST - 3 * 24 * HOUR_MS - 7 * 17 * 60_000
STARTED_AT = ast.Field(("started_at",))
HIGH = ast.Test(ast.Metric("fail_ratio"), ast.Compare("gte", 0))


class CutsOff(SqliteStore):
    """Every scan that has a deadline is cut off after three rows."""

    async def scan(self, project, scan):
        rows = await super().scan(project, replace(scan, deadline=None))
        if scan.deadline is not None and len(rows) > 3:
            raise ScanCut(rows[:3])
        return rows


class PassesOver(SqliteStore):
    """Has nothing to show at its deadline, unless it is asked about no more than an hour, and counts these."""

    cut = whole = 0

    async def scan(self, project, scan):
        if scan.deadline is not None and not self.is_short(scan):
            type(self).cut += 1
            raise ScanCut([])
        type(self).whole += scan.deadline is not None
        return await super().scan(project, replace(scan, deadline=None))

    def is_short(self, scan):
        latest = LATEST if scan.after is None else scan.after[0]
        if scan.limit == 1 or latest < EARLIEST:  # what is the latest of all, and what has no start
            return True
        bounds = [part.operator.value for part in parts_of(scan) if part.reference == STARTED_AT]
        return bool(bounds) and latest - bounds[0] <= HOUR_MS


def parts_of(scan):
    """The tests that a scan's condition on its own collection consists of."""
    waiting, found = [scan.stage if scan.of == "stages" else scan.pipeline], []
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.And):
            waiting += part.conditions
        elif isinstance(part, ast.Test):
            found.append(part)
    return found


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
    monkeypatch.setattr(reader, "AT_LEAST_S", -10)

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


def with_old_ones(store, use):
    """Use a store whose only stages of interest began days ago, a few minutes apart, and some never."""

    async def run():
        await store.open()
        try:
            runs = sample_runs()
            stages = sample_stages(runs)
            for number, stage in enumerate(stages.values()):
                stage["started_at"] = LATEST - 3 * 24 * HOUR_MS - number // 3 * 17 * 60_000
                stage["candidates"] = number % 7
            newest = next(iter(stages.values()))
            newest |= {"started_at": LATEST, "metrics": {}, "metrics_over": 0}
            for number, run in enumerate(runs.values()):
                run["started_at"] = LATEST - number * 5 * HOUR_MS
            list(runs.values())[-1]["started_at"] = EARLIEST
            list(stages.values())[-1].pop("started_at")
            pages = [
                page
                for stage in stages.values()
                for page in paginate(stage["run_id"], stage["id"], None, sample_columns(stage.pop("candidates")))
            ]
            await store.write(PROJECT, WriteBatch(runs=runs, stages=stages, pages=pages))
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.mark.parametrize("returns", ["stages", "runs", "candidates"])
def test_a_scan_that_passes_over_everything_goes_on_with_a_cursor(tmp_path, monkeypatch, returns):
    """Where time is up with nothing found, the cursor goes on behind what was gone through; all is found in the end."""
    question = ast.Question(returns=returns, stage=HIGH, sort=DEFAULT_SORT, limit=5)
    looks = 0

    def now_s():
        nonlocal looks
        looks += 1  # each look at the clock takes a second
        return time.monotonic() + looks

    monkeypatch.setattr(windows, "now_s", now_s)

    async def pages(store):
        nonlocal looks
        found, after, empty = [], None, 0
        while True:
            looks = 0
            page = await answer(store, PROJECT, replace(question, after=after), time_budget_s=40)
            found += [(row.get("id"), row.get("stage_id"), row.get("seq")) for row in page.rows]
            if page.next is None:
                return found, empty
            empty += not page.rows
            assert page.rows or not page.coverage.complete
            assert decode_cursor(question, encode_cursor(question, page.next)) == page.next
            assert page.next != after
            after = page.next

    whole, _ = with_old_ones(SqliteStore(tmp_path / "whole.sqlite3"), pages)
    found, empty = with_old_ones(PassesOver(tmp_path / "cut.sqlite3"), pages)
    assert found == whole
    assert empty > 1
    assert PassesOver.cut > 3


def test_a_scan_that_waited_past_its_deadline_reads_for_a_moment(tmp_path, monkeypatch):
    """Who had to wait for others gets an answer all the same: asking again would end with nothing again."""
    monkeypatch.setattr(reader, "STEPS_BETWEEN_LOOKS", 1)
    monkeypatch.setattr(reader, "AT_LEAST_S", 60)

    async def use(store):
        found = await answer(store, PROJECT, ast.Question(stage=HIGH, limit=5), time_budget_s=-1)
        assert len(found.rows) == 5

    with_sample(SqliteStore(tmp_path / "xray.sqlite3"), use)


def test_figures_that_take_too_long_say_that_they_are_not_complete(tmp_path, monkeypatch):
    """An aggregation on SQLite stops at its deadline too, however its stages are read."""
    monkeypatch.setattr(reader, "STEPS_BETWEEN_LOOKS", 1)
    monkeypatch.setattr(reader, "AT_LEAST_S", -10)
    asked = parse_aggregation({"values": {"mean": {"$avg": "$failRatio"}}}, catalog())

    async def use(store):
        scan = ast.Scan("stages", limit=50, deadline=0)
        with pytest.raises(ScanCut) as caught:
            await store.grouped(PROJECT, scan, [], None, [ast.Metric("fail_ratio")])
        assert not caught.value.rows
        found = await aggregate(store, PROJECT, asked, time_budget_s=-1)
        assert (found.coverage.complete, found.coverage.matched) == (False, 0)
        assert (await aggregate(store, PROJECT, asked)).coverage.complete  # the next one is not cut off

    with_sample(SqliteStore(tmp_path / "xray.sqlite3"), use)
