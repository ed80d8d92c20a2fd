"""Addresses of pages: every view, filter and sort has one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

_DOTS = frozenset({".", ".."})
"""What browsers take for steps in a path, however it is written."""


def run_url(run_id: Any, **parameters: Any) -> str:
    """The page of a run."""
    return with_parameters(f"/runs/{_segment(run_id)}", parameters)


def stage_url(stage_id: Any, **parameters: Any) -> str:
    """The page of a stage."""
    return with_parameters(f"/stages/{_segment(stage_id)}", parameters)


def candidate_url(run_id: Any, candidate_id: Any) -> str:
    """The page of a candidate in a run.

    Args:
        run_id: The run's id.
        candidate_id: Any text; what cannot stand in a path goes as a parameter.
    """
    text = str(candidate_id)
    if not text or _DOTS & set(text.split("/")) or "//" in text or text.strip("/") != text:
        return with_parameters(f"/runs/{_segment(run_id)}/candidates", {"id": text})
    return f"/runs/{_segment(run_id)}/candidates/{quote(text)}"


def trace_url(trace_id: Any) -> str:
    """The stages that were recorded within a trace, as an answer of the query language."""
    question = {"stage": {"trace.trace_id": str(trace_id)}, "sort": {"started_at": 1}}
    return with_parameters("/query", {"q": json.dumps(question)})


def runs_url(**parameters: Any) -> str:
    """The list of runs, filtered."""
    return with_parameters("/", parameters)


def with_parameters(path: str, parameters: Mapping[str, Any]) -> str:
    """A path with parameters.

    Args:
        path: The path, quoted.
        parameters: Name → value, or a list of values; those that are None, empty or False are left out.
    """
    pairs = [(name, _words(value)) for name, value in parameters.items() if value not in (None, "", False)]
    query = urlencode([(name, word) for name, words in pairs for word in words])
    return f"{path}?{query}" if query else path


def changed(path: str, given: Mapping[str, Any], **changes: Any) -> str:
    """The address of the same page with other parameters.

    A cursor belongs to the order and the filters that it came from, so it goes unless it is among the changes.

    Args:
        path: The page's path.
        given: The parameters that it has.
        changes: Parameters to set; None takes one away.
    """
    kept = {name: value for name, value in given.items() if name != "cursor"}
    return with_parameters(path, kept | changes)


def _words(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else ["on" if value is True else str(value)]


def _segment(value: Any) -> str:
    return quote(str(value), safe="")
