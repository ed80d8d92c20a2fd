"""What is installed from the package, when it does not lie beside the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Where each folder of the sources is found once it is installed.
INSTALLED_AS = {"xray": "xray", "xray_server": "xray_server", "examples": "xray_examples"}
MADE = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
BUILD = """
import setuptools.build_meta as backend
print(getattr(backend, {step!r})({out!r}))
"""


def build(step: str, sources: Path, out: Path) -> Path:
    """Run one step of the build backend in a process of its own.

    Returns:
        The file that it made in `out`.
    """
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(step=step, out=str(out))],
        cwd=sources, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return out / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that an installer makes of the source distribution: what is missing in either is missing in it."""
    folder = tmp_path_factory.mktemp("package")
    sources = folder / "sources"
    for name in INSTALLED_AS:
        shutil.copytree(ROOT / name, sources / name, ignore=MADE)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    packed = build("build_sdist", sources, folder / "sdist")
    shutil.unpack_archive(packed, folder / "unpacked", filter="data")
    return build("build_wheel", next((folder / "unpacked").iterdir()), folder / "wheel")


def test_every_file_of_the_sources_is_in_the_wheel(wheel: Path) -> None:
    """A new folder that pyproject.toml does not name would be missing on every machine but its author's."""
    with zipfile.ZipFile(wheel) as packed:
        inside = set(packed.namelist())
    written = {
        f"{installed}/{file.relative_to(ROOT / name).as_posix()}"
        for name, installed in INSTALLED_AS.items()
        for file in (ROOT / name).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix not in (".so", ".pyd")
    }
    assert len(written) > 300, "the sources could not be listed"
    assert sorted(written - inside) == []


def test_the_wheel_brings_the_command_and_the_pytest_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        points = next(name for name in packed.namelist() if name.endswith("entry_points.txt"))
        text = packed.read(points).decode()
    assert "xray = xray.cli" in text
    assert "[pytest11]" in text
