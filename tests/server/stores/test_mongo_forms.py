"""What the MongoDB store makes of ids, words, pages and dictionaries."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from tests.mongodb import Databases
from tests.server.stores.test_mongo import with_stores
from xray.exceptions import StoreError
from xray.ids import is_id
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, CandidatePage, paginate
from xray_server.query.ast import And, Compare, Condition, Field, In, Not, Or, Scan, SortKey
from xray_server.query.ast import Test as Condition_
from xray_server.query.evaluate import matches
from xray_server.stores.base import Removed, Store, WriteBatch
from xray_server.stores.mongo import MongoStore, dictionaries, ids, pages
from xray_server.stores.mongo.words import Word, Words, next_number
from xray_server.stores.questions import offered_questions
from xray_server.testing_data import PROJECT, documents, pages_of, sample_columns
from xray_server.testing_data import ids as ids_of

UUIDS = [str(uuid.UUID(int=number << 64 | number)) for number in (0, 1, 9, 10, 16**15, 2**64 - 1)]
TEXTS = [
    "",
    "#12",
    "0",
    "00000000",
    "00000000-",
    "0000000g",
    "a",
    "ffffffff-ffff-ffff-ffff-fffffffffffg",
    "z",
    "\u00e9",
]
START = 1_800_000_000_000


@pytest.fixture
def url(databases: Databases, tmp_path: Path) -> str:
    return databases.url(tmp_path)


def a_stage(number: int, stage_id: str | None = None, columns: int = 4) -> WriteBatch:
    """A run with one stage that says when its run began, and its candidates."""
    run_id, stage_id = str(uuid.UUID(int=number + 1)), stage_id or str(uuid.UUID(int=2**100 + number))
    pipeline = {"id": run_id, "label": "shop", "started_at": START + number}
    stage: Document = {
        "id": stage_id, "run_id": run_id, "name": "filter", "path": "filter", "type": "filtering", "order": number,
        "status": "success", "started_at": START + number, "pipeline": pipeline,
        "facts": {"shape": "flags", "number": number}, "metrics": {"failed": number}, "metrics_over": columns,
    }  # fmt: skip
    run = {**pipeline, "status": "success", "completeness": "complete"}
    found = paginate(run_id, stage_id, START + number, sample_columns(columns)) if columns else []
    return WriteBatch({run_id: run}, {stage_id: stage}, found)


async def all_pages(store: Store, stage_id: str) -> list[CandidatePage]:
    return [page async for page in store.pages(PROJECT, stage_id)]


# --- ids --------------------------------------------------------------------------------------------------------


@given(text=st.one_of(st.text("0123456789abcdefg-zA\u00e9", max_size=40), st.uuids().map(str)), number=st.uuids())
@example(text="ffffffff-ffff-ffff-ffff-ffffffffffff0", number=uuid.UUID(int=2**128 - 1))
@example(text="00000000-0000-0000-0000-0000000000000", number=uuid.UUID(int=1))
@example(text="0/", number=uuid.UUID(int=0))
def test_the_bound_of_a_text_parts_the_uuids_as_their_texts_do(text: str, number: uuid.UUID) -> None:
    """A UUID is at or above the bound where its text comes after the text that the bound was made of."""
    if is_id(text):
        return
    bound = ids.least_id_above(text)
    assert (bound is not None and number.bytes >= bound) is (str(number) > text)


def test_keys_say_what_they_were_made_of() -> None:
    """Project, id, stage and page come back, whether the id is a UUID or not; no two keys are the same."""
    keys = [ids.key(project, text) for project in (1, 258) for text in (*UUIDS, *TEXTS)]
    assert len(set(keys)) == len(keys)
    assert [(ids.project_of(key), ids.id_of(key)) for key in keys] == [
        (project, text) for project in (1, 258) for text in (*UUIDS, *TEXTS)
    ]
    for key in keys:
        assert ids.page_of(ids.page_key(key, 70_000)) == (key, 70_000)
        assert ids.project_of(ids.page_key(key, 3)) == ids.project_of(key)


def test_ids_of_both_kinds_are_compared_as_texts(url: str) -> None:
    """Conditions on ids mean the same whether an id is kept as bytes or as text, the document's own and others."""
    runs = {text: {"id": text} for text in (*UUIDS, *TEXTS)}
    stages = {f"s{text}": {"id": f"s{text}", "run_id": text, "pipeline": {"id": text}} for text in runs}
    stages["other"] = {"id": "other", "run_id": "a", "pipeline": {"id": UUIDS[2]}, "parent_id": UUIDS[3]}
    stages["none"] = {"id": "none", "run_id": "a", "parent_id": "z"}
    bounds = [*UUIDS, *TEXTS, UUIDS[3][:20], UUIDS[3] + "x"]

    async def use(store: Store) -> None:
        await store.write(PROJECT, WriteBatch(runs=runs, stages=stages))
        await store.write("other", WriteBatch(runs=runs, stages=stages))
        for bound in bounds:
            for op in ("eq", "gt", "gte", "lt", "lte"):
                condition = Condition_(Field(("id",)), Compare(op, bound))
                for asked in (condition, Not(condition)):
                    found = ids_of(await store.scan(PROJECT, Scan("runs", pipeline=asked)))
                    assert sorted(found) == sorted(i for i, run in runs.items() if matches(asked, run)), asked
                for path in (("run_id",), ("parent_id",), ("pipeline", "id")):
                    asked = Condition_(Field(path), Compare(op, bound))
                    found = ids_of(await store.scan(PROJECT, Scan("stages", stage=asked)))
                    assert sorted(found) == sorted(i for i, one in stages.items() if matches(asked, one)), asked

    with_stores(url, use)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("first", [None, "started_at", "path", "status"])
