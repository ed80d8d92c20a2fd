"""What ended processes left in a spool, and how a process that lives takes it over: under their lock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from xray.delivery.holdings import Holdings
from xray.delivery.owners import SEGMENT_SUFFIX, owner_of, take_lock
from xray.delivery.segments import read_head
from xray.delivery.spool_files import Segment, files_in, has_files


def take_over(holdings: Holdings, destination: str | None) -> int:
    """Take the segments that ended processes left; how many there are. Called under the lock of the holdings.

    Args:
        holdings: What this process has of the spool.
        destination: Only what was to go there; None for all.
    """
    taken = 0
    by_owner: dict[str, list[Path]] = {}
    known = {segment.path for segment in holdings.segments}
    for path, _, _ in files_in(holdings.folder):
        owner = owner_of(path.name)
        if owner and owner != holdings.owner and path.suffix == SEGMENT_SUFFIX and path not in known:
            by_owner.setdefault(owner, []).append(path)
    for owner, paths in by_owner.items():
        if destination is None or any(_is_for(path, destination) for path in paths):
            taken += _take(holdings, owner, sorted(paths))
    return taken


def _is_for(path: Path, destination: str) -> bool:
    try:
        with path.open("rb") as file:
            found, _ = read_head(file)
    except OSError:
        return False
    return found in (None, destination)


def _take(holdings: Holdings, owner: str, paths: Sequence[Path]) -> int:
    try:
        lock = take_lock(holdings.folder, owner)
    except OSError:
        return 0
    if lock is None:
        return 0
    taken = []
    for path in paths:
        try:
            with path.open("rb") as file:
                _, offset = read_head(file)
                taken.append(Segment(path, lock, file.seek(0, os.SEEK_END), offset=offset))
        except OSError:  # sent by another process in between
            continue
    if not taken:
        lock.release(remove=not has_files(holdings.folder, owner))
    # The older before the newer, and all of them before what this process wrote.
    holdings.segments[:0] = taken
    return len(taken)
