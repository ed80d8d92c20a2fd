"""The figures of a stage's page: its type's panel in the colours of verdicts and labels, scores, changes of rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xray import figures as plain
from xray_server.analysis.passport import cutoff
from xray_server.analysis.record import RunRecord, StageRecord, is_number, went_on_after
from xray_server.dashboard.colours import label_colour, label_pattern, verdict_colour, verdict_name
from xray_server.dashboard.figures import Figure, chart_text
from xray_server.dashboard.filters import visible
from xray_server.dashboard.links import candidate_url, stage_url

MAX_RANKS = 500
_BINS = 40
_TICK = 36
"""Characters of a name beside a bar."""
_VERDICTS = ("passed", "failed", "selected")


def panel_figures(stage: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The figures of a stage's type, with a table each.

    Bars that stand for verdicts or reason labels have their colours, and lead to the candidates.

    Args:
        stage: The stage's document.
        given: Figures as Plotly takes them, from a type that may be anybody's.
    """
    figures = [_panel_figure(stage, figure, place) for place, figure in enumerate(given)]
    # The page has a chart of scores of its own, with who went on.
    return [figure for figure in figures if not (figure.title == "Scores" and has_scores(stage))]


def has_scores(stage: Mapping[str, Any]) -> bool:
    """Whether a stage's page has a chart of its scores."""
    metrics = stage.get("metrics") or {}
    return "score" in metrics or "scores_p50" in metrics


def _panel_figure(stage: Mapping[str, Any], given: Mapping[str, Any], place: int) -> Figure:
    layout = dict(given.get("layout") or {}) if isinstance(given.get("layout"), Mapping) else {}
    title = layout.pop("title", None)
    words = title.get("text") if isinstance(title, Mapping) else title
    height = layout.pop("height", None)
    traces = [_coloured(stage, trace) for trace in given.get("data") or () if isinstance(trace, Mapping)]
    columns, rows = _as_table(traces, layout)
    if layout.get("annotations"):
        layout = {**layout, "margin": {"t": 24}}
    names = next((trace["y"] for trace in traces if _is_bars(trace)), None)
    if names and any(isinstance(name, str) and len(name) > _TICK for name in names):
        # The names stay as they are, so that two long ones do not become one bar.
        texts = [plain.text(_short(_unescaped(str(name)))) for name in names]
        given_axis = layout.get("yaxis")
        axis = given_axis if isinstance(given_axis, Mapping) else {}
        layout = {
            **layout,
            "yaxis": {**axis, "tickmode": "array", "tickvals": list(range(len(names))), "ticktext": texts},
        }
    bars = max((len(trace["y"]) for trace in traces if _is_bars(trace)), default=0)
    own = height if is_number(height) else max(140, 70 + 24 * bars) if bars else 280
    return Figure(
        name=f"panel-{place}",
        title=_unescaped(words) if isinstance(words, str) and words else f"Figure {place + 1}",
        data=_inert(traces),
        layout=_inert(layout),
        columns=columns,
        rows=rows,
        height=int(min(own, 1200)),
    )


