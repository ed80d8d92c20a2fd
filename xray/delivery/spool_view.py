"""A spool seen from outside: what lies in it, and sending what ended processes left, for the command line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from xray.delivery.owners import ASIDE_SUFFIX, owner_of, take_lock
from xray.delivery.segments import read_head
from xray.delivery.sender import deliver
from xray.delivery.spool import Spool
from xray.delivery.spool_files import count_records, files_in
from xray.delivery.transport import Transport

_CHUNK_BYTES = 4 << 20
_CHUNK_RECORDS = 500


def status_of(folder: Path) -> dict[str, Any]:
    """What lies in a spool, as plain values.

    Args:
        folder: The spool.

    Returns:
        ``folder``, ``records``, ``bytes``, ``oldest_s`` (or None), ``processes``: a row for each that left something
        or still lives, ``rejected``: how many events were set aside, and the last error.
    """
    rows: dict[str, dict[str, Any]] = {}
    rejected = 0
    last_error: str | None = None
    now = time.time()
    for path, size, changed_s in sorted(files_in(folder), key=lambda file: file[2]):
        owner = owner_of(path.name)
        assert owner is not None
        if path.name.endswith(ASIDE_SUFFIX):
            count, last_error = _set_aside(path, last_error)
            rejected += count
            continue
        fresh = {"process": owner, "destination": None, "segments": 0, "records": 0, "bytes": 0, "oldest_s": 0.0}
        row = rows.setdefault(owner, fresh)
        row["segments"] += 1
        row["records"] += count_records(path)
        row["bytes"] += size
        row["oldest_s"] = max(row["oldest_s"], round(now - changed_s, 1))
        row["destination"] = row["destination"] or _destination(path)
    for owner, row in rows.items():
        row["lives"] = _lives(folder, owner)
    return {
        "folder": str(folder),
        "records": sum(row["records"] for row in rows.values()),
        "bytes": sum(row["bytes"] for row in rows.values()),
        "oldest_s": max((row["oldest_s"] for row in rows.values()), default=None),
        "processes": list(rows.values()),
        "rejected": {"events": rejected, "last_error": last_error},
    }


def _lives(folder: Path, owner: str) -> bool:
    try:
        lock = take_lock(folder, owner)
    except OSError:
        return False
    if lock is None:
        return True
    lock.release(remove=False)
    return False


def _destination(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return read_head(file)[0]
    except OSError:
        return None


def _set_aside(path: Path, last_error: str | None) -> tuple[int, str | None]:
    count = 0
    try:
        with path.open("rb") as file:
            for line in file:
                count += 1
                try:
                    last_error = str(msgspec.json.decode(line).get("error"))
                except (msgspec.MsgspecError, AttributeError):
                    continue
    except OSError:
        pass
    return count, last_error


@dataclass(slots=True)
class Flushed:
    """What became of the records that ended processes left.

    Args:
        sent: How many are stored now.
        lost: Reason → how many cannot be sent, or read.
        left: How many still lie there.
        problem: Why they do, or None.
    """

    sent: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    left: int = 0
    problem: str | None = None


def flush(folder: Path, transport: Transport, destination: str | None, progress: Callable[[int, int], None]) -> Flushed:
    """Send what ended processes left.

    Args:
        folder: The spool.
        transport: Where to.
        destination: Send only what was to go there; None for everything.
        progress: Called with how many records are done, and of how many.
    """
    result = Flushed()
    spool = Spool(
        folder,
        destination=destination or "",
        max_bytes=1 << 62,
        max_age_s=float("inf"),
        on_lost=lambda _reason, _records: None,
        any_destination=destination is None,
    )
    try:
        spool.take_over()
        total = sum(count_records(path) for path in spool.paths())
        done = 0
        progress(done, total)
        while (chunk := spool.next_chunk(_CHUNK_BYTES, _CHUNK_RECORDS)) is not None:
            events = [event for record in chunk.records for event in record]
            owner = [place for place, record in enumerate(chunk.records) for _ in record]
            delivery = deliver(transport, events)
            if delivery.failure is not None:
                result.problem = delivery.failure.reason
                break
            lost: dict[int, str] = {}
            for place, (reason, why) in delivery.rejected.items():
                lost.setdefault(owner[place], reason)
                spool.set_aside(events[place], reason, why)
            spool.settle(chunk)
            result.lost.update(lost.values())
            if chunk.damaged:
                result.lost["spool_corrupt"] += chunk.damaged
            result.sent += len(chunk.records) - len(lost)
            done += len(chunk.records)
            progress(done, max(done, total))
        result.left = max(0, total - done)
    finally:
        spool.close()
    return result