def test_ids_of_both_kinds_can_be_gone_through_in_steps(url: str, first: str | None, descending: bool) -> None:
    """In steps of any size, by id alone or behind another key, each document comes once, and always in one order."""
    sort: tuple[SortKey, ...] = (SortKey(Field(("id",)), descending),)
    if first is not None:
        sort = (SortKey(Field((first,)), descending), *sort)
    batch = WriteBatch()
    for number, text in enumerate((*UUIDS, *TEXTS)):
        batch.stages[text] = {"id": text, "run_id": UUIDS[0], "name": "ab"[number % 2]}
        if number % 3:
            batch.stages[text] |= {"started_at": START + number % 2, "path": "abc"[number % 3], "status": "failure"}
        elif number % 2:
            batch.stages[text] |= {"status": "success", "path": "ab"[number % 2]}

    async def use(store: Store) -> None:
        await store.write(PROJECT, batch)
        await store.write("other", batch)
        whole = await store.scan(PROJECT, Scan("stages", sort=sort))
        assert sorted(ids_of(whole)) == sorted(batch.stages)
        firsts = [(row.sort_values[0] is not None, row.sort_values[0]) for row in whole if first is not None]
        assert firsts == sorted(firsts, reverse=descending)
        for limit in (1, 3, 7):
            found: list[str] = []
            after = None
            while rows := await store.scan(PROJECT, Scan("stages", sort=sort, after=after, limit=limit)):
                found += ids_of(rows)
                after = rows[-1].sort_values
            assert found == ids_of(whole)

    with_stores(url, use)


# --- words ------------------------------------------------------------------------------------------------------


def test_a_text_gets_one_number_whoever_asks_first(url: str) -> None:
    """Many processes that number the same texts at once agree, and no number stands for two texts."""

    async def use(*stores: MongoStore) -> None:
        wanted = [Word(1, field, text) for field in ("name", "metric") for text in ("a", "b", "", "x" * 5000)]
        everyone = []
        for store in stores:
            async with store._asked_to("write") as database:
                everyone += [Words().numbers(database, wanted, make=True) for _ in range(4)]
        found = await asyncio.gather(*everyone)
        assert all(numbers == found[0] for numbers in found)
        for space in ("word", "metric"):
            numbers = [number for word, number in found[0].items() if word.space == space]
            assert len(set(numbers)) == len(numbers) == 4

    with_stores(url, use, count=3)


def test_a_counter_gives_no_number_twice(url: str) -> None:
    """Also while it is made."""

    async def use(*stores: MongoStore) -> None:
        async def take(store: MongoStore) -> int:
            async with store._asked_to("write") as database:
                return await next_number(database, "new")

        found = await asyncio.gather(*(take(stores[number % 3]) for number in range(30)))
        assert sorted(found) == list(range(1, 31))

    with_stores(url, use, count=3)


# --- pages ------------------------------------------------------------------------------------------------------


def places(url: str) -> tuple[int, int]:
    """How many stages hold a page, and how many pages lie in their own collection."""
    with MongoClient[Any](url) as client:
        database = client.get_default_database()
        return database["stages"].count_documents(dict(pages.HAS_PAGE)), database["pages"].count_documents({})


