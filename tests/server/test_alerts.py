"""Alerts: rules that are read with care, looked at exactly, and told once to channels that may fail."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_snippets import ROOT, blocks_of
from tests.server.helpers import in_service, stage
from tests.server.test_hooks import Bringing, boom, plugins_with
from xray.cli.app import run as xray_command
from xray.exceptions import ConfigurationError, XRayError
from xray.ids import now_ms
from xray.plugins import Plugins
from xray_server.alerts import watch
from xray_server.alerts.channels import to_webhook
from xray_server.alerts.rules import parse_alerts, read_alerts
from xray_server.alerts.watch import AlertWatch, look_at
from xray_server.api.answers import Service
from xray_server.app import create_app
from xray_server.built_in import with_built_in
from xray_server.settings import ServerSettings
from xray_server.stores.sqlite import SqliteStore

RULE: dict[str, Any] = {
    "name": "much is rejected", "where": {"stage": {"name": "price_filter"}}, "value": {"$avg": "$failRatio"},
    "above": 0.5, "over": "1h",
}  # fmt: skip


def plugins() -> Plugins:
    return with_built_in(Plugins(entry_points=False))


def rules(*given: dict[str, Any], **channels: Any) -> dict[str, Any]:
    return {"rules": list(given), "channels": channels}


# --- reading ----------------------------------------------------------------------------------------------------


def test_the_rules_of_the_documentation_can_be_read():
    """The example of docs/alerts.md."""
    (example,) = (block for block in blocks_of(ROOT / "docs" / "alerts.md") if block.text.startswith('{\n  "channels"'))
    alerts = parse_alerts(json.loads(example.text), plugins())
    assert [rule.name for rule in alerts.rules] == ["nearly everything is rejected", "nobody searches"]
    assert alerts.rules[1].channels == ("log",)
    assert alerts.channels["ops"].kind == "webhook"


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        ([], "alerts", "an object"),
        ({"rule": []}, "alerts.rule", "Did you mean 'rules'?"),
        ({"rules": {}}, "rules", "a list"),
        (rules(RULE | {"abov": 3}), "rules[0].abov", "Did you mean 'above'?"),
        (rules(RULE | {"above": "x"}), "rules[0].above", "a number"),
        (rules(RULE | {"above": True}), "rules[0].above", "a number"),
        (rules(RULE | {"above": None}), "rules[0]", "has a limit"),
        (rules(RULE | {"name": ""}), "rules[0].name", "a name"),
        (rules(RULE | {"over": "1 hour"}), "rules[0].over", "Did you mean '1h'?"),
        (rules(RULE | {"over": "forever"}), "rules[0].over", "a stretch of time"),
        (rules(RULE | {"over": "0h"}), "rules[0].over", "a stretch of time"),
        (rules(RULE | {"at_least": -1}), "rules[0].at_least", "0 or more"),
        (rules(RULE | {"where": {"stag": {}}}), "rules[0].where.stag", "Did you mean 'stage'?"),
        (rules(RULE | {"where": {"values": {}}}), "rules[0].where.values", "no 'values' here"),
        (rules(RULE | {"channels": []}), "rules[0].channels", "a list of names"),
        (rules(RULE | {"channels": ["opps"]}, ops={"type": "log"}), "rules[0].channels[0]", "Did you mean 'ops'?"),
        (rules(RULE, RULE), "rules[1].name", "Two rules"),
        (rules(ops={"type": "webhok"}), "channels.ops.type", "Did you mean 'webhook'?"),
        (rules(ops={"type": ["log"]}), "channels.ops.type", "There are log, webhook"),
        (rules(ops={"type": "webhook"}), "channels.ops.url", "http"),
        (rules(ops={"type": "webhook", "url": "file:///etc/passwd"}), "channels.ops.url", "http"),
        (rules(ops={"type": "webhook", "url": "http://"}), "channels.ops.url", "http"),
        (rules(ops={"type": "webhook", "url": "http://[x"}), "channels.ops.url", "http"),
        (rules(ops={"type": "webhook", "url": "http://x", "headers": {"a": 1}}), "channels.ops.headers", "texts"),
        (rules(ops={"type": "webhook", "url": "http://x", "ur": 1}), "channels.ops.ur", "Did you mean 'url'?"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(given, path, said):
    with pytest.raises(ConfigurationError) as error:
        parse_alerts(given, plugins())
    assert error.value.path == path
    assert said in str(error.value)


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_a_file_that_cannot_be_read_is_an_error_at_the_start(tmp_path, content):
    """Of the service, before it listens."""
    file = tmp_path / "rules.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"rules\.json"):
        read_alerts(file, plugins())
    with pytest.raises(ConfigurationError):
        create_app(ServerSettings(store=f"sqlite:///{tmp_path}/x", alerts=str(file)), plugins=plugins())


# --- looking ----------------------------------------------------------------------------------------------------


def with_service(folder: Path, use: Callable[[Service], Awaitable[Any]], known: Plugins | None = None) -> Any:
    """Use what answers questions, over a store of its own."""

    async def run() -> Any:
        store = SqliteStore(folder / "x.sqlite3")
        await store.open()
        try:
            return await use(Service(store, known or plugins(), ServerSettings()))
        finally:
            await store.close()

    return asyncio.run(run())


async def record(service: Service, number: int, rejected: int, minutes_ago: float = 1, **fields: Any) -> None:
    """A filtering stage of ten candidates."""
    at = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes_ago)
    rows = [{"id": f"c{n}", "verdict": "failed" if n < rejected else "passed"} for n in range(10)]
    event = stage(id=f"01890000-0000-7000-8000-{number:012d}", candidates=rows, started_at=at.isoformat(), **fields)
    result = await service.ingest.accept("default", [event])
    assert not result.errors


@pytest.mark.parametrize(
    ("change", "state", "value", "stages"),
    [
        ({}, "firing", 0.7, 2),
        ({"above": 0.7}, "ok", 0.7, 2),
        ({"above": None, "below": 0.8}, "firing", 0.7, 2),
        ({"above": None, "below": 0.7}, "ok", 0.7, 2),
        ({"above": 0.9, "below": 0.8}, "firing", 0.7, 2),
        ({"at_least": 3}, "too few", 0.7, 2),
        ({"over": "1d"}, "ok", 0.5, 3),
        ({"over": "5m"}, "firing", 0.8, 1),
        ({"value": {"$max": "$failed"}, "above": 7}, "firing", 8, 2),
        ({"value": {"$count": {}}, "above": 1}, "firing", 2, 2),
        ({"where": {}, "value": {"$count": {}}, "above": 2}, "firing", 3, 3),
        ({"where": {"stage": {"name": "nowhere"}}, "value": {"$count": {}}, "above": None, "below": 5}, "firing", 0, 0),
        ({"where": {"stage": {"name": "nowhere"}}, "above": None, "below": 5}, "too few", None, 0),
        ({"where": {"candidate": {"candidate_id": "c7", "verdict": "failed"}}, "value": {"$count": {}}, "above": 0},
         "firing", 1, 1),
    ],
)  # fmt: skip
def test_a_rule_is_looked_at_exactly(tmp_path, change, state, value, stages):
    """Over the stages that satisfy its conditions and started in its stretch of time, to the millisecond."""

    async def use(service):
        await record(service, 1, rejected=8, minutes_ago=2)
        await record(service, 2, rejected=6, minutes_ago=30)
        await record(service, 3, rejected=1, minutes_ago=100)
        await record(service, 4, rejected=0, name="other")
        (rule,) = parse_alerts(rules(RULE | change), service.plugins).rules
        found = await look_at(rule, service.aggregate, now_ms())
        assert (found.state, found.stages, found.error) == (state, stages, None)
        assert found.value == (None if value is None else pytest.approx(value))

    with_service(tmp_path, use)


class Told:
    """A channel that remembers what it was told, and fails as often as it is asked to."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.failures = 0

    def __call__(self, alert: Any, options: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("nobody there")
        self.alerts.append({**alert, "options": options})


def watching(service: Service, **change: Any) -> AlertWatch:
    given = rules(RULE | {"channels": ["pager"]} | change, pager={"type": "pager", "team": "search"})
    return AlertWatch(parse_alerts(given, service.plugins), service.plugins, service.aggregate)


def test_hook_xray_alert_channels(tmp_path):
    """A plugin's channel is told once when a rule begins to fire and once when it ends."""
    told = Told()

    async def use(service):
        task = watching(service)
        await task.tick()
        await record(service, 1, rejected=8)
        for _ in range(3):
            await task.tick()
        assert task.state()["firing"] == ["much is rejected"]
        for number in range(2, 6):
            await record(service, number, rejected=0)
        for _ in range(3):
            await task.tick()
        assert task.state()["firing"] == []

    with_service(tmp_path, use, with_built_in(plugins_with(alert_channels={"pager": told})))
    assert [(alert["state"], alert["rule"], alert["options"]) for alert in told.alerts] == [
        ("firing", "much is rejected", {"team": "search"}), ("ended", "much is rejected", {"team": "search"}),
    ]  # fmt: skip
    assert told.alerts[0]["text"] == "0.8 is above 0.5, over the last 1h (1 stages)"
    assert told.alerts[1]["text"] == "0.16 is no longer above 0.5, over the last 1h (5 stages)"
    json.dumps(told.alerts)


def test_a_delivery_that_fails_is_tried_again(tmp_path, monkeypatch):
    """With each look, until it is delivered or too old; what a rule says later takes its place."""
    told = Told()

    async def use(service):
        task = watching(service)
        await record(service, 1, rejected=8)
        told.failures = 2
        await task.tick()
        await task.tick()
        assert (told.alerts, task.state()["waiting"]) == ([], 1)
        await task.tick()
        assert ([alert["state"] for alert in told.alerts], task.state()["waiting"]) == (["firing"], 0)
        told.failures = 100
        for number in range(2, 6):
            await record(service, number, rejected=0)
        await task.tick()
        await record(service, 6, rejected=10, minutes_ago=0.1)
        for number in range(7, 20):
            await record(service, number, rejected=10)
        await task.tick()
        assert task.state()["waiting"] == 1
        monkeypatch.setattr(watch, "GIVE_UP_AFTER_MS", 0)
        await task.tick()
        assert (task.state()["waiting"], task.state()["given_up"]) == (0, 1)

    with_service(tmp_path, use, with_built_in(plugins_with(alert_channels={"pager": told})))


def test_a_rule_that_cannot_be_looked_at_stays_as_it_was(tmp_path, caplog):
    """It is logged once and shown; the other rules are looked at."""
    told = Told()

    async def use(service):
        given = rules(
            RULE | {"name": "slip", "value": {"$avg": "$failRatoi"}}, RULE | {"channels": ["pager"]},
            pager={"type": "pager"},
        )  # fmt: skip
        task = AlertWatch(parse_alerts(given, service.plugins), service.plugins, service.aggregate)
        await record(service, 1, rejected=8)
        with caplog.at_level(logging.WARNING, "xray.server"):
            await task.tick()
            await task.tick()
        state = task.state()["rules"]
        assert state["slip"]["state"] == "unknown"
        assert "Did you mean '$failRatio'?" in state["slip"]["error"]
        assert caplog.text.count("cannot be looked at") == 1
        assert len(told.alerts) == 1

    with_service(tmp_path, use, with_built_in(plugins_with(alert_channels={"pager": told})))


def test_a_rule_that_fires_goes_on_while_there_is_too_little_to_say(tmp_path):
    """No stages in the last minutes do not end it."""
    told = Told()

    async def use(service):
        task = watching(service)
        await record(service, 1, rejected=8)
        await task.tick()
        task._alerts = watching(service, over="1s")._alerts
        await task.tick()
        assert task.state()["firing"] == ["much is rejected"]
        assert len(told.alerts) == 1

    with_service(tmp_path, use, with_built_in(plugins_with(alert_channels={"pager": told})))


def test_a_service_with_rules_shows_how_they_stand(tmp_path):
    """Under the tasks of /health; without rules there is no such task."""
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(rules(RULE)))

    async def use(client):
        return (await client.get("/health")).json()["tasks"]

    assert in_service(tmp_path, use, plugins=plugins(), alerts=str(file))["alerts"]["rules"].keys() == {RULE["name"]}
    assert "alerts" not in in_service(tmp_path, use, plugins=plugins())


