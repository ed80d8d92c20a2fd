"""Sorting stages by a metric that many of them share the value of, in the SQLite store."""

from __future__ import annotations

import asyncio
import random

import pytest

from xray_server.query import ast
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore, ties
from xray_server.testing_data import PROJECT, ids

RATIO = ast.Metric("fail_ratio")
ID = ast.Field(("id",))
STAGES = 600


def stages(order, count=STAGES):
    """Stages of few different values, in the order in which they are written."""
    draw = random.Random(5)
    made = [
        {
            "id": f"019e7044-{number:04x}-7000-8000-000000000000",
            "run_id": f"019e7044-{number:04x}-7000-9000-000000000000",
            "name": draw.choice(("price_filter", "stock_filter")),
            "type": "filtering",
            "started_at": number,
            "metrics": {} if number % 50 == 7 else {"fail_ratio": draw.choice((0.25, 0.5, 1, 1.0, 1.0, 1.0))},
        }
        for number in range(count)
    ]
    if order == "at random":
        draw.shuffle(made)
    elif order == "some late":
        made = [stage for stage in made if draw.random() > 0.1] + [stage for stage in made if draw.random() < 0.5]
    elif order == "latest first":
        made.reverse()
    return {stage["id"]: stage for stage in made}


@pytest.fixture(scope="module", params=["in order", "some late", "at random", "latest first"])
def written(request, tmp_path_factory):
    """A runner, an open store, and the stages that were written to it one after the other."""
    with asyncio.Runner() as runner:
        store = SqliteStore(tmp_path_factory.mktemp("ties") / "xray.sqlite3")
        runner.run(store.open())
        made = stages(request.param)
        runner.run(store.write(PROJECT, WriteBatch(stages=made)))
        yield runner, store, made
        runner.run(store.close())


def pages(runner, store, scan, size):
    """The ids of a scan, page by page."""
    found, after = [], None
    while True:
        rows = runner.run(store.scan(PROJECT, ast.Scan(**(scan | {"after": after, "limit": size}))))
        found += ids(rows)
        assert len(found) <= STAGES, "stages come twice"
        if len(rows) < size:
            return found
        after = rows[-1].sort_values


def expected(made, *, descending, holds=lambda stage: True):
    """What a scan by the metric and then by id gives."""
    lowest = float("-inf")
    values = {key: stage["metrics"].get("fail_ratio", lowest) for key, stage in made.items() if holds(stage)}
    return sorted(values, key=lambda key: (values[key], key), reverse=descending)


@pytest.mark.parametrize(("few", "ids_for_one"), [(500, 10), (0, 10), (0, 1), (0, 0)], ids=["few", "10", "1", "0"])
@pytest.mark.parametrize("descending", [True, False], ids=["highest", "lowest"])
@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_stages_of_one_value_come_by_id_on_every_page(written, monkeypatch, size, descending, few, ids_for_one):
    """However stages came in, and by whichever index the others of a value are found, pages follow each other by id."""
    monkeypatch.setattr(ties, "FEW", few)
    monkeypatch.setattr(ties, "IDS_FOR_ONE", ids_for_one)
    runner, store, made = written
    sort = (ast.SortKey(RATIO, descending), ast.SortKey(ID, descending))
    named = ast.Test(ast.Field(("name",)), ast.Compare("eq", "price_filter"))
    everything = expected(made, descending=descending)
    if size > 1:
        assert pages(runner, store, {"of": "stages", "sort": sort}, size) == everything
    of_name = expected(made, descending=descending, holds=lambda stage: stage["name"] == "price_filter")
    if size == 1:
        scan = ast.Scan("stages", stage=named, sort=sort, limit=1)
        assert ids(runner.run(store.scan(PROJECT, scan))) == of_name[:1]
    else:
        assert pages(runner, store, {"of": "stages", "sort": sort, "stage": named}, size) == of_name


@pytest.mark.parametrize("descending", [True, False], ids=["highest", "lowest"])
def test_a_page_goes_on_after_a_stage_that_is_gone(written, descending):
    """Where the last stage of a page was removed meanwhile, the next page begins with the one behind it."""
    runner, store, made = written
    sort = (ast.SortKey(RATIO, descending), ast.SortKey(ID, descending))
    everything = expected(made, descending=descending)
    for place in range(0, len(everything) - 1, 37):
        ratio = made[everything[place]]["metrics"].get("fail_ratio")
        if ratio is not None:
            gone = everything[place][:-1] + "1"  # right behind the stage, whichever way one goes
            scan = ast.Scan("stages", sort=sort, after=(ratio, gone), limit=20)
            first = place if descending else place + 1
            assert ids(runner.run(store.scan(PROJECT, scan))) == everything[first : first + 20]


def steps_of_a_page(tmp_path, count):
    """How many steps SQLite's machine makes for a page of the highest, by tens."""

    async def run():
        store = SqliteStore(tmp_path / f"{count}.sqlite3")
        await store.open()
        try:
            await store.write(PROJECT, WriteBatch(stages=stages("in order", count)))
            sort = (ast.SortKey(RATIO, descending=True), ast.SortKey(ID, descending=True))
            seen = []

            def counted(connection):
                connection.set_progress_handler(lambda: seen.append(1), 10)
                try:
                    return store._reader()._scan(PROJECT, ast.Scan("stages", sort=sort, limit=10), [])
                finally:
                    connection.set_progress_handler(None, 0)

            rows = await store._read(counted)
            assert ids(rows) == expected(stages("in order", count), descending=True)[:10]
            return len(seen)
        finally:
            await store.close()

    return asyncio.run(run())


def test_those_of_one_value_are_read_only_as_far_as_a_page_needs_them(tmp_path, monkeypatch):
    """A page takes no more steps where sixteen times as many stages share its value."""
    monkeypatch.setattr(ties, "FEW", 50)
    monkeypatch.setattr(ties, "MOST", 200)
    assert steps_of_a_page(tmp_path, 16_000) < 1.5 * steps_of_a_page(tmp_path, 1000)
