"""Files of every form that there has been: opened by this version, nothing in them is missing."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest
import zstandard

from xray_server.query.ast import And, Compare, Field, Metric, Scan
from xray_server.query.ast import Test as Condition
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore
from xray_server.stores.sqlite.schema import MIGRATIONS
from xray_server.testing_data import PROJECT, documents, ids

RUN_ID = "01890000-0000-7000-8000-000000000001"
STAGE_ID = "01890000-0000-7000-8000-000000000002"
START = 1_793_491_200_000

RUN = {"id": RUN_ID, "key": "request 1", "label": "shop", "started_at": START, "status": "success", "tags": ["a"],
       "metadata": {"team": "ads"}, "input": {"q": 1}}  # fmt: skip
STAGE = {"id": STAGE_ID, "run_id": RUN_ID, "name": "filter", "type": "filtering", "order": 3, "started_at": START + 5,
         "metrics": {"failed": 2, "label_counts": {"dear": 1}}, "metrics_over": 2,
         "pipeline": {"id": RUN_ID, "key": "request 1", "label": "shop", "started_at": START}}  # fmt: skip
CANDIDATES = [
    {"candidate_id": "x1", "verdict": "failed", "reason_label": "dear", "score": 0.5, "data": {"n": 1}},
    {"candidate_id": "x2", "verdict": "failed", "score": 2.0, "data": {"n": 2}},
]
DECLARED = {"audit": [{"name": "oddness", "kind": "number"}]}

STAGE_COLUMNS = """stages (
    row, project, id, run_id, name, type, "order", started_at, metrics_over, pipeline_id, pipeline_key, pipeline_label,
    pipeline_started_at, rest
)"""
ROWS_1 = [
    ("words", [(1, "default"), (2, "shop"), (3, "success"), (4, "filter"), (5, "filtering")]),
    ("runs (row, project, id, key, label, started_at, status, metadata, tags, rest)", [
        (7, 1, bytes.fromhex(RUN_ID.replace("-", "")), "request 1", 2, START, 3, '{"team":"ads"}', '["a"]',
         '{"input":{"q":1}}'),
    ]),
    (STAGE_COLUMNS, [
        (9, 1, bytes.fromhex(STAGE_ID.replace("-", "")), bytes.fromhex(RUN_ID.replace("-", "")), 4, 5, 3, START + 5, 2,
         1, "request 1", 2, START,
         zstandard.compress(b'{"metrics":{"failed":2,"label_counts":{"dear":1}}}')),
    ]),
    ("metric_names", [(1, 1, "failed"), (2, 1, "label_counts"), (3, 1, "label_counts.dear")]),
    ("stage_metrics", [(1, 2, 9), (2, "t", 9), (3, 1, 9)]),
    ("pages (row, project, started_at, candidates, score_low, score_high, marks, block)", [
        (9 << 24, 1, START, 2, 0.5, 2.0, bytes.fromhex("9a4d cbf7 3747"), zstandard.compress(
            b'[null,[0],{"pre":"x","width":1,"text":"12"},["dear"]]\n'
            b'[1,2,{"verdict":{"same":"failed"},"reason_label":["dear",null],"score":[0.5,2.0],'
            b'"data":{"keys":["n"],"by":[[1,2]]}}]'
        )),
    ]),
    ("declarations", [("default", "audit", json.dumps(DECLARED["audit"]))]),
]  # fmt: skip
"""What a file of form 1 has, written down as it was then; a later form adds what it has beside that."""

ROWS = (ROWS_1,)


def file_of_form(file, form):
    """A file as the version of X-Ray wrote it whose newest form was this one."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA application_id = 1481793913")
    for number in range(form):
        connection.executescript(MIGRATIONS[number])
        for table, rows in ROWS[number] if number < len(ROWS) else ():
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    connection.execute(f"PRAGMA user_version = {form}")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("form", range(1, len(MIGRATIONS) + 1))
def test_a_file_of_an_earlier_form_has_everything(tmp_path, form):
    """Documents, metrics, candidates and declarations of each form are found, and more can be written."""
    file = tmp_path / "xray.sqlite3"
    file_of_form(file, form)

    async def use():
        store = SqliteStore(file)
        await store.open()
        try:
            assert await documents(store, "runs") == {RUN_ID: RUN}
            assert await documents(store, "stages") == {STAGE_ID: STAGE}
            (page,) = [page async for page in store.pages(PROJECT, STAGE_ID)]
            assert list(page.columns().rows()) == CANDIDATES
            assert (page.run_id, page.started_at, page.seqs) == (RUN_ID, START, (0, 1))
            assert page.reason_labels == ("dear",)
            assert await store.declarations(PROJECT) == DECLARED
            assert [pipeline.label for pipeline in await store.pipelines(PROJECT)] == ["shop"]
            for condition in (
                Condition(Metric("failed"), Compare("gte", 2)),
                Condition(Metric("label_counts", "dear"), Compare("eq", 1)),
                Condition(Field(("name",)), Compare("eq", "filter")),
            ):
                assert ids(await store.scan(PROJECT, Scan("stages", stage=condition))) == [STAGE_ID]
            for field, found, not_found in (
                ("candidate_id", "x2", "x3"), ("reason_label", "dear", "cheap"), ("score", 2, 3),
            ):  # fmt: skip
                for value, expected in ((found, [STAGE_ID]), (not_found, [])):
                    asked = Condition(Field((field,)), Compare("eq", value))
                    assert ids(await store.scan(PROJECT, Scan("stages", candidate=And((asked,))))) == expected
            more = {"id": STAGE_ID, "run_id": RUN_ID, "metrics": {"failed": 3}, "metrics_over": 3}
            await store.write(
                PROJECT, WriteBatch(stages={STAGE_ID: more}, runs={RUN_ID: {"id": RUN_ID, "version": "2"}})
            )
            assert (await documents(store, "runs"))[RUN_ID] == RUN | {"version": "2"}
            for failed, expected in ((2, []), (3, [STAGE_ID])):
                asked = Condition(Metric("failed"), Compare("eq", failed))
                assert ids(await store.scan(PROJECT, Scan("stages", stage=asked))) == expected
        finally:
            await store.close()

    asyncio.run(use())
