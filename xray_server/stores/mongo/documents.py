"""What lies in which collection, and the indexes: declared with Beanie.

Every ``_id`` begins with the project, so that one collection serves all of them and the ids of one project never meet
those of another. Times are dates; what users record (``Packed``) is JSON, compressed where it is long, never BSON.
The store itself reads and writes the collections directly: a pydantic object for each document would cost more than
the rest of a write.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from beanie import Document
from pydantic import BaseModel, Field
from pymongo import ASCENDING, IndexModel

Packed = str | bytes
"""JSON as text, or compressed; see ``xray_server.stores.encoding.pack``."""


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _index(name: str, *paths: str) -> IndexModel:
    return IndexModel([(path, ASCENDING) for path in paths], name=name)


class Key(BaseModel):
    """The ``_id`` of runs and stages."""

    p: str = Field(description="The project.")
    i: str = Field(description="The id.")


class PipelineCopy(BaseModel):
    """The immutable fields of a stage's run."""

    id: str | None = None
    key: str | None = None
    label: str | None = None
    version: str | None = None
    environment: str | None = None
    started_at: dt.datetime | None = None


class Metrics(BaseModel):
    """What can be searched and sorted by. Dots, dollars and percent signs in names are written ``%2E`` and so on."""

    n: dict[str, float] = Field(default={}, description="Numbers.")
    t: dict[str, dict[str, float]] = Field(default={}, description="Tables of numbers.")


class Run(Document):
    """One execution of a pipeline."""

    id: Key  # type: ignore[assignment]  # Beanie's own is an ObjectId
    rev: int = Field(description="Grows with every change; a writer changes only the revision that it has read.")
    key: str | None = None
    label: str | None = None
    version: str | None = None
    environment: str | None = None
    started_at: dt.datetime | None = None
    repository: str | None = None
    finished_at: dt.datetime | None = None
    duration_ms: float | None = None
    status: str | None = None
    error: Packed | None = None
    input: Packed | None = None
    output: Packed | None = None
    metadata: Packed | None = None
    words: list[str] | None = Field(None, description="``key=text`` for the texts in metadata, to narrow by.")
    tags: list[str] | None = None
    stage_count: int | None = None
    completeness: str | None = None
    sample_rate: float | None = None
    analysis: Packed | None = None

    class Settings:
        """Where runs lie."""

        name = "runs"
        indexes = (
            _index("by_start", "_id.p", "started_at", "_id.i"),
            # With the rest of what the list of pipelines shows, so that it is read off the index.
            _index("by_label", "_id.p", "label", "started_at", "_id.i", "status", "version", "environment"),
            _index("by_key", "_id.p", "key", "started_at", "_id.i"),
        )


class Stage(Document):
    """One decision step in a run."""

    id: Key  # type: ignore[assignment]  # as above
    rev: int
    run_id: str
    parent_id: str | None = None
    order: int | None = None
    path: str | None = None
    name: str | None = None
    type: str | None = None
    started_at: dt.datetime | None = None
    duration_ms: float | None = None
    status: str | None = None
    error: Packed | None = None
    input: Packed | None = None
    output: Packed | None = None
    metadata: Packed | None = None
    words: list[str] | None = None
    facts: Packed | None = None
    llm: Packed | None = None
    reasoning: str | None = None
    capture: Packed | None = None
    trace: Packed | None = None
    metrics: Metrics | None = None
    metrics_other: Packed | None = Field(None, description="Metrics that are no numbers and no tables of numbers.")
    odd_metrics: list[str] | None = Field(None, description="The names of those that hold something.")
    null_metrics: list[str] | None = Field(None, description="The names of those that are null.")
    metrics_over: int | None = None
    candidates_removed_at: dt.datetime | None = None
    pipeline: PipelineCopy | None = None

    class Settings:
        """Where stages lie."""

        name = "stages"
        indexes = (
            _index("by_run", "_id.p", "run_id", "order", "_id.i"),
            _index("by_start", "_id.p", "started_at", "_id.i"),
            _index("by_type", "_id.p", "type", "started_at", "_id.i"),
            _index("by_label", "_id.p", "pipeline.label", "started_at", "_id.i"),
            _index("by_name", "_id.p", "name", "started_at", "_id.i"),
            # Only of stages that have the field: most have not.
            IndexModel(
                [("_id.p", ASCENDING), ("candidates_removed_at", ASCENDING), ("_id.i", ASCENDING)],
                name="by_removal",
                partialFilterExpression={"candidates_removed_at": {"$gt": _EPOCH}},
            ),
            # One index over (name, value) for every metric of every type.
            _index("by_metric", "metrics.$**"),
        )


