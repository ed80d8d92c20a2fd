"""docs/plugins.md, "Write one": followed to the letter, from the template to a question about the new metric."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.test_snippets import ROOT, blocks_of
from tests.service import start_service

PAGE = ROOT / "docs" / "plugins.md"


class Reader:
    """Somebody who follows the page in a folder of their own.

    Packages go into ``site``, which stands for the reader's environment.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.site = folder / "site"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "XRAY_SERVER_URL": url, "PYTHONPATH": str(self.site), "PATH": path}
        self.environment["COLUMNS"] = "200"  # wide enough for whole lines

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "X-Ray" not in done.stderr, done.stderr
        return done.stdout

    def say(self, command: str) -> str:
        words = shlex.split(command)
        if words[:2] == ["pip", "install"]:
            # Without the network, and into a folder instead of the environment that runs the tests.
            words = [sys.executable, "-m", *words, "--no-index", "--quiet", "--target", str(self.site)]
        return self.run(*words)


@contextmanager
def reading(folder: Path, store: str | None = None) -> Iterator[Reader]:
    """Somebody who follows the page, beside a service that has no copy of the plugin."""
    (folder / "service").mkdir()
    with start_service(folder / "service", store=store) as service:
        yield Reader(folder, service.url)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with reading(tmp_path) as found:
        yield found


@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
def test_the_guide_is_followed_to_the_letter(tmp_path, monkeypatch, request, store):
    """On each store: new package, installed, its tests pass, listed, recorded, asked about, sorted by, shown."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    url = request.getfixturevalue("databases").url(tmp_path) if store == "mongodb" else None
    with reading(tmp_path, url) as reader:
        follow_the_guide(reader)


def follow_the_guide(reader: Reader) -> None:
    text = PAGE.read_text()
    start, end = text.index("## Write one"), text.index("## Where plugins are found")
    first, last = (text[:at].count("\n") + 1 for at in (start, end))
    said = {}
    for block in blocks_of(PAGE):
        if not first < block.line < last:
            continue
        if block.language == "python":
            (reader.folder / "page.py").write_text(block.text)
            reader.run(sys.executable, "page.py")
        else:
            for command in block.text.strip().splitlines():
                said[command] = reader.say(command)
    assert any("passed" in output for output in said.values())
    assert "price_check" in said["xray plugins"]
    assert "0.1.0" in said["xray plugins"]
    queries = {command: output for command, output in said.items() if command.startswith("xray query")}
    assert len(queries) == 3
    for command, output in queries.items():
        assert "Nothing found" not in output, command
        assert "by_brand" in output, command
    assert "price_check_largest_share 0.6667" in said["xray show latest"]


def test_the_other_examples_of_the_page_run(reader):
    """What comes after the guide records without loss or failure."""
    text = PAGE.read_text()
    start = text[: text.index("## Where plugins are found")].count("\n")
    blocks = [block.text for block in blocks_of(PAGE) if block.line > start and block.language == "python"]
    assert blocks
    (reader.folder / "page.py").write_text(
        "\n".join([*blocks, "assert xray.flush(timeout_s=20), xray.stats()", "assert not xray.stats().failures"])
    )
    reader.run(sys.executable, "page.py")
    rows = json.loads(
        reader.run("xray", "query", '{"stage": {"name": "payments"}, "candidate": {}, "return": "candidates"}', "--json")
    )["rows"]
    assert {row["data"]["note"] for row in rows} == {"paid with [card]"}


TYPED_USE = (
    "from xray_typed_thing import typed_thing_stage\n"
    "class Item:\n    brand: str = ''\n"
    "@typed_thing_stage('s', of=Item, group=lambda item: item.brand)\n"
    "def good(pool: list[Item]) -> list[Item]:\n    return pool\n"
    "@typed_thing_stage\n"
    "def bare(number: int) -> list[Item]:\n    return []\n"
    "good([Item()])\n"
    "bare('x')\n"
    "typed_thing_stage('s', of=Item, group=lambda item: item.brnd)\n"
)


def test_the_new_package_is_typed(reader):
    """Its sources pass mypy in strict mode, and its decorator keeps a callable's signature and checks callables."""
    reader.run("xray", "plugins", "new", "typed-thing")
    (reader.folder / "use.py").write_text(TYPED_USE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "xray-typed-thing/src", "use.py"],
        cwd=reader.folder, env={**os.environ, "MYPYPATH": f"xray-typed-thing/src:{ROOT}"}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 2, done.stdout + done.stderr
    assert errors[0].startswith("use.py:11: ")
    assert errors[1].startswith("use.py:12: ")


def test_the_new_packages_decorator_keeps_signatures_for_pyright_too(reader):
    """In strict mode: what is right passes, a wrong argument and a slip in a callable are errors, and nothing else is."""
    reader.run("xray", "plugins", "new", "typed-thing")
    (reader.folder / "use.py").write_text(TYPED_USE)
    config = {
        "include": ["use.py", "xray-typed-thing/src"], "extraPaths": ["xray-typed-thing/src", str(ROOT)],
        "typeCheckingMode": "strict",
    }  # fmt: skip
    (reader.folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=reader.folder, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in found]
    assert sorted(set(errors)) == [("use.py", 11), ("use.py", 12)], found


def test_the_new_package_is_formatted(reader):
    """It begins clean by the rules that it comes with, and sorted imports."""
    reader.run("xray", "plugins", "new", "neat")
    reader.run(sys.executable, "-m", "ruff", "check", "--extend-select", "I", "xray-neat")
    reader.run(sys.executable, "-m", "ruff", "format", "--check", "xray-neat")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Price", "is no name for a plugin"),
        ("9lives", "is no name for a plugin"),
        ("a--b", "is no name for a plugin"),
        ("../out", "is no name for a plugin"),
        ("class", "is no name for a plugin"),
        ("filtering", "There is a stage type 'filtering' already"),
        ("taken", "is there already, with something in it"),
    ],
)
def test_names_that_cannot_be(tmp_path, name, said):
    """An error that says why, and nothing is written."""
    (tmp_path / "xray-taken").mkdir()
    (tmp_path / "xray-taken" / "mine.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "xray.cli", "plugins", "new", name],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["xray-taken"]


def test_the_plugins_of_this_repository_can_be_installed(tmp_path):
    """Built and installed without the network, and found by their entry points, with the metrics that they declare."""
    folders = sorted((ROOT / "plugins").glob("xray-*"))
    assert len(folders) == 3
    copies = []
    for folder in folders:  # building leaves files beside the sources
        copy = tmp_path / folder.name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
        copies.append(str(copy))
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--target", str(site), *copies],
        check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "xray.cli", "plugins", "--check", "--json"],
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["plugins"] if row["origin"] != "built-in"}
    assert {name: (row["origin"], row["version"], row["problems"]) for name, row in rows.items()} == {
        name: (f"package xray-{name}", "0.1.0", []) for name in ("dedup", "guardrail", "ir-metrics")
    }
    assert not [call for call in found["calls"] if call["failures"] or call["overruns"]]
    metrics = {each["name"] for row in rows.values() for kind in row["stage_types"] for each in kind["metrics"]}
    assert {"ndcg_at_10", "recall_loss", "duplicate_ratio", "calibration_error"} <= metrics
