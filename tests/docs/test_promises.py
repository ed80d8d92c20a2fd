"""docs/delivery.md: each promise names tests, and there are such tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def promises() -> dict[str, list[str]]:
    """Promise → the tests that the page names for it."""
    page = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
    table = page.partition("## What is promised")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| (.+) \| (.*) \|$", table)[2:]
    return {promise: re.findall(r"`([^`]+)`", tests) for promise, tests in rows}


def test_each_promise_is_held_by_tests_that_exist():
    """Every row has at least one test, written as pytest takes it, and the file has a function of that name."""
    found = promises()
    assert len(found) > 15, "the table was not read"
    for promise, tests in found.items():
        assert tests, f"nothing holds: {promise}"
        for test in tests:
            file, _, name = test.partition("::")
            path = ROOT / "tests" / file
            assert path.is_file(), f"{promise}: there is no {path}"
            functions = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
            assert name in functions, f"{promise}: {file} has no {name}"
