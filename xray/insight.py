"""What the client asks beyond the query language, and the answers as notebooks and tables show them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar
from urllib.parse import quote

from xray.exceptions import ServiceError, XRayError
from xray.html import table
from xray.ids import is_id
from xray.wording import counted, inert

Json = dict[str, Any]


class Insight(dict[str, Any]):
    """An answer of an analysis: a plain dict that a notebook shows as a table, and that pandas takes."""

    rows_at: ClassVar[tuple[str, ...]] = ("rows",)
    """Where the rows of its table lie."""

    columns: ClassVar[tuple[str, ...]] = ()
    """The columns that a notebook shows, in order; all where there are none."""

    @property
    def headline(self) -> str:
        """The answer in a sentence; empty where it has none."""
        return ""

    @property
    def rows(self) -> list[Json]:
        """The rows of the answer's table."""
        found: Any = self
        for name in self.rows_at:
            found = found.get(name) if isinstance(found, Mapping) else None
        return list(found or ())

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``.

        Raises:
            XRayError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise XRayError(
                "pandas is not installed.", code="not_installed", hint="pip install pandas, or use .rows"
            ) from None
        return pandas.DataFrame(self.rows)

    def _repr_html_(self) -> str:
        rows = self.rows
        if self.columns:
            rows = [{name: row.get(name) for name in self.columns} for row in rows]
        shown = table(rows, self.columns) if rows else "<p>Nothing found.</p>"
        return f"<div><div><b>{escape(inert(self.headline))}</b></div>{shown}</div>"


class PassportView(Insight):
    """The way of a candidate through a run."""

    rows_at = ("steps",)
    columns = ("path", "type", "seen", "verdict", "reason_label", "reason_text", "score", "rank", "rank_before", "lost")

    @property
    def headline(self) -> str:
        """What became of the candidate."""
        who, outcome, at = self["candidate_id"], self["outcome"], self.get("lost_at")
        if outcome == "lost":
            why = ": ".join(str(self[name]) for name in ("reason_label", "reason_text") if self.get(name))
            return f"{who} was lost at {at}" + (f" ({why})" if why else "")
        if outcome == "dropped":
            return f"{who} went on from {at} and did not arrive at {self.get('missing_from')}; no stage rejected it"
        if outcome == "unknown":
            return f"What became of {who} is not known: not all stages hold their candidates"
        if outcome == "kept":
            return f"{who} was kept by every stage that saw it"
        return f"No stage saw {who}"


class FunnelView(Insight):
    """The funnel of a run."""

    rows_at = ("stages",)
    columns = ("path", "type", "in", "out", "dropped", "undecided", "added", "balance", "checked", "flags")

    @property
    def headline(self) -> str:
        """Whether every candidate is accounted for."""
        return {
            True: "Every candidate is accounted for",
            False: "Not every candidate is accounted for",
            None: "Not every stage could be checked",
        }[self.get("conserved")]


class PipelineFunnelView(Insight):
    """The funnels of a pipeline over time."""


class DiffView(Insight):
    """Two runs side by side."""

    rows_at = ("stages",)
    columns = ("path", "type", "differs", "common", "only_in_a", "only_in_b", "flips", "rank_correlation", "complete")

    @property
    def headline(self) -> str:
        """Where the runs part."""
        first = self.get("first_divergent")
        return "The runs decided the same" if first is None else f"The runs part at {first}"


class ComparisonView(Insight):
    """Two groups of runs side by side."""

    columns = ("path", "metric", "label", "median", "share", "effect", "effect_is", "p", "q", "moved")

    @property
    def rows(self) -> list[Json]:
        """Metrics and labels, those that moved first."""
        both = [*self["metrics"], *self["labels"]]
        return sorted(both, key=lambda row: (not row["moved"], -abs(row["effect"])))

    @property
    def headline(self) -> str:
        """How much moved."""
        moved = sum(1 for row in self.rows if row["moved"])
        runs = self["runs"]
        return f"{moved} of {len(self.rows)} metrics and labels moved, over {runs[0]} and {runs[1]} runs"


