"""What the API answers, for its OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xray.stage_types.base import Verdict

Status = Literal["running", "success", "failure"]


class Problem(BaseModel):
    """What is wrong."""

    code: str = Field(description="A short machine-readable name of the problem.", examples=["unknown_field"])
    message: str = Field(description="What is wrong, in one sentence.")
    path: str | None = Field(description="Where in the input.", examples=["events[3].run.id"])
    hint: str | None = Field(description="What to do about it, or the nearest right word.")


class ErrorAnswer(BaseModel):
    """The one shape of errors."""

    error: Problem


class EventProblem(BaseModel):
    """What is wrong with one event of a batch."""

    index: int = Field(description="The event's place in the batch, from 0.")
    error: Problem


class IngestAnswer(BaseModel):
    """What became of a batch."""

    accepted: int = Field(description="How many events are stored; they are durable.")
    errors: list[EventProblem]


class StepAnswer(BaseModel):
    """That a part of a run is stored; it is durable."""

    id: str = Field(description="The id of the run or the stage; made by the service where the sender gave none.")
    run_id: str = Field(description="The run that it belongs to.")


class RejectedAnswer(IngestAnswer):
    """What became of a batch in which some events are bad; the others are stored."""

    error: Problem = Field(description="The first of the problems.")


class CoverageModel(BaseModel):
    """What an answer rests on."""

    matched: int = Field(description="How many rows there are.")
    scanned: int = Field(description="How many runs and stages were read.")
    pages_opened: int = Field(description="How many pages of candidates were decompressed.")
    without_all_candidates: int = Field(description="For how many stages not all candidates are kept.")
    complete: bool = Field(description="False where a budget ended the search before the page was full.")
    rollups: int | None = Field(None, description="Of figures: how many rollups stand for stages that were not read.")


class RunModel(BaseModel):
    """One run; a field that is not known is left out. Times are ISO 8601, UTC."""

    model_config = ConfigDict(extra="allow")

    id: str
    key: str | None = None
    label: str | None = None
    version: str | None = None
    environment: str | None = None
    repository: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    duration_ms: float | None = None
    status: Status | None = None
    error: dict[str, Any] | None = None
    input: Any = None
    output: Any = None
    metadata: dict[str, Any] | None = None
    tags: list[str] | None = None
    stage_count: int | None = None
    completeness: str | None = None
    sample_rate: float | None = None


class StageModel(BaseModel):
    """One stage; a field that is not known is left out. Times are ISO 8601, UTC."""

    model_config = ConfigDict(extra="allow")

    id: str
    run_id: str
    parent_id: str | None = None
    order: int | None = None
    path: str | None = None
    name: str | None = None
    type: str | None = None
    started_at: str | None = None
    duration_ms: float | None = None
    status: Status | None = None
    error: dict[str, Any] | None = None
    input: Any = None
    output: Any = None
    metadata: dict[str, Any] | None = None
    facts: dict[str, Any] | None = None
    llm: dict[str, Any] | None = None
    reasoning: str | None = None
    capture: dict[str, Any] | None = Field(None, description="What was kept of what was seen.")
    metrics: dict[str, Any] | None = None
    metrics_over: int | None = Field(None, description="How many candidates the metrics cover.")
    candidates_removed_at: str | None = Field(
        None, description="When retention removed candidates of the stage; the metrics are of all of them."
    )
    pipeline: dict[str, Any] | None = Field(None, description="The run's immutable fields.")


class RunWithStages(RunModel):
    """One run and its stages in order."""

    stages: list[StageModel]


class CandidateModel(BaseModel):
    """One candidate of a stage; a field without a value is left out."""

    model_config = ConfigDict(extra="allow")

    candidate_id: str
    seq: int = Field(description="The place among the stage's candidates, from 0.")
    stage_id: str
    verdict: Verdict | None = None
    reason_label: str | None = None
    reason_text: str | None = None
    score: float | None = None
    rank: int | None = None
    data: Any = None
    output: Any = None


class PipelineModel(BaseModel):
    """One pipeline, by the label of its runs."""

    label: str | None
    run_count: int
    failure_count: int
    first_started_at: str | None
    last_started_at: str | None
    versions: list[str]
    environments: list[str]


class MetricModel(BaseModel):
    """One metric and the stage types that have it."""

    name: str
    query_name: str = Field(description="As questions write it.", examples=["$failRatio"])
    unit: str
    meaning: str
    kind: Literal["number", "table", "data"]
    indexed: bool
    bad: Literal["high", "low"] | None = Field(description="The direction that means trouble.")
    stage_types: list[str]


class ListAnswer(BaseModel):
    """What all lists share."""

    cursor: str | None = Field(description="Give it back to get the next page; null on the last one.")
    coverage: CoverageModel


class Runs(ListAnswer):
    """A page of runs."""

    rows: list[RunModel]


class Stages(ListAnswer):
    """A page of stages."""

    rows: list[StageModel]


class CandidateList(ListAnswer):
    """A page of candidates."""

    rows: list[CandidateModel]
    candidates_removed_at: str | None = Field(
        None, description="When retention removed candidates of the stage; left out where it did not."
    )


class PanelAnswer(BaseModel):
    """A stage's figures."""

    stage_id: str
    type: str | None = None
    figures: list[dict[str, Any]] = Field(
        description="Figures for Plotly (`data`, `layout`), without colours and sizes; texts in them are escaped."
    )
    problem: str | None = Field(None, description="Why the figures of the stage's type are missing, where they are.")


