"""The funnel of a run as a Sankey diagram: from stage to stage, and what was dropped on the way, by reason label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xray_server.dashboard.colours import label_colour, verdict_colour
from xray_server.dashboard.figures import Figure, chart_text
from xray_server.dashboard.links import stage_url

MAX_STAGES = 20
STAGE_WIDTH = 130
"""CSS pixels from a stage to the next one: less, and their names lie over each other."""

MAX_LABELS = 5
"""Reason labels of one stage that have a branch of their own."""


class _Flow:
    """Nodes and links, as they are found."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[tuple[int, int, float, str]] = []
        self.rows: list[tuple[str, str, float]] = []

    def node(self, text: str, colour: str, address: str | None = None) -> int:
        self.nodes.append({"text": text, "colour": colour, "address": address})
        return len(self.nodes) - 1

    def link(self, source: int, target: int, value: float, colour: str) -> None:
        if value > 0:
            self.links.append((source, target, value, colour))
            self.rows.append((self.nodes[source]["text"], self.nodes[target]["text"], value))


def sankey(funnel: Mapping[str, Any]) -> Figure | None:
    """The diagram of a run's funnel; None where fewer than two of its outermost stages have counts.

    Args:
        funnel: What ``xray_server.analysis.funnel.funnel`` gives.
    """
    ids = {row["stage_id"] for row in funnel["stages"]}
    outer = [row for row in funnel["stages"] if row["parent_id"] not in ids and _has_counts(row)]
    shown = outer[:MAX_STAGES]
    if len(shown) < 2:
        return None
    flow = _Flow()
    places = [flow.node(row["path"], "var(--accent)", stage_url(row["stage_id"])) for row in shown]
    for place, row in enumerate(shown):
        _dropped(flow, places[place], row)
        if place + 1 == len(shown):
            if row["out"]:
                flow.link(places[place], flow.node("came out", verdict_colour("passed")), row["out"], "passed")
            continue
        _onward(flow, places[place], places[place + 1], row, shown[place + 1])
    notes = []
    if len(outer) > MAX_STAGES:
        notes.append(f"The first {MAX_STAGES} of {len(outer)} stages.")
    return _figure(flow, " ".join(notes))


def _has_counts(row: Mapping[str, Any]) -> bool:
    return bool(row["in"] or row["out"])


def _dropped(flow: _Flow, source: int, row: Mapping[str, Any]) -> None:
    came = row["in"] if row["in"] is not None else row["out"]
    dropped = row["dropped"] if row["dropped"] is not None else max(0, (came or 0) - (row["out"] or 0))
    numbers = {label: count for label, count in row["labels"].items() if count > 0}
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    for label, count in ordered[:MAX_LABELS]:
        flow.link(source, flow.node(label, label_colour(label)), count, label_colour(label))
    others = sum(count for _, count in ordered[MAX_LABELS:])
    if others:
        text = f"{len(ordered) - MAX_LABELS:,} other labels"
        flow.link(source, flow.node(text, verdict_colour("failed")), others, verdict_colour("failed"))
    rest = dropped - sum(numbers.values())
    if rest > 0:
        text = "no label" if numbers or row["type"] == "filtering" else "left out"
        flow.link(source, flow.node(text, verdict_colour(None)), rest, verdict_colour(None))


def _onward(flow: _Flow, source: int, target: int, row: Mapping[str, Any], following: Mapping[str, Any]) -> None:
    gone, came = row["out"] or 0, following["in"]
    if came is None:  # a stage that takes no candidates: a generation, a retrieval
        return
    flow.link(source, target, min(gone, came), "passed")
    if gone > came:
        lost = flow.node(f"not seen by {following['path']}", verdict_colour("failed"))
        flow.link(source, lost, gone - came, verdict_colour("failed"))


def _figure(flow: _Flow, note: str) -> Figure | None:
    if not flow.links:
        return None
    used = sorted({place for source, target, _, _ in flow.links for place in (source, target)})
    place_of = {node: place for place, node in enumerate(used)}
    nodes = [flow.nodes[node] for node in used]
    onward = "var(--tint-passed)"
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "valueformat": ",d",
        "valuesuffix": " candidates",
        "node": {
            "label": [chart_text(node["text"], 40) for node in nodes],
            "color": [node["colour"] for node in nodes],
            "customdata": [node["address"] for node in nodes],
            "pad": 14,
            "thickness": 14,
            "line": {"width": 0},
        },
        "link": {
            "source": [place_of[source] for source, _, _, _ in flow.links],
            "target": [place_of[target] for _, target, _, _ in flow.links],
            "value": [value for _, _, value, _ in flow.links],
            "color": [_faint(colour, onward) for _, _, _, colour in flow.links],
        },
    }
    rows: Sequence[tuple[Any, ...]] = [(source, target, int(value)) for source, target, value in flow.rows]
    return Figure(
        name="funnel",
        title="Where candidates went",
        data=[trace],
        layout={"margin": {"l": 8, "r": 8, "t": 8, "b": 8}},
        columns=("From", "To", "Candidates"),
        rows=rows,
        note=note,
        height=min(640, max(260, 26 * len(nodes))),
        min_width=STAGE_WIDTH * (len({source for source, _, _, _ in flow.links}) + 1),
    )


def _faint(colour: str, onward: str) -> str:
    return onward if colour == "passed" else colour.replace("var(", "faint(")
