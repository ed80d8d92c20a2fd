"""Who owns which files of a spool: each process its own, known by a lock that ends with it.

The files of a process begin with its name: ``NAME.lock``, ``NAME-000001.seg`` and so on. Whoever holds the lock may
send and remove them; that of a process that has ended is free.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from pathlib import Path

SEGMENT_SUFFIX = ".seg"
LOCK_SUFFIX = ".lock"
ASIDE_SUFFIX = ".rejected.jsonl"
_NAME = re.compile(r"^([0-9a-f]+-[0-9]+-[0-9a-f]+)(?:-[0-9]{6,}\.seg|\.lock|\.rejected\.jsonl)$")
_TAKEN = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK, errno.EWOULDBLOCK})


def new_owner() -> str:
    """A name for this process that no other has had."""
    return f"{time.time_ns() // 1_000_000:x}-{os.getpid()}-{os.urandom(3).hex()}"


def owner_of(file_name: str) -> str | None:
    """Whose file it is; None where it is none of a spool's."""
    found = _NAME.match(file_name)
    return found[1] if found else None


class OwnerLock:
    """The lock of one owner, held.

    Args:
        path: The lock's file.
        descriptor: The file, open and locked.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    def release(self, *, remove: bool) -> None:
        """Let go.

        Args:
            remove: Whether the owner has no files any more.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if remove:
            with contextlib.suppress(OSError):
                self._path.unlink()
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: the lock is the parent's."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)  # it is not given up by that: the parent has it open too


def take_lock(folder: Path, owner: str) -> OwnerLock | None:
    """Take an owner's lock; None where another process has it.

    Where the file system knows no locks it is taken all the same: sending twice is harmless.

    Args:
        folder: The spool.
        owner: The owner.

    Raises:
        OSError: The file cannot be opened.
    """
    path = folder / f"{owner}{LOCK_SUFFIX}"
    for _ in range(3):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _TAKEN:
                os.close(descriptor)
                return None
        except BaseException:
            os.close(descriptor)
            raise
        try:
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return OwnerLock(path, descriptor)
        except OSError:
            pass
        os.close(descriptor)  # its last owner removed the file in between
    return None


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
