"""How figures are worded for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.wording import counted, duration, moment


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (None, ""), (0, "0 µs"), (0.4, "400 µs"), (999.9, "999.9 ms"), (1000, "1.00 s"), (119_000, "119.00 s"),
        (120_000, "2.0 min"), (7_140_000, "119.0 min"), (7_200_000, "2.0 h"),
        (172_800_000, "2.0 d"), (-1500, "-1.50 s"),
    ],
)  # fmt: skip
def test_a_duration_has_the_unit_that_suits_it(duration_ms: float | None, text: str) -> None:
    assert duration(duration_ms) == text


@given(st.floats(0.01, 1e11), st.floats(1.05, 10))
def test_a_longer_duration_never_reads_as_a_shorter_one(shorter: float, factor: float) -> None:
    units = {"µs": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}

    def read(text: str) -> float:
        figure, unit = text.split()
        return float(figure) * units[unit]

    assert read(duration(shorter)) <= read(duration(shorter * factor))


def test_things_are_counted_in_the_right_number() -> None:
    assert counted(1, "run") == "1 run"
    assert counted(0, "run") == "0 runs"
    assert counted(2000, "stretch", "stretches") == "2,000 stretches"


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("2026-11-01T12:00:05.123Z", "2026-11-01 12:00:05Z"),
        ("2026-11-01T12:00:05Z", "2026-11-01 12:00:05Z"),
        ("2026-11-01T12:00:05+01:00", "2026-11-01T12:00:05+01:00"),
        ("a\x1b[31mb", "a�[31mb"),
        (None, ""),
    ],
)
def test_a_moment_is_shown_to_the_second_and_anything_else_as_it_is(time: object, text: str) -> None:
    assert moment(time) == text
