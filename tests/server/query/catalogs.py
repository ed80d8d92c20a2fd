"""The catalogue of metrics that these tests ask by."""

from __future__ import annotations

from xray.metrics import Metric
from xray_server.query.fields import MetricCatalog

FILTERING = (
    Metric("passed", "candidates", "How many passed."),
    Metric("fail_ratio", "ratio", "The share that failed.", bad="high"),
    Metric("label_share", "ratio", "The share of each label.", kind="table"),
    Metric("histogram", "candidates", "Counts by score.", kind="data"),
)


def catalog() -> MetricCatalog:
    return MetricCatalog({"filtering": FILTERING}, candidate_columns=("own_column",))
