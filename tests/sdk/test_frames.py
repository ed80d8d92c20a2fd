"""Data frames and arrays: in, out and as masks, without X-Ray importing their libraries."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import xray
from tests.sdk.recording import Recorded, recording

PRICES = [5.0, 15.0, 8.0, 12.0]
VERDICTS = {"0": "passed", "1": "failed", "2": "passed", "3": "failed"}


def verdicts(recorded: Recorded, name: str) -> dict[str, Any]:
    return {key: row["verdict"] for key, row in recorded.rows(name).items()}


def cheap(frame: Any) -> Any:
    return frame[frame.price < 10]


def test_survivors_of_a_pandas_frame_are_known_by_its_index():
    """``df[df.price < 10]`` needs no id: the index says who is missing."""
    frame = pd.DataFrame({"price": PRICES})
    decorated = xray.filtering_stage("cheap")(cheap)
    with recording() as recorded:
        result = decorated(frame)
    pd.testing.assert_frame_equal(result, cheap(frame))
    assert verdicts(recorded, "cheap") == VERDICTS
    stage = recorded.stage("cheap")
    assert (stage["facts"]["rows_from"], stage["facts"]["shape"]) == ("pandas.DataFrame", "survivors")
    assert stage["columns"]["data"] == [{"price": price} for price in PRICES]


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("id", [None, "code"])
def test_survivors_are_known_by_an_id_column(kind: Any, id: str | None):
    """A column with a usual name, or the one that id= names."""
    frame = kind({id or "sku": list("abcd"), "price": PRICES})

    @xray.filtering_stage("cheap", id=id)
    def filtered(rows: Any) -> Any:
        return cheap(rows) if kind is pd.DataFrame else rows.filter(pl.col("price") < 10)

    with recording() as recorded:
        assert type(filtered(frame)) is kind
    assert verdicts(recorded, "cheap") == dict(zip("abcd", VERDICTS.values(), strict=True))


@pytest.mark.parametrize(
    "mask",
    [
        lambda frame: frame.price < 10,
        lambda frame: (frame.price < 10).to_numpy(),
        lambda frame: (frame.price < 10).tolist(),
        lambda frame: list((frame.price < 10).to_numpy()),
    ],
    ids=["series", "array", "list", "list of NumPy bools"],
)
def test_boolean_masks_over_a_frame(mask: Any):
    """A Series, an array or a list of flags over the rows."""
    frame = pd.DataFrame({"id": list("abcd"), "price": PRICES})
    decorated = xray.filtering_stage("mask")(mask)
    with recording() as recorded:
        result = decorated(frame)
    assert list(result) == [True, False, True, False]
    assert verdicts(recorded, "mask") == dict(zip("abcd", VERDICTS.values(), strict=True))
    assert recorded.stage("mask")["facts"]["shape"] == "mask"


@pytest.mark.parametrize("make", [pd.Series, pl.Series, np.array, list])
def test_scores_as_a_series(make: Any):
    """A column of numbers over the rows gives each its score; NaN is none."""
    scores = [0.5, 1.5, float("nan"), -1.0]
    frame = pd.DataFrame({"id": list("abcd"), "price": PRICES})

    @xray.scoring_stage("score")
    def score(rows: Any) -> Any:
        return make(scores)

    with recording() as recorded:
        score(frame)
    found = {key: row.get("score") for key, row in recorded.rows("score").items()}
    assert (found["a"], found["b"], found["d"]) == (0.5, 1.5, -1.0)
    if make is not list:
        assert found["c"] is None
    assert recorded.metrics("score")["nulls"] == 1


def test_columns_of_the_same_name_are_all_kept():
    """The second gets a number, also where that name is taken; the stage says how many there were."""
    frame = pd.DataFrame([["x", 1, 2, 3]], columns=["id", "price", "price", "price#2"])

    @xray.raw_stage("raw")
    def raw(rows: Any) -> Any:
        return rows

    @xray.filtering_stage("keep")
    def keep(rows: Any) -> Any:
        return rows

    with recording() as recorded:
        assert keep(frame) is frame
        assert raw(frame) is frame
    assert recorded.rows("keep")["x"]["data"] == {"id": "x", "price": 1, "price#3": 2, "price#2": 3}
    assert recorded.stage("keep")["facts"]["duplicate_columns"] == 1
    assert recorded.stage("raw")["output"] == [{"id": "x", "price": 1, "price#3": 2, "price#2": 3}]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"id": ["a"], "x": [float("nan")], "y": [pd.NaT], "z": [pd.NA], "w": [None]}),
        pd.DataFrame({"id": ["a"], "x": pd.array([None], dtype="Int64")}),
        pl.DataFrame({"id": ["a"], "x": [None], "y": [float("nan")]}),
    ],
)
def test_missing_values_are_none(frame: Any):
    """NaN, NaT, NA and null of a frame are no values."""
    decorated = xray.filtering_stage("keep")(lambda rows: rows)
    with recording() as recorded:
        assert decorated(frame) is frame
    (stage,) = recorded.stages
    assert stage["columns"]["data"] == [{"id": "a"} | dict.fromkeys(frame.columns[1:])]
    assert stage["capture"]["markers"] == []


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame({"id": []}), pl.DataFrame(), pl.DataFrame({"id": []})])
def test_empty_frames(frame: Any):
    """Nothing in, nothing out, and a stage that says so."""
    decorated = xray.filtering_stage("none")(lambda rows: rows)
    with recording() as recorded:
        assert decorated(frame) is frame
    (stage,) = recorded.stages
    assert (stage["capture"]["seen"], stage["status"]) == (0, "success")


def test_an_index_and_columns_of_several_levels():
    """The levels are joined, in ids and in names."""
    index = pd.MultiIndex.from_tuples([("s", 1), ("s", 2)])
    frame = pd.DataFrame(
        [[5, 1], [15, 2]], index=index, columns=pd.MultiIndex.from_tuples([("price", "min"), ("n", "x")])
    )
    decorated = xray.filtering_stage("cheap")(lambda rows: rows[rows[("price", "min")] < 10])
    with recording() as recorded:
        decorated(frame)
    (stage,) = recorded.stages
    assert stage["columns"]["candidate_id"] == ["s/1", "s/2"]
    assert stage["columns"]["verdict"] == ["passed", "failed"]
    assert stage["columns"]["data"][0] == {"price/min": 5, "n/x": 1}


def test_categories_and_times():
    """Categories are their words, times are ISO 8601, also as an index."""
    times = pd.to_datetime(["2026-01-01", "2026-01-02"])
    frame = pd.DataFrame({"kind": pd.Categorical(["a", "b"]), "at": times}, index=times)
    decorated = xray.filtering_stage("keep")(lambda rows: rows[rows.kind == "a"])
    with recording() as recorded:
        decorated(frame)
    (stage,) = recorded.stages
    assert stage["columns"]["verdict"] == ["passed", "failed"]
    assert stage["columns"]["candidate_id"][0].startswith("2026-01-01")
    assert stage["columns"]["data"][0]["kind"] == "a"
    assert stage["columns"]["data"][0]["at"].startswith("2026-01-01T00:00:00")


def test_nothing_is_imported_that_the_user_did_not():
    """A recorded stage of dicts and of arguments of all kinds leaves pandas, polars and NumPy out."""
    script = """
import sys, xray
from xray.delivery.memory import MemoryTransport
xray.configure(transport=MemoryTransport())
@xray.filtering_stage("f")
def f(pool, extra): return [c for c in pool if c["n"] > 1]
f([{"id": "a", "n": 1}, {"id": "b", "n": 2}], object())
assert xray.flush(timeout_s=20)
assert not {"pandas", "polars", "numpy"} & set(sys.modules), set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
