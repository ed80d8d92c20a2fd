"""``xray settings``: which settings are in force, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from xray.cli.printing import Grid
from xray.exceptions import did_you_mean
from xray.settings import SETTINGS, load_settings
from xray.wording import inert

_SERVICE_PREFIX = "XRAY_SERVER_"
_TEST_PREFIX = "XRAY_TEST_"
"""Variables of the project's own tests."""


def settings_in_force(environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every setting, and what is wrong with the environment.

    Args:
        environment: The environment variables.
        overrides: What ``xray.configure`` was given.

    Returns:
        ``settings``: a row each; ``problems``: variables that cannot be read; ``unknown``: variables that look like
        X-Ray's and are not.
    """
    given = dict(overrides or {})
    values, problems = load_settings(given, environment)
    unreadable = {problem.path for problem in problems}
    rows = []
    for setting in SETTINGS:
        is_set = bool(environment.get(setting.variable, "").strip()) and setting.variable not in unreadable
        source = "configured" if setting.name in given else "environment" if is_set else "default"
        rows.append(
            {
                "name": setting.name,
                "value": getattr(values, setting.name),
                "source": source,
                "variable": setting.variable,
                "unit": setting.unit,
                "help": setting.help,
            }
        )
    return {
        "settings": rows,
        "problems": [{"variable": problem.path, "message": problem.message} for problem in problems],
        "unknown": _unknown(environment),
    }


def print_settings(console: Console, found: Mapping[str, Any]) -> None:
    """A table of the settings, then what is wrong.

    Args:
        console: Where to print.
        found: What :func:`settings_in_force` gave.
    """
    grid = Grid(
        "setting", "value", "from", "variable", "what it does", whole=("setting", "variable"), spare=("variable",)
    )
    for row in found["settings"]:
        value = "" if row["value"] is None else inert(row["value"])
        style = "" if row["source"] == "default" else "bold"
        help_text = f"{row['help']} ({row['unit']})" if row["unit"] else row["help"]
        grid.row(row["name"], Text(value, style=style), row["source"], row["variable"], help_text)
    grid.print(console)
    for problem in found["problems"]:
        console.print(inert(problem["message"]), style="yellow", markup=False, soft_wrap=True)
    for unknown in found["unknown"]:
        text = f"{unknown['variable']} is set, but X-Ray has no such setting. {unknown['hint'] or ''}"
        console.print(inert(text.rstrip()), style="yellow", markup=False, soft_wrap=True)


def _unknown(environment: Mapping[str, str]) -> list[dict[str, str | None]]:
    known = {setting.variable for setting in SETTINGS}
    found = []
    for variable in sorted(environment):
        if not variable.startswith("XRAY_") or variable in known or variable.startswith(_TEST_PREFIX):
            continue
        # The service has settings with this beginning and refuses unknown ones itself, but a slip of the pen in
        # XRAY_SERVER_URL would go unnoticed here.
        if variable.startswith(_SERVICE_PREFIX) and not _is_nearly(variable, "XRAY_SERVER_URL"):
            continue
        found.append({"variable": variable, "hint": did_you_mean(variable, known)})
    return found


def _is_nearly(word: str, other: str) -> bool:
    """Whether all but one or two letters at the end are the same."""
    return len(word) == len(other) and word[:-2] == other[:-2]
