"""The buckets of whole spans of time are those of each moment in them."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from xray_server.query.buckets import UNITS, Bucket

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
ZONES = ("UTC", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "Europe/Berlin", "America/Asuncion")


def spans_of(moments, span_ms):
    return {None if moment is None else moment - moment % span_ms for moment in moments}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("zone", ZONES)
def test_spans_lie_in_the_buckets_of_their_moments(unit, zone):
    """Also in the hours in which clocks jump, over midnight too, before 1970, and for stages that never began."""
    draw = random.Random(8)
    moments = [draw.randrange(1_200_000_000_000, 1_800_000_000_000) for _ in range(300)]
    # In 2010 the clocks of St. John's went back from 00:01 to 23:01 of the day before.
    night = int(dt.datetime(2010, 11, 7, 2, 0, tzinfo=dt.UTC).timestamp()) * 1000
    moments += range(night, night + 3 * HOUR_MS, MINUTE_MS)
    moments += [None, -1]
    bucket = Bucket(unit, zone)
    for span_ms in bucket.spans_ms:
        for some in (moments, *([moment] for moment in moments)):
            found = bucket.of_spans(spans_of(some, span_ms), span_ms)
            assert found is not None or span_ms != bucket.spans_ms[-1]
            if found is not None:
                assert all(
                    found[None if moment is None else moment - moment % span_ms] == bucket.start_of(moment)
                    for moment in some
                )


@pytest.mark.parametrize(("zone", "span_ms"), [("Europe/Berlin", HOUR_MS), ("Asia/Kolkata", HOUR_MS // 4)])
def test_long_spans_do_where_no_clock_jumps_within_one(zone, span_ms):
    """A year of hours in whole buckets, where clocks are whole hours off; of quarters, where they are not."""
    begin = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()) * 1000
    year = range(begin, begin + 365 * 24 * HOUR_MS, span_ms)
    bucket = Bucket("day", zone)
    assert bucket.of_spans(year, span_ms) is not None
    longer = [each for each in bucket.spans_ms if each > span_ms]
    assert all(bucket.of_spans(spans_of(year, each), each) is None for each in longer)
