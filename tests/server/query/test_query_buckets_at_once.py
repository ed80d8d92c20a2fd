"""The buckets of many moments at once are those of each moment by itself."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from xray_server.query.buckets import UNITS, Bucket

ZONES = ("UTC", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "Europe/Berlin", "America/Asuncion")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("zone", ZONES)
def test_many_moments_lie_in_the_buckets_of_each(unit, zone):
    """Also in the hours in which clocks jump, over midnight too, and for stages that never began."""
    draw = random.Random(8)
    moments = [draw.randrange(1_200_000_000_000, 1_800_000_000_000) for _ in range(300)]
    # In 2010 the clocks of St. John's went back from 00:01 to 23:01 of the day before.
    night = int(dt.datetime(2010, 11, 7, 2, 0, tzinfo=dt.UTC).timestamp()) * 1000
    moments += range(night, night + 3 * 3_600_000, 60_000)
    bucket = Bucket(unit, zone)
    assert bucket.starts_of([*moments, None, -1]) == [*map(bucket.start_of, moments), None, bucket.start_of(-1)]
