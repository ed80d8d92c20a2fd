"""The spool: records that could not be sent wait on disk, for this process or one that comes later.

Each process appends to segment files of its own, in one folder for all. A segment is sent from its beginning, and
removed when everything in it is settled. What ended processes left is taken over under a lock. The folder is capped
in bytes and age; the oldest goes first, and is counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xray.delivery.owners import ASIDE_SUFFIX, SEGMENT_SUFFIX, OwnerLock, new_owner, owner_of, take_lock
from xray.delivery.segments import Frame, UnreadableError, make_head, read_head
from xray.delivery.spool_files import (
    NOTHING_PENDING,
    Chunk,
    Segment,
    append_to,
    aside_line,
    count_records,
    files_in,
    has_files,
    read_chunk,
    write_all,
)

log = logging.getLogger("xray")

_SEGMENT_BYTES = 16 << 20
_SHARE_OF_CAP = 8
_ASIDE_BYTES = 16 << 20
_WAIT_AFTER_ERROR_S = 5.0

wall_s: Callable[[], float] = time.time
monotonic_s: Callable[[], float] = time.monotonic


class SpoolFullError(OSError):
    """There is no room within the cap, and nothing that may be removed."""


class Spool:
    """This process's part in a spool. Methods may be called on any thread, those that read on the worker's only.

    Args:
        folder: The folder; made when something is written.
        destination: Where the records are to go; only such segments are taken over.
        max_bytes: What the files of all processes may weigh together.
        max_age_s: How long a record may lie there.
        on_lost: Called where own records are lost, with the reason and how many.
        any_destination: Whether to take over segments that were to go elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        *,
        destination: str,
        max_bytes: int,
        max_age_s: float,
        on_lost: Callable[[str, int], None],
        any_destination: bool = False,
    ) -> None:
        self.folder = folder
        self.from_others: Counter[str] = Counter()
        self.retry_at = 0.0
        """When to write again after an error, by the monotonic clock."""
        self.problem: str | None = None
        """Why the last write failed."""
        self._destination = destination
        self._any_destination = any_destination
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._on_lost = on_lost
        self._segment_bytes = max(1, min(_SEGMENT_BYTES, max_bytes // _SHARE_OF_CAP))
        self._lock = threading.RLock()
        self._owner = new_owner()
        self._own_lock: OwnerLock | None = None
        self._segments: list[Segment] = []
        self._active: Segment | None = None
        self._file: int | None = None
        self._count = 0
        self._total_bytes = 0
        self._aside_bytes = 0
        self._reading: Segment | None = None

    # --- writing ------------------------------------------------------------------------------------------------

    def may_write(self, now: float) -> bool:
        """Whether writing is worth a try."""
        return now >= self.retry_at

    def append(self, written: Sequence[Frame], first: int) -> None:
        """Write records; they are in the operating system's hands when this returns, and outlive this process.

        Args:
            written: A frame for each.
            first: The number of the first of them.

        Raises:
            OSError: Not all of them could be written; none of them counts as written.
        """
        with self._lock:
            try:
                self._append(written, first)
            except OSError as error:
                self.problem = error.strerror or str(error)
                self.retry_at = monotonic_s() + _WAIT_AFTER_ERROR_S
                raise
            self.problem = None

    def _append(self, written: Sequence[Frame], first: int) -> None:
        need = sum(frame.size_bytes for frame in written)
        self._make_room(need)
        segment = self._active
        if segment is None or segment.size_bytes + need > self._segment_bytes:
            self._close_active()
            segment = self._begin()
        assert self._file is not None
        parts: list[bytes] = []
        for place, frame in enumerate(written):
            parts += (frame.header(segment.records + place), frame.payload)
        try:
            write_all(self._file, b"".join(parts))
        except OSError:
            # What was written of it is cut off, so that the segment stays whole.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, segment.size_bytes)
                os.lseek(self._file, segment.size_bytes, os.SEEK_SET)
            if segment.records:
                self._close_active()  # the next try begins a file of its own
            else:
                self._drop_file(segment)
            raise
        segment.size_bytes += need
        segment.records += len(written)
        segment.first = min(segment.first, first)
        self._total_bytes += need

    def _begin(self) -> Segment:
        self._own_folder()
        self._count += 1
        path = self.folder / f"{self._owner}-{self._count:06d}{SEGMENT_SUFFIX}"
        head = make_head(self._destination)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        segment = self._active = Segment(path, size_bytes=len(head), offset=len(head), began_s=monotonic_s())
        self._segments.append(segment)
        try:
            write_all(self._file, head)
        except OSError:
            self._drop_file(segment)
            raise
        self._total_bytes += len(head)
        return segment

    def _own_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
        if self._own_lock is None:
            self._own_lock = take_lock(self.folder, self._owner)

    def _close_active(self) -> None:
        file, self._file, self._active = self._file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _drop_file(self, segment: Segment) -> None:
        if segment is self._active:
            self._close_active()
        if segment in self._segments:
            self._segments.remove(segment)
        with contextlib.suppress(OSError):
            segment.path.unlink()

    def set_aside(self, event: dict[str, Any], reason: str, error: str) -> None:
        """Keep an event that the service does not take, with its error, for people to look at.

        Args:
            event: The event.
            reason: The reason that it is counted under.
            error: The error in words.
        """
        line = aside_line(event, reason, error, wall_s())
        with self._lock:
            if self._aside_bytes + len(line) > min(_ASIDE_BYTES, self._segment_bytes):
                return
            try:
                self._make_room(len(line))
                self._own_folder()
                append_to(self.folder / f"{self._owner}{ASIDE_SUFFIX}", line)
            except OSError:
                log.debug("X-Ray: an event could not be set aside", exc_info=True)
                return
            self._aside_bytes += len(line)
            self._total_bytes += len(line)

    # --- the caps -----------------------------------------------------------------------------------------------

    def _make_room(self, need: int) -> None:
        active = self._active
        fits = active is not None and active.size_bytes + need <= self._segment_bytes
        if fits and self._total_bytes + need <= self._max_bytes:
            return
        # Others write too: how much there is is looked up anew with each segment.
        self._expire()
        files = files_in(self.folder)
        self._total_bytes = sum(size for _, size, _ in files)
        if self._total_bytes + need <= self._max_bytes:
            return
        for path, size, _ in sorted(files, key=lambda file: file[2]):
            if self._remove(path, "spool_full"):
                self._total_bytes -= size
                if self._total_bytes + need <= self._max_bytes:
                    return
        raise SpoolFullError(f"the spool's {self._max_bytes} bytes are used up")

    def _expire(self) -> None:
        """Remove what is too old: own segments by the monotonic clock, others' by the wall clock."""
        now = monotonic_s()
        for segment in list(self._segments):
            if segment.is_own and segment is not self._reading and now - segment.began_s > self._max_age_s:
                self._lose(segment, "spool_expired")
        oldest = wall_s() - self._max_age_s
        for path, _, changed_s in files_in(self.folder):
            if changed_s < oldest and owner_of(path.name) != self._owner:
                self._remove(path, "spool_expired")

    def _remove(self, path: Path, reason: str) -> bool:
        """Remove a file, where it is this process's or nobody's; count what was in it."""
        known = next((segment for segment in self._segments if segment.path == path), None)
        if known is not None:
            if known is self._reading:
                return False
            self._lose(known, reason)
            return True
        owner = owner_of(path.name)
        if owner is None or owner == self._owner:
            return False
        try:
            lock = take_lock(self.folder, owner)
            if lock is None:
                return False
            if path.suffix == SEGMENT_SUFFIX:
                self.from_others[reason] += count_records(path)
            path.unlink()
            lock.release(remove=not has_files(self.folder, owner))
        except OSError:
            return False
        return True

    def _lose(self, segment: Segment, reason: str) -> None:
        lost = segment.records - segment.settled
        if not segment.is_own:
            self.from_others[reason] += count_records(segment.path)
        self._let_go(segment)
        if segment.is_own and lost:
            self._on_lost(reason, lost)

    # --- reading ------------------------------------------------------------------------------------------------

    def first_pending(self) -> int:
        """The least number of an own record that is not settled; waits for no lock."""
        return min((s.first for s in list(self._segments)), default=NOTHING_PENDING)

    def has_pending(self, *, own_only: bool = False) -> bool:
        """Whether there is anything to send."""
        return any((s.is_own or not own_only) and not s.is_unreadable for s in list(self._segments))

    def paths(self) -> list[Path]:
        """The segments that this process may send."""
        return [segment.path for segment in list(self._segments)]

    def take_over(self) -> int:
        """Take the segments that ended processes left; how many there are."""
        taken = 0
        with self._lock:
            self._expire()
            by_owner: dict[str, list[Path]] = {}
            known = {segment.path for segment in self._segments}
            for path, _, _ in files_in(self.folder):
                owner = owner_of(path.name)
                if owner and owner != self._owner and path.suffix == SEGMENT_SUFFIX and path not in known:
                    by_owner.setdefault(owner, []).append(path)
            for owner, paths in by_owner.items():
                if self._any_destination or any(self._is_ours(path) for path in paths):
                    taken += self._take_over(owner, sorted(paths))
        return taken

    def _is_ours(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                destination, _ = read_head(file)
        except OSError:
            return False
        return destination in (None, self._destination)

    def _take_over(self, owner: str, paths: Sequence[Path]) -> int:
        try:
            lock = take_lock(self.folder, owner)
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
            lock.release(remove=not has_files(self.folder, owner))
        # The older before the newer, and all of them before what this process wrote.
        self._segments[:0] = taken
        return len(taken)

    def next_chunk(self, max_bytes: int, max_records: int, *, own_only: bool = False) -> Chunk | None:
        """Read the oldest records that are not settled; None where there are none.

        Args:
            max_bytes: What they may weigh as they are sent; the last one may weigh more.
            max_records: How many.
            own_only: Whether to leave what other processes wrote.
        """
        while True:
            with self._lock:
                pending = [s for s in self._segments if (s.is_own or not own_only) and not s.is_unreadable]
                if not pending:
                    return None
                segment = self._reading = pending[0]
                if segment is self._active:
                    self._close_active()  # what comes now goes into another one, so that this one comes to an end
            try:
                chunk = read_chunk(segment, max_bytes, max_records)
            except UnreadableError as error:
                log.warning("X-Ray: %s cannot be sent: %s. It stays where it is.", segment.path, error)
                segment.is_unreadable = True
                self._reading = None
                continue
            except OSError:
                self._reading = None
                self._vanished(segment)
                continue
            if chunk.records or chunk.damaged:
                return chunk
            self._finish(segment)

    def settle(self, chunk: Chunk) -> None:
        """All of a chunk is stored or lost.

        Args:
            chunk: The chunk.
        """
        segment = chunk.segment
        with self._lock:
            segment.offset, segment.number = chunk.end, chunk.number
            segment.settled += len(chunk.records) + chunk.damaged
            self._reading = None
            if segment.offset >= segment.size_bytes:
                self._finish(segment)

    def put_back(self) -> None:
        """The chunk that was read last could not be sent; it is read again."""
        self._reading = None

    def _finish(self, segment: Segment) -> None:
        with self._lock:
            self._reading = None
            left = segment.records - segment.settled if segment.is_own else 0
            self._total_bytes = max(0, self._total_bytes - segment.size_bytes)
            self._let_go(segment)
            if left > 0:
                self._on_lost("spool_corrupt", left)

    def _vanished(self, segment: Segment) -> None:
        """Somebody removed the file."""
        with self._lock:
            self._let_go(segment)
            if segment.records > segment.settled:
                self._on_lost("spool_missing", segment.records - segment.settled)

    def _let_go(self, segment: Segment) -> None:
        self._drop_file(segment)
        lock = segment.lock
        if lock is not None and not any(other.lock is lock for other in self._segments):
            owner = owner_of(segment.path.name)
            lock.release(remove=owner is not None and not has_files(self.folder, owner))

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the files and leave what is in them to other processes, or a later one."""
        with self._lock:
            self._close_active()
            for segment in self._segments:
                if segment.lock is not None:
                    segment.lock.release(remove=False)
            self._segments.clear()
            if self._own_lock is not None:
                self._own_lock.release(remove=not has_files(self.folder, self._owner))
                self._own_lock = None

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)
        for lock in {segment.lock for segment in self._segments} | {self._own_lock}:
            if lock is not None:
                lock.forget()