class PageKey(BaseModel):
    """The ``_id`` of a page; the pages of a stage are a range of it."""

    p: str = Field(description="The project.")
    s: str = Field(description="The stage's id.")
    n: int = Field(description="The page's number.")


class Page(Document):
    """Some hundred candidates of a stage; see ``xray_server.pages``."""

    id: PageKey  # type: ignore[assignment]  # as above
    rev: int
    run_id: str
    started_at: dt.datetime | None = None
    candidates: int = Field(description="How many there are.")
    first: int | None = Field(None, description="The first place, where there are no gaps.")
    seqs: Packed | None = Field(None, description="All places, where there are gaps.")
    ids: list[str]
    reason_labels: list[str]
    block: bytes

    class Settings:
        """Where candidate pages lie."""

        name = "pages"
        indexes = (_index("by_start", "_id.p", "started_at"),)


class DeclarationKey(BaseModel):
    """The ``_id`` of the declarations of a stage type."""

    p: str = Field(description="The project.")
    t: str = Field(description="The stage type.")


class Declaration(Document):
    """What senders said about the metrics of a stage type."""

    id: DeclarationKey  # type: ignore[assignment]  # as above
    rev: int
    metrics: Packed

    class Settings:
        """Where declarations lie."""

        name = "declarations"


class BucketKey(BaseModel):
    """The ``_id`` of a bucket: a project's hours come in their order."""

    p: str = Field(description="The project.")
    h: int = Field(description="The start of the hour, in milliseconds since 1970.")
    l: str | None = Field(description="The pipeline's label.")  # noqa: E741 - keys are short: each is stored again
    n: str | None = Field(description="The stage's name.")
    t: str | None = Field(description="The stage's type.")
    v: str | None = Field(description="The pipeline's version.")


class BucketState(Document):
    """A bucket: whether it is dirty, and its rollup; see ``buckets`` beside this file."""

    id: BucketKey  # type: ignore[assignment]  # as above
    dirty: bool
    mark: int = Field(description="Grows before and after each write that changes a stage of the bucket.")
    pending: int = Field(description="Writes that have begun and not been seen to end.")
    pending_at: dt.datetime | None = Field(None, description="When the last of them began, by the server's clock.")
    kept: int | None = Field(None, description="The mark of which the rollup is.")
    stage_count: int | None = None
    failure_count: int | None = None
    metrics: Packed | None = None

    class Settings:
        """Where buckets lie."""

        name = "buckets"
        indexes = (
            _index("by_label", "_id.p", "_id.l", "_id.h"),
            _index("by_dirty", "_id.p", "dirty", "_id.h"),
        )


class NamedKey(BaseModel):
    """The ``_id`` of a named document."""

    p: str = Field(description="The project.")
    k: str = Field(description="What it is.")
    n: str = Field(description="Its name.")


class Named(Document):
    """What people saved under a name."""

    id: NamedKey  # type: ignore[assignment]  # as above
    document: Packed
    created_at: dt.datetime
    updated_at: dt.datetime

    class Settings:
        """Where named documents lie."""

        name = "named"


class StoreForm(Document):
    """The one document that says in which form this database is."""

    id: str  # type: ignore[assignment]  # as above
    version: int

    class Settings:
        """Where it lies."""

        name = "form"


DECLARED: tuple[type[Document], ...] = (Run, Stage, Page, Declaration, BucketState, Named, StoreForm)


def collection_of(model: type[Document]) -> str:
    """The name of the collection that holds such documents."""
    name: str = _settings(model).name
    return name


def indexes_of(model: type[Document]) -> tuple[IndexModel, ...]:
    """The indexes that the collection should have, beside the one over ``_id``."""
    return tuple(getattr(_settings(model), "indexes", ()))


def _settings(model: type[Document]) -> Any:
    """What Beanie looks up by its name too."""
    return vars(model)["Settings"]
