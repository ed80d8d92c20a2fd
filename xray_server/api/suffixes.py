"""Conditions as parameters of a URL: ``fail_ratio__gt=0.9``, ``metadata.team=ads``, ``name__in=price,rating``."""

from __future__ import annotations

import json
from typing import Any

from xray.exceptions import QueryError, did_you_mean
from xray_server.documents import PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS
from xray_server.query.fields import MetricCatalog, Part, resolve
from xray_server.query.operators import LONGEST_SLIP, show

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "regex")


_OWN = ("limit", "cursor", "since", "until", "label")


def read_parameter(returns: str, parameter: str, text: str, catalog: MetricCatalog) -> tuple[Part, str, str, Any]:
    """What a parameter asks.

    Args:
        returns: ``runs`` or ``stages``.
        parameter: A field or metric, and after ``__`` an operator without its ``$``; equality without one.
        text: The value, as it stands in the URL.
        catalog: The metrics that it may name.

    Returns:
        The part of the question, the field as a question writes it, the operator, and the value.

    Raises:
        QueryError: There is no such field, metric or operator, or the value does not fit.
    """
    name, separator, word = parameter.rpartition("__")
    if not separator:
        name, word = parameter, "eq"
    if word not in OPERATORS:
        hint = did_you_mean(word, OPERATORS) or f"There are {', '.join(OPERATORS)}."
        raise QueryError(f"There is no operator '{show(word)}'.", code="unknown_parameter", path=parameter, hint=hint)
    part, path = _field(returns, name, catalog)
    try:
        kind = resolve(part, path, parameter, catalog).kind
    except QueryError as error:
        if error.code not in ("unknown_field", "unknown_metric"):
            raise
        words = (*_OWN, *(RUN_FIELDS if returns == "runs" else STAGE_FIELDS))
        near = did_you_mean(name, words) if len(name) <= LONGEST_SLIP else None
        raise QueryError(
            f"There is no parameter '{show(parameter)}'.",
            code="unknown_parameter",
            path=parameter,
            hint=near or error.hint,
        ) from None
    return part, path, f"${word}", _value(word, kind, text, parameter)


def _field(returns: str, name: str, catalog: MetricCatalog) -> tuple[Part, str]:
    head = name.partition(".")[0]
    if returns == "runs":
        return "pipeline", name
    if head == "pipeline":
        inner = name.removeprefix("pipeline.")
        return ("stage", name) if inner in PIPELINE_FIELDS else ("pipeline", inner)
    if head not in STAGE_FIELDS:
        if head in RUN_FIELDS:
            return "pipeline", name
        if catalog.declaration(head) is not None:
            return "stage", f"metrics.{name}"
    return "stage", name


def _value(word: str, kind: str, text: str, parameter: str) -> Any:
    if word in ("in", "nin"):
        return [_scalar(kind, item) for item in text.split(",")]
    if word == "exists":
        if text not in ("true", "false"):
            raise QueryError("'exists' takes true or false.", code="bad_parameter", path=parameter)
        return text == "true"
    return text if word == "regex" else _scalar(kind, text)


def _scalar(kind: str, text: str) -> Any:
    """The value that a text stands for: what fits the field, else the text, for the parser to refuse."""
    if kind == "time":
        # A "+" that was not percent-encoded arrives as a space: 2026-11-01T00:00:00 02:00.
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text.replace(" ", "+")
    if kind in ("number", "count", "json"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return text if isinstance(value, list | dict) else value
    return text
