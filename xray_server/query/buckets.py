"""Buckets of time: where a moment's minute, hour, day, week or month begins, in a time zone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from xray.exceptions import QueryError
from xray_server.query.operators import hint_for, show

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _week(moment: dt.datetime) -> dt.datetime:
    return UNITS["day"](moment) - dt.timedelta(days=moment.weekday())


UNITS: dict[str, Callable[[dt.datetime], dt.datetime]] = {
    "minute": lambda moment: moment.replace(second=0, microsecond=0),
    "hour": lambda moment: moment.replace(minute=0, second=0, microsecond=0),
    "day": lambda moment: moment.replace(hour=0, minute=0, second=0, microsecond=0),
    "week": _week,
    "month": lambda moment: moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
}
"""Unit → the local time at which it begins; weeks begin on Monday."""

_KEYS = ("unit", "timezone")
_DAY_MS, _HOUR_MS, _QUARTER_MS, _MINUTE_MS = 86_400_000, 3_600_000, 900_000, 60_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """How stages are put together by the time at which they began.

    Args:
        unit: One of :data:`UNITS`.
        timezone: The IANA name of the zone whose clocks count.
    """

    unit: str
    timezone: str = "UTC"

    def start_of(self, milliseconds: Any) -> str | None:
        """The beginning of the bucket that a moment lies in, as ISO 8601 with its offset; None for no moment.

        Args:
            milliseconds: Since 1970.
        """
        if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
            return None
        return _start(self.unit, self.timezone, milliseconds // 60_000)

    @property
    def spans_ms(self) -> tuple[int, ...]:
        """How long the spans of time may be that lie in one bucket each, counted from 1970 on: the longest first.

        All of the last length surely do; of a longer one :meth:`of_spans` tells.
        """
        if self.unit == "minute":
            return (_MINUTE_MS,)
        if self.timezone == "UTC":
            return (_HOUR_MS if self.unit == "hour" else _DAY_MS,)
        return _HOUR_MS, _QUARTER_MS, _MINUTE_MS

    def of_spans(self, starts: Iterable[int | None], span_ms: int) -> dict[int | None, str | None] | None:
        """The beginning of the bucket that each of some spans of time lies in; None where one is in several buckets.

        Args:
            starts: The starts of the spans, in milliseconds since 1970; None is none.
            span_ms: How long they are: one of :attr:`spans_ms`.
        """
        found: dict[int | None, str | None] = {None: None}
        whole: dict[int, str | None] = {}
        for start in starts:
            if start in found or start is None:
                continue
            if span_ms == self.spans_ms[-1]:
                found[start] = self.start_of(start)
                continue
            hour = start // _HOUR_MS
            if hour not in whole:
                whole[hour] = self._of_span(hour * _HOUR_MS, _HOUR_MS)
            begin = whole[hour] or self._of_span(start, span_ms)
            if begin is None:
                return None
            found[start] = begin
        return found

    def _of_span(self, first: int, span_ms: int) -> str | None:
        """The bucket in which a whole span of time lies; None where it does not lie in one."""
        last, zone = first + span_ms - 1, ZoneInfo(self.timezone)
        begin = self.start_of(first)
        if begin != self.start_of(last) or _offset(zone, first) != _offset(zone, last):
            return None  # clocks may have jumped in between, and back over the bucket's beginning
        return begin


def _offset(zone: ZoneInfo, milliseconds: int) -> dt.timedelta | None:
    try:
        return dt.datetime.fromtimestamp(milliseconds / 1000, zone).utcoffset()
    except (OverflowError, ValueError, OSError):
        return None


@lru_cache(maxsize=4096)
def _start(unit: str, timezone: str, minutes: int) -> str | None:
    # No zone's offset has had seconds since long before anything was recorded: within a minute all is one bucket.
    zone = ZoneInfo(timezone)
    try:
        local = (_EPOCH + dt.timedelta(minutes=minutes)).astimezone(zone)
        begin = UNITS[unit](local)
        # Where clocks jump over a midnight, the day begins when they have jumped.
        return begin.astimezone(dt.UTC).astimezone(zone).isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        return None


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    # Looking for them goes through some hundred files.
    return frozenset(available_timezones())


def parse_bucket(bucket: Any) -> Bucket:
    """Parse the ``bucket`` of an aggregation.

    Args:
        bucket: A unit, or ``{"unit": …, "timezone": …}``.

    Raises:
        QueryError: There is no such unit or time zone.
    """
    given = {"unit": bucket} if isinstance(bucket, str) else bucket
    if not isinstance(given, dict):
        raise QueryError(
            "'bucket' is a unit of time.",
            path="bucket",
            hint='Write "day", or {"unit": "day", "timezone": "Asia/Tokyo"}.',
        )
    for key in given:
        if key not in _KEYS:
            hint = hint_for(key, *_KEYS) if isinstance(key, str) else None
            raise QueryError(
                f"A bucket has no '{show(key)}'.", code="unknown_key", path=f"bucket.{show(key)}", hint=hint
            )
    unit, timezone = given.get("unit"), given.get("timezone") or "UTC"
    path = "bucket" if isinstance(bucket, str) else "bucket.unit"
    if not isinstance(unit, str) or unit not in UNITS:
        hint = hint_for(unit, *UNITS) if isinstance(unit, str) else None
        raise QueryError(
            f"There is no bucket '{show(unit)}'.", path=path, hint=hint or f"There are {', '.join(UNITS)}."
        )
    zones = _zones()
    if not isinstance(timezone, str) or (timezone not in zones and timezone != "UTC"):
        hint = hint_for(timezone, *zones) if isinstance(timezone, str) else None
        raise QueryError(
            f"There is no time zone '{show(timezone)}'.",
            path="bucket.timezone",
            hint=hint or "Write the name of a place: Europe/Berlin.",
        )
    return Bucket(unit, timezone)
