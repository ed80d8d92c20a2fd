"""A browser and services with data in them, shared by all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from xray_examples import categorisation, competitors, history, listing

import xray
from tests.browser.watched import Watched, browser_path, launch, watched
from tests.mongodb import Databases
from tests.service import Service, start_service
from xray.client import Client


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The browser. Its driver has an event loop of its own in this thread, so it must end with this folder's tests."""
    browser_path()
    with sync_playwright() as playwright:
        found = launch(playwright)
        yield found
        found.close()


@pytest.fixture(scope="package", params=["sqlite", "mongodb"])
def store_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="package")
def databases_of_pages(request: pytest.FixtureRequest, store_kind: str) -> Iterator[Databases | None]:
    """Databases where the store needs them; dropped at the end."""
    if store_kind == "sqlite":
        yield None
        return
    given = Databases(request.getfixturevalue("mongodb_uri"))
    yield given
    given.drop()


def store_of(folder: Path, databases: Databases | None) -> str | None:
    """The URL of a store of a folder's own; None is the embedded one."""
    return None if databases is None else databases.url(folder)


@pytest.fixture(scope="package")
def demo(
    databases_of_pages: Databases | None, tmp_path_factory: pytest.TempPathFactory, spools: Path
) -> Iterator[Service]:
    """A service with what the examples record: matches with a fault planted, categories, titles, and three weeks."""
    folder = tmp_path_factory.mktemp("demo")
    with start_service(folder, store=store_of(folder, databases_of_pages)) as service:
        fill(service.url, spools / "demo")
        yield service


def fill(url: str, spool: Path) -> None:
    """Record the examples."""
    xray.configure(server_url=url, spool_dir=str(spool), enabled=True)
    for _ in range(3):
        competitors.run_all(fault=False)
    competitors.run_all(fault=True)
    categorisation.run_all()
    listing.run_all()
    assert xray.flush(timeout_s=60)
    with Client(url) as client:
        for run in history.runs():
            assert client.send(run).is_whole


@pytest.fixture
def visit(browser: Browser, demo: Service) -> Iterator[Watched]:
    """A page of the service with the examples' data."""
    with watched(browser, demo.url) as found:
        yield found


@pytest.fixture
def empty(
    browser: Browser, databases_of_pages: Databases | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A page of a service that has nothing yet."""
    folder = tmp_path_factory.mktemp("empty")
    with (
        start_service(folder, store=store_of(folder, databases_of_pages)) as service,
        watched(browser, service.url) as found,
    ):
        yield found
