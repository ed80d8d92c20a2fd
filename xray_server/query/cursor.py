"""Opaque cursors: where an answer stopped, bound to its question.

A cursor is not secret and not signed. It is data from outside like any other: what it holds is checked in full, and
all that a forged one can do is to start the same question somewhere else.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import msgspec

from xray.exceptions import QueryError
from xray_server.documents import Kind
from xray_server.query import ast
from xray_server.query.fields import kind_of

CURSOR_VERSION = 1
MAX_CURSOR = 100_000
"""Characters; the sort values of a row may hold whole texts."""

_Scalar = str | int | float | bool | None


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    question: str
    after: tuple[_Scalar, ...]


_decode = msgspec.json.Decoder(_Cursor).decode
_encode = msgspec.json.Encoder().encode


def encode_cursor(question: ast.Question, after: tuple[Any, ...]) -> str:
    """The cursor to go on after a row.

    Args:
        question: The question; its own ``after`` and ``limit`` do not matter.
        after: ``Answer.next``.
    """
    content = _encode(_Cursor(CURSOR_VERSION, _fingerprint(question), after))
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decode_cursor(question: ast.Question, cursor: Any) -> tuple[Any, ...]:
    """Where to go on, for ``Question.after``.

    Args:
        question: The question that the cursor came with.
        cursor: What :func:`encode_cursor` gave, or anything.

    Raises:
        QueryError: It is no cursor, or one of another question; the code is ``bad_cursor``.
    """
    if not isinstance(cursor, str) or len(cursor) > MAX_CURSOR:
        raise _bad("A cursor is the text that an answer gave.")
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        decoded = _decode(content)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise _bad("This is no cursor.") from None
    if decoded.version != CURSOR_VERSION:
        raise _bad("This cursor is from another version of the service.")
    if decoded.question != _fingerprint(question):
        raise _bad("This cursor belongs to another question.")
    kinds: list[Kind] = [kind_of(question.returns, key.reference) for key in question.sort]
    values = decoded.after
    if question.returns == "candidates":
        values, place = values[:-1], values[-1:]
        if not all(_is_place(seq) for seq in place):
            raise _bad("This is no cursor.")
    well_formed = len(values) == len(kinds) and isinstance(values[-1], str)
    if not well_formed or not all(_fits(value, kind) for value, kind in zip(values, kinds, strict=True)):
        raise _bad("This is no cursor.")
    return decoded.after


def _fingerprint(question: ast.Question) -> str:
    # What a page holds of each row, and how many rows, may change from page to page.
    asked = _stable(replace(question, limit=0, after=None, fields=None, explain=False))
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _stable(part: Any) -> str:
    """What tells one question from another, the same in every process: sets have no order of their own."""
    if isinstance(part, frozenset):
        return repr(sorted(part))
    if isinstance(part, tuple):
        return f"({','.join(map(_stable, part))})"
    if is_dataclass(part) and not isinstance(part, type):
        inner = (_stable(getattr(part, field.name)) for field in fields(part))
        return f"{type(part).__name__}({','.join(inner)})"
    return repr(part)


def _is_place(seq: _Scalar) -> bool:
    return seq is None or (isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq < 2**63)


def _fits(value: _Scalar, kind: Kind) -> bool:
    if value is None:
        return True
    if kind in ("id", "string"):
        return isinstance(value, str) and "\0" not in value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)


def _bad(message: str) -> QueryError:
    return QueryError(message, code="bad_cursor", path="cursor", hint="Ask again without a cursor.")
