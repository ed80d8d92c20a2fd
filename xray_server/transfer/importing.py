"""Bringing an export into a store, line by line, in constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from xray.exceptions import SchemaError
from xray_server.stores.base import Store, WriteBatch
from xray_server.transfer.lines import add_line, check_first, parse_line

LINES_AT_ONCE = 500
BYTES_AT_ONCE = 4 * 1024 * 1024
MAX_ERRORS = 100
"""Bad lines that are described; the others are counted."""


@dataclass(slots=True)
class Imported:
    """How far an import is.

    Args:
        lines: Lines that were read and stored, bad ones included.
        runs: Run lines that are stored.
        stages: Stage lines that are stored.
        candidates: Candidates that are stored.
        bad_lines: Lines that are not of the form.
        errors: Number of a bad line, from 1, and what is wrong with it; the first ones.
        is_whole: Whether the last line was there.
    """

    lines: int = 0
    runs: int = 0
    stages: int = 0
    candidates: int = 0
    bad_lines: int = 0
    errors: list[tuple[int, SchemaError]] = field(default_factory=list)
    is_whole: bool = False


async def import_lines(store: Store, project: str, lines: Iterable[bytes]) -> AsyncIterator[Imported]:
    """Store the good lines of an export; each time that some are durable, say how far it is.

    Doing it again, from the beginning or after it was broken off, is harmless.

    Args:
        store: The store, open.
        project: The project that takes the data, whichever it came from.
        lines: The lines, as a file gives them.

    Raises:
        SchemaError: The first line is not that of an export.
        StoreError: The data could not be written; what was said to be done is.
    """
    imported = Imported()
    batch, waiting_lines, waiting_bytes = WriteBatch(), 0, 0
    seen_first = False
    for line in lines:
        imported.lines += 1
        try:
            if not seen_first:
                check_first(parse_line(line))
                seen_first = True
            elif line.strip():
                value = parse_line(line)
                kind = add_line(batch, value)
                imported.runs += kind == "run"
                imported.stages += kind == "stage"
                imported.candidates += len(value["seqs"]) if kind == "candidates" else 0
                imported.is_whole = kind == "end"
        except SchemaError as error:
            if not seen_first:
                raise
            imported.bad_lines += 1
            if len(imported.errors) < MAX_ERRORS:
                imported.errors.append((imported.lines, error))
        waiting_lines += 1
        waiting_bytes += len(line)
        if waiting_lines >= LINES_AT_ONCE or waiting_bytes >= BYTES_AT_ONCE:
            await store.write(project, batch)
            yield imported
            batch, waiting_lines, waiting_bytes = WriteBatch(), 0, 0
    if not seen_first:
        check_first({})
    await store.write(project, batch)
    yield imported
