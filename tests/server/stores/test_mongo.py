"""The MongoDB store: the contract of all stores, and what is its own."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ServerSelectionTimeoutError

from tests.mongodb import Databases
from xray.exceptions import ConfigurationError, StoreError
from xray.ids import now_ms
from xray_server.conformance.rollups import a_bucket, a_stage, batch_of
from xray_server.documents import PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS
from xray_server.half_days import half_day_of
from xray_server.pages import paginate
from xray_server.query.ast import Compare, Field, Metric, Scan
from xray_server.query.ast import Test as Condition
from xray_server.rollups import read_rollups, refresh, refresh_half_days, roll_up
from xray_server.stores.base import Rollup, Store, WriteBatch
from xray_server.stores.mongo import MongoStore, buckets, checks, pages, writes
from xray_server.stores.mongo.documents import DECLARED, Run, Stage, collection_of
from xray_server.stores.mongo.forms import RUNS, STAGES
from xray_server.stores.opening import open_store
from xray_server.testing import StoreContract
from xray_server.testing_data import PROJECT, RUN_ID, STAGE_ID, documents, ids, pages_of, sample_batch, sample_columns


class TestMongoStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, databases: Databases) -> None:
        self._databases = databases

    async def make_store(self, place: Path) -> Store:
        return MongoStore(self._databases.url(place))


@pytest.fixture
def url(databases: Databases, tmp_path: Path) -> str:
    return databases.url(tmp_path)


@pytest.fixture
def database(url: str) -> Iterator[Database[Any]]:
    """The store's database as any client sees it."""
    with MongoClient[Any](url) as client:
        yield client.get_default_database()


def with_stores(url: str, use: Callable[..., Awaitable[Any]], count: int = 1) -> Any:
    """Use some stores on the same data at once."""

    async def run() -> Any:
        stores = [MongoStore(url) for _ in range(count)]
        for store in stores:
            await store.open()
        try:
            return await use(*stores)
        finally:
            for store in stores:
                await store.close()

    return asyncio.run(run())


# --- addresses --------------------------------------------------------------------------------------------------


def test_an_address_without_a_server_is_a_clear_error_and_no_password():
    """Opening fails soon, says where nothing answers, and shows nothing that is secret."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = open_store(f"mongodb://me:hunter%402@127.0.0.1:{taken.getsockname()[1]}/data?connectTimeoutMS=300")
        with mock.patch("xray_server.stores.mongo.store.OPEN_TIMEOUT_S", 0.5), pytest.raises(StoreError) as caught:
            asyncio.run(store.open())
    assert caught.value.code == "store_unreachable"
    assert caught.value.hint
    assert store.describe()["location"] == f"mongodb://127.0.0.1:{taken_port(store)}/data"
    for text in (str(caught.value), repr(caught.value), str(store.describe())):
        assert "hunter" not in text
        assert "me:" not in text


def test_no_socket_is_left_behind_where_no_server_answers():
    """However soon the store is given up, no attempt to connect is cut off with its socket open."""
    sockets: list[socket.socket] = []

    class Counted(socket.socket):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            sockets.append(self)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = open_store(f"mongodb://127.0.0.1:{taken.getsockname()[1]}/data")
        with mock.patch("pymongo.pool_shared.socket.socket", Counted):
            for timeout_s in (0.01, 0.1, 0.2, 0.2, 0.3):
                with mock.patch("xray_server.stores.mongo.store.OPEN_TIMEOUT_S", timeout_s), pytest.raises(StoreError):
                    asyncio.run(store.open())
    assert sockets
    assert [each for each in sockets if each.fileno() >= 0] == []


def taken_port(store: Store) -> str:
    return store.describe()["location"].rpartition(":")[2].partition("/")[0]


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://",
        "mongodb:///data",
        "mongodb://me:hunter2@host/a b",
        "mongodb://me:hunter2@host/a/b",
        "mongodb://me:hunter2@host:port",
        "mongodb://me:hunter2@host/?w=-1",
        "mongodb://me:hunter2@host/?tls=maybe",
        "mongodb+srv://me:hunter2@host:1/data",
        "mongodbs://me:hunter2@host/data",
        "postgres://me:hunter2@host/data",
    ],
)
def test_a_wrong_url_is_a_clear_error_and_no_password(url: str):
    """What is no URL of a MongoDB database is refused with a hint before anything is connected."""
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(open_store(url).open())
    assert caught.value.code == "bad_store"
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_what_the_url_sets_is_taken():
    """Options in the URL win over those that are set on purpose; the database has a default."""
    store = open_store("mongodb://127.0.0.1:1,127.0.0.1:2/?timeoutms=77&w=1")
    assert store.describe() == {"kind": "mongodb", "location": "mongodb://127.0.0.1:1,127.0.0.1:2/xray"}

    async def options() -> Any:
        assert isinstance(store, MongoStore)
        client = store._address.client()
        try:
            return client.options, client.write_concern.document
        finally:
            await client.close()

    used, concern = asyncio.run(options())
    assert used.timeout == 0.077
    assert concern == {"w": 1, "j": True}


def test_the_service_needs_the_driver_only_for_mongodb():
    """Without PyMongo and Beanie the service runs on SQLite, and says what a mongodb:// URL needs."""
    statement = (
        "import sys; sys.modules['pymongo'] = sys.modules['beanie'] = None; "
        "from xray_server.stores.opening import open_store; "
        "assert open_store('sqlite:///x').kind == 'sqlite'; open_store('mongodb://127.0.0.1/x')"
    )
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=False)
    assert "ConfigurationError: MongoDB needs " in done.stderr
    assert "pip install 'xray-decisions[mongo]'" in done.stderr


