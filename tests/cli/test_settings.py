"""``xray settings``: what is in force, where it comes from, and what is wrong with the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from xray.cli.settings import settings_in_force
from xray.settings import SETTINGS


def xray_settings(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XRAY_")}
    return subprocess.run(
        [sys.executable, "-m", "xray.cli", "settings", *arguments],
        env={**kept, "COLUMNS": "250", "NO_COLOR": "1", **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_every_setting_has_a_row():
    """With its value, its variable, its unit and what it does."""
    done = xray_settings(XRAY_STRICT="1", XRAY_ENVIRONMENT="[red]staging\x1b[31m")
    assert (done.returncode, done.stderr) == (0, "")
    for setting in SETTINGS:
        (line,) = [line for line in done.stdout.splitlines() if line.split()[0] == setting.name]
        assert setting.variable in line
        assert setting.help.split()[0] in line
    assert "[red]staging�[31m" in done.stdout
    assert "(bytes)" in done.stdout
    assert "strict true environment XRAY_STRICT" in " ".join(done.stdout.split())


def test_json_says_where_each_value_comes_from():
    """Configured wins over the environment, which wins over the default."""
    found = json.loads(xray_settings("--json", XRAY_SERVER_URL="http://x:1/").stdout)
    by_name = {row["name"]: row for row in found["settings"]}
    assert list(by_name) == [setting.name for setting in SETTINGS]
    assert by_name["server_url"] == {
        "name": "server_url", "value": "http://x:1", "source": "environment", "variable": "XRAY_SERVER_URL",
        "unit": "", "help": by_name["server_url"]["help"],
    }  # fmt: skip
    assert by_name["enabled"]["source"] == "default"
    here = settings_in_force({"XRAY_STRICT": "1", "XRAY_VERSION": " "}, {"strict": False, "environment": None})
    sources = {row["name"]: (row["value"], row["source"]) for row in here["settings"]}
    assert sources["strict"] == (False, "configured")
    assert sources["environment"] == (None, "configured")
    assert sources["version"] == (None, "default")


def test_what_is_wrong_with_the_environment_is_said():
    """Variables that cannot be read, and those that look like X-Ray's and are not."""
    variables = {
        "XRAY_ENABLED": "maybe",
        "XRAY_SERVERURL": "http://x",
        "XRAY_SERVER_URI": "http://x",
        "XRAY_SERVER_PORT": "1",
        "XRAY_TEST_MONGODB_URI": "x",
        "XRAY_ZZZZ": "1",
        "AWS_XRAY_CONTEXT_MISSING": "x",
    }
    done = xray_settings(**variables)
    assert done.returncode == 0
    assert "XRAY_ENABLED='maybe' cannot be read (write 1 or 0); True is used." in done.stdout
    assert "XRAY_SERVERURL is set, but X-Ray has no such setting. Did you mean 'XRAY_SERVER_URL'?" in done.stdout
    found = json.loads(xray_settings("--json", **variables).stdout)
    assert [unknown["variable"] for unknown in found["unknown"]] == ["XRAY_SERVERURL", "XRAY_SERVER_URI", "XRAY_ZZZZ"]
    assert [problem["variable"] for problem in found["problems"]] == ["XRAY_ENABLED"]
    assert next(row for row in found["settings"] if row["name"] == "enabled")["source"] == "default"
