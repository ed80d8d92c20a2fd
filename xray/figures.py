"""Figures of a stage as plain dicts, in the form that Plotly draws.

A figure is ``{"data": [traces], "layout": {…}}``. It says what is shown and names the axes with their units; colours,
fonts and sizes are the page's. Texts that users recorded are escaped, because Plotly takes texts for markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from xray.metrics import Metric

Figure = dict[str, Any]
"""A figure for Plotly: JSON, and nothing that is code."""

MOST_BARS = 30
"""Bars beyond these are one bar together."""


def bars(title: str, counts: Mapping[str, Any], unit: str) -> Figure | None:
    """A bar for each entry of a table, the longest first.

    Args:
        title: What the figure shows.
        counts: Name → number; what is no number is left out.
        unit: What the numbers count.

    Returns:
        None where there is nothing to show.
    """
    numbers = {str(name): number for name, number in counts.items() if _is_number(number)}
    if not numbers:
        return None
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:MOST_BARS]
    names = [text(name) for name, _ in shown]
    values = [number for _, number in shown]
    if len(ordered) > MOST_BARS and unit != "ratio":
        names.append(f"({len(ordered) - MOST_BARS} others)")
        values.append(sum(number for _, number in ordered[MOST_BARS:]))
    trace = {"type": "bar", "orientation": "h", "x": values, "y": names}
    # Plotly draws the first bar of a category axis at the bottom.
    return figure(title, [trace], x=unit, yaxis={"type": "category", "autorange": "reversed"})


def histogram(title: str, counted: Any, unit: str, marks: Mapping[str, Any] | None = None) -> Figure | None:
    """Bars over an axis of numbers, as ``xray.metrics.histogram`` counts them.

    Args:
        title: What the figure shows.
        counted: ``{"edges": […], "counts": […]}``, with one edge more than counts.
        unit: What lies on the axis.
        marks: Name → a number on the axis where a line with that name is drawn.

    Returns:
        None where it is no histogram.
    """
    if not is_histogram(counted):
        return None
    bins = list(pairwise(counted["edges"]))
    trace = {
        "type": "bar",
        "x": [low + (high - low) / 2 for low, high in bins],
        "y": counted["counts"],
        # All values may be equal, and a bar without width cannot be seen.
        "width": [high - low or abs(low) / 100 or 0.01 for low, high in bins],
        "customdata": [[low, high] for low, high in bins],
        "hovertemplate": "%{customdata[0]} to %{customdata[1]}: %{y}<extra></extra>",
    }
    lines = {name: at for name, at in (marks or {}).items() if _is_number(at)}
    layout: Figure = {"bargap": 0}
    if lines:
        across = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot", "width": 1}}
        layout["shapes"] = [{**across, "x0": at, "x1": at} for at in lines.values()]
        layout["annotations"] = [
            {"x": at, "y": 1, "yref": "paper", "yanchor": "bottom", "text": text(name), "showarrow": False}
            for name, at in lines.items()
        ]
    return figure(title, [trace], x=unit, y="candidates", **layout)


def is_histogram(value: Any) -> bool:
    """Whether a metric's value is a histogram in the form of ``xray.metrics.histogram``."""
    if not isinstance(value, Mapping):
        return False
    edges, counts = value.get("edges"), value.get("counts")
    return (
        isinstance(edges, Sequence)
        and isinstance(counts, Sequence)
        and len(edges) == len(counts) + 1 > 1
        and all(map(_is_number, (*edges, *counts)))
    )


def figure(title: str, traces: list[Figure], *, x: str, y: str = "", **layout: Any) -> Figure:
    """Put traces together with a title and the units of the axes.

    Args:
        title: What the figure shows.
        traces: Plotly's traces.
        x: The title of the axis below.
        y: The title of the axis at the side.
        layout: Further entries of Plotly's layout.
    """
    found: Figure = {"title": {"text": text(title)}, "xaxis": {"title": {"text": text(x)}}, "yaxis": {}}
    if y:
        found["yaxis"] = {"title": {"text": text(y)}}
    for name, given in layout.items():
        found[name] = {**found[name], **given} if isinstance(found.get(name), dict) else given
    return {"data": traces, "layout": found}


def declared(metrics: Sequence[Metric], values: Mapping[str, Any]) -> list[Figure]:
    """Figures for metrics of any type, by their declarations: bars for tables, and histograms.

    Args:
        metrics: The declarations.
        values: Metric name → value.
    """
    found = []
    for metric in metrics:
        value, title = values.get(metric.name), f"{metric.name}: {metric.meaning}"
        if metric.kind == "table" and isinstance(value, Mapping):
            found.append(bars(title, value, metric.unit))
        elif metric.kind == "data":
            found.append(histogram(title, value, metric.unit))
    return present(found)


def present(figures: Sequence[Figure | None]) -> list[Figure]:
    """Those of the figures that there are."""
    return [each for each in figures if each is not None]


def text(recorded: str) -> str:
    """A text as Plotly shows it: it takes tags and entities in texts for markup."""
    return recorded[:200].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
