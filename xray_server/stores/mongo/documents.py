"""What lies in which collection, and the indexes: declared with Beanie.

The names of fields have one or two letters, because each document has them again; here is what they stand for. What
questions name lies in the open: texts that repeat as numbers of ``words``, ids as bytes, times as dates. What users
record is JSON, compressed with a dictionary where it is long, never BSON. The store itself reads and writes the
collections directly: a pydantic object for each document would cost more than the rest of a write.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from beanie import Document, PydanticObjectId
from pydantic import BaseModel, Field
from pymongo import ASCENDING, IndexModel

Packed = str | bytes
"""JSON as text, or compressed."""

Id = bytes | str
"""A UUID as its 16 bytes, or any other id as text; in front of a *key* stands the project's number. See ``ids``."""

Word = int
"""The number of a text, see ``words``."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _index(name: str, *paths: str, only: dict[str, Any] | None = None, unique: bool = False) -> IndexModel:
    options: dict[str, Any] = {"partialFilterExpression": only} if only else {}
    if unique:
        options["unique"] = True
    return IndexModel([(path, ASCENDING) for path in paths], name=name, **options)


class Run(Document):
    """One execution of a pipeline."""

    id: Id = Field(description="The key.")  # type: ignore[assignment]  # Beanie's own is an ObjectId
    v: int | None = Field(
        None, description="Grows with every change; a writer changes only the revision that it has read."
    )
    p: int = Field(description="The project's number.")
    pk: str | None = Field(None, description="key")
    l: Word = Field(description="label; absence has a number too")  # noqa: E741
    y: Word | None = Field(None, description="version")
    e: Word | None = Field(None, description="environment")
    s: dt.datetime | None = Field(None, description="started_at")
    rp: Word | None = Field(None, description="repository")
    f: dt.datetime | None = Field(None, description="finished_at")
    d: float | None = Field(None, description="duration_ms")
    x: Word | None = Field(None, description="status; left out for ``success``")
    t: list[str] | None = Field(None, description="tags")
    sc: int | None = Field(None, description="stage_count")
    q: Word | None = Field(None, description="completeness; left out for ``complete``")
    sr: float | None = Field(None, description="sample_rate")
    tw: list[str] | None = Field(None, description="``key=text`` for the texts in metadata, to narrow by.")
    z: Packed | None = Field(None, description="All other fields.")

    class Settings:
        """Where runs lie."""

        name = "runs"
        indexes = (
            _index("by_start", "p", "s"),
            # With the rest of what the list of pipelines shows, so that it is read off the index.
            _index("by_label", "l", "s", "x", "y", "e"),
            # Only of runs that have a key: many have not.
            _index("by_key", "pk", "s", only={"pk": {"$gte": ""}}),
        )


class Stage(Document):
    """One decision step in a run."""

    id: Id = Field(description="The key.")  # type: ignore[assignment]  # as above
    v: int | None = Field(None, description="As of a run.")
    r: Id = Field(description="The run's key.")
    w: list[Word] = Field(description="The project itself, name, type, and the run's label; absence has numbers too.")
    u: Id | None = Field(None, description="parent_id")
    o: int | None = Field(None, description="order")
    h: Word | None = Field(None, description="path")
    s: dt.datetime | None = Field(None, description="started_at")
    d: float | None = Field(None, description="duration_ms")
    x: Word | None = Field(None, description="status; left out for ``success``")
    g: str | None = Field(None, description="reasoning")
    m: dict[str, float | dict[str, float]] | None = Field(
        None, description="metrics: numbers and tables of numbers, by the numbers of their names with base 36."
    )
    mx: list[Word] | None = Field(None, description="Metrics that hold something else.")
    mn: list[Word] | None = Field(None, description="Metrics that are null.")
    c: int | None = Field(None, description="metrics_over")
    gone: dt.datetime | None = Field(None, description="candidates_removed_at")
    pi: Id | bool | None = Field(
        None, description="The run's id, once more; left out where it is that of ``r``, false where there is none."
    )
    pk: str | None = Field(None, description="The run's key.")
    y: Word | None = Field(None, description="The run's version.")
    e: Word | None = Field(None, description="The run's environment.")
    a: dt.datetime | None = Field(None, description="The run's start.")
    tw: list[str] | None = Field(None, description="As of a run.")
    z: Packed | None = Field(None, description="All other fields.")
    n: int | None = Field(None, description="How many candidates it has, where these are not as many as ``c`` says.")
    k: bytes | None = Field(None, description="Its marks, of ten bits.")
    f: bytes | None = Field(None, description="Its zones.")
    b: bytes | None = Field(None, description="The page.")

    class Settings:
        """Where stages lie."""

        name = "stages"
        indexes = (
            _index("by_run", "r"),
            # One index over (number, start) for the latest of a project, a name, a type and a label.
            _index("by_word", "w", "s"),
            # One index over (name, value) for every metric of every type.
            _index("by_metric", "m.$**"),
            # Only of stages that have the field: most have not.
            _index("by_removal", "w", "gone", only={"gone": {"$gt": _EPOCH}}),
            # Only of stages that hold their page, for its removal.
            _index("by_age", "a", only={"k": {"$exists": True}}),
        )


class Page(Document):
    """Up to some hundred candidates of a stage; see ``pages`` beside this file."""

    id: Id = Field(description="The stage's key and the page's number.")  # type: ignore[assignment]  # as above
    v: int | None = Field(None, description="As of a run.")
    st: Id = Field(description="The stage's key.")
    r: Id = Field(description="The run's key.")
    p: int = Field(description="The project's number.")
    a: dt.datetime | None = Field(None, description="The run's start.")
    n: int = Field(description="How many candidates there are.")
    k: bytes = Field(description="Marks of two bytes, for each id and reason label, to narrow by.")
    f: bytes | None = Field(None, description="The zones of fields that the stage declares as indexed.")
    b: bytes = Field(description="Everything else, compressed.")

    class Settings:
        """Where candidate pages lie, but for those in stages."""

        name = "pages"
        indexes = (_index("by_stage", "st"), _index("by_age", "p", "a"))


class WordEntry(Document):
    """A text and its number; never changed or removed."""

    id: bytes = Field(description="A hash of project, field and text.")  # type: ignore[assignment]  # as above
    s: str = Field(description="What it is numbered among: ``word``, ``metric`` or ``project``.")
    n: int = Field(description="The number.")
    p: int = Field(description="The project's number.")
    f: str = Field(description="The field.")
    t: str | None = Field(description="The text; null stands for the absence of one.")

    class Settings:
        """Where words lie."""

        name = "words"
        indexes = (_index("by_number", "s", "n", unique=True), _index("by_field", "p", "f"))


class Dictionary(Document):
    """What the values of one kind are compressed with; never changed or removed."""

    id: int  # type: ignore[assignment]  # as above
    kind: str
    data: bytes

    class Settings:
        """Where dictionaries lie."""

        name = "dictionaries"
        indexes = (_index("by_kind", "kind", unique=True),)


class DeclarationKey(BaseModel):
    """The ``_id`` of the declarations of a stage type."""

    p: str = Field(description="The project.")
    t: str = Field(description="The stage type.")


class Declaration(Document):
    """What senders said about the metrics of a stage type."""

    id: DeclarationKey  # type: ignore[assignment]  # as above
    v: int | None = None
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


class HalfDayState(BucketState):
    """The same of the half day that begins with ``h``."""

    class Settings(BucketState.Settings):
        """Where half days lie."""

        name = "half_days"


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


class RecordKey(BaseModel):
    """The ``_id`` of a record of sightings."""

    p: str = Field(description="The project.")
    o: PydanticObjectId


class SightingRecord(Document):
    """The sightings of a batch, until they are in a segment; see ``sightings`` beside this file."""

    id: RecordKey  # type: ignore[assignment]  # as above
    pages: int
    entries: int
    data: bytes

    class Settings:
        """Where records lie."""

        name = "sighting_tail"


class PartKey(BaseModel):
    """The ``_id`` of a part or a block of a segment."""

    p: str = Field(description="The project.")
    g: PydanticObjectId = Field(description="The segment.")
    k: int = Field(description="Whether it is a part or a block.")
    n: int = Field(description="Its number.")


class SightingPart(Document):
    """A part or a block of a segment; never changed."""

    id: PartKey  # type: ignore[assignment]  # as above
    data: bytes

    class Settings:
        """Where parts and blocks lie."""

        name = "sighting_parts"


class SightingSegment(BaseModel):
    """A segment of a project's index."""

    id: PydanticObjectId
    pages: int
    entries: int
    parts: int
    last_at: int | None = Field(description="The latest start of its pages, in milliseconds since 1970.")
    timeless: bool = Field(description="Whether some of its pages have no start.")


