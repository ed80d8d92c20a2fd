"""``xray alerts``: the rules that the service watches, and how they stand."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Annotated, Any

import typer

from xray.cli.needed import needed
from xray.cli.printing import Grid, new_console
from xray.cli.upkeep import AsJson, StoreUrl
from xray.wording import inert

app = typer.Typer(help="Look at alert rules: xray serve watches those of XRAY_SERVER_ALERTS.", no_args_is_help=True)

File = Annotated[
    str | None, typer.Option("--file", "-f", help="The file of rules.", show_default="that of XRAY_SERVER_ALERTS")
]

out = new_console()


@app.command("list")
def list_(file: File = None, as_json: AsJson = False) -> None:
    """List the rules and channels of a file, and say what is wrong with it."""
    found = _commands().rules(file)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    grid = Grid("rule", "fires where", "channels")
    for rule in found["rules"]:
        figure = json.dumps(rule["value"], ensure_ascii=False)
        where = f"{figure} is {_limit(rule)}, over {rule['over']}, of {rule['at_least']} or more stages"
        grid.row(rule["name"], where, ", ".join(rule["channels"]))
    grid.print(out)
    out.print(
        "Channels: " + ", ".join(f"{inert(each['name'])} ({inert(each['type'])})" for each in found["channels"]),
        markup=False,
    )


@app.command()
def check(
    file: File = None,
    store: StoreUrl = None,
    send: Annotated[bool, typer.Option("--send", help="Tell the channels of the rules that fire.")] = False,
    as_json: AsJson = False,
) -> int:
    """Look at every rule now; exit with 1 where one fires or cannot be looked at."""
    found = _commands().check(file, store, send=send)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        grid = Grid("rule", "state", "value", "limit", "stages", "", numbers=("value", "stages"))
        for row in found["rules"]:
            sent = "; ".join(f"{channel}: {what}" for channel, what in row.get("sent", {}).items())
            value = "" if row["value"] is None else f"{row['value']:g}"
            grid.row(row["name"], row["state"], value, _limit(row), row["stages"], row["error"] or sent)
        grid.print(out)
    return 1 if any(row["state"] in ("firing", "unknown") for row in found["rules"]) else 0


def _limit(rule: dict[str, Any]) -> str:
    return " or ".join(f"{name} {rule[name]:g}" for name in ("above", "below") if name in rule)


def _commands() -> ModuleType:
    return needed("xray_server.alerts.commands", by="This")
