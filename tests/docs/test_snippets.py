"""Every code block of the README and the docs is run, against a service of its own."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xray
from tests.service import Service, start_service
from xray.plugins import installed
from xray.settings import SETTINGS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LANGUAGES = {"python", "bash", "json", "text"}
BUILT_IN_TYPES = ("filtering", "generation", "ranking", "raw", "retrieval", "scoring", "selection")


@dataclass
class Block:
    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    inside: Block | None = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r"\s*```(\w*)", line)
        if fence and inside is None:
            inside = Block(fence[1], "", number + 1)
        elif fence and inside is not None:
            blocks.append(inside)
            inside = None
        elif inside is not None:
            inside.text += line + "\n"
    assert inside is None, f"{page.name} has a block that does not end"
    return blocks


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with start_service(tmp_path) as running:
        # Something to look at, for pages that only look.
        xray.configure(server_url=running.url)
        xray.filtering_stage("seed", passed="ok", reason_label="why")(
            lambda pool: [{"id": n, "ok": n > 3, "why": "too_small"} for n in pool]
        )([1, 2, 3, 4])
        assert xray.flush(timeout_s=20)
        yield running


FOLLOWED_ELSEWHERE = ROOT / "docs" / "plugins.md"
"""A guide whose steps install what later steps use: test_plugin_guide.py follows it."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks_of(page) and page != FOLLOWED_ELSEWHERE], ids=lambda page: page.stem
)
def test_the_blocks_of_a_page_run_in_order(page: Path, service: Service, tmp_path: Path):
    """Python shares one namespace a page and must record without loss; questions must be answered; commands exit 0."""
    blocks = blocks_of(page)
    assert {block.language for block in blocks} <= LANGUAGES, "a block in a language that is not checked"
    python = "\n".join(block.text for block in blocks if block.language == "python")
    if python:
        script = tmp_path / "page.py"
        script.write_text(
            python + "\nimport xray\nassert xray.flush(timeout_s=20), xray.stats()\nassert not xray.stats().failures\n"
        )
        run([sys.executable, str(script)], service, tmp_path)
    for block in blocks:
        if block.language == "json":
            with service.client() as client:
                client.query(json.loads(block.text))
        elif block.language == "bash":
            for command in block.text.replace("\\\n", " ").strip().splitlines():
                run_command(command, service, tmp_path)


def run_command(command: str, service: Service, folder: Path) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        # What the target does is the business of other tests; here: the target exists and can be worked out.
        subprocess.run([*words[:2], "--dry-run"], cwd=ROOT, check=True, capture_output=True)
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        name, _, extra = words[2].partition("[")
        assert name == project["name"]
        assert not extra or extra.rstrip("]") in project["optional-dependencies"]
    elif words == ["xray", "serve"]:
        assert service.announcement.startswith(f"X-Ray listens on {service.url}")
    elif words[0] == ".venv/bin/xray":
        run([xray_command(), *words[1:]], service, folder)
    else:
        run(["bash", "-c", command], service, folder)


def run(command: list[str], service: Service, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "XRAY_SERVER_URL": service.url, "PATH": path}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert "X-Ray:" not in done.stderr, "a snippet makes X-Ray complain"


def xray_command() -> str:
    return str(Path(sys.executable).parent / "xray")


def test_links_lead_somewhere():
    """Relative links in README and docs name files that exist."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_settings_page_is_what_the_rows_give():
    """docs/settings.md is generated, and has each setting."""
    script = ROOT / "docs" / "make_settings.py"
    page = runpy.run_path(str(script))["page"]()
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == page, "write it anew: python docs/make_settings.py"
    for setting in SETTINGS:
        assert f"| `{setting.name}` | `{setting.variable}` |" in written


@pytest.mark.parametrize("name", BUILT_IN_TYPES)
def test_a_stage_types_page_has_its_fields_and_metrics(name: str):
    """docs/stages/ has a page for each built-in type, with every field and every metric of its own."""
    stage_type = installed().stage_type(name)
    page = (ROOT / "docs" / "stages" / f"{name}.md").read_text()
    for each in (*stage_type.fields, *stage_type.metrics):
        assert f"| `{each.name}`" in page
    languages = {block.language for block in blocks_of(ROOT / "docs" / "stages" / f"{name}.md")}
    assert {"python", "json"} <= languages
    assert f"stages/{name}.md" in (ROOT / "docs" / "stages.md").read_text()


def test_anchors_name_headings():
    """What follows ``#`` in a link is a heading of that page."""
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text()):
            if not target.startswith("http"):
                there = (page.parent / target) if target else page
                headings = re.findall(r"(?m)^#+ (.*)$", there.read_text())
                slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


def test_every_page_can_be_reached():
    """A link leads to each page, from the README or from another page."""
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)", page.read_text())
        if not target.startswith("http")
    }
    folders = {path for path in linked if path.is_dir()}
    for page in (ROOT / "docs").rglob("*.md"):
        assert page in linked or page.parent in folders, f"nothing links to {page.relative_to(ROOT)}"


def test_the_example_stands_near_the_top_of_the_readme():
    """A reader sees code before line 30, and it is short."""
    block = next(block for block in blocks_of(ROOT / "README.md") if block.language == "python")
    lines = [line for line in block.text.splitlines() if line.strip()]
    assert block.line + block.text.count("\n") <= 30
    assert len(lines) <= 12