def test_the_page_of_a_small_stage_lies_in_its_document(url: str) -> None:
    """What is read is the same wherever it lies; sending it again writes nothing."""

    async def use(store: Store) -> None:
        for number, columns in enumerate((1, 20, PAGE_SIZE, PAGE_SIZE + 1)):
            batch = a_stage(number, columns=columns)
            (stage_id,) = batch.stages
            await store.write(PROJECT, batch)
            assert await all_pages(store, stage_id) == batch.pages
        assert places(url) == (2, 3)
        assert (await store.usage()).page_count == 5
        with MongoClient[Any](url) as client:
            stages = client.get_default_database()["stages"]
            before = list(stages.find())
            for number, columns in enumerate((1, 20)):
                await store.write(PROJECT, a_stage(number, columns=columns))
            assert list(stages.find()) == before

    with_stores(url, use)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_page_that_grows_is_read_whole(url: str, reverse: bool) -> None:
    """Candidates that come in parts, some of them twice, are one page, also where the first lie in the stage."""
    whole = a_stage(1, columns=200)
    (stage_id,), (run_id,) = whole.stages, whole.runs

    async def use(store: Store) -> None:
        parts = [(0, 5), (5, 10), (8, 150), (100, 200), (0, 10)]
        for start, stop in parts[::-1] if reverse else parts:
            part = paginate(run_id, stage_id, START + 1, sample_columns(200).slice(start, stop), from_seq=start)
            await store.write(PROJECT, WriteBatch(whole.runs, whole.stages, part))
        (page,) = await all_pages(store, stage_id)
        assert page.seqs == tuple(range(200))
        assert list(page.columns().rows()) == list(sample_columns(200).rows())

    with_stores(url, use)


def test_pages_in_stages_are_removed_by_age_like_others(url: str) -> None:
    """The oldest go first, wherever they lie, and the stage says so; runs go with them."""

    async def use(store: Store) -> None:
        for number in range(6):
            await store.write(PROJECT, a_stage(number, columns=PAGE_SIZE if number % 2 else 4))
        await store.write("other", a_stage(0))
        dry = await store.remove_candidates(PROJECT, before=START + 5, limit=1, dry_run=True)
        assert dry == Removed(0, 5, 5, 3 * 4 + 2 * PAGE_SIZE, START + 4)
        assert await store.remove_candidates(PROJECT, before=START + 5, limit=3) == Removed(
            0, 3, 3, 8 + PAGE_SIZE, START + 2
        )
        assert places(url) == (2, 2)
        stages = await documents(store, "stages")
        assert sum("candidates_removed_at" in stage for stage in stages.values()) == 3
        for number in range(6):
            (stage_id,) = a_stage(number).stages
            assert bool(await all_pages(store, stage_id)) is (number > 2)
        # What was removed may be sent again.
        await store.write(PROJECT, a_stage(0))
        assert places(url) == (3, 2)
        dry = await store.remove_runs(PROJECT, before=None, limit=1, dry_run=True)
        assert (
            await store.remove_runs(PROJECT, before=None, limit=9)
            == dry
            == Removed(6, 6, 4, 8 + 2 * PAGE_SIZE, START + 5)
        )
        assert places(url) == (1, 0)

    with_stores(url, use)


def test_a_database_of_the_form_before_has_everything(url: str) -> None:
    """Pages and documents are read as earlier versions wrote them; earlier versions then refuse the database."""
    batch = a_stage(1, columns=2)
    (stage_id,) = batch.stages
    content = (
        b'[[0],{"pre":"x","width":1,"text":"12"},["dear"]]\n'
        b'[1,2,{"verdict":{"of":["failed","passed"],"at":"#$"},"reason_label":["dear",null],"score":[0.5,2.0],'
        b'"data":{"keys":["n"],"by":[[1,2]]}}]'
    )
    earlier = {"b": zstandard.compress(content), "z": zstandard.compress(b'{"facts":{"shape":"flags","number":7}}')}

    async def use(store: Store) -> None:
        await store.write(PROJECT, batch)
        with MongoClient[dict[str, Any]](url) as client:
            database = client.get_default_database()
            assert database["stages"].update_one({}, {"$set": earlier}).modified_count == 1
            database["form"].update_one({"_id": "form"}, {"$set": {"version": 2}})
        await store.close()
        await store.open()
        with MongoClient[dict[str, Any]](url) as client:
            assert (client.get_default_database()["form"].find_one({"_id": "form"}) or {})["version"] == 3
        (page,) = await all_pages(store, stage_id)
        assert list(page.columns().rows()) == [
            {"candidate_id": "x1", "verdict": "failed", "reason_label": "dear", "score": 0.5, "data": {"n": 1}},
            {"candidate_id": "x2", "verdict": "passed", "score": 2.0, "data": {"n": 2}},
        ]
        assert page.reason_labels == ("dear",)
        stage = (await documents(store, "stages"))[stage_id]
        assert stage["facts"] == {"shape": "flags", "number": 7}
        # More of it comes, and lies in the newer form.
        await store.write(PROJECT, a_stage(1, columns=4))
        (page,) = await all_pages(store, stage_id)
        assert page.ids[:2] == ("x1", "x2")
        assert len(page.ids) == 4

    with_stores(url, use)


