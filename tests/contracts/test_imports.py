"""What may import what, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xray

ROOT = Path(__file__).parents[2]
HEAVY = {
    "fastapi",
    "starlette",
    "uvicorn",
    "pymongo",
    "beanie",
    "pydantic",
    "pandas",
    "numpy",
    "typer",
    "rich",
    "urllib3",
}


def imported_modules(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_importing_xray_is_light():
    """No service, no data frames, no HTTP client, no command line; and no thread is started."""
    loaded = {name.partition(".")[0] for name in imported_modules("import xray")}
    assert "msgspec" in loaded, "the list of imports could not be read"
    assert loaded & (HEAVY | {"xray_server"}) == set()
    subprocess.run([sys.executable, "-c", "import threading, xray; assert threading.active_count() == 1"], check=True)


def test_the_service_loads_no_driver_that_it_does_not_use():
    """Where the data lies in SQLite, nothing of MongoDB's is loaded."""
    loaded = {name.partition(".")[0] for name in imported_modules("import xray_server.serve")}
    assert "fastapi" in loaded, "the list of imports could not be read"
    assert loaded & {"pymongo", "bson", "beanie"} == set()


def test_recording_in_memory_is_light_too():
    """Decorating and recording loads no more than importing does."""
    statement = (
        "import sys, xray; from xray.delivery.memory import MemoryTransport; "
        "xray.configure(transport=MemoryTransport()); xray.filtering_stage(lambda pool: pool)([1]); "
        f"assert xray.flush(); heavy = {HEAVY | {'xray_server'}!r} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", statement], check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "xray").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_sdk_never_imports_the_server(path: Path):
    """Neither at the top nor inside a function, but for the commands that start the service or look after a store."""
    commands = {"app.py": {"xray_server.serve"}, "upkeep.py": {"xray_server"}, "alerts.py": {"xray_server.alerts"}}
    allowed = commands.get(path.name, set())
    if path.parent.name != "cli":
        allowed = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert {name for name in names if name.partition(".")[0] == "xray_server"} <= allowed


def test_the_public_names_are_those_of_all():
    """xray/__init__.py exports what __all__ says, sorted, and nothing by accident."""
    assert xray.__all__ == sorted(xray.__all__)
    source = ast.parse((ROOT / "xray" / "__init__.py").read_text())
    bound = {
        alias.asname or alias.name for node in source.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert bound == set(xray.__all__)