# --- the channels of the service --------------------------------------------------------------------------------


@contextmanager
def listening(status: int, location: str | None = None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server on loopback that answers every POST so, and what it got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append({"path": self.path, "headers": dict(self.headers), "body": json.loads(body)})
            self.send_response(status)
            if location is not None:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the name that the base class calls

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ALERT = {"rule": "r", "state": "firing", "text": "t"}


def test_a_webhook_is_posted_as_json_with_the_operators_headers():
    with listening(204) as (url, got):
        to_webhook(ALERT, {"url": f"{url}/hook?x=1", "headers": {"Authorization": "Bearer y"}})
    (request,) = got
    assert (request["path"], request["body"]) == ("/hook?x=1", ALERT)
    assert request["headers"]["Authorization"] == "Bearer y"
    assert request["headers"]["Content-Type"] == "application/json"


def test_a_webhook_follows_no_redirect():
    """What it is sent to is the operator's choice, not the other side's."""
    with listening(200) as (elsewhere, reached), listening(302, elsewhere) as (url, got):
        with pytest.raises(XRayError, match="answered 302"):
            to_webhook(ALERT, {"url": url})
        assert (len(got), reached) == (1, [])


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_webhook_that_is_refused_is_a_failure(status):
    with listening(status) as (url, _), pytest.raises(XRayError, match=str(status)):
        to_webhook(ALERT, {"url": url})


def test_the_log_has_a_warning_and_a_notice(tmp_path, caplog):
    """From a rule that names no channel at all."""

    async def use(service):
        task = AlertWatch(parse_alerts(rules(RULE), service.plugins), service.plugins, service.aggregate)
        await record(service, 1, rejected=8)
        await task.tick()
        for number in range(2, 6):
            await record(service, number, rejected=0)
        await task.tick()

    with caplog.at_level(logging.INFO, "xray.alerts"):
        with_service(tmp_path, use)
    assert [(entry.levelname, entry.message.partition(":")[0]) for entry in caplog.records] == [
        ("WARNING", "Alert 'much is rejected'"), ("INFO", "Alert 'much is rejected'"),
    ]  # fmt: skip


# --- the command line -------------------------------------------------------------------------------------------


def test_alerts_are_listed_and_checked(tmp_path, monkeypatch, capsys):
    """``list`` without a store and without secrets; ``check`` says how each rule stands and exits with 1."""
    found = Plugins(entry_points=False)
    told = Told()
    found.register(Bringing(alert_channels={"pager": told, "broken": boom}), "of the test")
    monkeypatch.setattr("xray.plugins._current", found)
    monkeypatch.setattr("xray.plugins._ready", True)

    async def use(service):
        await record(service, 1, rejected=8)

    with_service(tmp_path, use)
    file = tmp_path / "rules.json"
    channels = {
        "ops": {"type": "webhook", "url": "http://127.0.0.1:1/", "headers": {"Authorization": "secret"}},
        "pager": {"type": "pager"}, "broken": {"type": "broken"},
    }  # fmt: skip
    firing = RULE | {"channels": ["pager", "broken"]}
    file.write_text(json.dumps(rules(firing, RULE | {"name": "fine", "above": 0.9}, **channels)))
    assert xray_command(["alerts", "list", "--file", str(file), "--json"]) == 0
    listed = capsys.readouterr().out
    assert "secret" not in listed
    assert [rule["name"] for rule in json.loads(listed)["rules"]] == ["much is rejected", "fine"]
    assert xray_command(["alerts", "list", "--file", str(file)]) == 0
    assert "much is rejected" in capsys.readouterr().out
    monkeypatch.setenv("XRAY_SERVER_ALERTS", str(file))
    store = ["--store", f"sqlite:///{tmp_path}/x.sqlite3"]
    assert xray_command(["alerts", "check", *store, "--json"]) == 1
    states = {rule["name"]: rule["state"] for rule in json.loads(capsys.readouterr().out)["rules"]}
    assert (states, told.alerts) == ({"much is rejected": "firing", "fine": "ok"}, [])
    assert xray_command(["alerts", "check", *store, "--send", "--json"]) == 1
    sent = json.loads(capsys.readouterr().out)["rules"][0]["sent"]
    assert sent == {"pager": "delivered", "broken": "RuntimeError: on purpose"}
    assert len(told.alerts) == 1
    file.write_text(json.dumps(rules(RULE | {"above": 0.9})))
    assert xray_command(["alerts", "check", *store]) == 0
    assert "ok" in capsys.readouterr().out
    monkeypatch.delenv("XRAY_SERVER_ALERTS")
    assert xray_command(["alerts", "check", *store]) == 1
    assert "--file" in capsys.readouterr().err
