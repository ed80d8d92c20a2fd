"""The page of trends: how a pipeline's figures moved, as lines and as a map of stages over time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from markupsafe import Markup
from starlette.responses import RedirectResponse

from xray.exceptions import SchemaError
from xray.ids import now_ms
from xray_server.api.answers import Here, Service, iso_time
from xray_server.api.insight_models import TrendParameters
from xray_server.api.moments import moment_ms, stretch_ms
from xray_server.api.trends import runs_behind, trend_answer
from xray_server.dashboard import filters, forms, links
from xray_server.dashboard.choices import choices
from xray_server.dashboard.colours import label_colour, series_colour
from xray_server.dashboard.figures import Figure, chart_text
from xray_server.dashboard.rendering import render

router = APIRouter(include_in_schema=False)

SPANS = (("1d", "a day"), ("7d", "a week"), ("30d", "30 days"), ("90d", "90 days"), ("365d", "a year"))
BUCKETS = (("1h", "an hour"), ("6h", "6 hours"), ("1d", "a day"), ("7d", "a week"))
MEASURES: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], Any]]] = {
    "fail_ratio": ("fail ratio", "ratio", lambda row: row["fail_ratio"]),
    "duration": ("median duration", "ms", lambda row: (row["duration_ms"] or {}).get("p50")),
    "stages": ("stages", "", lambda row: row["stages"]),
    "failures": ("failed stages", "", lambda row: row["failures"]),
    "score": ("median score", "", lambda row: (row["score"] or {}).get("p50")),
}
"""What the map can show: word → its title, unit, and the figure of a row."""

_OWN = ("split", "measure", "stage")
_SHARE = {"tickformat": ".0%", "rangemode": "tozero"}
_MAX_LINES = 12
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "hexagon", "x", "triangle-down", "pentagon")
_DASHES = ("solid", "dot", "dash", "longdash", "dashdot")


@router.get("/trends")
async def trends(request: Request, service: Here) -> Response:
    """The trends of one pipeline; of the one with the latest run where none is named."""
    split = request.query_params.get("split") == "version"
    if "by" in request.query_params:
        raise SchemaError(
            "The page tells stages apart, and versions where it is asked to.",
            code="bad_parameter",
            path="by",
            hint="Write split=version.",
        )
    asked = forms.read(TrendParameters, request, without=_OWN)
    labels = (await choices(service)).labels
    if asked.label is None and labels:
        asked.label = labels[0]
    asked.by = "name,type,version" if split else "name,type"
    asked.name = request.query_params.get("stage") or None
    is_open = not {"since", "until", "bucket"} & set(request.query_params)
    answer = await _fitting(service, asked) if is_open else await trend_answer(service, asked)
    measure = request.query_params.get("measure") or "fail_ratio"
    if measure not in MEASURES:
        measure = "fail_ratio"
    page = _Page(answer, asked.label, measure)
    names = sorted({str(row["name"]) for row in answer["rows"] if row["name"] is not None} | {asked.name or ""} - {""})
    shown = {
        "answer": answer,
        "label": asked.label,
        "labels": labels if asked.label in (None, *labels) else [asked.label, *labels],
        "since": asked.since,
        "names": names,
        "spans": SPANS,
        "buckets": BUCKETS,
        "measures": [(word, title) for word, (title, _, _) in MEASURES.items()],
        "split": split,
        "figures": page.figures() if answer["rows"] else [],
        "stages": sum(row["stages"] for row in answer["rows"]),
        "failures": sum(row["failures"] for row in answer["rows"]),
    }
    return render(request, "trends.html", shown)


async def _fitting(service: Service, asked: TrendParameters) -> dict[str, Any]:
    """The answer over the usual time, or over a shorter one that has all of it: what began today shows by the hour."""
    answer = await trend_answer(service, asked)
    if answer["rows"]:
        first_ms = min(moment_ms(row["from"], "from") or 0 for row in answer["rows"])
        for span, _ in SPANS:
            if stretch_ms(span, "since") >= stretch_ms(asked.since, "since"):
                break
            if first_ms >= now_ms() - stretch_ms(span, "since"):
                asked.since = span
                return await trend_answer(service, asked)
    return answer


@router.get("/trends/runs")
async def behind(request: Request) -> Response:
    """Lead on to the question for the runs behind a point of a chart."""
    given = dict(request.query_params)
    row: dict[str, Any] = {name: given[name] for name in ("label", "name", "type", "version") if name in given}
    row |= {name: iso_time(moment_ms(given.get(name, ""), name)) for name in ("from", "until")}
    address = links.with_parameters("/query", {"q": json.dumps(runs_behind(row), ensure_ascii=False, indent=2)})
    return RedirectResponse(address, 303)


class _Page:
    """The charts of an answer.

    Args:
        answer: As the API gives it, told apart by stage and perhaps by version.
        label: The pipeline.
        measure: What the map shows.
    """

    def __init__(self, answer: Mapping[str, Any], label: str | None, measure: str) -> None:
        self._rows: list[Mapping[str, Any]] = answer["rows"]
        self._label = label
        self._measure = measure
        self._by_version = "version" in answer["by"]
        self._ends = _times(answer)
        self._times = list(self._ends)
        found: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
        for row in self._rows:
            found.setdefault((row["name"], row["type"], row.get("version")), {})[row["from"]] = row
        self._series = {
            key: found[key] for key in sorted(found, key=lambda key: tuple(str(each or "") for each in key))
        }
        versions = sorted({str(key[2]) for key in self._series})
        self._dash = {version: _DASHES[place % len(_DASHES)] for place, version in enumerate(versions)}
        names = sorted({str(key[0]) for key in self._series})
        self._colour = {name: series_colour(place) for place, name in enumerate(names)}

    def figures(self) -> list[Figure]:
        """Those for which there is something to show."""
        made = [
            self._map(),
            self._lines("fail-ratio", "Fail ratio", lambda row: row["fail_ratio"], _SHARE),
            *self._labels(),
            self._scores(),
            self._durations(),
            self._volume(),
            self._candidates(),
        ]  # fmt: skip
        return [figure for figure in made if figure is not None]

    def _map(self) -> Figure | None:
        title, unit, value = MEASURES[self._measure]
        keys = [key for key in self._series if any(value(row) is not None for row in self._series[key].values())]
        cells = [[self._figure(key, time, value) for time in self._times] for key in keys]
        known = [cell for line in cells for cell in line if cell is not None]
        if not known:
            return None
        top = 1 if unit == "ratio" else max([1e-9, *known])
        number = "%{z:.1%}" if unit == "ratio" else "%{z:.4~g}" + f" {unit}".rstrip()
        trace = {
            "type": "heatmap",
            "x": self._times,
            "y": [self._name(key) for key in keys],
            "z": cells,
            "customdata": [[self._address(key, time) for time in self._times] for key in keys],
            "colorscale": [[0, "var(--tint-passed)"], [1, "var(--verdict-failed)"]],
            "zmin": 0,
            "zmax": top,
            "xgap": 1,
            "ygap": 2,
            "hoverongaps": False,
            "colorbar": {"thickness": 12, "tickformat": ".0%" if unit == "ratio" else "", "len": 1},
            "hovertemplate": f"%{{y}}<br>%{{x}}<br>{title} {number}<extra></extra>",
        }
        rows = [
            (self._time(key, row), *key[::2], filters.number(value(row), unit), row["stages"], row["failures"])
            for key in keys
            for row in self._series[key].values()
        ]
        return Figure(
            "map",
            f"Stages over time: {title}",
            [trace],
            {"yaxis": {"autorange": "reversed", "type": "category", "showgrid": False}, "xaxis": {"showgrid": False},
             "margin": {"t": 8}},
            ("from", "stage", "version", title, "stages", "failed"),
            sorted(rows, key=lambda row: str(row[0]), reverse=True),
            "A click on a field, or on a time in the table, opens the runs behind it.",
            height=90 + 34 * len(keys),
        )  # fmt: skip

    def _lines(
        self, name: str, title: str, value: Callable[[Mapping[str, Any]], Any], axis: Mapping[str, Any], note: str = ""
    ) -> Figure | None:
        """A line for each stage that has the figure."""
        traces = []
        for key, rows in self._series.items():
            if any(value(row) is not None for row in rows.values()):
                traces.append(self._line(key, value, self._name(key)))
        if not traces:
            return None
        left = len(traces) - _MAX_LINES
        note = note if left <= 0 else f"{note} {left} more stages are not drawn: pick one above.".strip()
        return Figure(name, title, traces[:_MAX_LINES], {"yaxis": {**axis}}, note=note)

    def _line(self, key: tuple[Any, ...], value: Callable[[Mapping[str, Any]], Any], name: str) -> dict[str, Any]:
        return {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": self._times,
            "y": [self._figure(key, time, value) for time in self._times],
            "customdata": [self._address(key, time) for time in self._times],
            "line": {"color": self._colour[str(key[0])], "dash": self._dash[str(key[2])], "width": 2},
            "marker": {"size": 5},
            "hovertemplate": "%{x}<br>%{y}<extra>%{fullData.name}</extra>",
        }

    def _labels(self) -> Iterable[Figure]:
        """The shares of reason labels, a chart for each of the stages that rejected the most."""
        rejected = {key: sum(row["failed"] or 0 for row in rows.values()) for key, rows in self._series.items()}
        most = sorted((key for key in rejected if rejected[key]), key=lambda key: -rejected[key])[:3]
        for place, key in enumerate(most):
            labels = list(dict.fromkeys(label for row in self._series[key].values() for label in row["labels"]))
            if not labels:
                continue
            traces = []
            for symbol, label in enumerate(labels):
                line = self._line(key, lambda row, label=label: _share(row, label), chart_text(label, 40))  # type: ignore[misc]
                line["line"] = {"color": label_colour(label), "width": 2}
                # Two labels may have one colour; their marks differ.
                line["marker"] = {"size": 6, "symbol": _SYMBOLS[symbol % len(_SYMBOLS)]}
                traces.append(line)
            others = max(
                (row["other_labels"]["labels"] for row in self._series[key].values() if row["other_labels"]), default=0
            )
            yield Figure(
                f"labels-{place}",
                f"Reasons of {filters.plain(key[0], 60)}"
                + (f", version {filters.plain(key[2], 40)}" if self._by_version else ""),
                traces,
                {"yaxis": {**_SHARE, "title": {"text": "share of the rejected"}}},
                note=f"{others} rarer labels are not drawn." if others else "",
            )

    def _scores(self) -> Figure | None:
        scored = [key for key, rows in self._series.items() if any(row["score"] for row in rows.values())]
        if len(scored) != 1:
            return self._lines("scores", "Median score", lambda row: (row["score"] or {}).get("p50"), {})
        traces = []
        for quantile, dash in (("p90", "dot"), ("p50", "solid"), ("p10", "dot")):
            line = self._line(scored[0], lambda row, q=quantile: (row["score"] or {}).get(q), quantile)  # type: ignore[misc]
            line["line"] = {**line["line"], "dash": dash}
            traces.append(line)
        return Figure(
            "scores", f"Scores of {filters.plain(scored[0][0], 60)}", traces,
            note="The medians of the stages' own quantiles.",
        )  # fmt: skip

    def _durations(self) -> Figure | None:
        return self._lines(
            "durations", "Median duration", lambda row: (row["duration_ms"] or {}).get("p50"),
            {"type": "log", "title": {"text": "ms"}},
        )  # fmt: skip

    def _volume(self) -> Figure:
        both = {
            "succeeded": [sum(row["stages"] - row["failures"] for row in self._at(time)) for time in self._times],
            "failed": [sum(row["failures"] for row in self._at(time)) for time in self._times],
        }
        colours = {"succeeded": "var(--verdict-passed)", "failed": "var(--verdict-failed)"}
        traces = [
            {"type": "bar", "name": name, "x": self._times, "y": numbers, "marker": {"color": colours[name]},
             "customdata": [self._address((), time) for time in self._times],
             "hovertemplate": "%{x}<br>%{y:,} stages<extra>%{fullData.name}</extra>"}
            for name, numbers in both.items()
        ]  # fmt: skip
        return Figure("volume", "Stages, and how many failed", traces, {"barmode": "stack"})

    def _candidates(self) -> Figure | None:
        return self._lines(
            "candidates", "Candidates that came in",
            lambda row: row["in"] if row["in"] is not None else row["out"], {"rangemode": "tozero"},
            "Of stages that bring candidates up, those that went out.",
        )  # fmt: skip

    # --- the rows -----------------------------------------------------------------------------------------------

    def _at(self, time: str) -> list[Mapping[str, Any]]:
        return [rows[time] for rows in self._series.values() if time in rows]

    def _figure(self, key: tuple[Any, ...], time: str, value: Callable[[Mapping[str, Any]], Any]) -> Any:
        row = self._series[key].get(time)
        return None if row is None else value(row)

    def _name(self, key: tuple[Any, ...]) -> str:
        name = chart_text(key[0] or "(no name)", 40)
        return f"{name} · {chart_text(key[2] or 'no version', 20)}" if self._by_version else name

    def _time(self, key: tuple[Any, ...], row: Mapping[str, Any]) -> Markup:
        """When a row begins, as a link to the runs behind it."""
        return Markup('<a href="{}">{}</a>').format(self._address(key, row["from"]), filters.time(row["from"]))

    def _address(self, key: tuple[Any, ...], time: str) -> str:
        """The address of the runs behind a point."""
        given = {"label": self._label, "from": time, "until": self._ends[time]}
        if key:
            given |= {"name": key[0], "type": key[1]} | ({"version": key[2]} if self._by_version else {})
        return links.with_parameters("/trends/runs", given)


def _times(answer: Mapping[str, Any]) -> dict[str, str]:
    """Every stretch of the answer's time, also those in which nothing happened: when it begins → when it ends."""
    length = stretch_ms(answer["bucket"], "bucket")
    start = moment_ms(answer["since"], "since") or 0
    until = moment_ms(answer["until"], "until") or 0
    return {str(iso_time(at)): str(iso_time(at + length)) for at in range(start, until, length)}


def _share(row: Mapping[str, Any], label: str) -> float | None:
    """The share of a label; where candidates were rejected and none for it, that is 0."""
    if not row["failed"]:
        return None
    share: float = row["labels"].get(label, {"share": 0.0})["share"]
    return share
