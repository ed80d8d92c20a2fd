"""The catalogue of metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.query.catalogs import FILTERING
from xray.exceptions import PluginError, QueryError
from xray.metrics import Metric
from xray_server.query import ast
from xray_server.query.fields import MetricCatalog, camel


def test_senders_declarations_are_queryable_at_once() -> None:
    catalog = MetricCatalog()
    catalog.add("vector_search", [Metric("recall_at_10", "ratio", "Recall.").as_dict(), {"name": "hits"}])
    assert catalog.resolve("$recallAt10", "x") == ast.Metric("recall_at_10")
    assert catalog.resolve("$hits", "x") == ast.Metric("hits")
    assert "$recallAt10" in catalog.words()


def test_the_metrics_of_every_stage_need_no_declaration() -> None:
    assert MetricCatalog().resolve("$durationMs", "x") == ast.Metric("duration_ms")


def test_types_may_share_a_metric_of_the_same_kind() -> None:
    MetricCatalog({"filtering": FILTERING, "other": FILTERING})


@pytest.mark.parametrize(
    "declarations",
    [
        [{"name": "fail_ratio", "kind": "table"}],
        [{"name": "label_share", "kind": "number"}],
        [{"name": "failratio"}],
        [{"name": "new"}, {"name": "n_ew"}],
        [{"name": "new"}, {"name": "size"}],
        [{"name": "elem_match"}],
        [{"name": "Bad"}],
        [{"name": "new", "kind": "string"}],
        [{"name": "new", "kind": []}],
        [{}],
        ["new"],
        [None],
    ],
)
def test_clashes_and_malformed_declarations_are_refused_whole(declarations: list[Any]) -> None:
    catalog = MetricCatalog({"filtering": FILTERING})
    before = catalog.words()
    with pytest.raises(PluginError):
        catalog.add("other", declarations)
    assert catalog.words() == before


def test_the_hint_is_in_the_form_that_questions_have() -> None:
    with pytest.raises(QueryError) as caught:
        MetricCatalog({"filtering": FILTERING}).resolve("$labelshar.x", "stage.$labelshar.x")
    assert caught.value.hint == "Did you mean '$labelShare'?"


def test_camel() -> None:
    assert camel("recall_at_10") == "$recallAt10"
    assert camel("p__x_") == "$pX"
