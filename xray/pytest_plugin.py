"""The pytest plugin: the fixture ``xray_recorder``, and the last run's funnel beside a test that failed.

pytest loads this module for everybody who has X-Ray installed, so that it imports the rest of X-Ray only where the
fixture is used.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xray.testing import Recorder


@pytest.fixture
def xray_recorder() -> Iterator[Recorder]:
    """What the test records, in memory: ``xray_recorder.last_run``; with fixed ids and clock and default settings."""
    from xray.testing import Recorder, fixed_ids_and_clock

    with fixed_ids_and_clock(), Recorder() as recorder:
        yield recorder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show beside a failure what the pipeline did."""
    report = yield
    if report.failed and report.when == "call":
        funnel = _last_funnel(getattr(item, "funcargs", {}).get("xray_recorder"))
        if funnel:
            report.sections.append(("X-Ray: the last run", funnel))
    return report


def _last_funnel(recorder: Recorder | None) -> str:
    if recorder is None:
        return ""
    try:
        runs = recorder.runs
        return runs[-1].funnel() if runs else ""
    except Exception as error:
        # The test's own failure is what matters; nothing of ours may stand in its place.
        return f"(not available: {type(error).__name__}: {error})"
