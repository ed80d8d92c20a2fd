"""What all tests share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.mongodb import NO_SERVER, Databases, running
from xray.runtime import runtime

# A busy machine takes longer, and that is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help="Fail the session where a test was skipped that could have run."
    )


class _Skips:
    """Collects what was skipped, for ``--strict-skips``."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.without_server = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            if NO_SERVER in str(report.longrepr):
                self.without_server += 1  # this machine could not have run it
            else:
                self.reasons[report.nodeid] = str(report.longrepr)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.reasons and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, reason in self.reasons.items():
            terminalreporter.write_line(f"--strict-skips: {test} was skipped: {reason}", red=True)
        if self.without_server:
            terminalreporter.write_line(
                f"--strict-skips: {self.without_server} tests were skipped: {NO_SERVER}", yellow=True
            )


def is_one_of_several(config: pytest.Config) -> bool:
    """Whether this process was started by another one that spreads the tests (``pytest -n``)."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    # Every skip is reported to the process that spreads the tests.
    if config.getoption("--strict-skips") and not is_one_of_several(config):
        config.pluginmanager.register(_Skips(), "strict-skips")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.spread import Spread

    return Spread(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_one_of_several(config):
        from tests.spread import long_ones_first

        items[:] = long_ones_first(items)


@pytest.fixture(scope="session")
def spools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' spools lie: a folder each, made when something is written."""
    return tmp_path_factory.mktemp("spools")


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def fresh_runtime(monkeypatch: pytest.MonkeyPatch, spools: Path):
    """Each test begins with default settings, an empty buffer and a spool of its own, whatever the environment says."""
    for name in list(os.environ):
        if name.startswith("XRAY_") and not name.startswith("XRAY_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XRAY_SPOOL_DIR", str(spools / str(next(_numbers))))
    runtime.reset()
    yield
    runtime.reset()


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MongoDB server that the whole session shares."""
    given = os.environ.get("XRAY_TEST_MONGODB_URI")
    if given:
        yield given
        return
    with running(tmp_path_factory.mktemp("mongodb")) as server:
        yield server.uri


@pytest.fixture
def databases(mongodb_uri: str) -> Iterator[Databases]:
    """Databases of a test's own, dropped at its end."""
    given = Databases(mongodb_uri)
    yield given
    given.drop()