class WhatIfView(Insight):
    """Who would have passed a stage."""

    rows_at = ("threshold", "near")

    @property
    def rows(self) -> list[Json]:
        """The near-miss table, or with no threshold what each label costs."""
        return super().rows if self.get("threshold") else list(self["labels"])

    @property
    def headline(self) -> str:
        """How many would pass instead."""
        found = self.get("threshold")
        among = "" if self["exact"] else " among the candidates that are kept"
        if not found:
            return "; ".join(f"without {row['label']}, {row['more']:,} more survive" for row in self["labels"])
        changed = ""
        if found["now"] is not None:
            changed = f", {found['now']:,} did; {found['gained_count']:,} gained, {found['lost_count']:,} lost"
        return f"{found['passes']:,} would pass at {found['value']}{changed}{among}"


class AnalysisView(Insight):
    """Which step of a run is at fault."""

    rows_at = ("suspects",)

    @property
    def rows(self) -> list[Json]:
        """The suspects, each with its first piece of evidence as ``why``."""
        return [
            {name: row[name] for name in ("path", "type", "blame", "score")}
            | {"why": "; ".join(each["text"] for each in row["evidence"][:3])}
            for row in self["suspects"]
        ]

    @property
    def headline(self) -> str:
        """Who is suspected."""
        if self["suspicious"] is None:
            return str(self.get("reason") or "Nothing can be said")
        if not self["suspicious"]:
            return f"Nothing unusual, compared with {counted(self['history'], 'other run')}"
        return f"{self['faulty_stage']} is suspected: {self.get('reason')}"


class LostView(Insight):
    """Which stages dropped a candidate."""

    columns = ("label", "path", "type", "seen", "lost", "reasons", "last_at")

    @property
    def headline(self) -> str:
        """How often it was lost."""
        lost = sum(row["lost"] for row in self.rows)
        return f"{self['candidate_id']} was lost {counted(lost, 'time')} in {counted(self['sightings'], 'sighting')}"


class TrendsView(Insight):
    """How figures moved over time."""

    columns = (
        "from", "label", "name", "type", "version", "stages", "failures", "in", "out", "fail_ratio", "labels",
        "duration_ms", "score",
    )  # fmt: skip

    @property
    def headline(self) -> str:
        """How much there is."""
        times = len({row["from"] for row in self.rows})
        stages = sum(row["stages"] for row in self.rows)
        return f"{counted(stages, 'stage')} in {counted(times, 'stretch', 'stretches')} of {self['bucket']}"