def test_a_client_that_lost_sight_of_its_server_is_replaced(url: str):
    """Where a new client reaches the server and the old one does not, the store goes on with the new one."""

    async def use(store: MongoStore) -> None:
        before = store._client
        lost = mock.patch(
            "xray_server.stores.mongo.scans.Scanner.rows", side_effect=ServerSelectionTimeoutError("gone")
        )
        with lost, pytest.raises(StoreError) as caught:
            await store.scan(PROJECT, Scan("runs"))
        assert caught.value.code == "store_unreachable"
        assert store._client is not before
        assert await documents(store, "runs") == {}

    with_stores(url, use)


# --- the form ---------------------------------------------------------------------------------------------------


def test_every_field_is_declared():
    """Every published field has a place, and every place a declaration; no two fields share one."""
    assert RUNS.places.keys() == RUN_FIELDS.keys()
    of_run = {f"pipeline.{name}" for name in PIPELINE_FIELDS}
    assert STAGES.places.keys() == (STAGE_FIELDS.keys() - {"pipeline"}) | of_run
    for form, model, own in ((RUNS, Run, {"v", "p", "tw"}), (STAGES, Stage, {"v", "tw", "mx", "mn", *pages.INLINE})):
        paths = [place.path for place in form.places.values() if place.storage not in ("rest", "own_id")]
        alone = [path for path in paths if path != "w"]
        assert len(set(alone)) == len(alone)
        assert set(model.model_fields) - {"id", "revision_id"} == {*paths, *own, "z"}


def test_what_is_stored_is_what_is_declared(url: str, database: Database[Any]):
    """Every stored document is one of its declared class; what users record is no BSON."""

    async def use(store: Store) -> None:
        await store.write(PROJECT, sample_batch())
        await store.write(PROJECT, WriteBatch(stages={STAGE_ID: STAGE}))
        await refresh(store, PROJECT, until=2**41)
        await store.keep_named(PROJECT, "question", "strict", {"limit": 1})

    with_stores(url, use)
    for model in DECLARED:
        if collection_of(model) in ("dictionaries", "sighting_parts", "sighting_index"):  # there are none of so little
            continue
        stored = list(database[collection_of(model)].find())
        assert stored, model
        for document in stored:
            model.model_validate(document)
            assert set(document) - {"_id"} <= set(model.model_fields) | {"description"}
    assert all(isinstance(document["z"], str | bytes) for document in database["runs"].find({"z": {"$ne": None}}))


def test_odd_names_and_numbers_come_back(url: str):
    """Names with dots, dollars and percent signs, long integers, times beyond the year 9999: as they were given."""
    metrics = {
        "label_counts": {"a.b": 1, "$x": 2, "%2E": 3, "%": 4, "": 5, "a": 2**62, "\u00e9 \U0001f600": 0.5},
        "big": -(2**63),
        "whole": 1.0,
        "empty": {},
        "nothing": None,
        "list": [1, {"a.b": 2}],
        "mixed": {"a": 1, "b": "x"},
    }
    stage = {"id": STAGE_ID, "run_id": RUN_ID, "started_at": 2**50, "metrics": metrics, "metrics_over": 1}
    run = {"id": RUN_ID, "started_at": -(2**40), "input": {"$a.b": [True, 1, 1.5, None, "x" * 2000]}}

    async def use(store: Store) -> None:
        await store.write(PROJECT, WriteBatch({RUN_ID: run}, {STAGE_ID: stage}))
        assert (await documents(store, "runs"))[RUN_ID] == run
        found = (await documents(store, "stages"))[STAGE_ID]
        assert found == stage
        assert {name: type(value) for name, value in found["metrics"].items()} == {
            name: type(value) for name, value in metrics.items()
        }
        assert type(found["metrics"]["label_counts"]["a"]) is int
        for key, value in metrics["label_counts"].items():
            condition = Condition(Metric("label_counts", key), Compare("eq", value))
            assert ids(await store.scan(PROJECT, Scan("stages", stage=condition))) == [STAGE_ID], key

    with_stores(url, use)


