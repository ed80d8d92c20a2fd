"""How commands print: one kind of console, tables that lose nothing, JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from xray.wording import inert

_UNBOUNDED = 10_000
"""In characters: what goes into a file or a pipe has no edge to be cut at."""


def new_console(*, stderr: bool = False) -> Console:
    """A console on standard output; off a terminal lines are as long as they are, so that ``grep`` finds whole words.

    Args:
        stderr: Take standard error instead.
    """
    stream = sys.stderr if stderr else sys.stdout
    has_edge = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, highlight=False, width=None if has_edge else _UNBOUNDED)


def print_json(answer: Any) -> None:
    """Print an answer as JSON.

    Args:
        answer: Anything; what JSON has no word for is written as its ``repr``.
    """
    print(json.dumps(answer, indent=2, ensure_ascii=False, default=repr))


def number(value: Any) -> str:
    """A number to four digits; empty for anything else."""
    return f"{value:.4g}" if isinstance(value, int | float) else ""


class Grid:
    """A table of which no cell is cut short.

    Where a terminal is too narrow, columns that have no value go first, then those that can be spared, which is said;
    what is too wide even then is folded.

    Args:
        titles: The columns' titles, in order.
        numbers: Those whose cells stand to the right.
        whole: Those that are not folded: ids, which people copy.
        spare: Those that can be left out, the first of them first.
    """

    def __init__(
        self, *titles: str, numbers: Collection[str] = (), whole: Collection[str] = (), spare: Collection[str] = ()
    ) -> None:
        self._titles = titles
        self._numbers = numbers
        self._whole = whole
        self._spare = [titles.index(title) for title in spare]
        self._rows: list[list[Text]] = []

    def row(self, *cells: Any) -> None:
        """Add a row.

        Args:
            cells: What the columns hold, the last ones may be missing: rich's text as it is, all else inert.
        """
        made = [cell if isinstance(cell, Text) else Text(inert(cell)) for cell in cells]
        self._rows.append(made + [Text("")] * (len(self._titles) - len(made)))

    def print(self, console: Console) -> None:
        """Print the table.

        Args:
            console: Where to.
        """
        shown = list(range(len(self._titles)))
        empty = [column for column in shown if not any(row[column].plain for row in self._rows)]
        dropped: list[str] = []
        for column in [*empty, *(column for column in self._spare if column not in empty)]:
            if self._fits(console, shown):
                break
            shown.remove(column)
            if column not in empty:
                dropped.append(self._titles[column])
        console.print(self._drawn(shown))
        if dropped:
            console.print(f"[dim]No room for: {', '.join(dropped)}. A wider terminal or --json shows them.[/]")

    def _fits(self, console: Console, shown: list[int]) -> bool:
        wide = console.options.update(width=_UNBOUNDED)
        return Measurement.get(console, wide, self._drawn(shown)).maximum <= console.width

    def _drawn(self, shown: list[int]) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in (self._titles[column] for column in shown):
            is_whole = title in self._whole
            table.add_column(
                title,
                justify="right" if title in self._numbers else "left",
                no_wrap=is_whole,
                overflow="ellipsis" if is_whole else "fold",
            )
        for row in self._rows:
            table.add_row(*(row[column] for column in shown))
        return table
