"""The decorators keep signatures under mypy --strict and pyright strict."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TYPING = Path(__file__).parents[1] / "typing"
WRONG_LINES = {
    number for number, line in enumerate((TYPING / "wrong.py").read_text().splitlines(), 1) if "# E:" in line
}


def mypy_error_lines(name: str) -> set[int]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(TYPING / name)],
        capture_output=True, text=True, check=False, cwd=TYPING.parents[1],
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return {int(line) for line in re.findall(rf"{name}:(\d+): error", done.stdout)}


def pyright_error_lines(name: str) -> set[int]:
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(TYPING / name)],
        capture_output=True, text=True, check=False, cwd=TYPING.parents[1],
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {item["range"]["start"]["line"] + 1 for item in found if item["severity"] == "error"}


@pytest.mark.parametrize("name", ["api.py", "wrong.py"])
def test_pyright_checks_the_files_in_strict_mode(name):
    """The comment that switches pyright to strict stands at the top."""
    assert (TYPING / name).read_text().startswith("# pyright: strict\n")


@pytest.mark.parametrize("check", [mypy_error_lines, pyright_error_lines])
def test_right_use_is_clean_and_wrong_use_is_an_error(check):
    """Decorated callables have exactly the types of the undecorated ones; fields are checked."""
    assert WRONG_LINES
    assert check("api.py") == set()
    assert check("wrong.py") == WRONG_LINES