def test_a_newer_form_is_refused(url: str, database: Database[Any]):
    """A database of a newer version of X-Ray is not opened."""
    database["form"].insert_one({"_id": "form", "version": 99})
    with pytest.raises(StoreError) as caught:
        with_stores(url, documents)
    assert caught.value.code == "newer_store"


def test_a_database_from_before_half_days_has_them_marked(url: str, database: Database[Any]):
    """Hours that were kept before there were half days are marked for them, once."""

    async def write(store: Store) -> None:
        await store.write(PROJECT, batch_of(*(a_stage(hour, hour=hour) for hour in (-30, 0, 1))))
        await refresh(store, PROJECT, until=2**41)

    with_stores(url, write)
    database.drop_collection("half_days")
    database["form"].delete_one({"_id": "half_days"})

    async def use(store: Store) -> None:
        marked = await store.dirty_half_days(PROJECT, limit=10, until=2**41)
        assert {bucket for bucket, _ in marked} == {half_day_of(a_bucket(hour)) for hour in (-30, 0)}
        assert await refresh_half_days(store, PROJECT, until=2**41) == 2

    async def again(store: Store) -> None:
        assert await store.dirty_half_days(PROJECT, limit=10, until=2**41) == []

    with_stores(url, use)
    with_stores(url, again)


# --- writing ----------------------------------------------------------------------------------------------------


def test_a_repeated_batch_writes_nothing(url: str, database: Database[Any]):
    """Sending twice leaves every revision as it was, and no clean bucket dirty."""

    async def use(store: Store) -> None:
        await store.write(PROJECT, sample_batch())
        # Merging sorts keys; from then on nothing changes.
        await store.write(PROJECT, sample_batch())
        await refresh(store, PROJECT, until=2**41)
        before = revisions()
        await store.write(PROJECT, sample_batch())
        assert revisions() == before
        assert await store.dirty_buckets(PROJECT, limit=100) == []

    def revisions() -> Any:
        names = ("runs", "stages", "pages", "declarations")
        return {
            name: [(d["_id"], d.get("v")) for d in database[name].find({}, {"v": 1}, sort=[("_id", 1)])]
            for name in names
        }

    with_stores(url, use)


def test_true_and_one_are_different(url: str):
    """A value that Python takes for the one that is there, and JSON does not, is merged like any other."""
    parts = [{"id": RUN_ID, "metadata": {"x": value}} for value in (True, 1)]

    async def use(store: Store) -> list[Any]:
        for part in parts:
            await store.write(PROJECT, WriteBatch(runs={RUN_ID: part}))
        return [(await documents(store, "runs"))[RUN_ID]["metadata"]["x"]]

    assert str(with_stores(url, use)) == "[1]"


def test_writers_in_several_clients_lose_nothing(url: str):
    """Runs, stages and pages that four clients write at once, all of the same few documents, hold what all brought."""

    async def use(*stores: Store) -> None:
        async def write(store: Store, number: int) -> None:
            run = {"id": RUN_ID, "metadata": {f"k{number}": number}}
            stage = {"id": STAGE_ID, "run_id": RUN_ID, "facts": {f"k{number}": number}}
            pages = paginate(RUN_ID, STAGE_ID, 1, sample_columns(60).slice(number, number + 1), from_seq=number)
            await store.write(PROJECT, WriteBatch({RUN_ID: run}, {STAGE_ID: stage}, pages))

        await asyncio.gather(*(write(stores[number % 4], number) for number in range(60)))
        everything = {f"k{number}": number for number in range(60)}
        assert (await documents(stores[0], "runs"))[RUN_ID]["metadata"] == everything
        assert (await documents(stores[0], "stages"))[STAGE_ID]["facts"] == everything
        (page,) = await pages_of(stores[0])
        assert page.seqs == tuple(range(60))
        assert list(page.columns().rows()) == list(sample_columns(60).rows())

    with_stores(url, use, count=4)


