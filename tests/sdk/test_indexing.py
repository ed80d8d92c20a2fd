"""``index=``: which fields may be declared, and how they travel."""

from __future__ import annotations

import logging

import pytest

import xray
from tests.sdk.recording import recording
from xray.exceptions import DecoratorError

POOL = [{"id": "a", "price": 3}, {"id": "b", "price": 9}]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["data.price"], [{"name": "data.price", "path": "data.price"}]),
        ("data.price", [{"name": "data.price", "path": "data.price"}]),
        ({"price": "data.price", "fit": "scores.fit"}, [
            {"name": "price", "path": "data.price"}, {"name": "fit", "path": "scores.fit"},
        ]),
    ],
)  # fmt: skip
def test_declared_fields_travel_with_the_stage(given, sent):
    """As names and paths in the stage's facts, from decorators of each form and from blocks."""

    @xray.filtering_stage("f", index=given)
    def cheap(pool):
        return pool[:1]

    with recording() as recorded:
        cheap(POOL)
        with xray.run("r") as run, run.stage("block", "filtering", index=given) as stage:
            stage.candidates(POOL)
            stage.result(POOL[:1])
    assert recorded.stage("f")["facts"]["indexed"] == sent
    assert recorded.stage("block")["facts"]["indexed"] == sent


def test_a_stage_without_it_says_nothing():
    """Nothing is sent where nothing is declared."""
    with recording() as recorded:
        xray.filtering_stage("f")(lambda pool: pool[:1])(POOL)
    assert "indexed" not in recorded.stage("f")["facts"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["price"], "candidates have no 'price'. (at index) Write data.price"),
        (["dat.price"], "Did you mean 'data'?"),
        (["data"], "names no one field"),
        (["data."], "names no one field"),
        (["data..price"], "names no one field"),
        (["score"], "'score' is indexed anyway"),
        (["data.a", "data.a"], "names a field twice"),
        ([3], "3 is no path"),
        (3, "is no list of paths"),
        ({"": "data.price"}, "is no path"),
        ([f"data.f{n}" for n in range(17)], "16 are the most"),
    ],
)
def test_what_cannot_be_indexed_is_said_at_decoration(given, said, caplog):
    """Strict mode raises; else the function runs undecorated, and the log says why."""

    def keep(pool):
        return pool

    xray.configure(strict=True)
    with pytest.raises(DecoratorError) as error:
        xray.filtering_stage("f", index=given)(keep)
    assert said in str(error.value)
    xray.configure(strict=False)
    with caplog.at_level(logging.WARNING, "xray"):
        assert xray.filtering_stage("f", index=given)(keep) is keep
    assert said in caplog.text


def test_a_raw_stage_has_nothing_to_index():
    """It has no candidates."""
    xray.configure(strict=True)
    with pytest.raises(DecoratorError, match="no candidates to index"):
        xray.stage("raw", "r", index=["data.x"])(lambda: 1)
