"""Retention and the refresher: what goes in which order, what holds under writers, and what is said about it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from tests.server.helpers import in_service, stage
from xray import ids, wording
from xray.exceptions import ConfigurationError
from xray_server.conformance.rollups import NOON, a_stage, batch_of, dirty
from xray_server.conformance.upkeep import COUNT, a_run, old_batch, said_removed, with_pages
from xray_server.daemons import daemon as daemons
from xray_server.daemons import retention as retention_module
from xray_server.daemons.daemon import Daemon, running
from xray_server.daemons.refresher import GRACE_MS, Refresher
from xray_server.daemons.retention import RECENT_MS, Policy, Retention, policy_of
from xray_server.pages import paginate
from xray_server.quantities import parse_duration_ms, parse_size_bytes, show_duration
from xray_server.rollups import HOUR_MS
from xray_server.settings import ServerSettings
from xray_server.stores.base import Removed, Usage, WriteBatch
from xray_server.stores.sqlite import SqliteStore
from xray_server.testing_data import PROJECT, documents, sample_columns


@pytest.fixture
def at(monkeypatch):
    """Set the wall clock."""

    def set_clock(time_ms):
        monkeypatch.setattr(ids, "clock_ns", lambda: time_ms * 10**6)

    return set_clock


@asynccontextmanager
async def open_store(folder):
    store = SqliteStore(folder / "xray.sqlite3")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def run(use, folder):
    async def main():
        async with open_store(folder) as store:
            return await use(store)

    return asyncio.run(main())


def test_what_is_too_old_goes(tmp_path, at):
    """Candidates and runs each by their own age, in every project; at the age itself they stay."""

    async def use(store):
        await store.write(PROJECT, old_batch())
        await store.write("other", old_batch())
        at(NOON + 10 * HOUR_MS)
        retention = Retention(store, Policy(keep_candidates_ms=6 * HOUR_MS, keep_runs_ms=8 * HOUR_MS))
        await retention.tick()
        for project in (PROJECT, "other"):
            assert set(await documents(store, "runs", project)) == {a_run(number) for number in (2, 3, 4, 5)}
            assert await with_pages(store, project) == {4, 5}
            assert await said_removed(store, project) == {2, 3}
        assert retention.state()["runs_removed"] == 4

    run(use, tmp_path)


def test_many_that_are_too_old_go_at_once(tmp_path, at):
    """However many batches it takes, one look removes everything that is too old."""

    async def use(store):
        for start in range(0, 400, 100):
            await store.write(PROJECT, old_batch(tuple(range(start, start + 100)), columns=1))
        at(NOON + 1000 * HOUR_MS)
        await Retention(store, Policy(0, HOUR_MS * 700)).remove_by_age()
        usage = await store.usage()
        assert (usage.page_count, usage.run_count) == (0, 100)

    run(use, tmp_path)


def test_nothing_goes_without_a_policy(tmp_path, at):
    """For ever and any size mean it."""

    async def use(store):
        await store.write(PROJECT, old_batch())
        at(NOON + 10**6 * HOUR_MS)
        await Retention(store, Policy()).tick()
        assert await with_pages(store) == set(range(COUNT))

    run(use, tmp_path)


def test_where_it_is_too_much_all_may_go(tmp_path, at):
    """A limit that nothing fits into takes everything, and is then said to be passed."""
    at(NOON + RECENT_MS * 2)

    async def use(store):
        await store.write(PROJECT, old_batch(columns=2000))
        retention = Retention(store, Policy(max_disk_bytes=1))
        await retention.remove_by_size()
        assert await documents(store, "runs") == {}
        assert retention.state()["is_over"]
        retention = Retention(store, Policy(max_disk_bytes=10**9))
        await store.write(PROJECT, old_batch())
        await retention.remove_by_size()
        assert await with_pages(store) == set(range(COUNT))
        assert not retention.state()["is_over"]

    run(use, tmp_path)


def young_batch(now):
    """A run of this moment, with a stage and its page."""
    young = a_stage(9)
    batch = WriteBatch({young["run_id"]: {"id": young["run_id"], "started_at": now - 5}}, {young["id"]: young})
    batch.pages = paginate(young["run_id"], young["id"], now - 5, sample_columns(3))
    return batch


def test_the_last_days_candidates_outlive_older_runs(tmp_path, at):
    """Where runs fill the disk, old ones go before the candidates of the last day do."""
    now = NOON + RECENT_MS * 9
    at(now)

    async def use(store):
        await store.write(PROJECT, old_batch())
        await store.write(PROJECT, young_batch(now))
        retention = Retention(store, Policy(max_disk_bytes=10**9))
        order = [await retention._remove_oldest(100) for _ in range(4)]
        assert [(step.runs, step.pages) for step in order] == [(0, 6), (6, 0), (0, 1), (1, 0)]
        assert await retention._remove_oldest(100) == Removed()

    run(use, tmp_path)


def test_in_a_hurry_whole_runs_go_first(tmp_path, at):
    """Old ones, then those of the last day; only what belongs to no run is left for the candidates' turn."""
    now = NOON + RECENT_MS * 9
    at(now)

    async def use(store):
        await store.write(PROJECT, old_batch())
        await store.write(PROJECT, young_batch(now))
        await store.write(PROJECT, WriteBatch(pages=paginate(a_run(50), "no stage", now - 3, sample_columns(3))))
        retention = Retention(store, Policy(max_disk_bytes=10**9))
        order = [await retention._remove_oldest(100, is_hurried=True) for _ in range(3)]
        assert [(step.runs, step.pages) for step in order] == [(6, 6), (1, 1), (0, 1)]
        assert await retention._remove_oldest(100, is_hurried=True) == Removed()
        await store.write(PROJECT, old_batch())
        assert (await retention._remove_oldest(100)).runs == 0

    run(use, tmp_path)