PARTS = (b"x", b"yz")
"""What is to be compressed of a page, and what is not; what it says is not asked for."""


@given(
    found=st.lists(st.text(max_size=8), min_size=1, max_size=30, unique=True),
    labels=st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    asked=st.lists(st.text(max_size=8), max_size=3),
    which=st.integers(0),
)
def test_marks_never_miss_a_candidate(found: list[str], labels: list[str], asked: list[str], which: int) -> None:
    """Whatever ids and labels a page has, it may hold each of them, wherever it lies."""
    page = CandidatePage("r", "s", 0, 1, range(len(found)), found, labels, packed=b"[]")
    inside, outside = pages.encode_inline(page, None, PARTS, bytes), pages.encode(1, page, PARTS, bytes)
    here = found[which % len(found)]
    of_id = Condition_(Field(("candidate_id",)), Compare("eq", here))
    conditions: list[Condition] = [of_id, Condition_(Field(("candidate_id",)), In((*asked, here))), Or((of_id, of_id))]
    conditions += [And((of_id, Condition_(Field(("reason_label",)), Compare("eq", label)))) for label in labels]
    for condition in conditions:
        assert pages.narrows(condition)
        assert pages.may_hold(condition, inside)
        assert pages.may_hold(condition, outside)


def test_marks_pass_over_most_pages() -> None:
    """Of pages without a candidate, few seem to have it; without that narrowing would be in vain."""
    page = CandidatePage("r", "s", 0, 1, range(20), [f"sku-{n}" for n in range(20)], ["a"], packed=b"[]")
    asked = [Condition_(Field(("candidate_id",)), Compare("eq", f"other {n}")) for n in range(2000)]
    for raw, share in (
        (pages.encode_inline(page, None, PARTS, bytes), 0.05),
        (pages.encode(1, page, PARTS, bytes), 0.005),
    ):
        assert sum(pages.may_hold(condition, raw) for condition in asked) <= share * len(asked)


# --- dictionaries -----------------------------------------------------------------------------------------------


def many(first: int, count: int = 120) -> WriteBatch:
    """Enough stages of one name for dictionaries of their pages."""
    batch = WriteBatch()
    for number in range(first, first + count):
        one = a_stage(number, columns=25)
        batch.runs |= one.runs
        batch.stages |= one.stages
        batch.pages += one.pages
    return batch


def test_values_with_a_dictionary_are_read_by_anyone(url: str) -> None:
    """Two services that train at once make one dictionary a kind; a third, that knows none, reads what both wrote."""
    with mock.patch.object(dictionaries, "SAMPLE_BYTES", 20_000):

        async def use(*stores: Store) -> None:
            await asyncio.gather(*(store.write(PROJECT, many(n * 120)) for n, store in enumerate((*stores, *stores))))

        with_stores(url, use, count=2)
    with MongoClient[Any](url) as client:
        database = client.get_default_database()
        kinds = [raw["kind"].split("\0") for raw in database["dictionaries"].find()]
        assert ["small", PROJECT, "shop", "filter"] in kinds
        assert len({tuple(kind) for kind in kinds}) == len(kinds)
        numbers = {dictionaries.number_of(raw["b"]) for raw in database["stages"].find()}
        assert numbers & {raw["_id"] for raw in database["dictionaries"].find()}

    async def read(store: Store) -> None:
        expected = many(0, 480)
        found = await documents(store, "stages")
        assert found == expected.stages
        for page in expected.pages:
            assert await all_pages(store, page.stage_id) == [page]

    with_stores(url, read)


