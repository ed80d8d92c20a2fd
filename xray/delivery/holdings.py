"""What a process has of a spool: the segments that it wrote, and those of ended processes that it took over."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from xray.delivery import clocks
from xray.delivery.owners import SEGMENT_SUFFIX, OwnerLock, new_owner, owner_of, take_lock
from xray.delivery.segments import make_head
from xray.delivery.spool_files import Segment, count_records, has_files, write_all


class Holdings:
    """Segments, the files behind them, and the locks that say whose they are.

    Everything but :attr:`segments`, which may be looked at, is used under :attr:`lock` only.

    Args:
        folder: The spool; made when something is written.
        on_lost: Called where own records are lost, with the reason and how many.
    """

    def __init__(self, folder: Path, on_lost: Callable[[str, int], None]) -> None:
        self.folder = folder
        self.on_lost = on_lost
        self.lock = threading.RLock()
        self.owner = new_owner()
        self.segments: list[Segment] = []
        """The older before the newer."""
        self.active: Segment | None = None
        """The one that is written to."""
        self.file: int | None = None
        """Its file."""
        self.reading: Segment | None = None
        """The one of which records are under way."""
        self.total_bytes = 0
        """What the files of all processes weigh, as far as is known."""
        self.from_others: Counter[str] = Counter()
        """What became of records that ended processes left."""
        self._own_lock: OwnerLock | None = None
        self._count = 0

    def own_folder(self) -> None:
        """Make the folder, and the lock that says that this process lives.

        Raises:
            OSError: That is not possible.
        """
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
        if self._own_lock is None:
            self._own_lock = take_lock(self.folder, self.owner)

    def begin(self, destination: str) -> Segment:
        """Begin a segment to write to.

        Args:
            destination: Where its records are to go.

        Raises:
            OSError: It cannot be written.
        """
        self.own_folder()
        self._count += 1
        path = self.folder / f"{self.owner}-{self._count:06d}{SEGMENT_SUFFIX}"
        head = make_head(destination)
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        segment = self.active = Segment(path, size_bytes=len(head), offset=len(head), began_s=clocks.monotonic_s())
        self.segments.append(segment)
        try:
            write_all(self.file, head)
        except OSError:
            self.drop(segment)
            raise
        self.total_bytes += len(head)
        return segment

    def close_active(self) -> None:
        """Write no more to the segment that was written to."""
        file, self.file, self.active = self.file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def drop(self, segment: Segment) -> None:
        """Remove a segment and its file."""
        if segment is self.active:
            self.close_active()
        if segment in self.segments:
            self.segments.remove(segment)
        with contextlib.suppress(OSError):
            segment.path.unlink()

    def let_go(self, segment: Segment) -> None:
        """Remove a segment, and the lock of an ended process with the last of its segments."""
        self.drop(segment)
        lock = segment.lock
        if lock is not None and not any(other.lock is lock for other in self.segments):
            owner = owner_of(segment.path.name)
            lock.release(remove=owner is not None and not has_files(self.folder, owner))

    def lose(self, segment: Segment, reason: str) -> None:
        """Remove a segment before all of it is settled; count what was in it."""
        lost = segment.records - segment.settled
        if not segment.is_own:
            self.from_others[reason] += count_records(segment.path)
        self.let_go(segment)
        if segment.is_own and lost:
            self.on_lost(reason, lost)

    def finish(self, segment: Segment) -> None:
        """Remove a segment whose end was reached; what should have been in it and was not found is counted."""
        with self.lock:
            self.reading = None
            left = segment.records - segment.settled if segment.is_own else 0
            self.total_bytes = max(0, self.total_bytes - segment.size_bytes)
            self.let_go(segment)
            if left > 0:
                self.on_lost("spool_corrupt", left)

    def vanished(self, segment: Segment) -> None:
        """Somebody removed the file of a segment."""
        with self.lock:
            self.let_go(segment)
            if segment.records > segment.settled:
                self.on_lost("spool_missing", segment.records - segment.settled)

    def close(self) -> None:
        """Close the files and leave what is in them to other processes, or a later one."""
        with self.lock:
            self.close_active()
            for segment in self.segments:
                if segment.lock is not None:
                    segment.lock.release(remove=False)
            self.segments.clear()
            if self._own_lock is not None:
                self._own_lock.release(remove=not has_files(self.folder, self.owner))
                self._own_lock = None

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        file, self.file = self.file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)
        for lock in {segment.lock for segment in self.segments} | {self._own_lock}:
            if lock is not None:
                lock.forget()
