"""The wire schema, version 1: the events that a sender posts to ``/v1/ingest``.

A batch is ``{"events": [event, …]}``. Each event says what it is about with ``type`` and ``id`` and carries its
run's immutable fields under ``run``, so that events may arrive in any order and more than once:

================  =====================  ==================================================================
``type``          ``id``                 what it writes
================  =====================  ==================================================================
``run.start``     the run's              what is known when a run begins
``run.end``       the run's              how it ended
``stage``         the stage's            one stage, with its candidates where they fit
``stage.update``  the stage's            more of a stage: how it ended, for senders that begin and end it apart
``candidates``    the stage's            more candidates of a stage, from ``from_seq`` on
================  =====================  ==================================================================

Only a missing run id makes an event worthless; everything else has a default. The field tables below are what
validation, documentation and senders share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

SCHEMA_VERSION = 1

EventType = Literal["run.start", "run.end", "stage", "stage.update", "candidates"]

FieldKind = Literal[
    "string",  # text
    "id",  # a UUID in canonical form
    "time",  # ISO 8601 text with a zone, or milliseconds since 1970 as an integer; stored as milliseconds
    "number",  # a finite number
    "count",  # an integer, 0 or more
    "strings",  # a list of strings
    "object",  # a JSON object
    "json",  # any JSON
    "error",  # {type, message, code, stage}
    "status",  # running, success or failure
    "completeness",  # complete, sampled, truncated or partial
    "rows",  # a list of candidate objects
    "columns",  # {column: [value, …]}
]

STATUSES = ("running", "success", "failure")
"""In the order in which one wins over another when events of the same document disagree."""

COMPLETENESS = ("complete", "sampled", "truncated", "partial")


@dataclass(frozen=True, slots=True)
class EventField:
    """One field of an event: its name, the kind of value it takes, and what it means."""

    name: str
    kind: FieldKind
    meaning: str
    required: bool = False


RUN_FIELDS = (
    EventField("id", "id", "The run's UUID; time-ordered (version 7) by preference.", required=True),
    EventField("key", "string", "The user's own id of the run; need not be unique."),
    EventField("label", "string", "The pipeline's label."),
    EventField("version", "string", "The version of the pipeline's code."),
    EventField("environment", "string", "Where it ran: production, staging, a developer's name."),
    EventField("started_at", "time", "When the run began."),
)
"""The run's immutable fields, the same in each of its events."""

_STAGE = (
    EventField("parent_id", "id", "The stage that this one ran inside of."),
    EventField("order", "count", "The place in the run's sequence of starts, from 0."),
    EventField("path", "string", "The names of its parents and its own with its repeat number: search/rank#2."),
    EventField("name", "string", "The stage's name.", required=True),
    # The event's own "type" says that it is a stage, so the stage's type has a longer name on the wire only.
    EventField("stage_type", "string", "The stage's type: filtering, scoring, … or a plugin's.", required=True),
    EventField("started_at", "time", "When the stage began."),
    EventField("duration_ms", "number", "How long it took, by a monotonic clock."),
    EventField("status", "status", "How it ended."),
    EventField("error", "error", "What it raised."),
    EventField("input", "json", "What it was given beside its candidates."),
    EventField("output", "json", "What it returned beside its candidates."),
    EventField("metadata", "object", "Small facts to filter by."),
    EventField("facts", "object", "What its metrics need beside the candidates: requested, id_from."),
    EventField("llm", "object", "Model, tokens, temperature and cost of a model call."),
    EventField("reasoning", "string", "Why the stage decided as it did, in prose."),
    EventField("capture", "object", "{mode, seen, kept, reason, markers}: what was kept of what was seen."),
    EventField("trace", "object", "{trace_id, span_id} of the same work in a tracing system."),
    EventField("metrics", "object", "Metrics that the sender computed, where candidates were not all kept."),
    EventField("metric_declarations", "rows", "Metrics and columns of a type the service may not have."),
    EventField("candidates", "rows", "Its first candidates, a row each."),
    EventField("columns", "columns", "Its first candidates, by column."),
)
_WITH_CANDIDATES = frozenset({"facts", "metrics", "metric_declarations", "candidates", "columns"})
"""What metrics are made of: it comes with the stage itself."""

EVENT_FIELDS: dict[EventType, tuple[EventField, ...]] = {
    "run.start": (
        EventField("repository", "string", "Where the pipeline's code lives."),
        EventField("input", "json", "What the run was given."),
        EventField("metadata", "object", "Small facts to filter by; merged key by key."),
        EventField("tags", "strings", "Words to filter by; merged as a set."),
        EventField("sample_rate", "number", "The share of runs that was kept when this one was chosen."),
    ),
    "run.end": (
        EventField("finished_at", "time", "When the run ended."),
        EventField("duration_ms", "number", "How long it took, by a monotonic clock."),
        EventField("status", "status", "How it ended."),
        EventField("error", "error", "What it raised."),
        EventField("output", "json", "What the run returned."),
        EventField("metadata", "object", "More small facts to filter by."),
        EventField("tags", "strings", "More words to filter by."),
        EventField("stage_count", "count", "How many stages it had."),
        EventField("completeness", "completeness", "Whether everything that happened was recorded."),
    ),
    "stage": _STAGE,
    "stage.update": tuple(replace(field, required=False) for field in _STAGE if field.name not in _WITH_CANDIDATES),
    "candidates": (
        EventField("from_seq", "count", "The place of the first one among the stage's candidates, from 0."),
        EventField("candidates", "rows", "The candidates, a row each."),
        EventField("columns", "columns", "The candidates, by column."),
        EventField("facts", "object", "Those of the stage's facts that say what of them is indexed."),
    ),
}
"""What each event may carry, beside ``type``, ``id`` and ``run``."""