class Pipelines(ListAnswer):
    """All pipelines."""

    rows: list[PipelineModel]


class Metrics(ListAnswer):
    """All metrics that questions may name."""

    rows: list[MetricModel]


class ExplanationModel(BaseModel):
    """How a question is read and run."""

    question: str = Field(description="The question in English.")
    steps: list[str] = Field(description="What is done, one after the other.")
    indexed: bool | None = Field(description="Whether an index of the store serves it; null where that is not known.")
    plan: str = Field(description="How the store finds the documents, in its own words.")


class Rows(ListAnswer):
    """A page of runs, stages or candidates, as the question says."""

    rows: list[dict[str, Any]]
    explanation: ExplanationModel | None = Field(None, description="In place of rows, where the question asks for it.")


class GroupModel(BaseModel):
    """The figures of one group."""

    group: dict[str, Any] = Field(description="The values of the fields that it was grouped by.")
    bucket: str | None = Field(None, description="When its time begins, with the offset of the zone.")
    values: dict[str, float | None] = Field(description="The figures; null where there are no numbers.")


class Groups(ListAnswer):
    """The groups of an aggregation; all of them, or as many as the limit says."""

    rows: list[GroupModel]
    explanation: ExplanationModel | None = Field(None, description="In place of rows, where it is asked for.")


class ParameterModel(BaseModel):
    """A parameter of a saved question."""

    type: Literal["string", "number", "integer", "boolean", "time", "strings", "numbers"]
    default: Any = Field(None, description="What it is where it is not given; without one it has to be given.")
    description: str | None = None


class SavedModel(BaseModel):
    """A saved question: one that lists, or one that works out figures."""

    name: str
    description: str | None = None
    question: dict[str, Any] | None = Field(None, description='With {"$param": name} where values are to be put.')
    aggregate: dict[str, Any] | None = Field(None, description="Likewise.")
    parameters: dict[str, ParameterModel]
    created_at: str
    updated_at: str


class SavedList(ListAnswer):
    """All saved questions, by name."""

    rows: list[SavedModel]


class SavedAnswer(ListAnswer):
    """What a saved question found, and the question as it was asked."""

    rows: list[dict[str, Any]]
    explanation: ExplanationModel | None = Field(None, description="In place of rows, where it is asked for.")
    question: dict[str, Any] | None = Field(None, description="Ask it with the cursor to go on.")
    aggregate: dict[str, Any] | None = None


class Deleted(BaseModel):
    """That something is no more."""

    deleted: str = Field(description="Its name.")


class Health(BaseModel):
    """That the service lives."""

    status: Literal["ok"]
    version: str
    store: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = Field(description="The background tasks: what they did, and their errors.")


class Readiness(BaseModel):
    """That requests may be sent."""

    status: Literal["ready"]
