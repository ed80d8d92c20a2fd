"""``xray questions``: questions that are kept under a name, with parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from xray.cli import show as views
from xray.cli.asked import read_question
from xray.cli.options import AsJson, Server
from xray.cli.printing import Grid, new_console, print_json
from xray.client import Client
from xray.exceptions import XRayError, did_you_mean
from xray.wording import inert

app = typer.Typer(
    help="Questions that are kept under a name: save, list, show, run, delete.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(help="The question's name.")]

_out = new_console()


@app.command("list")
def list_(server: Server = None, as_json: AsJson = False) -> None:
    """List the saved questions with their parameters."""
    with Client(server) as client:
        answer = client.questions()
    if as_json:
        print_json(answer)
    elif not answer["rows"]:
        _out.print("No saved questions.")
    else:
        grid = Grid("name", "answers", "parameters", "what for", whole=("name",))
        for row in answer["rows"]:
            declared = ", ".join(_shown(name, each) for name, each in row["parameters"].items())
            kind = "figures" if "aggregate" in row else row["question"].get("return", "stages")
            grid.row(row["name"], kind, declared, row.get("description"))
        grid.print(_out)


@app.command()
def save(
    name: Name,
    question: Annotated[
        str | None, typer.Argument(help="The question as a JSON object, or - for standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the question from a file.")] = None,
    aggregate: Annotated[bool, typer.Option("--aggregate", help="It works out figures.")] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="A parameter: NAME:TYPE, or NAME:TYPE=DEFAULT. May be repeated."),
    ] = None,
    description: Annotated[str | None, typer.Option("--description", "-d", help="What it is for.")] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Save a question under a name, in place of what had it before.

    For example: xray questions save strict '{"stage": {"$failRatio": {"$gt": {"$param": "above"}}}}'
    --param above:number=0.9
    """
    asked = read_question(question, file)
    declared = dict(map(_declared, parameter or ()))
    with Client(server) as client:
        kept = client.save_question(
            name,
            None if aggregate else asked,
            aggregate=asked if aggregate else None,
            parameters=declared,
            description=description,
        )
    if as_json:
        print_json(kept)
    else:
        _out.print(f"Saved as '{_text(kept['name'])}'.", soft_wrap=True)


@app.command()
def show(name: Name, server: Server = None, as_json: AsJson = False) -> None:
    """Show a saved question."""
    with Client(server) as client:
        found = client.question(name)
    if as_json:
        print_json(found)
        return
    if found.get("description"):
        _out.print(_text(found["description"]), soft_wrap=True)
    for parameter, declared in found["parameters"].items():
        what = f": {declared['description']}" if declared.get("description") else ""
        _out.print(f"[dim]parameter[/] {_text(_shown(parameter, declared) + what)}", soft_wrap=True)
    asked = found.get("aggregate") or found.get("question")
    _out.print(json.dumps(asked, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


@app.command()
def run(
    name: Name,
    values: Annotated[list[str] | None, typer.Argument(help="Parameters: NAME=VALUE.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, max=1000, help="Overrides the question's limit.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how the question is read and run, instead of asking it.")
    ] = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Ask a saved question.

    For example: xray questions run strict above=0.5
    """
    with Client(server) as client:
        declared = client.question(name)["parameters"] if values else {}
        given = dict(_value(each, declared) for each in values or ())
        answer = client.run_question(name, given, limit=limit, explain=explain)
    if as_json:
        print_json(answer)
    elif "explanation" in answer:
        views.print_explanation(_out, answer["explanation"])
    elif "aggregate" in answer:
        views.print_groups(_out, answer)
    else:
        views.print_answer(_out, answer["question"], {**answer, "cursor": None})
        if answer.get("cursor"):
            _out.print("[dim]There are more: raise --limit, or use client.run_question(…).all().[/]", soft_wrap=True)


@app.command()
def delete(name: Name, server: Server = None) -> None:
    """Delete a saved question."""
    with Client(server) as client:
        client.delete_question(name)
    _out.print(f"Deleted '{_text(name)}'.", soft_wrap=True)


def _declared(text: str) -> tuple[str, dict[str, Any]]:
    """A parameter as ``NAME:TYPE=DEFAULT`` declares it."""
    head, equals, default = text.partition("=")
    name, colon, type_ = head.partition(":")
    if not colon:
        raise XRayError(
            f"'{text}' declares no parameter.", code="bad_usage", hint="Write NAME:TYPE, or NAME:TYPE=DEFAULT."
        )
    return name, {"type": type_} | ({"default": _read(type_, default)} if equals else {})


def _value(text: str, declared: Mapping[str, Mapping[str, Any]]) -> tuple[str, Any]:
    """A parameter's value as ``NAME=VALUE`` gives it; the service says what is wrong with one that does not fit."""
    name, equals, value = text.partition("=")
    if not equals:
        raise XRayError(
            f"'{text}' gives no parameter a value.",
            code="bad_usage",
            hint=f"Write {name}=VALUE." if name in declared else did_you_mean(name, declared) or "Write NAME=VALUE.",
        )
    return name, _read(str(declared.get(name, {}).get("type")), value)


def _read(type_: str, text: str) -> Any:
    if type_ in ("strings", "numbers"):
        items: Sequence[str] = text.split(",") if text else ()
        return [_read(type_[:-1], item) for item in items]
    if type_ in ("number", "integer", "boolean"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _shown(name: str, declared: Mapping[str, Any]) -> str:
    default = f"={json.dumps(declared['default'], ensure_ascii=False)}" if "default" in declared else ""
    return f"{name}:{declared['type']}{default}"


def _text(value: Any) -> str:
    return escape(inert(value))
