"""Which fields of a row an answer has."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.query.catalogs import catalog
from xray_server.query.parser import parse
from xray_server.query.selection import select

CATALOG = catalog()
STAGE = {
    "id": "1",
    "name": "s",
    "metrics": {"fail_ratio": 0.5, "label_share": {"a.b": 0.25, "c": 1}, "histogram": [1, 2]},
    "metadata": {"x": {"y": 1, "z": 2}, "list": [{"y": 1, "z": 2}, 7, {"z": 3}]},
    "pipeline": {"label": "a", "key": "k"},
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["name"], {"name": "s"}),
        ({"name": 1, "type": True}, {"name": "s"}),
        (["$failRatio"], {"metrics": {"fail_ratio": 0.5}}),
        (["metrics.label_share.a.b"], {"metrics": {"label_share": {"a.b": 0.25}}}),
        (["$labelShare"], {"metrics": {"label_share": {"a.b": 0.25, "c": 1}}}),
        (["$histogram"], {"metrics": {"histogram": [1, 2]}}),
        (["metrics"], {"metrics": STAGE["metrics"]}),
        (["metadata.x.y", "metadata.x"], {"metadata": {"x": {"y": 1, "z": 2}}}),
        (["metadata.x", "metadata.x.y"], {"metadata": {"x": {"y": 1, "z": 2}}}),
        (["metadata.x.y", "metadata.x.z"], {"metadata": {"x": {"y": 1, "z": 2}}}),
        (["metadata.list.y"], {"metadata": {"list": [{"y": 1}, {}]}}),
        (["metadata.list.y", "metadata.list.z"], {"metadata": {"list": [{"y": 1, "z": 2}, {"z": 3}]}}),
        (["metadata.list", "metadata.list.y"], {"metadata": {"list": [{"y": 1, "z": 2}, 7, {"z": 3}]}}),
        (["pipeline.label", "pipeline.version"], {"pipeline": {"label": "a"}}),
        (["metadata.none.y"], {"metadata": {}}),
    ],
)
def test_a_row_has_what_is_selected_and_its_id(fields: Any, expected: dict[str, Any]) -> None:
    """Paths go into objects and through lists; what a row does not have is left out; the row itself stays whole."""
    before = repr(STAGE)
    parsed = parse({"fields": fields}, CATALOG)
    assert parsed.fields is not None
    assert select(STAGE, parsed.fields, "stages") == {"id": "1"} | expected
    assert repr(STAGE) == before


def test_candidates_can_say_where_they_are_from() -> None:
    """A candidate's row has its place always, and the stage's name and the run on demand."""
    row = {"candidate_id": "c", "seq": 3, "stage_id": "s", "stage_name": "n", "run_id": "r", "label": "l", "score": 1}
    parsed = parse({"return": "candidates", "fields": ["stage_name", "score", "data.price"]}, CATALOG)
    assert parsed.fields is not None
    expected = {"candidate_id": "c", "seq": 3, "stage_id": "s", "stage_name": "n", "score": 1}
    assert select(row, parsed.fields, "candidates") == expected
