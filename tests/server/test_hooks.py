"""The hooks that the service calls: exporters, analyzers, stores, alert channels."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

import xray
from tests.server.helpers import RUN_ID, STAGE_ID, error_of, in_service, row, run_end, run_start, stage
from xray.cli.app import run as xray_command
from xray.exceptions import ConfigurationError, PluginError
from xray.plugins import Plugins
from xray_server import exporting
from xray_server.app import create_app
from xray_server.exporting import Exporting
from xray_server.prepare import prepare
from xray_server.settings import ServerSettings
from xray_server.stores.opening import open_store
from xray_server.stores.sqlite import SqliteStore

EVENTS = [run_start(input={"q": "x"}), stage(path="price_filter", candidates=[row(n) for n in range(10)]), run_end()]


class Bringing:
    """A plugin that brings what it is given, by hook."""

    def __init__(self, **given: Any) -> None:
        self.given = given

    @xray.hookimpl
    def xray_exporters(self):
        return self.given.get("exporters", {})

    @xray.hookimpl
    def xray_analyzers(self):
        return self.given.get("analyzers", {})

    @xray.hookimpl
    def xray_stores(self):
        return self.given.get("stores", {})

    @xray.hookimpl
    def xray_alert_channels(self):
        return self.given.get("alert_channels", {})


def plugins_with(**given: Any) -> Plugins:
    plugins = Plugins(entry_points=False)
    plugins.register(Bringing(**given), "of the test")
    return plugins


@pytest.fixture
def process(monkeypatch) -> Plugins:
    """The plugins of this process for the time of a test."""
    found = Plugins(entry_points=False)
    monkeypatch.setattr("xray.plugins._current", found)
    monkeypatch.setattr("xray.plugins._ready", True)
    return found


def boom(*_: Any) -> Any:
    raise RuntimeError("on purpose")


def endless(*_: Any) -> Any:
    threading.Event().wait()


# --- exporters --------------------------------------------------------------------------------------------------


def test_hook_xray_exporters(tmp_path):
    """What the service stored reaches the exporter before the service has ended, as the API shows it."""
    got: list[Any] = []

    async def use(client):
        assert (await client.post("/v1/ingest", json={"events": EVENTS})).status_code == 200
        tasks = (await client.get("/health")).json()["tasks"]
        assert tasks["exporters"]["exporters"]["collect"]["lost"] == 0

    in_service(tmp_path, use, plugins=plugins_with(exporters={"collect": got.append}), exporters="collect")
    (batch,) = got
    assert set(batch) == {"project", "runs", "stages"}
    assert [(run["id"], run["status"], run["started_at"]) for run in batch["runs"]] == [
        (RUN_ID, "success", "2026-11-01T00:00:00.000Z")
    ]
    assert [(each["id"], each["metrics"]["failed"]) for each in batch["stages"]] == [(STAGE_ID, 6)]
    json.dumps(batch)


def test_an_exporter_that_does_not_run_is_not_called(tmp_path):
    """Only those that the setting names are; without any there is no such task."""
    got: list[Any] = []

    async def use(client):
        await client.post("/v1/ingest", json={"events": EVENTS})
        assert "exporters" not in (await client.get("/health")).json()["tasks"]

    in_service(tmp_path, use, plugins=plugins_with(exporters={"collect": got.append}))
    assert got == []


@pytest.mark.parametrize("broken", [boom, endless])
def test_an_exporter_that_fails_loses_its_own_batches_and_says_how_many(broken):
    """The others get everything; what was lost is counted, and nobody waits for an exporter that never ends."""
    got: list[Any] = []
    plugins = plugins_with(exporters={"collect": got.append, "broken": broken})
    plugins.named("xray_exporters", "broken")[1].budget_s = 0.1  # type: ignore[index]
    task = Exporting(plugins, ["collect", "broken"])
    for _ in range(3):
        task.offer("default", prepare(EVENTS, 1, plugins))
    asyncio.run(task.tick())
    state = task.state()["exporters"]
    assert (state["collect"]["exported"], state["collect"]["lost"]) == (6, 0)
    assert (state["broken"]["exported"], state["broken"]["lost"]) == (0, 6)
    assert state["broken"]["last_error"]
    assert [report.what for report in plugins.reports()] == ["exporter collect", "exporter broken"]


def test_what_does_not_fit_into_the_queue_is_counted(monkeypatch):
    """An exporter that is slower than batches come holds nobody up, and not more than so many batches."""
    monkeypatch.setattr(exporting, "MAX_WAITING", 2)
    plugins = plugins_with(exporters={"collect": lambda batch: None})
    task = Exporting(plugins, ["collect"])
    for _ in range(5):
        task.offer("default", prepare(EVENTS, 1, plugins))
    state = task.state()["exporters"]["collect"]
    assert (state["waiting"], state["lost"]) == (4, 6)
    asyncio.run(task.tick())
    assert task.state()["exporters"]["collect"]["exported"] == 4


def test_what_an_exporter_has_not_taken_when_the_service_ends_is_lost_and_counted():
    release = threading.Event()
    plugins = plugins_with(exporters={"slow": lambda batch: release.wait(20)})
    task = Exporting(plugins, ["slow"])
    for _ in range(3):
        task.offer("default", prepare(EVENTS, 1, plugins))

    async def use():
        await task.finish(0.05)
        state = task.state()["exporters"]["slow"]
        assert (state["waiting"], state["lost"]) == (0, 4)  # the first is with the exporter
        release.set()

    asyncio.run(use())


def test_batches_without_an_end_are_not_exported():
    """A run that began, or candidates alone, are nothing that an exporter is given."""
    assert exporting.exported("default", prepare([run_start()], 1, Plugins(entry_points=False))) is None


def test_an_unknown_exporter_is_refused_at_the_start(tmp_path):
    """With the nearest name."""
    settings = ServerSettings(store=f"sqlite:///{tmp_path}/x", exporters="colect")
    with pytest.raises(ConfigurationError, match="Did you mean 'collect'"):
        create_app(settings, plugins=plugins_with(exporters={"collect": boom}))


def test_export_hands_over_what_is_stored(tmp_path, process, capsys):
    """``xray export --format NAME`` gives everything, in the same form; it stops where the exporter fails."""
    got: list[Any] = []
    process.register(Bringing(exporters={"collect": got.append, "broken": boom}), "of the test")

    async def use(client):
        await client.post("/v1/ingest", json={"events": EVENTS})

    in_service(tmp_path, use)
    store = ["--store", f"sqlite:///{tmp_path}/xray.sqlite3"]
    assert xray_command(["export", *store, "--format", "collect"]) == 0
    assert [(len(batch["runs"]), len(batch["stages"])) for batch in got] == [(1, 1)]
    assert got[0]["stages"][0]["started_at"] == "2026-11-01T00:00:01.000Z"
    for arguments, said in (
        (["--format", "broken"], "RuntimeError: on purpose"),
        (["--format", "colect"], "Did you mean 'collect'?"),
        (["--format", "collect", "--out", "file"], "writes no file"),
    ):
        assert xray_command(["export", *store, *arguments]) == 1
        assert said in capsys.readouterr().err


# --- analyzers --------------------------------------------------------------------------------------------------


def suspecting(run: Any, history: Any) -> Any:
    (only,) = run["stages"]
    passed = sum(each.get("verdict") == "passed" for each in only["candidates"])
    return {"suspects": [{"path": only["path"], "evidence": [f"{passed} passed"]}], "reason": f"{len(history)} others"}


def analyzed(folder: Path, **analyzers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer of an analysis that is stored, and the run after it."""

    async def use(client):
        await client.post("/v1/ingest", json={"events": EVENTS})
        answer = (await client.post(f"/v1/runs/{RUN_ID}/analysis")).json()
        return answer, (await client.get(f"/v1/runs/{RUN_ID}")).json()

    found: tuple[dict[str, Any], dict[str, Any]] = in_service(
        folder, use, plugins=plugins_with(analyzers=analyzers) if analyzers else Plugins(entry_points=False)
    )
    return found


