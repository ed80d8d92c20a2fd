"""Reverse lookup: across runs and pipelines, which stages an item reached, which dropped it, and for what reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xray_server.documents import Document

MAX_EXAMPLES = 5


def lost(candidate_id: str, found: Iterable[tuple[Document, Mapping[str, Any], bool]]) -> list[dict[str, Any]]:
    """Add up what became of a candidate, by pipeline and stage.

    Args:
        candidate_id: The candidate's id.
        found: Each of its rows in some stage: the stage's document, the row, and whether that stage lost it.

    Returns:
        One row for each pipeline and stage, those that lost it most often first: ``label``, ``path``, ``type``,
        ``seen`` and ``lost`` (how often), ``reasons`` (label → how often; the empty label where there was none),
        ``first_at``, ``last_at`` (milliseconds since 1970), ``runs`` (ids of some runs in which it was lost, the
        latest first).
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for stage, row, was_lost in found:
        label = (stage.get("pipeline") or {}).get("label")
        path = stage.get("path") or stage.get("name") or ""
        at = (stage.get("pipeline") or {}).get("started_at") or stage.get("started_at")
        entry = rows.setdefault(
            (label or "", path),
            {"candidate_id": candidate_id, "label": label, "path": path, "type": stage.get("type"), "seen": 0}
            | {"lost": 0, "reasons": {}, "first_at": at, "last_at": at, "runs": []},
        )
        entry["seen"] += 1
        if at is not None:
            entry["first_at"] = at if entry["first_at"] is None else min(entry["first_at"], at)
            entry["last_at"] = at if entry["last_at"] is None else max(entry["last_at"], at)
        if was_lost:
            entry["lost"] += 1
            reason = row.get("reason_label") or ""
            entry["reasons"][reason] = entry["reasons"].get(reason, 0) + 1
            entry["runs"].append((at or 0, stage["run_id"]))
    for entry in rows.values():
        latest = dict.fromkeys(run_id for _, run_id in sorted(entry["runs"], reverse=True))
        entry["runs"] = list(latest)[:MAX_EXAMPLES]
        entry["reasons"] = dict(sorted(entry["reasons"].items(), key=lambda item: (-item[1], item[0])))
    return sorted(
        rows.values(), key=lambda entry: (-entry["lost"], -entry["seen"], entry["label"] or "", entry["path"])
    )
