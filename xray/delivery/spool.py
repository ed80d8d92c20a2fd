"""The spool: records that could not be sent wait on disk, for this process or one that comes later.

Each process appends to segment files of its own, in one folder for all. A segment is sent from its beginning, and
removed when everything in it is settled. What ended processes left is taken over under a lock. The folder is capped
in bytes and age; the oldest goes first, and is counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xray.delivery import clocks
from xray.delivery.caps import Caps
from xray.delivery.holdings import Holdings
from xray.delivery.inheritance import take_over
from xray.delivery.owners import ASIDE_SUFFIX
from xray.delivery.segments import Frame, UnreadableError
from xray.delivery.spool_files import NOTHING_PENDING, Chunk, append_to, aside_line, read_chunk, write_all

log = logging.getLogger("xray")

_SEGMENT_BYTES = 16 << 20
_SHARE_OF_CAP = 8
_ASIDE_BYTES = 16 << 20
_WAIT_AFTER_ERROR_S = 5.0


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
        self.retry_at = 0.0
        """When to write again after an error, by the monotonic clock."""
        self.problem: str | None = None
        """Why the last write failed."""
        self._holdings = Holdings(folder, on_lost)
        self._caps = Caps(self._holdings, max_bytes, max_age_s)
        self._destination = destination
        self._any_destination = any_destination
        self._segment_bytes = max(1, min(_SEGMENT_BYTES, max_bytes // _SHARE_OF_CAP))
        self._aside_bytes = 0
        self.from_others = self._holdings.from_others
        """What became of records that ended processes left."""

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
        with self._holdings.lock:
            try:
                self._append(written, first)
            except OSError as error:
                self.problem = error.strerror or str(error)
                self.retry_at = clocks.monotonic_s() + _WAIT_AFTER_ERROR_S
                raise
            self.problem = None

    def _append(self, written: Sequence[Frame], first: int) -> None:
        holdings = self._holdings
        need = sum(frame.size_bytes for frame in written)
        self._caps.make_room(need, in_active=self._fits(need))
        segment = holdings.active
        if segment is None or not self._fits(need):
            holdings.close_active()
            segment = holdings.begin(self._destination)
        assert holdings.file is not None
        parts: list[bytes] = []
        for place, frame in enumerate(written):
            parts += (frame.header(segment.records + place), frame.payload)
        try:
            write_all(holdings.file, b"".join(parts))
        except OSError:
            # What was written of it is cut off, so that the segment stays whole.
            with contextlib.suppress(OSError):
                os.ftruncate(holdings.file, segment.size_bytes)
                os.lseek(holdings.file, segment.size_bytes, os.SEEK_SET)
            if segment.records:
                holdings.close_active()  # the next try begins a file of its own
            else:
                holdings.drop(segment)
            raise
        segment.size_bytes += need
        segment.records += len(written)
        segment.first = min(segment.first, first)
        holdings.total_bytes += need

    def _fits(self, need: int) -> bool:
        active = self._holdings.active
        return active is not None and active.size_bytes + need <= self._segment_bytes

    def set_aside(self, event: dict[str, Any], reason: str, error: str) -> None:
        """Keep an event that the service does not take, with its error, for people to look at.

        Args:
            event: The event.
            reason: The reason that it is counted under.
            error: The error in words.
        """
        holdings = self._holdings
        line = aside_line(event, reason, error, clocks.wall_s())
        with holdings.lock:
            if self._aside_bytes + len(line) > min(_ASIDE_BYTES, self._segment_bytes):
                return
            try:
                self._caps.make_room(len(line), in_active=self._fits(len(line)))
                holdings.own_folder()
                append_to(self.folder / f"{holdings.owner}{ASIDE_SUFFIX}", line)
            except OSError:
                log.debug("X-Ray: an event could not be set aside", exc_info=True)
                return
            self._aside_bytes += len(line)
            holdings.total_bytes += len(line)

    # --- reading ------------------------------------------------------------------------------------------------

    def first_pending(self) -> int:
        """The least number of an own record that is not settled; waits for no lock."""
        return min((segment.first for segment in list(self._holdings.segments)), default=NOTHING_PENDING)

    def has_pending(self, *, own_only: bool = False) -> bool:
        """Whether there is anything to send."""
        segments = list(self._holdings.segments)
        return any((s.is_own or not own_only) and not s.is_unreadable for s in segments)

    def paths(self) -> list[Path]:
        """The segments that this process may send."""
        return [segment.path for segment in list(self._holdings.segments)]

    def take_over(self) -> int:
        """Take the segments that ended processes left; how many there are."""
        with self._holdings.lock:
            self._caps.expire()
            return take_over(self._holdings, None if self._any_destination else self._destination)

    def next_chunk(self, max_bytes: int, max_records: int, *, own_only: bool = False) -> Chunk | None:
        """Read the oldest records that are not settled; None where there are none.

        Args:
            max_bytes: What they may weigh as they are sent; the last one may weigh more.
            max_records: How many.
            own_only: Whether to leave what other processes wrote.
        """
        holdings = self._holdings
        while True:
            with holdings.lock:
                pending = [s for s in holdings.segments if (s.is_own or not own_only) and not s.is_unreadable]
                if not pending:
                    return None
                segment = holdings.reading = pending[0]
                if segment is holdings.active:
                    holdings.close_active()  # what comes now goes into another one, so that this one comes to an end
            try:
                chunk = read_chunk(segment, max_bytes, max_records)
            except UnreadableError as error:
                log.warning("X-Ray: %s cannot be sent: %s. It stays where it is.", segment.path, error)
                segment.is_unreadable = True
                holdings.reading = None
                continue
            except OSError:
                holdings.reading = None
                holdings.vanished(segment)
                continue
            if chunk.records or chunk.damaged:
                return chunk
            holdings.finish(segment)

    def settle(self, chunk: Chunk) -> None:
        """All of a chunk is stored or lost.

        Args:
            chunk: The chunk.
        """
        segment = chunk.segment
        with self._holdings.lock:
            segment.offset, segment.number = chunk.end, chunk.number
            segment.settled += len(chunk.records) + chunk.damaged
            self._holdings.reading = None
            if segment.offset >= segment.size_bytes:
                self._holdings.finish(segment)

    def put_back(self) -> None:
        """The chunk that was read last could not be sent; it is read again."""
        self._holdings.reading = None

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the files and leave what is in them to other processes, or a later one."""
        self._holdings.close()

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        self._holdings.forget()
