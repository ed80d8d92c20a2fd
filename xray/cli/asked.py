"""The JSON of a question, as it is given on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from xray.exceptions import XRayError


def read_question(question: str | None, file: Path | None) -> dict[str, Any]:
    """The question that an argument, a file or standard input holds.

    Args:
        question: The JSON object as text, or ``-`` for standard input.
        file: The file, where there is no argument.

    Raises:
        XRayError: There is none, or it is no JSON object; the hint shows where it breaks off.
    """
    return _parse(_text(question, file))


def _text(question: str | None, file: Path | None) -> str:
    if file is not None and question is None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise XRayError(f"{file} cannot be read: {error}", code="unreadable_file") from None
    if question is None or file is not None:
        raise XRayError(
            "Give one question: as an argument, with --file, or - for standard input.",
            code="bad_usage",
            hint="""For example: xray query '{"stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}}}'""",
        )
    return sys.stdin.read() if question == "-" else question


def _parse(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        _bad_json(text, error)
    if not isinstance(parsed, dict):
        raise XRayError(
            "A question is a JSON object.", code="bad_json", hint='It begins with {"stage": … or {"pipeline": …'
        )
    return parsed


def _bad_json(text: str, error: json.JSONDecodeError) -> NoReturn:
    line = text.splitlines()[error.lineno - 1] if text.splitlines() else ""
    start = max(0, error.colno - 40)
    excerpt = line[start : error.colno + 39]
    raise XRayError(
        f"The question is not JSON: {error.msg}.",
        code="bad_json",
        path=f"line {error.lineno}, column {error.colno}",
        hint=f"{excerpt}\n  {' ' * (error.colno - 1 - start)}^",
    )
