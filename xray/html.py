"""What notebooks show: runs and stages as tables with funnel bars, in inline styles that suit light and dark.

Everything that was recorded is escaped; there is no script and nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from xray.wording import Document, counts, depths, duration, error_line, figures, inert

MAX_ROWS = 50
"""The most rows of a table that are shown; how many more there are is said."""

_MAX_CELL_CHARS = 200
_LINE = "border-bottom:1px solid rgba(127,127,127,.25)"
_CELL = f'style="text-align:left;vertical-align:top;padding:2px 12px 2px 0;{_LINE}"'
_FAINT = 'style="opacity:.65"'
_COLOURS = {"failure": "#d1495b", "running": "#c98a00", "success": "#2a8f6d"}

_RUN_COLUMNS = ("id", "label", "key", "version", "started_at", "duration_ms", "stage_count", "status")
_FIRST_CANDIDATE_COLUMNS = ("candidate_id", "verdict", "reason_label", "reason_text", "score", "rank", "rank_before")


class Answer(dict[str, Any]):
    """An answer with ``rows``: a plain dict that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = self.get("rows") or []
        if rows and all(isinstance(row, StageView) for row in rows):
            shown = _stages_table(rows, in_runs=True)
        elif rows and all(isinstance(row, RunView) for row in rows):
            shown = table([_run_row(run) for run in rows], _RUN_COLUMNS)
        else:
            shown = table(rows, _FIRST_CANDIDATE_COLUMNS) if rows else "<p>Nothing found.</p>"
        coverage = self.get("coverage") or {}
        said = [f"{coverage['matched']:,} found"] if isinstance(coverage.get("matched"), int) else []
        if coverage.get("without_all_candidates"):
            said.append(f"{coverage['without_all_candidates']} stages do not hold all their candidates")
        if self.get("cursor"):
            said.append("the cursor leads to more")
        return f"<div>{shown}<div {_FAINT}>{escape('; '.join(map(str, said)))}</div></div>"


class RunView(dict[str, Any]):
    """A run: a plain dict that a notebook shows as a funnel of its stages; what is asked for most has a type."""

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self["id"])

    @property
    def key(self) -> str | None:
        """The user's own id of the run."""
        return self.get("key")

    @property
    def label(self) -> str | None:
        """The pipeline's label."""
        return self.get("label")

    @property
    def status(self) -> str | None:
        """``running``, ``success`` or ``failure``."""
        return self.get("status")

    def _repr_html_(self) -> str:
        return run_html(self)


class StageView(dict[str, Any]):
    """A stage: a plain dict that a notebook shows as its counts, metrics and, where it has them, candidates."""

    @property
    def id(self) -> str:
        """The stage's id."""
        return str(self["id"])

    @property
    def run_id(self) -> str | None:
        """The id of its run."""
        return self.get("run_id")

    @property
    def name(self) -> str | None:
        """The stage's name."""
        return self.get("name")

    @property
    def type(self) -> str | None:
        """The stage type."""
        return self.get("type")

    @property
    def label(self) -> str | None:
        """The label of its pipeline."""
        return (self.get("pipeline") or {}).get("label")

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics by name; empty where there are none."""
        return self.get("metrics") or {}

    def _repr_html_(self) -> str:
        return stage_html(self)


class CandidateView(dict[str, Any]):
    """A candidate of a stage: a plain dict; what is asked for most has a type."""

    @property
    def candidate_id(self) -> str:
        """The candidate under the user's own id."""
        return str(self["candidate_id"])

    @property
    def stage_id(self) -> str:
        """The id of the stage that looked at it."""
        return str(self["stage_id"])

    @property
    def verdict(self) -> str | None:
        """``passed``, ``failed``, ``selected`` or None."""
        return self.get("verdict")

    @property
    def reason_label(self) -> str | None:
        """The short, countable reason."""
        return self.get("reason_label")

    @property
    def score(self) -> float | None:
        """The score."""
        return self.get("score")

    @property
    def data(self) -> Any:
        """The candidate as it came in."""
        return self.get("data")


def run_view(run: Document) -> RunView:
    """A run as a view, with its stages as views too."""
    view = RunView(run)
    if isinstance(view.get("stages"), list):
        view["stages"] = [StageView(stage) for stage in view["stages"]]
    return view


def answer(found: Document, returns: str) -> Answer:
    """An answer as a view.

    Args:
        found: What the service answered.
        returns: What the rows are: ``runs``, ``pipelines``, ``stages``, ``candidates``, or anything else.
    """
    kinds = {"runs": RunView, "pipelines": RunView, "stages": StageView, "candidates": CandidateView}
    kind = kinds.get(returns)
    return Answer(found if kind is None else {**found, "rows": [kind(row) for row in found.get("rows") or ()]})


