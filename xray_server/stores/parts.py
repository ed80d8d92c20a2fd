"""What a store is given, and what it gives back; the contract, in ``base``, says when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from xray.exceptions import StoreError
from xray_server.documents import Document
from xray_server.pages import CandidatePage


@dataclass(slots=True)
class WriteBatch:
    """What is written together.

    Args:
        runs: Partial run documents by id.
        stages: Partial stage documents by id, each with its ``run_id``.
        pages: Candidate pages; a page of the same stage and number is merged with the one that is there.
        declarations: Stage type → the declarations of its metrics (see ``xray.metrics.Metric.as_dict``), for types
            that the service has no plugin for.
    """

    runs: dict[str, Document] = field(default_factory=dict)
    stages: dict[str, Document] = field(default_factory=dict)
    pages: list[CandidatePage] = field(default_factory=list)
    declarations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.runs or self.stages or self.pages or self.declarations)


@dataclass(frozen=True, slots=True)
class Written:
    """What a write found out.

    Args:
        new_runs: Runs of the batch that were not there before it, and whose stages in the batch became visible no
            later than they did. Nothing is known of the others.
    """

    new_runs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Row:
    """One document that a scan found.

    Args:
        document: The run, or the stage; owned by the caller.
        sort_values: The values of the scan's sort keys, to go on after this row; plain JSON values.
        decided: Whether the store knows that the scan's conditions on runs and stages hold, so that nobody needs to
            evaluate them again. A store may leave it out.
    """

    document: Document
    sort_values: tuple[Any, ...]
    decided: bool = False


class ScanCut(StoreError):  # noqa: N818 - says what happened better than with "Error"
    """A scan did not come to its end before its deadline.

    Args:
        rows: What was found until then: in order, and nothing that comes before the last of them is missing.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(
            "The question took too long.",
            code="too_slow",
            hint="Ask about less: a pipeline, a stage's name or type, a span of time. 'explain' says what is slow.",
        )
        self.rows = rows


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """How a store would find the documents of a scan.

    Args:
        indexed: Whether an index leads to them; False where every document of the collection is looked at.
        detail: The plan in the store's own words, for people.
    """

    indexed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Group:
    """Stages that have some values in common.

    Args:
        keys: These values, one for each field that was asked for; None where the stages have none.
        span: The start of the span of time in which they began, in milliseconds since 1970; None for stages without a
            start, and where no spans were asked for.
        count: How many stages there are.
        numbers: For each field or metric that was asked for, the numbers of the stages that have one, in no order.
    """

    keys: tuple[str | None, ...]
    span: int | None
    count: int
    numbers: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Grouped:
    """The numbers of the stages that a scan is about, by group.

    Args:
        groups: The groups, in no order.
        stages: How many stages there are in all of them.
        last: What the next call's ``scan.after`` has to be to go on: plain JSON values; None where there are no more
            stages.
    """

    groups: Sequence[Group]
    stages: int
    last: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class PipelineSummary:
    """One pipeline of a project, by the label of its runs.

    Args:
        label: The label; None for runs without one.
        run_count: How many runs there are.
        failure_count: How many of them failed.
        first_started_at: The earliest start in milliseconds since 1970, or None where none is known.
        last_started_at: The latest start in milliseconds since 1970.
        versions: The distinct versions, sorted.
        environments: The distinct environments, sorted.
    """

    label: str | None
    run_count: int
    failure_count: int
    first_started_at: int | None
    last_started_at: int | None
    versions: tuple[str, ...]
    environments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store's data takes.

    Args:
        size_bytes: What the data of all projects takes on disk, indexes and logs included, without what has been
            freed and will be used again.
        run_count: How many runs there are; an estimate where counting would read them all.
        stage_count: How many stages there are; likewise.
        page_count: How many candidate pages there are; likewise.
        held_bytes: What the store holds on disk with what was removed and cannot be used again yet, where that differs
            from ``size_bytes``; None where what was removed can be used again at once.
        lately_bytes: Where that differs: what was written lately. As much is removed and not free yet at any moment in
            a store that takes no more than it may.
    """

    size_bytes: int
    run_count: int
    stage_count: int
    page_count: int
    held_bytes: int | None = None
    lately_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal took away, or would take.

    Args:
        runs: Runs, with everything of theirs.
        stages: Stages that went, or whose candidates went; in a sum of several removals one may count several times.
        pages: Candidate pages.
        candidates: Candidates in these pages.
        up_to: The latest start, in milliseconds since 1970, of what was removed; None where nothing was.
    """

    runs: int = 0
    stages: int = 0
    pages: int = 0
    candidates: int = 0
    up_to: int | None = None

    def __add__(self, other: Removed) -> Removed:
        """What both took away."""
        times = [time for time in (self.up_to, other.up_to) if time is not None]
        return Removed(
            self.runs + other.runs,
            self.stages + other.stages,
            self.pages + other.pages,
            self.candidates + other.candidates,
            max(times, default=None),
        )


