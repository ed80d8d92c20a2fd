"""How the tests are spread over processes: what ``tests/spread.py`` names is there, and units hold together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spread import LONG, ONE_BY_ONE, unit_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("start", [*LONG, *ONE_BY_ONE])
def test_what_is_named_is_there(start: str):
    """A file that was renamed would silently be given out last."""
    assert list(ROOT.glob(f"{start}*")), f"no test file begins with {start}"


PAGES, COMPARE = "tests/browser/test_every_page.py::test_a", "tests/browser/test_compare_page.py::test_b"


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("tests/sdk/test_ids.py::test_a", "tests/sdk/test_ids.py::test_b[x-y]", True),
        ("tests/sdk/test_ids.py::test_a", "tests/sdk/test_asgi.py::test_a", False),
        ("tests/docs/test_snippets.py::test_a[one]", "tests/docs/test_snippets.py::test_a[two]", False),
        (f"{PAGES}[sqlite-run]", f"{COMPARE}[sqlite]", True),
        (f"{PAGES}[mongodb-run]", f"{COMPARE}[mongodb]", True),
        (f"{PAGES}[sqlite-run]", f"{PAGES}[mongodb-run]", False),
    ],
)
def test_tests_that_share_something_costly_stay_together(one: str, other: str, together: bool):
    """A file is a unit; so is a service that the browser looks at, on either store."""
    assert (unit_of(one) == unit_of(other)) is together


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_skip_fails_a_strict_session_however_many_processes(tmp_path: Path, processes: str):
    """``--strict-skips`` holds with ``-n`` as it does without: once, with the reason; else a skip is no failure."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_addoption, pytest_configure\n")
    (tmp_path / "test_some.py").write_text(
        "import pytest\n\ndef test_one(): pytest.skip('no such thing')\n\ndef test_two(): pass\n"
    )

    def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-n", processes, "-ra", *arguments], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    strict = ended("--strict-skips")
    assert strict.returncode == pytest.ExitCode.TESTS_FAILED, strict.stdout + strict.stderr
    said = [line for line in strict.stdout.splitlines() if line.startswith("--strict-skips: ")]
    assert len(said) == 1
    assert "test_one was skipped" in said[0]
    assert "no such thing" in said[0]
    assert "1 passed, 1 skipped" in strict.stdout
    assert ended().returncode == pytest.ExitCode.OK