def run_html(run: Document) -> str:
    """A run with its stages as a funnel.

    Args:
        run: A run's document with its ``stages``.
    """
    facts = [run.get(name) for name in ("key", "version", "environment", "started_at", "id")]
    head = (
        f"<b>{_text(run.get('label')) or 'run'}</b> {_status(run)} {escape(duration(run.get('duration_ms')))} "
        f"<span {_FAINT}>{' · '.join(_text(fact) for fact in facts if fact)}</span>"
    )
    stages = run.get("stages")
    shown = _stages_table(stages) if stages else "<p>No stages.</p>" if stages is not None else ""
    return f"<div><div>{head}</div>{_error(run)}{shown}</div>"


def stage_html(stage: Document) -> str:
    """A stage with its metrics and, where the document has them, its candidates under ``rows``.

    Args:
        stage: A stage's document.
    """
    head = (
        f"<b>{_text(stage.get('path') or stage.get('name'))}</b> <span {_FAINT}>{_text(stage.get('type'))}</span> "
        f"{_status(stage)} {escape(duration(stage.get('duration_ms')))}"
    )
    reasoning = stage.get("reasoning")
    prose = f"<p>{_text(reasoning)}</p>" if reasoning else ""
    metrics = [{"metric": name, "value": value} for name, value in (stage.get("metrics") or {}).items()]
    shown = table(metrics, ("metric", "value")) if metrics else ""
    rows = stage.get("rows")
    candidates = table(rows, _FIRST_CANDIDATE_COLUMNS) if rows else ""
    came, went = counts(stage)
    bar = _bar(came, went, max(came or 0, went or 0))
    return f"<div><div>{head}</div>{bar}{_error(stage)}{prose}{shown}{candidates}</div>"


def table(rows: Sequence[Mapping[str, Any]], first: Iterable[str] = ()) -> str:
    """Rows as a table with a column for each name that any of them has.

    Args:
        rows: The rows.
        first: The names of the columns that come first, where they are in use.
    """
    shown = rows[:MAX_ROWS]
    in_use = dict.fromkeys(name for row in shown for name in row)
    names = [name for name in first if name in in_use]
    names += [name for name in in_use if name not in names]
    head = "".join(f"<th {_CELL}>{_text(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td {_CELL}>{_text(row.get(name))}</td>" for name in names) + "</tr>" for row in shown
    )
    more = f"<div {_FAINT}>{len(rows) - len(shown):,} more</div>" if len(rows) > len(shown) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _run_row(run: Document) -> dict[str, Any]:
    row = {name: run.get(name) for name in _RUN_COLUMNS}
    return row | {"duration_ms": duration(run.get("duration_ms"))}


def _stages_table(stages: Sequence[Document], *, in_runs: bool = False) -> str:
    shown = list(stages[:MAX_ROWS])
    widest = max((count for stage in shown for count in counts(stage) if count is not None), default=0)
    indents = [0] * len(shown) if in_runs else depths(shown)
    titles = ["pipeline"] * in_runs + ["stage", "type", "", "what it did", "took"] + ["run"] * in_runs
    lines = []
    for stage, indent in zip(shown, indents, strict=True):
        name = f'<span style="padding-left:{indent * 1.2:.1f}em">{_text(stage.get("name"))}</span>'
        did = escape(" · ".join(figures(stage)))
        failed = f" {_status(stage)}" if stage.get("status") != "success" else ""
        cells = [
            name, _text(stage.get("type")), _bar(*counts(stage), widest), f"{did}{failed}{_error(stage)}",
            escape(duration(stage.get("duration_ms"))),
        ]  # fmt: skip
        if in_runs:
            cells = [_text((stage.get("pipeline") or {}).get("label")), *cells, _text(stage.get("run_id"))]
        lines.append("<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th {_CELL}>{title}</th>" for title in titles)
    more = f"<div {_FAINT}>{len(stages) - len(shown):,} more</div>" if len(stages) > len(shown) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"


def _bar(came: int | None, went: int | None, widest: float) -> str:
    """What came out, dark, as a part of what went in, faint; as long as the stage is large."""
    if went is None or widest <= 0:
        return ""
    whole, kept = (100 * max(0, min(count, widest)) / widest for count in (max(came or 0, went), went))
    return (
        '<div style="width:160px;height:10px;position:relative;display:inline-block">'
        f'<div style="position:absolute;height:10px;width:{whole:.1f}%;background:rgba(127,127,127,.3)"></div>'
        f'<div style="position:absolute;height:10px;width:{kept:.1f}%;background:{_COLOURS["success"]}"></div></div>'
    )


def _status(document: Document) -> str:
    status = document.get("status")
    colour = _COLOURS.get(status, "inherit") if isinstance(status, str) else "inherit"
    return f'<span style="color:{colour}">{_text(status)}</span>' if status else ""


def _error(document: Document) -> str:
    line = error_line(document)
    return f'<div style="color:{_COLOURS["failure"]}">{_text(line)}</div>' if line else ""


def _text(value: Any) -> str:
    """A recorded value as the text of an element: short, without control characters, and escaped."""
    text = inert(value)
    if len(text) > _MAX_CELL_CHARS:
        text = f"{text[:_MAX_CELL_CHARS]}… ({len(text):,} characters)"
    return escape(text)