def test_of_several_projects_the_oldest_goes_first(tmp_path, at):
    """A project whose candidates are younger waits until the other one's are gone up to there."""
    at(NOON + RECENT_MS * 9)

    async def use(store):
        await store.write("a", old_batch((3, 4, 5)))
        await store.write("b", old_batch((0, 1, 2)))
        retention = Retention(store, Policy(max_disk_bytes=1))
        for _ in range(4):
            await retention._remove_oldest(1)
        assert await with_pages(store, "b") == set()
        assert await with_pages(store, "a") == {4, 5}

    run(use, tmp_path)


class Filling:
    """Stands for a store that somebody writes to at a steady pace; its time passes with what is asked of it."""

    kind = "filling"
    page_bytes = 5000

    def __init__(self, bytes_per_s, step_s, pages):
        self.bytes_per_s, self.step_s = bytes_per_s, step_s
        self.pages, self.runs_removed, self.now, self.highest = pages, 0, 0.0, 0

    def pass_time(self, seconds):
        self.now += seconds
        self.pages += seconds * self.bytes_per_s / self.page_bytes
        self.highest = max(self.highest, self.pages * self.page_bytes)

    async def projects(self):
        return ["default"]

    async def usage(self):
        self.pass_time(0.001)
        return Usage(int(self.pages * self.page_bytes), 1, 1, int(self.pages))

    async def remove_candidates(self, project, *, before, limit):
        self.pass_time(self.step_s)
        gone = 0 if before is not None else min(limit, int(self.pages))
        self.pages -= gone
        return Removed(pages=gone)

    async def remove_runs(self, project, *, before, limit):
        self.pass_time(self.step_s)
        self.runs_removed += before is None
        return Removed()

    async def reclaim(self):
        self.pass_time(self.step_s)


@pytest.mark.parametrize("bytes_per_s", [0, 10**6, 30 * 10**6, 80 * 10**6])
@pytest.mark.parametrize("filled", [0.0, 0.9])
def test_removal_keeps_up_with_writers(monkeypatch, bytes_per_s, filled):
    """Whatever the pace of the writers, the limit holds within a tenth, and removal never takes more than it has to."""
    limit = 2 * 10**9
    store = Filling(bytes_per_s, 0.1, filled * limit / Filling.page_bytes)
    monkeypatch.setattr(retention_module, "time", SimpleNamespace(monotonic=lambda: store.now))

    async def sleep(seconds):
        store.pass_time(seconds)

    monkeypatch.setattr(retention_module, "asyncio", SimpleNamespace(sleep=sleep))

    async def use():
        retention = Retention(store, Policy(max_disk_bytes=limit))
        lowest = limit
        for _ in range(2000):
            store.pass_time(await retention.remove_by_size())
            assert store.highest < 2 * limit
            if retention.removed.pages:
                lowest = min(lowest, store.pages * store.page_bytes)
        return lowest

    lowest = asyncio.run(use())
    assert store.highest <= 1.1 * limit
    assert lowest >= 0.85 * limit
    assert store.runs_removed == 0


def test_the_refresher_leaves_the_hour_under_way_alone(tmp_path, at):
    """Past hours are brought up to date a while after their end; the others stay dirty."""

    async def use(store):
        await store.write(PROJECT, batch_of(a_stage(1), a_stage(2, hour=1)))
        refresher = Refresher(store)
        at(NOON + HOUR_MS + GRACE_MS - 1)
        await refresher.tick()
        assert len(await dirty(store)) == 2
        at(NOON + HOUR_MS + GRACE_MS)
        await refresher.tick()
        assert [bucket.hour for bucket in await dirty(store)] == [NOON + HOUR_MS]
        assert refresher.state()["buckets_refreshed"] == 1

    run(use, tmp_path)


