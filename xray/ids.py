"""Time-ordered ids and clocks."""

from __future__ import annotations

import os
import time
import uuid


def new_id() -> str:
    """A new UUID of version 7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, 12 bits of their fraction, 62 random.

    The randomness comes from the kernel at each call, so that two processes never share it after a fork.
    """
    random_bits = int.from_bytes(os.urandom(8), "big")
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    digits = f"{milliseconds:012x}7{nanoseconds * 4096 // 1_000_000:03x}{random_bits >> 2 | 1 << 63:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_id(value: object) -> bool:
    """Whether a value is a UUID in its canonical text form (36 characters, lower case)."""
    if not isinstance(value, str) or len(value) != 36:
        return False
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def now_ms() -> int:
    """The wall clock in milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
