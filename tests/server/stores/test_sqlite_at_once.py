"""What a few ids lead to, read in the SQLite store without going to another thread."""

from __future__ import annotations

import asyncio

import pytest

from xray_server.query import ast
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore, reader
from xray_server.stores.sqlite.threads import ReaderThreads
from xray_server.testing_data import PROJECT, ids, in_order, sample_runs, sample_stages

RUNS = sample_runs()
STAGES = sample_stages(RUNS)
ID = ast.SortKey(ast.Field(("id",)))
SORTS = (DEFAULT_SORT, (ID,), (ast.SortKey(ast.Field(("order",))), ID))
RATIO = (ast.SortKey(ast.Metric("fail_ratio"), descending=True), ast.SortKey(ast.Field(("id",)), descending=True))


def is_one_of(name, *values):
    test = ast.Compare("eq", values[0]) if len(values) == 1 else ast.In(values)
    return ast.And((ast.Test(ast.Field((name,)), test),))


@pytest.fixture
def read_by_threads(monkeypatch):
    """What the reader threads were given."""
    given = []
    once = ReaderThreads.run
    monkeypatch.setattr(ReaderThreads, "run", lambda self, function: given.append(function) or once(self, function))
    return given


def with_sample(tmp_path, use):
    async def run():
        store = SqliteStore(tmp_path / "xray.sqlite3")
        await store.open()
        try:
            await store.write(PROJECT, WriteBatch(runs=RUNS, stages=STAGES))
            await store.write("other", WriteBatch(stages={key: STAGES[key] for key in list(STAGES)[:1]}))
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def hold_all(store):
    """Each stage by its id, each run by its own, and the stages of each run, one after the other."""
    for sort in SORTS:
        for run_id in RUNS:
            scan = ast.Scan("runs", pipeline=is_one_of("id", run_id), sort=SORTS[1] if sort is SORTS[2] else sort)
            assert [row.document for row in await store.scan(PROJECT, scan)] == [RUNS[run_id]]
        for stage_id, stage in STAGES.items():
            scan = ast.Scan("stages", stage=is_one_of("id", stage_id), sort=sort)
            assert [row.document for row in await store.scan(PROJECT, scan)] == [stage]
    for sort in (*SORTS, RATIO):
        for run_id in RUNS:
            scan = ast.Scan("stages", stage=is_one_of("run_id", run_id), sort=sort)
            of_run = [stage for stage in STAGES.values() if stage["run_id"] == run_id]
            rows = await store.scan(PROJECT, scan)
            assert [row.document for row in rows] == in_order(of_run, sort)
            after = await store.scan(
                PROJECT, ast.Scan("stages", stage=scan.stage, sort=sort, after=rows[0].sort_values)
            )
            assert ids(after) == ids(rows)[1:]


def test_documents_of_one_id_are_read_at_once(tmp_path, read_by_threads):
    """Whichever id follows which, in whatever order they are sorted: the documents, and no thread is asked."""
    with_sample(tmp_path, hold_all)
    assert not read_by_threads


def test_what_takes_many_steps_is_left_to_a_thread(tmp_path, read_by_threads, monkeypatch):
    """The same documents come from there; the event loop is not kept."""
    monkeypatch.setattr(reader, "STEPS_AT_ONCE", 1)
    with_sample(tmp_path, hold_all)
    assert read_by_threads


def test_what_few_ids_lead_to_is_of_the_project(tmp_path):
    """An id of another project leads to nothing, though the statement for it is known."""

    async def use(store):
        of_both, of_one, *_ = STAGES
        for project, found in ((PROJECT, [of_both, of_one]), ("other", [of_both]), ("unknown", [])):
            for stage_id in (of_both, of_one):
                rows = await store.scan(project, ast.Scan("stages", stage=is_one_of("id", stage_id)))
                assert ids(rows) == [stage_id for one in found if one == stage_id]
            assert ids(await store.scan(project, ast.Scan("stages", stage=is_one_of("id", of_both, of_one)))) == found

    with_sample(tmp_path, use)


def test_a_missing_index_costs_no_answer(tmp_path, read_by_threads):
    """Where it cannot be read at once, a thread reads it in its own way."""

    async def use(store):
        await store._change(lambda connection: connection.execute("DROP INDEX stages_by_run"))
        await hold_all(store)

    with_sample(tmp_path, use)


def test_what_was_written_is_seen_at_once(tmp_path):
    """Each reading sees what was acknowledged before it."""

    async def use(store):
        stage_id, stage = next(iter(STAGES.items()))
        scan = ast.Scan("stages", stage=is_one_of("id", stage_id))
        for number in range(5):
            await store.write(PROJECT, WriteBatch(stages={stage_id: stage | {"duration_ms": number}}))
            assert (await store.scan(PROJECT, scan))[0].document["duration_ms"] == number

    with_sample(tmp_path, use)