def test_nothing_names_a_dictionary_that_is_not_there(url: str) -> None:
    """Where a dictionary cannot be kept, nothing is written with it; the batch is written once it can."""

    async def use(store: Store, other: Store) -> None:
        with mock.patch.object(dictionaries, "SAMPLE_BYTES", 20_000):
            insert = mock.patch(
                "pymongo.asynchronous.collection.AsyncCollection.insert_one", side_effect=AutoReconnect("gone")
            )
            with insert, pytest.raises(StoreError):
                await store.write(PROJECT, many(0))
            await documents(other, "stages")
            await store.write(PROJECT, many(0))
        assert await documents(other, "stages") == many(0).stages

    with_stores(url, use, count=2)


def test_more_dictionaries_than_are_kept_in_memory(url: str) -> None:
    """Values of many kinds, and those without a dictionary, are read one after the other by one service."""

    async def use(store: Store, other: Store) -> None:
        plain = a_stage(9000, columns=30)
        await store.write(PROJECT, plain)
        batch = many(0)
        for number, stage in enumerate(batch.stages.values()):
            stage["name"] = f"filter {number % 5}"
        await store.write(PROJECT, batch)
        for _ in range(2):
            for page in (*batch.pages[:10], *plain.pages):
                assert await all_pages(other, page.stage_id) == [page]

    small = mock.patch.object(dictionaries, "SAMPLE_BYTES", 5000), mock.patch.object(dictionaries, "MAX_IN_USE", 2)
    with small[0], small[1]:
        with_stores(url, use, count=2)
    with MongoClient[Any](url) as client:
        assert client.get_default_database()["dictionaries"].count_documents({"kind": {"$regex": "^small"}}) > 2


def test_a_missing_dictionary_is_a_clear_error(url: str) -> None:
    """A value whose dictionary somebody has removed is no nonsense, but an error that names it."""
    with mock.patch.object(dictionaries, "SAMPLE_BYTES", 20_000):
        with_stores(url, lambda store: store.write(PROJECT, many(0)))
    with MongoClient[Any](url) as client:
        client.get_default_database()["dictionaries"].delete_many({})
    with pytest.raises(StoreError, match=r"dictionary \d+ of a compressed value is missing"):
        with_stores(url, lambda store: all_pages(store, next(iter(a_stage(100).stages))))


# --- the form and the plans -------------------------------------------------------------------------------------


def test_an_older_form_is_refused_and_left_alone(url: str) -> None:
    """The error says how to bring the data over; nothing is written."""
    with MongoClient[Any](url) as client:
        database = client.get_default_database()
        database["form"].insert_one({"_id": "form", "version": 1})
        with pytest.raises(StoreError) as caught:
            with_stores(url, pages_of)
        assert caught.value.code == "older_store"
        assert "xray export" in str(caught.value.hint)
        assert database.list_collection_names() == ["form"]


SERVED_BY = {
    "a run by its id": "_id_",
    "the latest runs": "by_start",
    "the latest runs of a pipeline": "by_label",
    "a run by its key": "by_key",
    "runs by time": "by_start",
    "a stage by its id": "_id_",
    "the stages of a run": "by_run",
    "the stages of several runs": "by_run",
    "the latest stages": "by_word",
    "the latest stages of a type": "by_word",
    "the latest stages of a name": "by_word",
    "the latest stages of a pipeline": "by_word",
    "stages by a metric": "by_metric",
    "stages in the order of a metric": "by_metric",
    "stages whose candidates were removed": "by_removal",
    "the stages of an hour of a pipeline, for its rollup": "by_word",
    "the stages of a type in a span of time, for figures": "by_word",
}


def test_each_offered_question_is_served_by_its_index(url: str) -> None:
    """The server's own plan names it; without it the plan says that every document is read, or names another."""
    questions = dict(offered_questions())
    assert set(SERVED_BY) == set(questions), "what is offered and what is tested here are the same"

    async def use(store: MongoStore) -> None:
        for start in range(0, 1500, 500):
            await store.write(PROJECT, many(start, 500))
        for words, scan in questions.items():
            plan = await store.explain(PROJECT, scan)
            assert plan is not None
            assert plan.indexed, words
            assert SERVED_BY[words] in plan.detail, (words, plan.detail)
        with MongoClient[Any](url) as client:
            for name in ("runs", "stages", "pages"):
                client.get_default_database()[name].drop_indexes()
        for words, scan in questions.items():
            plan = await store.explain(PROJECT, scan)
            assert plan is not None
            if SERVED_BY[words] != "_id_":
                assert SERVED_BY[words] not in plan.detail, words
                assert not plan.indexed or "_id_" in plan.detail, words

    with_stores(url, use)
