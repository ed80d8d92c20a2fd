"""``xray plugins``: what is there, what could not be loaded; and a new plugin from the template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from xray.cli.printing import Grid, new_console
from xray.client import Client
from xray.exceptions import XRayError
from xray.named_hooks import NAMED_HOOKS
from xray.plugin_info import described, try_out
from xray.plugin_template import write_plugin
from xray.plugins import installed
from xray.wording import inert

app = typer.Typer(help="List plugins, or write a new one.")

out = new_console()


@app.callback(invoke_without_command=True)
def plugins(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option("--server", help="Ask the service at this address, not the packages installed here.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Try everything that plugins bring on made-up stages.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """List the plugins: version, origin, hooks, stage types with their metrics, and what is wrong with them."""
    if context.invoked_subcommand is not None:
        return
    if server is not None:
        if check:
            raise XRayError("--check tries what is installed here; the service counts the calls that it makes anyway.")
        with Client(server) as client:
            found = client.plugins()
    else:
        if check:
            try_out(installed())
        found = described(installed())
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_plugins(out, found)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The plugin's name: lower case, words joined by '-'.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to write it; a new folder xray-NAME by default.")
    ] = None,
) -> None:
    """Write a complete plugin package: a stage type, a typed decorator, tests, and how to install it."""
    written = write_plugin(name, folder)
    out.print(f"{written} holds a plugin that works. README.md there says how to try it.", markup=False, soft_wrap=True)


def print_plugins(console: Console, found: Mapping[str, Any]) -> None:
    """A table of plugins, their stage types' metrics, and what is wrong.

    Args:
        console: Where to print.
        found: What :func:`xray.plugin_info.described` gave.
    """
    grid = Grid("plugin", "version", "origin", "brings")
    for plugin in found["plugins"]:
        brings = [f"stage type {each['name']}" for each in plugin["stage_types"]]
        brings += [f"{hook.word} {each}" for hook in NAMED_HOOKS for each in plugin.get(hook.listed, ())]
        grid.row(plugin["name"], plugin["version"], plugin["origin"], _list(brings))
    grid.print(console)
    own = [each for plugin in found["plugins"] if plugin["origin"] != "built-in" for each in plugin["stage_types"]]
    for stage_type in own:
        console.print(f"\n{_text(stage_type['name'])}: {_text(stage_type['meaning'])}", soft_wrap=True)
        for metric in stage_type["metrics"]:
            console.print(
                f"  {_text(_camel(metric['name']))}  {_text(metric['unit'])}  {_text(metric['meaning'])}",
                soft_wrap=True,
            )
    for line in _wrong(found):
        console.print(inert(line), style="yellow", markup=False, soft_wrap=True)


def _wrong(found: Mapping[str, Any]) -> list[str]:
    lines = [f"{plugin['name']}: {problem}" for plugin in found["plugins"] for problem in plugin["problems"]]
    for call in found["calls"]:
        if call["failures"] or call["overruns"]:
            counts = f"{call['failures']} of {call['calls']} calls failed, {call['overruns']} took too long"
            off = "; switched off" if call["switched_off"] else ""
            lines.append(f"{call['plugin']}: {call['what']}: {counts}{off}. {call['message']}")
    return lines


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return "$" + head + "".join(word[:1].upper() + word[1:] for word in rest)


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) if words else "nothing"


def _text(value: Any) -> str:
    return escape(inert(value))
