"""The spool's bounds: bytes of all processes together, and age. The oldest goes first, and is counted."""

from __future__ import annotations

from pathlib import Path

from xray.delivery import clocks
from xray.delivery.holdings import Holdings
from xray.delivery.owners import SEGMENT_SUFFIX, owner_of, take_lock
from xray.delivery.spool_files import count_records, files_in, has_files


class SpoolFullError(OSError):
    """There is no room within the cap, and nothing that may be removed."""


class Caps:
    """Keeps a spool within its bounds. Methods are called under the lock of the holdings.

    Args:
        holdings: What this process has of it.
        max_bytes: What the files of all processes may weigh together.
        max_age_s: How long a record may lie there.
    """

    def __init__(self, holdings: Holdings, max_bytes: int, max_age_s: float) -> None:
        self._holdings = holdings
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s

    def make_room(self, need: int, *, in_active: bool) -> None:
        """Have room for some more bytes.

        Args:
            need: How many.
            in_active: Whether they fit into the segment that is written to.

        Raises:
            SpoolFullError: There is none.
        """
        holdings = self._holdings
        if in_active and holdings.total_bytes + need <= self._max_bytes:
            return
        # Others write too: how much there is is looked up anew with each segment.
        self.expire()
        files = files_in(holdings.folder)
        holdings.total_bytes = sum(size for _, size, _ in files)
        if holdings.total_bytes + need <= self._max_bytes:
            return
        for path, size, _ in sorted(files, key=lambda file: file[2]):
            if self._remove(path, "spool_full"):
                holdings.total_bytes -= size
                if holdings.total_bytes + need <= self._max_bytes:
                    return
        raise SpoolFullError(f"the spool's {self._max_bytes} bytes are used up")

    def expire(self) -> None:
        """Remove what is too old: own segments by the monotonic clock, others' by the wall clock."""
        holdings = self._holdings
        now = clocks.monotonic_s()
        for segment in list(holdings.segments):
            if segment.is_own and segment is not holdings.reading and now - segment.began_s > self._max_age_s:
                holdings.lose(segment, "spool_expired")
        oldest = clocks.wall_s() - self._max_age_s
        for path, _, changed_s in files_in(holdings.folder):
            if changed_s < oldest and owner_of(path.name) != holdings.owner:
                self._remove(path, "spool_expired")

    def _remove(self, path: Path, reason: str) -> bool:
        """Remove a file, where it is this process's or nobody's; count what was in it."""
        holdings = self._holdings
        known = next((segment for segment in holdings.segments if segment.path == path), None)
        if known is not None:
            if known is holdings.reading:
                return False
            holdings.lose(known, reason)
            return True
        owner = owner_of(path.name)
        if owner is None or owner == holdings.owner:
            return False
        try:
            lock = take_lock(holdings.folder, owner)
            if lock is None:
                return False
            if path.suffix == SEGMENT_SUFFIX:
                holdings.from_others[reason] += count_records(path)
            path.unlink()
            lock.release(remove=not has_files(holdings.folder, owner))
        except OSError:
            return False
        return True
