"""Durations and sizes as people write them: ``30d``, ``20GB``."""

from __future__ import annotations

import re

from xray.exceptions import ConfigurationError, did_you_mean

_DURATIONS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_DURATION_WORDS = {
    "sec": "s", "second": "s", "seconds": "s", "min": "m", "minute": "m", "minutes": "m", "hour": "h", "hours": "h",
    "day": "d", "days": "d", "week": "w", "weeks": "w",
}  # fmt: skip
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE_WORDS = {"k": "kB", "m": "MB", "g": "GB", "t": "TB"} | {unit.lower(): unit for unit in _SIZES}
FOREVER = "forever"
UNLIMITED = "unlimited"


def parse_duration_ms(text: str, path: str) -> int | None:
    """Milliseconds of a duration; None for ``forever``.

    Args:
        text: A whole number and a unit: ``s``, ``m``, ``h``, ``d`` or ``w``.
        path: What the text was given as, for the error.

    Raises:
        ConfigurationError: It is none.
    """
    if text.strip() == FOREVER:
        return None
    number, unit = _split(text)
    if number is not None and number.isdecimal() and unit in _DURATIONS:
        return int(number) * _DURATIONS[unit]
    near = _DURATION_WORDS.get(unit.lower(), "d") if number is not None and number.isdecimal() else None
    raise ConfigurationError(
        f"'{text:.50}' is no duration: a whole number with s, m, h, d or w, or '{FOREVER}'.",
        path=path,
        hint=f"Did you mean '{number}{near}'?" if near else did_you_mean(text, [FOREVER]) or "For example 30d.",
    )


def parse_size_bytes(text: str, path: str) -> int | None:
    """Bytes of a size; None for ``unlimited``.

    Args:
        text: A number and a unit: ``B``, ``kB``, ``MB``, ``GB``, ``TB``, or in powers of 1024 ``KiB`` to ``TiB``.
        path: What the text was given as, for the error.

    Raises:
        ConfigurationError: It is none.
    """
    if text.strip() == UNLIMITED:
        return None
    number, unit = _split(text)
    if number is not None and unit in _SIZES:
        return int(float(number) * _SIZES[unit])
    near = _SIZE_WORDS.get(unit.lower(), "GB") if number is not None else None
    raise ConfigurationError(
        f"'{text:.50}' is no size: a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, or '{UNLIMITED}'.",
        path=path,
        hint=f"Did you mean '{number}{near}'?" if near else did_you_mean(text, [UNLIMITED]) or "For example 20GB.",
    )


def show_duration(duration_ms: int) -> str:
    """A duration for people, in the largest unit that makes a whole number of it: ``30d``."""
    for unit in ("d", "h", "m", "s"):
        if duration_ms and duration_ms % _DURATIONS[unit] == 0:
            return f"{duration_ms // _DURATIONS[unit]}{unit}"
    return f"{duration_ms} ms"


def _split(text: str) -> tuple[str | None, str]:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if not found:
        return None, ""
    return found[1], found[2]
