"""The files of a spool: what a process knows of a segment, how it is read in chunks, which files there are."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from xray.delivery.owners import ASIDE_SUFFIX, SEGMENT_SUFFIX, OwnerLock, owner_of
from xray.delivery.segments import events_in, frames, read_head

NOTHING_PENDING = 1 << 62


@dataclass(slots=True, eq=False)
class Segment:
    """A file of the spool, as this process knows it.

    Args:
        path: The file.
        lock: The lock of the ended process whose it was; None for a segment of this process.
        size_bytes: How long it is.
        records: How many records were written; only known of an own one.
        first: The least number of a record in it, in the order in which they were taken in.
        began_s: When it was begun, by the monotonic clock.
        offset: Up to where everything is settled.
        number: The number of the next frame.
        settled: How many of the records are settled.
    """

    path: Path
    lock: OwnerLock | None = None
    size_bytes: int = 0
    records: int = 0
    first: int = NOTHING_PENDING
    began_s: float = 0.0
    offset: int = 0
    number: int = 0
    settled: int = 0
    is_unreadable: bool = False

    @property
    def is_own(self) -> bool:
        """Whether this process wrote it."""
        return self.lock is None


@dataclass(slots=True)
class Chunk:
    """Records of a segment that are sent together.

    Args:
        segment: The segment.
        records: The events of each.
        end: Where the next one begins.
        number: The number of the next frame.
        damaged: How many records of this part cannot be read.
    """

    segment: Segment
    records: list[list[dict[str, Any]]]
    end: int
    number: int
    damaged: int = 0


def destination_of(server_url: str) -> str:
    """How a segment names where its records are to go: the service's address without a password.

    Args:
        server_url: The address.
    """
    parts = urlsplit(server_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def read_chunk(segment: Segment, max_bytes: int, max_records: int) -> Chunk:
    """Read a chunk; the numbers of its frames tell how many are missing.

    Args:
        segment: The segment.
        max_bytes: What the records may weigh as they are sent; the last one may weigh more.
        max_records: How many.

    Raises:
        OSError: The file cannot be read.
        UnreadableError: It needs a library that is not installed.
    """
    chunk = Chunk(segment, [], segment.offset, segment.number)
    weight = 0
    with segment.path.open("rb") as file:
        end = min(segment.size_bytes, os.fstat(file.fileno()).st_size)
        for found in frames(file, segment.offset, end):
            chunk.damaged += max(0, found.number - chunk.number)
            chunk.end, chunk.number = found.end, found.number + 1
            assert found.payload is not None
            try:
                events, plain_bytes = events_in(found.kind, found.payload)
                chunk.records.append(events)
                weight += plain_bytes
            except ValueError:
                chunk.damaged += 1
            if len(chunk.records) >= max_records or weight >= max_bytes:
                return chunk
    # The end of the file: what is missing of an own segment is known, of another's at least that something is torn.
    if segment.is_own:
        chunk.damaged = max(0, segment.records - segment.settled - len(chunk.records))
    elif chunk.end < end:
        chunk.damaged += 1
    chunk.end = segment.size_bytes
    return chunk


def write_all(file: int, data: bytes) -> None:
    """Write all of it, however often that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def files_in(folder: Path) -> list[tuple[Path, int, float]]:
    """The segments and what was set aside: path, size, when changed."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith((SEGMENT_SUFFIX, ASIDE_SUFFIX)) and owner_of(entry.name):
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        found.append((Path(entry.path), status.st_size, status.st_mtime))
    except OSError:
        return []
    return found


def has_files(folder: Path, owner: str) -> bool:
    """Whether there is anything of an owner in a spool."""
    return any(owner_of(path.name) == owner for path, _, _ in files_in(folder))


def count_records(path: Path) -> int:
    """How many good records a segment holds, by its headers alone; 0 where it cannot be read."""
    try:
        with path.open("rb") as file:
            _, offset = read_head(file)
            return sum(1 for _ in frames(file, offset, file.seek(0, os.SEEK_END), with_payload=False))
    except OSError:
        return 0


def aside_line(event: dict[str, Any], reason: str, error: str, at_s: float) -> bytes:
    """What is kept of an event that the service does not take: a line of JSON.

    Args:
        event: The event.
        reason: The reason that it is counted under.
        error: The error in words.
        at_s: When, in seconds since 1970.
    """
    line = {"at": round(at_s, 3), "reason": reason, "error": error}
    try:
        plain = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
        return msgspec.json.encode({**line, "event": plain}) + b"\n"
    except Exception:
        return msgspec.json.encode({**line, "event": None}) + b"\n"


def append_to(path: Path, data: bytes) -> None:
    """Write at the end of a file that its owner alone may read.

    Raises:
        OSError: Not all of it could be written.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        write_all(file, data)
    finally:
        os.close(file)