class SightingIndex(Document):
    """The segments of a project."""

    id: str = Field(description="The project.")  # type: ignore[assignment]  # as above
    rev: int = Field(description="Grows with every change.")
    segments: list[SightingSegment] = Field(description="The oldest first.")
    removed: list[PydanticObjectId] = Field(description="Records and segments that are to be removed.")
    building: PydanticObjectId | None = Field(description="The segment that a process builds, or was building.")
    busy_until: int = Field(description="Until when no other is to build one, in milliseconds since 1970.")

    class Settings:
        """Where it lies."""

        name = "sighting_index"


class StoreForm(Document):
    """The document that says in which form this database is (``form``), the counters, and the overhead."""

    id: str  # type: ignore[assignment]  # as above
    version: int | None = None
    last: int | None = Field(None, description="Of a counter: the last number that was given.")
    tables: float | None = Field(
        None, description="Of the overhead, see ``footprint``: bytes of tables for each byte of documents."
    )
    indexes: float | None = Field(None, description="Likewise: bytes of indexes for each document.")

    class Settings:
        """Where it lies."""

        name = "form"


DECLARED: tuple[type[Document], ...] = (
    Run, Stage, Page, WordEntry, Dictionary, Declaration, BucketState, HalfDayState, Named, SightingRecord,
    SightingPart, SightingIndex, StoreForm,
)  # fmt: skip


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
