"""``xray trends`` and ``xray system`` against a real service: what they print, their JSON, their errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import xray
from tests.cli.test_cli import xray_cli
from tests.service import Service, start_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        xray.configure(server_url=running.url)
        for version in ("1", "2"):
            with xray.run("[b]shop", version=version) as run, run.stage("judge", "filtering") as stage:
                stage.candidates([{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d"}])
                stage.result([{"id": "a"}])
        assert xray.flush(timeout_s=30)
        yield running


def test_trends_are_printed_and_given_as_json(service: Service):
    """Markup in what users recorded is inert; the JSON is the service's answer."""
    done = xray_cli("trends", "[b]shop", "--by", "version,label", service=service)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 stages in 1 stretch of 12h" in done.stdout
    assert "[b]shop" in done.stdout
    assert "75.0%" in done.stdout
    answer = json.loads(xray_cli("trends", "--stage", "judge", "--bucket", "1h", "--json", service=service).stdout)
    with service.client() as client:
        assert answer["rows"] == client.trends(name="judge", bucket="1h").rows
    assert [(row["stages"], row["failed"]) for row in answer["rows"]] == [(2, 6)]
    assert json.loads(xray_cli("trends", "nothing", "--json", service=service).stdout)["rows"] == []


def test_the_service_is_described(service: Service):
    done = xray_cli("system", service=service)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 runs, 2 stages, 2 candidate pages" in done.stdout
    assert "candidates for ever, runs for ever" in done.stdout
    answer = json.loads(xray_cli("system", "--json", service=service).stdout)
    assert answer["holds"]["stages"] == 2
    assert answer["intake"]["events"] > 0


def test_wrong_use_is_said(service: Service):
    done = xray_cli("trends", "--by", "lable", service=service)
    assert done.returncode == 1
    assert "Did you mean 'label'?" in done.stderr


def test_open_shows_the_dashboard_in_the_browser(tmp_path: Path):
    """The browser that the environment names is given the address; without one the service says so and goes on."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part\nmv {opened}.part {opened}\n')
    browser.chmod(0o755)
    with start_service(tmp_path, "--open", BROWSER=f"{browser} %s") as service:
        deadline = time.monotonic() + 20
        while not opened.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert opened.read_text().strip() == f"{service.url}/"
    with start_service(tmp_path, "--open", BROWSER="/bin/false", PATH="") as service, service.client() as client:
        assert client.health()["status"] == "ok"
