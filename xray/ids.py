"""Time-ordered ids and clocks.

``clock_ns``, ``monotonic_ns`` and ``draw_bits`` are looked up in this module at each use, so that tests can put fixed
ones in their place (``xray.testing`` does).
"""

from __future__ import annotations

import os
import random
import re
import time

clock_ns = time.time_ns
"""The wall clock: nanoseconds since 1970, UTC."""

monotonic_ns = time.perf_counter_ns
"""The clock that durations are measured by."""

_generator = random.Random(os.urandom(32))  # noqa: S311 - ids have to be distinct, not secret
if hasattr(os, "register_at_fork"):
    # Two processes must not draw the same numbers.
    os.register_at_fork(after_in_child=lambda: _generator.seed(os.urandom(32)))

draw_bits = _generator.getrandbits
"""Random bits for ids; drawn without a system call."""


def new_id() -> str:
    """A new UUID of version 7, see :func:`id_text`."""
    return id_text(clock_ns(), draw_bits(62))


def id_text(time_ns: int, bits: int) -> str:
    """A UUID of version 7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, 12 bits of their fraction, 62 random bits.

    Args:
        time_ns: The moment, in nanoseconds since 1970.
        bits: A random number of 62 bits.
    """
    milliseconds, nanoseconds = divmod(time_ns, 1_000_000)
    digits = f"{milliseconds:012x}7{nanoseconds * 4096 // 1_000_000:03x}{bits | 1 << 63:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII).fullmatch


def is_id(value: object) -> bool:
    """Whether a value is a UUID in its canonical text form (36 characters, lower case)."""
    return isinstance(value, str) and _CANONICAL(value) is not None


def now_ms() -> int:
    """The wall clock in milliseconds since 1970, UTC."""
    return clock_ns() // 1_000_000


def id_time_ms(value: str) -> int | None:
    """The time at which an id was made, in milliseconds since 1970; None where it is no UUID of version 7.

    Args:
        value: A UUID in its canonical text form.
    """
    return int(value[:8] + value[9:13], 16) if value[14:15] == "7" else None