@dataclass(frozen=True, slots=True)
class Bucket:
    """The stages of one kind that started in one hour.

    Args:
        label: The pipeline's label; None for runs without one.
        name: The stage's name.
        type: The stage's type.
        version: The pipeline's version; None for runs without one.
        hour: The start of the hour in UTC, in milliseconds since 1970. A stage without ``started_at`` is in no bucket.
    """

    label: str | None
    name: str | None
    type: str | None
    version: str | None
    hour: int


@dataclass(frozen=True, slots=True)
class Rollup:
    """What the stages of a bucket sum up to.

    Args:
        bucket: The bucket.
        stage_count: How many stages there are.
        failure_count: How many of them failed.
        metrics: Metric (``fail_ratio``, ``label_counts.price_too_high``) → its summary over the stages, as
            ``xray_server.rollups`` makes and merges it: a plain JSON dict.
    """

    bucket: Bucket
    stage_count: int
    failure_count: int
    metrics: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class HalfDays:
    """What hours of half days sum up to.

    Args:
        rollups: Of each bucket and half day; the bucket's ``hour`` is the start of the half day.
        dirty: Buckets, of half days too, of which hours were kept since: what ``rollups`` has of them is out of date.
    """

    rollups: Sequence[Rollup]
    dirty: AbstractSet[Bucket]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A page of a stage that has a candidate.

    Args:
        stage: The stage; owned by the caller.
        page: The page, with all its candidates.
    """

    stage: Document
    page: CandidatePage

    @property
    def at(self) -> int | None:
        """The start of the run in milliseconds since 1970: as the stage says, else as it came with the candidates."""
        at: int | None = (self.stage.get("pipeline") or {}).get("started_at")
        return self.page.started_at if at is None else at

    @property
    def key(self) -> tuple[int | None, str, int]:
        """What a search goes on after: the start, the stage's id, the page's number."""
        return self.at, self.page.stage_id, self.page.page

    @property
    def order(self) -> tuple[bool, int, str, int]:
        """What sightings are sorted by; the greatest comes first."""
        return self.order_of(self.key)

    @staticmethod
    def order_of(key: tuple[int | None, str, int]) -> tuple[bool, int, str, int]:
        """What a sighting with this key is sorted by."""
        at, stage_id, page = key
        return at is not None, at or 0, stage_id, page


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check of a store looked at.

    Args:
        what: What was looked at: an index, or a question that API and CLI offer.
        ok: Whether it is as it should be.
        detail: What was found: which index serves the question, what an index lacks.
        hint: What to do about it, where something is wrong.
    """

    what: str
    ok: bool
    detail: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class NamedDocument:
    """A document that people gave a name to, such as a saved question.

    Args:
        kind: What it is (``question``); names of one kind have nothing to do with those of another.
        name: Its name.
        document: A JSON object; owned by the caller.
        created_at: When the name was first kept, in milliseconds since 1970.
        updated_at: When the document last changed; keeping the same once more changes nothing.
    """

    kind: str
    name: str
    document: Document
    created_at: int
    updated_at: int