class InsightCalls:
    """The analyses, as methods of the client."""

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Json:
        """Read a path of the API."""
        raise NotImplementedError

    def post(self, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None) -> Json:
        """Send JSON to a path of the API."""
        raise NotImplementedError

    def run_id(self, run: str) -> str:
        """The id of a run.

        Args:
            run: A run's id; its key, of several runs that have it the latest; or ``latest``.

        Raises:
            ServiceError: There is no such run.
        """
        if is_id(run):
            return run
        rows = self.get("/v1/runs", {"limit": 1} | ({} if run == "latest" else {"key": run}))["rows"]
        if not rows:
            what = "there are no runs yet" if run == "latest" else f"no run has the id or key '{run}'"
            raise ServiceError(
                f"Nothing to show: {what}.", status=404, code="not_found", hint="'xray runs' lists them."
            )
        return str(rows[0]["id"])

    def why(self, run: str, candidate: str | int) -> PassportView:
        """Follow a candidate through every stage of a run, to where it was lost.

        Args:
            run: A run's id, its key, or ``latest``.
            candidate: The candidate's id.
        """
        return PassportView(self.get(f"/v1/runs/{self.run_id(run)}/candidates/{_part(candidate)}"))

    def lost(self, candidate: str | int, **filters: Any) -> LostView:
        """Say across runs and pipelines which stages dropped a candidate, how often, and for what reasons.

        Args:
            candidate: The candidate's id.
            filters: ``since`` and ``until`` (``7d``, or ISO 8601), ``label``, ``limit``.
        """
        return LostView(self.get(f"/v1/lost/{_part(candidate)}", filters))

    def funnel(self, run: str) -> FunnelView:
        """The funnel of a run, and whether every candidate is accounted for.

        Args:
            run: A run's id, its key, or ``latest``.
        """
        return FunnelView(self.get(f"/v1/runs/{self.run_id(run)}/funnel"))

    def pipeline_funnel(self, label: str, **filters: Any) -> PipelineFunnelView:
        """The funnels of a pipeline's runs, added up by time and stage.

        Args:
            label: The pipeline's label.
            filters: ``since`` and ``until`` (``7d``, or ISO 8601), ``bucket`` (``1d``), ``version``.
        """
        return PipelineFunnelView(self.get(f"/v1/pipelines/{_part(label)}/funnel", filters))

    def trends(self, label: str | None = None, **filters: Any) -> TrendsView:
        """Show how fail ratio, reason labels, scores, durations and volume moved, per pipeline, stage and version.

        Args:
            label: Only this pipeline.
            filters: ``name``, ``type`` and ``version`` of what to look at; ``since`` (``30d``) and ``until``;
                ``bucket`` (``1d``); ``by`` (``label,name,type``); ``metrics`` and ``labels``.
        """
        return TrendsView(self.get("/v1/trends", {"label": label, **filters}))

    def diff(self, run: str, other: str) -> DiffView:
        """Show where two runs part.

        Args:
            run: A run's id, its key, or ``latest``.
            other: The other.
        """
        return DiffView(self.get(f"/v1/diff/{self.run_id(run)}/{self.run_id(other)}"))

    def compare(
        self,
        a: Mapping[str, Any] | None = None,
        b: Mapping[str, Any] | None = None,
        *,
        by: str | None = None,
        label: str | None = None,
        values: Sequence[str] | None = None,
        level: float = 0.05,
    ) -> ComparisonView:
        """Say which metrics and shares of reason labels moved between two groups of runs, and whether by chance.

        Args:
            a: A filter on runs, as the ``pipeline`` of a question: the one group.
            b: The other.
            by: In place of filters: ``version``, ``environment``, ``status``, ``key`` or ``label``.
            label: With ``by``: the pipeline's label.
            values: With ``by``: the two values; by default those of the latest runs.
            level: The false discovery rate up to which a difference counts.
        """
        body: Json = {"level": level}
        given = {"a": a, "b": b} if by is None else {"by": by, "label": label, "values": values}
        body |= {name: value for name, value in given.items() if value is not None}
        return ComparisonView(self.post("/v1/compare", body))

    def whatif(self, run: str, stage: str | None = None, **settings: Any) -> WhatIfView:
        """Say who would have passed a stage under another threshold, or without a rule.

        Args:
            run: A run's id, its key, or ``latest``; without ``stage`` the id of a stage.
            stage: The stage's path or name.
            settings: ``threshold``, ``below``, ``without``, ``score``, ``near``.
        """
        if stage is None:
            return WhatIfView(self.get(f"/v1/stages/{_part(run)}/whatif", settings))
        return WhatIfView(self.get(f"/v1/runs/{self.run_id(run)}/whatif/{_part(stage)}", settings))

    def analyze(
        self,
        run: str,
        *,
        store: bool = False,
        ask_model: bool = True,
        history: int | None = None,
        version: str | None = None,
    ) -> AnalysisView:
        """Compare each stage of a run with its own history, and rank the suspects with the evidence.

        Args:
            run: A run's id, its key, or ``latest``.
            store: Whether to store the outcome on the run.
            ask_model: Whether to ask the service's language model too, in the background, when storing.
            history: How many other runs to compare with.
            version: Only with runs of this version.
        """
        path = f"/v1/runs/{self.run_id(run)}/analysis"
        asked: Json = {"history": history, "version": version}
        if store:
            return AnalysisView(self.post(path, parameters={**asked, "ask_model": json.dumps(ask_model)}))
        return AnalysisView(self.get(path, asked))


def _part(value: str | int) -> str:
    return quote(str(value), safe="")