def _inert(value: Any) -> Any:
    """The same with the control and direction marks in its texts written out."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _inert(each) for key, each in value.items()}
    return [_inert(each) for each in value] if isinstance(value, list) else value


def _short(text: str) -> str:
    return text if len(text) <= _TICK else f"{text[: _TICK - 9]}…{text[-8:]}"


def _is_bars(trace: Mapping[str, Any]) -> bool:
    return trace.get("type") == "bar" and trace.get("orientation") == "h" and isinstance(trace.get("y"), list)


def _coloured(stage: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """A trace of bars by verdict or label in their colours; any other as it is."""
    if not _is_bars(trace) or "marker" in trace:
        return dict(trace)
    counts = (stage.get("metrics") or {}).get("label_counts")
    labels = {plain.text(str(label)): label for label in counts} if isinstance(counts, Mapping) else {}
    names = trace["y"]
    if names and all(name in labels or name.startswith("(") for name in names if isinstance(name, str)):
        colours = [label_colour(labels.get(name)) for name in names]
        links = [_candidates(stage, reason_label=labels[name]) if name in labels else None for name in names]
    elif names and all(name in (*_VERDICTS, "not selected") for name in names):
        colours = [verdict_colour(name) for name in names]
        links = [_candidates(stage, verdict=name) if name in _VERDICTS else None for name in names]
    else:
        return dict(trace)
    patterns = [label_pattern(labels.get(name, "")) if name in labels else "" for name in names]
    return {**trace, "marker": {"color": colours, "pattern": {"shape": patterns}}, "customdata": links}


def _candidates(stage: Mapping[str, Any], **filters: Any) -> str:
    return stage_url(stage["id"], view="candidates", **filters)


def _as_table(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """What traces with two lists of the same length show, as rows."""
    rows: list[list[Any]] = []
    for trace in traces:
        x, y = trace.get("x"), trace.get("y")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            continue
        pairs = zip(y, x, strict=True) if trace.get("orientation") == "h" else zip(x, y, strict=True)
        name = [trace.get("name") or ""] if len(traces) > 1 else []
        rows += [[*name, *(_unescaped(cell) if isinstance(cell, str) else cell for cell in pair)] for pair in pairs]
    horizontal = any(trace.get("orientation") == "h" for trace in traces)
    ends = (
        [_axis(layout, "yaxis"), _axis(layout, "xaxis")]
        if horizontal
        else [_axis(layout, "xaxis"), _axis(layout, "yaxis")]
    )
    heads = [ends[0] or "What", ends[1] or "Value"]
    return (["Series", *heads] if len(traces) > 1 else heads), rows


def _axis(layout: Mapping[str, Any], name: str) -> str:
    axis = layout.get(name)
    title = axis.get("title") if isinstance(axis, Mapping) else None
    text = title.get("text") if isinstance(title, Mapping) else title
    return _unescaped(text) if isinstance(text, str) else ""


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


# --- scores -----------------------------------------------------------------------------------------------------


def _axis_of_counts(highest: int) -> dict[str, Any]:
    """An axis of candidates; a short one has a mark for each of them, where Plotly would mark halves too."""
    return {"title": {"text": "candidates"}} | ({"dtick": 1} if highest <= 5 else {})


def score_figure(run: RunRecord, stage: StageRecord, name: str | None = None) -> Figure | None:
    """The scores of a stage by what became of the candidates, with the cutoff where there was one.

    Args:
        run: The run, with the candidates of the stage and of those after it.
        stage: The stage.
        name: One of several scores; the score by default.

    Returns:
        None where no candidate has a score.
    """
    scored = scores_of(stage, name)
    if not scored:
        return None
    went_on, decider = went_on_after(run, stage)
    groups = _groups(scored, went_on)
    low, high = min(score for _, score in scored), max(score for _, score in scored)
    edges = _edges(low, high)
    traces = []
    rows: list[list[Any]] = [[f"{edges[i]:.4g} to {edges[i + 1]:.4g}"] for i in range(len(edges) - 1)]
    for words, colour, values in groups:
        counts = _counted(values, edges)
        for row, count in zip(rows, counts, strict=True):
            row.append(count)
        traces.append({
            "type": "bar",
            "name": words,
            "x": [(edges[i] + edges[i + 1]) / 2 for i in range(len(counts))],
            "y": counts,
            "width": [edges[i + 1] - edges[i] for i in range(len(counts))],
            "marker": {"color": colour},
            "hovertemplate": "%{x:.4g}: %{y} " + words + "<extra></extra>",
        })  # fmt: skip
    found = cutoff(run, stage) if name is None else None
    layout: dict[str, Any] = {
        "barmode": "stack",
        "bargap": 0,
        "xaxis": {"title": {"text": chart_text(name or "score")}},
        "yaxis": _axis_of_counts(max(sum(row[1:]) for row in rows)),
        "margin": {"t": 24},
        "showlegend": len(groups) > 1,
    }
    note = "" if decider is None or decider is stage else f"Who went on was decided by {decider.path}."
    if found is not None:
        layout |= _line(found["score"], f"cutoff {found['score']:.4g}")
        note = (
            f"The lowest score that went on is {found['score']:.6g}, the highest that did not {found['best_lost']:.6g}."
        )
    return Figure(
        name="scores",
        title="Scores" if name is None else f"Scores: {name}",
        data=traces,
        layout=layout,
        columns=["Score", *(words for words, _, _ in groups)],
        rows=[row for row in rows if any(row[1:])],
        note=note,
        height=300,
    )


def scores_of(stage: StageRecord, name: str | None) -> list[tuple[Mapping[str, Any], float]]:
    """The candidates that have a score, each with it."""
    found = []
    for row in stage.rows:
        value = (row.get("scores") or {}).get(name) if name else row.get("score")
        if is_number(value) and math.isfinite(value):
            found.append((row, float(value)))
    return found


def score_names(stage: StageRecord) -> list[str]:
    """The names of the several scores that candidates have."""
    return list(dict.fromkeys(name for row in stage.rows[:200] for name in (row.get("scores") or {})))[:20]


def _groups(
    scored: Sequence[tuple[Mapping[str, Any], float]], went_on: set[str] | None
) -> list[tuple[str, str, list[float]]]:
    """Words, colour and scores of each group of candidates."""
    if any(row.get("verdict") is not None for row, _ in scored):
        found: dict[str, list[float]] = {}
        for row, score in scored:
            found.setdefault(verdict_name(row.get("verdict")), []).append(score)
        order = [name for name in ("selected", "passed", "failed", "none") if name in found]
        return [(name if name != "none" else "no verdict", verdict_colour(name), found[name]) for name in order]
    if went_on is None:
        return [("candidates", "var(--accent)", [score for _, score in scored])]
    stays = [score for row, score in scored if row["candidate_id"] in went_on]
    left = [score for row, score in scored if row["candidate_id"] not in went_on]
    return [("went on", verdict_colour("passed"), stays), ("did not", verdict_colour("failed"), left)]


def _edges(low: float, high: float) -> list[float]:
    if not high - low > 0 or not math.isfinite(high - low):
        pad = abs(low) / 100 or 0.5
        return [low - pad, low + pad] if math.isfinite(high - low) else [low, 0.0, high]
    return [low + (high - low) * place / _BINS for place in range(_BINS)] + [high]


def _counted(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    counts = [0] * (len(edges) - 1)
    low, width = edges[0], edges[-1] - edges[0]
    for value in values:
        share = (value - low) / width if math.isfinite(width) else (0.0 if value < 0 else 0.99)
        counts[max(0, min(int(share * len(counts)), len(counts) - 1))] += 1
    return counts


def _line(at: float, words: str) -> dict[str, Any]:
    shape = {
        "type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1,
        "line": {"color": "var(--text)", "width": 2, "dash": "dot"},
    }  # fmt: skip
    note = {"x": at, "y": 1, "yref": "paper", "yanchor": "bottom", "text": words, "showarrow": False}
    return {"shapes": [shape], "annotations": [note]}


# --- ranks ------------------------------------------------------------------------------------------------------


def rank_figure(run_id: str, rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Where the first candidates stood before the stage and after it; None where nothing has both ranks.

    Args:
        run_id: The run's id.
        rows: The stage's candidates.
    """
    both = [row for row in rows if is_number(row.get("rank")) and is_number(row.get("rank_before"))]
    if not both:
        return None
    both.sort(key=lambda row: row["rank"])
    shown = both[:MAX_RANKS]
    moves = [row["rank_before"] - row["rank"] for row in shown]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [row["rank_before"] for row in shown],
        "y": [row["rank"] for row in shown],
        "text": [chart_text(row["candidate_id"]) for row in shown],
        "customdata": [candidate_url(run_id, row["candidate_id"]) for row in shown],
        "hovertemplate": "%{text}: %{x} → %{y}<extra></extra>",
        "marker": {
            "size": 7,
            "color": [verdict_colour("passed" if move > 0 else "failed" if move < 0 else None) for move in moves],
            "symbol": ["triangle-up" if move > 0 else "triangle-down" if move < 0 else "circle" for move in moves],
        },
    }
    lowest = shown[-1]["rank"]
    same = {
        "type": "line", "x0": 1, "y0": 1, "x1": lowest, "y1": lowest,
        "line": {"color": "var(--line-strong)", "width": 1, "dash": "dot"},
    }  # fmt: skip
    note = "Triangles that point up came up, those that point down fell; on the line nothing changed."
    if len(both) > len(shown):
        note += f" The first {len(shown):,} of {len(both):,}."
    return Figure(
        name="ranks",
        title="Rank before and after",
        data=[trace],
        layout={
            "xaxis": {"title": {"text": "rank before"}},
            "yaxis": {"title": {"text": "rank after"}, "range": [lowest * 1.03 + 0.5, 0.5 - lowest * 0.03]},
            "shapes": [same],
            "hovermode": "closest",
        },
        columns=("Candidate", "Before", "After", "Ranks gained"),
        rows=[
            (row["candidate_id"], row["rank_before"], row["rank"], row["rank_before"] - row["rank"]) for row in shown
        ],
        note=note,
        height=360,
    )
