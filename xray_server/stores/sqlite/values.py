"""How single values lie in the file: ids as 16 bytes, words that repeat as numbers."""

from __future__ import annotations

import functools
import math
import sqlite3
from collections.abc import Iterable
from typing import Any, Literal

from xray.exceptions import StoreError
from xray.ids import is_id
from xray_server.documents import Kind

Storage = Literal["plain", "id", "own_id", "word", "json", "rest"]
"""How a field is kept.

``plain``: as it is. ``id``: a UUID as its 16 bytes, so that the order of bytes is the order of the texts; any other id
as its text. ``own_id``: an id that is mostly the row's own ``run_id``, and then 1. ``word``: the number of a text in
``words``. ``json``: JSON text, which SQL reaches into. ``rest``: together with others in the one column ``rest``.
"""

MAX_KNOWN_WORDS = 100_000


@functools.lru_cache(maxsize=4096)  # stages name their run's again and again
def id_value(text: str) -> bytes | str:
    """An id as it lies in the file."""
    return bytes.fromhex(text.replace("-", "")) if is_id(text) else text


def id_text(value: bytes | str) -> str:
    """The id of what lies in the file."""
    if isinstance(value, str):
        return value
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def id_expression(column: str) -> str:
    """SQL for the text of an id."""
    digits = f"lower(hex({column}))"
    parts = "||'-'||".join(
        f"substr({digits}, {start}, {count})" for start, count in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    )
    return f"(CASE typeof({column}) WHEN 'blob' THEN {parts} ELSE {column} END)"


def word_expression(column: str) -> str:
    """SQL for the text of a word."""
    return f"(SELECT text FROM words WHERE word = {column})"


SYMBOLS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_TEXT: tuple[Kind, ...] = ("id", "string", "strings")
_NUMBERS: tuple[Kind, ...] = ("time", "number", "count")


def fits(kind: Kind, value: Any) -> bool:
    """Whether a field of some kind may have such a value."""
    if kind in _TEXT:
        return isinstance(value, str)
    return kind in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool)


def is_plain(value: Any) -> bool:
    """Whether SQLite takes a string or a number as it is; for others the evaluator decides."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -(2**63) <= value < 2**63


WORD = "ifnull((SELECT word FROM words WHERE text = ?), -1)"
"""SQL for the number of a text; -1, which no row has, where it has none."""


class Words:
    """The numbers of texts, as one transaction after another needs them.

    Args:
        connection: The writer's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, int] = {}

    def forget(self) -> None:
        """Forget all numbers: some of them may have been given in a transaction that was undone."""
        self._known.clear()

    def number(self, text: Any) -> int:
        """The number of a text, made where it has none.

        Raises:
            StoreError: It is no text.
        """
        found = self._known.get(text)
        return self._made(text) if found is None else found

    def numbers(self, texts: Iterable[str]) -> None:
        """Look up many texts at once."""
        for text in texts:
            self.number(text)

    def _made(self, text: Any) -> int:
        if not isinstance(text, str):
            raise StoreError(f"The value {text!r:.100} of a field that holds words is none.")
        self._connection.execute("INSERT INTO words (text) VALUES (?) ON CONFLICT DO NOTHING", (text,))
        number: int = self._connection.execute("SELECT word FROM words WHERE text = ?", (text,)).fetchone()[0]
        # Some of them are the users' own: without a bound the memory that they take grows for ever.
        if len(self._known) >= MAX_KNOWN_WORDS:
            self._known.clear()
        self._known[text] = number
        return number