def test_a_daemon_outlives_its_errors(monkeypatch, caplog):
    """An error is logged and counted, and the next tick comes all the same; leaving the block ends it."""
    monkeypatch.setattr(daemons, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(daemons, "PAUSE_AFTER_ERROR_S", 0.0)

    class Failing(Daemon):
        name = "failing"
        ticks = 0

        async def tick(self):
            self.ticks += 1
            if self.ticks < 3:
                raise ValueError("no luck")
            return 1000.0

    async def use():
        failing = Failing()
        async with running([failing]):
            while failing.ticks < 3:  # noqa: ASYNC110 - it is the daemon that is waited for
                await asyncio.sleep(0)
        return failing

    failing = asyncio.run(use())
    assert failing.state() == {"errors": 2, "last_error": "ValueError: no luck"}
    assert caplog.text.count("'failing' failed") == 2


def test_the_service_says_what_is_gone(tmp_path):
    """A stage without its candidates says so, its list of candidates too, and questions count it."""
    rows = [{"id": f"c{n}", "verdict": "passed"} for n in range(3)]

    async def use(client):
        await client.post("/v1/ingest", json={"events": [stage(candidates=rows)]})
        store = client._transport.app.state.service.store
        question = {"candidate": {"candidate_id": "c1"}}
        before = (await client.post("/v1/query", json=question)).json()
        assert (len(before["rows"]), before["coverage"]["without_all_candidates"]) == (1, 0)
        stage_id = before["rows"][0]["id"]
        assert "candidates_removed_at" not in (await client.get(f"/v1/stages/{stage_id}/candidates")).json()
        await store.remove_candidates("default", before=None, limit=10)
        shown = (await client.get(f"/v1/stages/{stage_id}")).json()
        assert shown["candidates_removed_at"].endswith("Z")
        assert shown["metrics"]["input_count"] == 3
        listed = (await client.get(f"/v1/stages/{stage_id}/candidates")).json()
        assert (listed["rows"], listed["candidates_removed_at"]) == ([], shown["candidates_removed_at"])
        assert listed["coverage"]["without_all_candidates"] == 1
        for returns in ("stages", "runs", "candidates"):
            after = (await client.post("/v1/query", json=question | {"return": returns})).json()
            assert (after["rows"], after["coverage"]["without_all_candidates"]) == ([], 1), returns
        elsewhere = {**question, "stage": {"name": "another"}}
        assert (await client.post("/v1/query", json=elsewhere)).json()["coverage"]["without_all_candidates"] == 0
        tasks = (await client.get("/health")).json()["tasks"]
        assert set(tasks) == {"rollups", "retention", "sightings"}
        assert tasks["retention"]["errors"] == 0

    in_service(tmp_path, use)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30d", 30 * 86_400_000), ("90m", 5_400_000), ("2w", 14 * 86_400_000), ("0s", 0), ("forever", None)],
)
def test_durations(text, expected):
    """A whole number and a unit, or for ever."""
    assert parse_duration_ms(text, "x") == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [("30 days", "'30d'"), ("30", "'30d'"), ("30D", "'30d'"), ("2 Weeks", "'2w'"), ("-3d", "30d"), ("1.5d", "30d"),
     ("forver", "'forever'"), ("", "30d"), ("٣d", "30d")],
)  # fmt: skip
def test_what_is_no_duration(text, hint):
    """The error names the setting and the nearest right form."""
    with pytest.raises(ConfigurationError, match="no duration") as caught:
        parse_duration_ms(text, "--keep-runs")
    assert caught.value.path == "--keep-runs"
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20GB", 20 * 10**9), ("1.5MiB", 3 * 2**19), ("7B", 7), ("1 TB", 10**12), ("unlimited", None)],
)
def test_sizes(text, expected):
    """A number and a unit of either kind, or no limit."""
    assert parse_size_bytes(text, "x") == expected


@pytest.mark.parametrize(
    ("text", "hint"), [("20gb", "'20GB'"), ("20", "'20GB'"), ("5g", "'5GB'"), ("big", "20GB"), ("-1GB", "20GB")]
)
def test_what_is_no_size(text, hint):
    """The error names the setting and the nearest right form."""
    with pytest.raises(ConfigurationError, match="no size") as caught:
        parse_size_bytes(text, "--max-disk")
    assert hint in caught.value.hint


def test_quantities_are_shown_as_they_are_written():
    """What is shown can be given again, to three digits."""
    assert [wording.size(size) for size in (0, 999, 1500, 38_200_000_000)] == ["0 B", "999 B", "1.5 kB", "38.2 GB"]
    assert [show_duration(parse_duration_ms(text, "x")) for text in ("30d", "36h", "90s")] == ["30d", "36h", "90s"]


def test_the_default_limit_is_a_share_of_the_disk(tmp_path):
    """The embedded store takes half of what is free and its own by default; what is set holds as it is."""

    async def use(store):
        default = await policy_of(ServerSettings(), store)
        assert default.max_disk_bytes is not None
        assert default.max_disk_bytes > 0
        given = await policy_of(ServerSettings(keep_runs="forever", max_disk="3GB"), store)
        assert given == Policy(30 * 86_400_000, None, 3 * 10**9)
        assert str(given) == "candidates 30d, runs for ever, at most 3 GB on disk"

    run(use, tmp_path)