def test_a_writer_that_is_always_overtaken_gives_up(url: str):
    """Where somebody changes the document between each read and write, the write fails and may be sent again."""
    run = {"id": RUN_ID, "label": "a"}

    async def use(store: MongoStore, other: MongoStore) -> None:
        await store.write(PROJECT, WriteBatch(runs={RUN_ID: run}))
        count = iter(range(1000))
        write = writes._write

        async def overtaken(*arguments: Any) -> Any:
            with mock.patch.object(writes, "_write", write):
                faster = {"id": RUN_ID, "metadata": {f"k{next(count)}": 1}}
                await other.write(PROJECT, WriteBatch(runs={RUN_ID: faster}))
                return await write(*arguments)

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(writes, "_write", overtaken))
            stack.enter_context(mock.patch.object(writes, "MAX_ATTEMPTS", 5))
            with pytest.raises(StoreError) as caught:
                await store.write(PROJECT, WriteBatch(runs={RUN_ID: {"id": RUN_ID, "version": "1"}}))
        assert caught.value.code == "contended"
        found = (await documents(store, "runs"))[RUN_ID]
        assert found["metadata"] == {f"k{number}": 1 for number in range(5)}
        assert "version" not in found

    with_stores(url, use, count=2)


def test_a_document_that_is_too_large_is_refused(url: str):
    """More than MongoDB takes is a clear error, and the rest of the batch may be written."""
    parts = random.Random(1).randbytes(20 * 1024 * 1024).hex()

    async def use(store: Store) -> None:
        with pytest.raises(StoreError) as caught:
            await store.write(PROJECT, WriteBatch(runs={RUN_ID: {"id": RUN_ID, "input": parts}}))
        assert caught.value.code == "too_large"
        assert await documents(store, "runs") == {}

    with_stores(url, use)


# --- marks ------------------------------------------------------------------------------------------------------

HOUR_MS = 3_600_000
STAGE = {
    "id": STAGE_ID, "run_id": RUN_ID, "name": "s", "type": "filtering", "started_at": HOUR_MS + 5,
    "pipeline": {"label": "a"}, "metrics": {"failed": 3}, "metrics_over": 1,
}  # fmt: skip


def test_a_rollup_computed_in_the_middle_of_a_write_makes_nothing_clean(url: str):
    """Between its two marks, and just after the second, a bucket stays dirty whatever rollup is kept."""

    async def use(writer: MongoStore, reader: MongoStore) -> None:
        kept_at: list[int] = []
        end = buckets.end

        async def in_between(*arguments: Any) -> None:
            """The stage is there, its second mark is not."""
            ((_, mark),) = before
            await reader.keep_rollups(PROJECT, [(empty, mark)])
            assert await reader.dirty_buckets(PROJECT, limit=9) == before, "dirty while a write is under way"
            kept_at.append(mark)
            await end(*arguments)

        async def before_the_stage(*arguments: Any) -> Any:
            nonlocal before, empty
            before = list(await reader.dirty_buckets(PROJECT, limit=9))
            empty = Rollup(before[0][0], 0, 0, {})
            assert await documents(reader, "stages") == {}
            return await write(*arguments)

        before: list[Any] = []
        empty: Any = None
        write = writes._write
        with mock.patch.object(writes, "_write", before_the_stage), mock.patch.object(buckets, "end", in_between):
            await writer.write(PROJECT, WriteBatch(stages={STAGE_ID: STAGE}))
        assert kept_at == [1]
        # One more that was computed before the stage came, and is kept after the write.
        await reader.keep_rollups(PROJECT, [(empty, 1)])
        ((_, mark),) = await reader.dirty_buckets(PROJECT, limit=9)
        assert mark == 2
        assert await read_rollups(reader, PROJECT, since=0, until=2**41) == roll_up([STAGE])
        await refresh(reader, PROJECT, until=2**41)
        assert await reader.dirty_buckets(PROJECT, limit=9) == []
        assert list(await reader.rollups(PROJECT, since=0, until=2**41)) == roll_up([STAGE])

    with_stores(url, use, count=2)


