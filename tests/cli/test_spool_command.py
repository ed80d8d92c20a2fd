"""``xray spool``: looking at what waits on disk, and sending it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.service import start_service

RECORD = """
import xray

@xray.filtering_stage("spooled")
def keep(pool):
    return pool[:1]

for n in range(4):
    keep([{"id": n}, {"id": n + 100}])
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XRAY_SERVER")}
    return subprocess.run(
        [sys.executable, *arguments], env={**kept, "COLUMNS": "250", "NO_COLOR": "1", **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def spool(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "xray.cli", "spool", *arguments, **variables)


def test_what_a_program_could_not_send_is_shown_and_sent(tmp_path: Path):
    """A program that ran while nothing listened; then the service starts, and a command delivers it all."""
    folder = tmp_path / "spool"
    with start_service(tmp_path) as service:
        url = service.url
    variables = {"XRAY_SERVER_URL": url, "XRAY_SPOOL_DIR": str(folder)}
    assert run("-c", RECORD, **variables).returncode == 0
    status = json.loads(spool("status", "--json", **variables).stdout)
    assert (status["records"], status["folder"]) == (12, str(folder))
    (process,) = status["processes"]
    assert (process["lives"], process["destination"]) == (False, url)
    shown = spool("status", **variables)
    assert "12 records wait in" in shown.stdout
    refused = spool("flush", **variables)
    assert refused.returncode == 1
    assert "12 records" in refused.stderr
    with start_service(tmp_path, "--port", url.rpartition(":")[2]) as service:
        elsewhere = json.loads(spool("flush", "--json", "--server", "http://127.0.0.1:9", "--dir", str(folder)).stdout)
        assert elsewhere == {"sent": 0, "left": 0, "lost": {}, "problem": None}
        done = spool("flush", **variables)
        assert (done.returncode, done.stdout) == (0, "12 records were sent.\n")
        rows = service.client().query({"pipeline": {"label": "spooled"}, "limit": 100})["rows"]
        assert len(rows) == 4
    assert spool("status", **variables).stdout == f"Nothing waits in {folder}.\n"
    assert [path.name for path in folder.iterdir()] == [".gitignore"]


def test_an_empty_spool_is_no_error(tmp_path: Path):
    """Neither looking nor sending makes a folder."""
    folder = tmp_path / "none"
    assert spool("status", "--dir", str(folder)).returncode == 0
    assert json.loads(spool("flush", "--json", "--dir", str(folder)).stdout)["sent"] == 0
    assert not folder.exists()