def test_hook_xray_analyzers(tmp_path):
    """An opinion stands beside the statistics, in the answer and on the run."""
    answer, run = analyzed(tmp_path, mine=suspecting, silent=lambda run, history: None)
    opinion = {"suspects": [{"path": "price_filter", "evidence": ["4 passed"]}], "reason": "0 others"}
    assert answer["plugins"] == {"mine": opinion}
    assert answer["by"] == "statistics"
    assert run["analysis"]["statistics"]["plugins"] == {"mine": opinion}


def test_without_analyzers_nothing_is_said_of_them(tmp_path):
    answer, run = analyzed(tmp_path)
    assert "plugins" not in answer
    assert "plugins" not in run["analysis"]["statistics"]


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (boom, "RuntimeError: on purpose"),
        (lambda run, history: 3, "gave what is no"),
        (lambda run, history: {"suspects": "price_filter"}, "gave what is no"),
        (lambda run, history: {"suspects": [{"path": "nowhere"}]}, "is no stage of the run"),
        (lambda run, history: {"suspects": [{"path": "price_filter", "evidence": "x"}]}, "no list of texts"),
    ],
)
def test_an_analyzer_that_fails_says_so_beside_the_statistics(tmp_path, gives, said):
    answer, run = analyzed(tmp_path, broken=gives, mine=suspecting)
    assert said in answer["plugins"]["broken"]["failed"]
    assert answer["plugins"]["mine"]["reason"] == "0 others"
    assert answer["by"] == run["analysis"]["by"] == "statistics"