def test_a_bucket_of_a_killed_writer_stays_dirty_until_no_write_can_be_under_way(url: str, database: Database[Any]):
    """A mark without its second one outlasts any rollup; ten minutes later a rollup makes the bucket clean."""

    async def use(store: MongoStore) -> None:
        with mock.patch.object(buckets, "end", side_effect=KeyError), pytest.raises(KeyError):
            await store.write(PROJECT, WriteBatch(stages={STAGE_ID: STAGE}))
        await refresh(store, PROJECT, until=2**41)
        assert len(await store.dirty_buckets(PROJECT, limit=9)) == 1
        long_ago = DatetimeMS(now_ms() - buckets.WRITE_ENDS_WITHIN_MS - 1000)
        database["buckets"].update_one({}, {"$set": {"pending_at": long_ago}})
        await refresh(store, PROJECT, until=2**41)
        assert await store.dirty_buckets(PROJECT, limit=9) == []
        assert list(await store.rollups(PROJECT, since=0, until=2**41)) == roll_up([STAGE])

    with_stores(url, use)


def test_a_later_rollup_is_not_replaced_by_an_earlier_one(url: str):
    """Of two tasks that compute a bucket, the slower one with the earlier state changes nothing."""

    async def use(store: MongoStore) -> None:
        await store.write(PROJECT, WriteBatch(stages={STAGE_ID: STAGE}))
        ((bucket, mark),) = await store.dirty_buckets(PROJECT, limit=9)
        early = Rollup(bucket, 1, 0, {})
        other = {**STAGE, "id": RUN_ID}
        await store.write(PROJECT, WriteBatch(stages={RUN_ID: other}))
        ((_, last_mark),) = await store.dirty_buckets(PROJECT, limit=9)
        await refresh(store, PROJECT, until=2**41)
        await store.keep_rollups(PROJECT, [(early, mark)])
        await store.keep_rollups(PROJECT, [(early, last_mark)])
        assert list(await store.rollups(PROJECT, since=0, until=2**41)) == roll_up([STAGE, other])

    with_stores(url, use)


# --- indexes ----------------------------------------------------------------------------------------------------


def test_a_missing_index_is_found_and_built_again(url: str, database: Database[Any]):
    """A check names an index that is gone, one that is another, and the question that suffers; opening builds it."""

    async def findings(store: Store) -> list[Any]:
        return [finding for finding in await store.check() if not finding.ok]

    assert with_stores(url, findings) == []

    async def damage_and_look(store: Store) -> list[Any]:
        database["stages"].drop_index("by_metric")
        database["runs"].drop_index("by_key")
        database["runs"].create_index([("status", 1)], name="by_key")
        return await findings(store)

    found = {finding.what: finding for finding in with_stores(url, damage_and_look)}
    assert {"index by_metric of stages", "index by_key of runs"} <= set(found)
    assert "createIndex" in found["index by_metric of stages"].hint
    assert "another one" in found["index by_key of runs"].detail
    database["runs"].drop_index("by_key")
    assert with_stores(url, findings) == []


def test_a_question_that_reads_everything_is_found(url: str, database: Database[Any]):
    """Without any index that could serve it, a question is said to read every document."""

    async def look(store: Store) -> set[str]:
        for name in ("runs", "stages", "pages"):
            database[name].drop_indexes()
        return {finding.what for finding in await store.check() if not finding.ok}

    found = with_stores(url, look)
    assert {"question: a run by its key", "question: the latest stages of a type"} <= found
    assert "question: a run by its id" not in found


def test_indexes_over_much_data_are_built_behind_an_open_store(url: str, database: Database[Any]):
    """Where a collection is large, opening does not wait; the index is there a little later."""

    async def use(store: MongoStore) -> None:
        await store.write(PROJECT, sample_batch())
        database["stages"].drop_index("by_metric")
        other = MongoStore(url)
        with mock.patch.object(checks, "BUILD_AT_ONCE_UP_TO", 0):
            await other.open()
        try:
            assert other._building is not None
            await other._building
            assert [finding for finding in await other.check() if not finding.ok] == []
        finally:
            await other.close()

    async def estimated(*_: Any) -> int:
        return 1

    with mock.patch("pymongo.asynchronous.collection.AsyncCollection.estimated_document_count", estimated):
        with_stores(url, use)


def test_metadata_narrows_by_its_words(url: str):
    """A text in metadata is looked for on the server; one that is too long to be kept there is found all the same."""
    long = "x" * 5000
    runs = {f"{n}": {"id": f"{n}", "metadata": {"team": team}} for n, team in enumerate(["a", ["b", "a"], "c", long])}

    async def use(store: Store) -> None:
        await store.write(PROJECT, WriteBatch(runs=runs))
        for text, expected in (("a", ["0", "1"]), ("nobody", []), (long, ["0", "1", "2", "3"])):
            condition = Condition(Field(("metadata", "team")), Compare("eq", text))
            assert ids(await store.scan(PROJECT, Scan("runs", pipeline=condition))) == expected

    with_stores(url, use)
