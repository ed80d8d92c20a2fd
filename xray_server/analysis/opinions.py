"""What plugins' analyzers say about a run, beside the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xray.exceptions import PluginError
from xray.plugins import Plugins
from xray_server.analysis.record import RunRecord

MAX_SUSPECTS = 10
MAX_TEXTS = 10
MAX_CHARS = 500


def opinions(plugins: Plugins, run: RunRecord, history: Sequence[RunRecord]) -> dict[str, Any]:
    """Ask every analyzer about a run.

    Args:
        plugins: They bring the analyzers.
        run: The run.
        history: Other runs of its pipeline.

    Returns:
        Analyzer → ``{"suspects": [{"path", "evidence"}], "reason"}``, or ``{"failed": why}``; those without an
        opinion are left out.
    """
    names = plugins.names("xray_analyzers")
    if not names:
        return {}
    record, past = _plain(run), [_plain(each) for each in history]
    paths = {stage.path for stage in run.stages}
    found: dict[str, Any] = {}
    for name in names:
        analyzer, guard = plugins.analyzer(name)
        try:
            given = guard.call_within(analyzer, record, past)
        except Exception as error:  # counted by the guard
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:MAX_CHARS]}
            continue
        if given is None:
            continue
        try:
            found[name] = _checked(given, paths)
        except PluginError as error:
            guard.failed(error)
            found[name] = {"failed": str(error)}
    return found


def _plain(run: RunRecord) -> dict[str, Any]:
    """A run as an analyzer gets it; each stage has its kept candidates under ``candidates``."""
    stages = [{**stage.document, "candidates": [dict(row) for row in stage.rows]} for stage in run.stages]
    return {"run": dict(run.document), "stages": stages}


def _checked(given: Any, paths: set[str]) -> dict[str, Any]:
    suspects = given.get("suspects", []) if isinstance(given, Mapping) else None
    if not isinstance(suspects, list):
        raise PluginError("The analyzer gave what is no {'suspects': [...], 'reason': ...}.")
    reason = given.get("reason")
    return {
        "suspects": [_suspect(suspect, paths) for suspect in suspects[:MAX_SUSPECTS]],
        "reason": reason[:MAX_CHARS] if isinstance(reason, str) else None,
    }


def _suspect(given: Any, paths: set[str]) -> dict[str, Any]:
    path = given.get("path") if isinstance(given, Mapping) else None
    if path not in paths:
        raise PluginError(f"The analyzer suspects {path!r:.100}, which is no stage of the run.")
    evidence = given.get("evidence", [])
    if not isinstance(evidence, list):
        raise PluginError("The analyzer gave evidence that is no list of texts.")
    return {"path": path, "evidence": [str(each)[:MAX_CHARS] for each in evidence[:MAX_TEXTS]]}
