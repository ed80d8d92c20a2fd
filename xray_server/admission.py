"""How much of what is sent may be in memory at once: senders are asked to come again before it grows beyond that.

Bodies are counted from the first byte that arrives until they are stored, or thrown away. What is not counted is what
becomes of a body on its way (decoded, then packed), a small multiple of it.
"""

from __future__ import annotations

import threading
from typing import Self

from xray_server.errors import ApiError


class Admission:
    """Counts the bytes of all bodies that are being received, wait or are worked on.

    Methods may be called on any thread.

    Args:
        max_bytes: How many there may be. One body alone is always let in: else it could never be sent.
        code: The error's code where there are more.
        what: What there is too much of, in a few words.
    """

    def __init__(self, max_bytes: int, *, code: str, what: str) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        """How many there are."""
        self._code = code
        self._what = what
        self._lock = threading.Lock()

    def hold(self) -> Hold:
        """What one body holds; nothing yet."""
        return Hold(self)

    def _change(self, more: int, held: int) -> None:
        with self._lock:
            if more > 0 and held < self.bytes and self.bytes + more > self.max_bytes:
                raise ApiError(
                    f"The service has {self._what} of {self.bytes} bytes already.",
                    status=429,
                    code=self._code,
                    hint="Send it again later; Retry-After says when.",
                )
            self.bytes += more


class Hold:
    """The bytes of one body that are counted; given back at the end of a ``with`` block.

    Args:
        admission: Where they are counted.
    """

    __slots__ = ("_admission", "bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def grow(self, size_bytes: int) -> None:
        """Count more.

        Raises:
            ApiError: There is no room for them (429); nothing is counted then.
        """
        self._admission._change(size_bytes, self.bytes)  # noqa: SLF001 - the other half of this class
        self.bytes += size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Count less."""
        self._admission._change(-size_bytes, self.bytes)  # noqa: SLF001
        self.bytes -= size_bytes

    def release(self) -> None:
        """Give back all of it; doing so again is harmless."""
        self.shrink(self.bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