def test_an_analyzer_that_never_ends_is_left_behind(tmp_path):
    plugins = plugins_with(analyzers={"endless": endless})
    plugins.analyzer("endless")[1].budget_s = 0.1

    async def use(client):
        await client.post("/v1/ingest", json={"events": EVENTS})
        return (await client.get(f"/v1/runs/{RUN_ID}/analysis")).json()

    answer = in_service(tmp_path, use, plugins=plugins)
    assert "not done within" in answer["plugins"]["endless"]["failed"]


# --- stores -----------------------------------------------------------------------------------------------------


def test_hook_xray_stores(tmp_path):
    """A service runs on a plugin's store that its URL's scheme names."""
    plugins = plugins_with(stores={"mine": lambda url: SqliteStore(tmp_path / url.removeprefix("mine://"))})

    async def use():
        app = create_app(ServerSettings(store="mine://here.db"), plugins=plugins)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://xray") as client,
        ):
            assert (await client.post("/v1/ingest", json={"events": EVENTS})).status_code == 200
            return (await client.get("/health")).json()["store"]["location"]

    assert asyncio.run(use()) == str(tmp_path / "here.db")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlit:///x", "Did you mean 'sqlite'?"),
        ("mogodb://x/y", "Did you mean 'mongodb'?"),
        ("min://x", "Did you mean 'mine'?"),
        ("x.sqlite3", "Write sqlite:///FILE"),
        ("sqlite:x", "Write sqlite:///FILE"),
        ("wrong://user:secret@x", "gave dict, which is no store"),
        ("broken://user:secret@x", "RuntimeError: on purpose"),
        ("picky://x", "no such place"),
    ],
)
def test_a_url_of_no_store_is_refused_with_what_would_be_right(url, said):
    """And without the password that may be in it."""

    def picky(url):
        raise ConfigurationError("There is no such place.")

    plugins = plugins_with(stores={"mine": SqliteStore, "wrong": lambda url: {}, "broken": boom, "picky": picky})
    with pytest.raises(ConfigurationError) as error:
        open_store(url, plugins)
    assert said in str(error.value)
    assert "secret" not in str(error.value)
    # A URL that is not right is no failure of the plugin's, which would be logged and counted in xray.stats().
    assert sum(report.failures for report in plugins.reports()) == ("broken" in url)


def test_the_services_own_names_cannot_be_taken():
    """Neither stores and channels, nor formats of exports, nor who analyzes; what else a plugin brings is there."""
    plugins = Plugins(entry_points=False)
    taken = Bringing(
        stores={"sqlite": boom, "mine": SqliteStore}, alert_channels={"webhook": boom, "log": boom},
        exporters={"jsonl": boom}, analyzers={"model": boom},
    )  # fmt: skip
    with pytest.raises(PluginError, match="has the name of one of X-Ray's own"):
        plugins.register(taken, "greedy")
    assert len(plugins.problems["greedy"]) == 5
    assert plugins.names("xray_stores") == ("mine",)
    assert open_store("sqlite:///x", plugins).kind == "sqlite"


def test_the_service_lists_what_it_brings_itself(tmp_path):
    """By the same hooks as plugins."""

    async def use(client):
        rows = {each["name"]: each for each in (await client.get("/v1/plugins")).json()["plugins"]}
        assert rows["xray_server"]["origin"] == "built-in"
        assert rows["xray_server"]["stores"] == ["sqlite", "mongodb", "mongodb+srv"]
        assert rows["xray_server"]["alert_channels"] == ["log", "webhook"]
        assert rows["of the test"]["exporters"] == ["collect"]
        error_of(await client.get("/v1/plugins?x=1"), 422)

    in_service(tmp_path, use, plugins=plugins_with(exporters={"collect": boom}))


def test_two_services_of_a_process_share_its_plugins(tmp_path, process):
    """What is built in is added once, however many services there are."""
    for name in ("a", "b"):
        create_app(ServerSettings(store=f"sqlite:///{tmp_path}/{name}"))
    assert [info.name for info in process.infos()].count("xray_server") == 1
    assert process.problems == {}
