"""What all tests share."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from xray.runtime import runtime


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help="Fail the session where a test was skipped that could have run."
    )


class _Skips:
    """Collects what was skipped, for ``--strict-skips``."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.reasons[report.nodeid] = str(report.longrepr)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.reasons and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, reason in self.reasons.items():
            terminalreporter.write_line(f"--strict-skips: {test} was skipped: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--strict-skips"):
        config.pluginmanager.register(_Skips(), "strict-skips")


@pytest.fixture(scope="session")
def spools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' spools lie: a folder each, made when something is written."""
    return tmp_path_factory.mktemp("spools")


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def fresh_runtime(monkeypatch: pytest.MonkeyPatch, spools: Path):
    """Each test begins with default settings, an empty buffer and a spool of its own, whatever the environment says."""
    import os

    for name in list(os.environ):
        if name.startswith("XRAY_") and not name.startswith("XRAY_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XRAY_SPOOL_DIR", str(spools / str(next(_numbers))))
    runtime.reset()
    yield
    runtime.reset()
