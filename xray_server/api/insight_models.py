"""What the analyses take and answer, for validation of parameters and for the API's description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from xray_server.api.parameters import Parameters

# --- answers ----------------------------------------------------------------------------------------------------


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Passport(_Open):
    """The way of a candidate through a run."""

    candidate_id: str
    outcome: str = Field(description="lost, dropped, kept, unknown or never seen.")
    lost_at: str | None = Field(description="The path of the stage at which it was lost.")
    missing_from: str | None = Field(description="The later stage that should have seen it, where nobody rejected it.")
    reason_label: str | None
    reason_text: str | None
    first_seen: str | None
    run: dict[str, Any]
    steps: list[dict[str, Any]] = Field(description="One for each stage; 'seen' is yes, no or not kept.")


class RunFunnel(_Open):
    """The funnel of a run."""

    run: dict[str, Any]
    conserved: bool | None = Field(description="Whether in = out + dropped; null where that cannot be told.")
    stages: list[dict[str, Any]]


class PipelineFunnel(_Open):
    """The funnels of a pipeline's runs, by time and stage."""

    label: str
    bucket: str
    rows: list[dict[str, Any]]
    complete: bool = Field(description="False where there were more stages than are read at once.")


class RunDiff(_Open):
    """Two runs side by side."""

    a: dict[str, Any]
    b: dict[str, Any]
    first_divergent: str | None
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    flips: list[dict[str, Any]]
    stages: list[dict[str, Any]]


class Comparison(_Open):
    """Two groups of runs side by side."""

    runs: list[int]
    metrics: list[dict[str, Any]]
    labels: list[dict[str, Any]]


class WhatIf(_Open):
    """Who would have passed a stage."""

    stage: dict[str, Any]
    exact: bool
    labels: list[dict[str, Any]]
    threshold: dict[str, Any] | None = None


class Analysis(_Open):
    """Which step of a run is at fault."""

    run: dict[str, Any]
    history: int
    suspicious: bool | None
    faulty_stage: str | None
    reason: str | None
    confidence: float | None
    suspects: list[dict[str, Any]]
    plugins: dict[str, Any] | None = Field(None, description="What plugins' analyzers say; left out without any.")


class LostCoverage(_Open):
    """Whether there are stages that may have seen it and no longer say so."""

    stages_looked_at: int = Field(description="How many of the latest stages were looked at.")
    without_all_candidates: int = Field(description="How many of these do not hold all their candidates.")


class LostAnswer(_Open):
    """Which stages dropped a candidate."""

    candidate_id: str
    rows: list[dict[str, Any]]
    complete: bool = Field(description="False where the limit ended the search; 'until' goes on with older runs.")
    sightings: int = Field(description="How often it was seen.")
    coverage: LostCoverage


class Trends(_Open):
    """How figures moved over time."""

    bucket: str = Field(description="How long one stretch of time is.")
    by: list[str] = Field(description="What the rows of a stretch are told apart by.")
    since: str
    until: str
    rows: list[dict[str, Any]] = Field(description="One for each stretch of time and group that has stages.")
    metrics: list[str] = Field(description="The metrics that rows could have figures of.")
    complete: bool = Field(description="False where there were so many rows that the earliest were left out.")


# --- parameters -------------------------------------------------------------------------------------------------


class FunnelParameters(Parameters):
    """Over which time a pipeline's funnel goes."""

    since: str | None = Field(None, description="Runs that started at or after: 7d, 12h, or ISO 8601 with a zone.")
    until: str | None = Field(None, description="Runs that started before.")
    bucket: str = Field("1d", description="How long one stretch of time is: 1d, 6h, 30m.")
    version: str | None = None


class WhatIfParameters(Parameters):
    """What is set otherwise."""

    threshold: float | None = Field(None, description="The score from which on a candidate passes.")
    below: bool = Field(False, description="Whether lower scores are better.")
    without: str | None = Field(None, description="A reason label that nothing is rejected for.")
    score: str | None = Field(None, description="One of several scores by its name.")
    near: int = Field(10, ge=0, le=1000, description="How many candidates on each side the near-miss table has.")


class AnalysisParameters(Parameters):
    """What a run is compared with."""

    history: int = Field(100, ge=1, le=500, description="How many other runs to compare with.")
    version: str | None = Field(None, description="Only with runs of this version.")


class StoreParameters(AnalysisParameters):
    """The same, and whether to ask the model."""

    ask_model: bool = Field(True, description="Whether to ask the model in the background, where one is set up.")


class LostParameters(Parameters):
    """Where to look for a candidate."""

    since: str | None = Field(None, description="Runs that started at or after: 7d, 12h, or ISO 8601 with a zone.")
    until: str | None = Field(None, description="Runs that started before.")
    label: str | None = Field(None, description="Only this pipeline.")
    limit: int = Field(1000, ge=1, le=10_000, description="How many stages that saw it at most, the latest first.")


class TrendParameters(Parameters):
    """Which trends."""

    label: str | None = Field(None, description="Only this pipeline.")
    name: str | None = Field(None, description="Only stages of this name.")
    type: str | None = Field(None, description="Only stages of this type.")
    version: str | None = Field(None, description="Only this version of the pipeline.")
    since: str = Field("30d", description="From then on: 7d, 12h, or ISO 8601 with a zone.")
    until: str | None = Field(None, description="Up to then; the hour that it lies in is whole.")
    bucket: str | None = Field(
        None, description="How long one stretch of time is, in whole hours: 1h, 6h, 7d; by default what suits the span."
    )
    by: str = Field("label,name,type", description="What rows are told apart by, of label, name, type and version.")
    metrics: str | None = Field(None, description="Metrics that rows have the figures of besides: fail_ratio,score.max")
    labels: int = Field(10, ge=0, le=100, description="How many reason labels of each group are told apart.")
