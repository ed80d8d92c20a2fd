"""The store interface: what the service needs from a place that keeps runs, stages and candidates.

The docstrings are the contract; ``xray_server.testing.StoreContract`` holds every implementation to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from xray_server.documents import Document
from xray_server.pages import CandidatePage
from xray_server.query.ast import Scan


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
    """

    document: Document
    sort_values: tuple[Any, ...]


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


class Store(ABC):
    """Keeps runs, stages and candidate pages, by project.

    **Projects.** Every method takes ``project`` first. Nothing of one project is ever seen or changed through
    another; ids need to be unique within a project only.

    **Idempotence and order.** A write merges by id as ``xray_server.documents.merge_into`` and
    ``xray_server.pages.merge_pages`` say: batches in any order, and repeated, give the same documents.

    **Durability and atomicity.** When ``write`` returns, the batch survives a crash of the process or the machine.
    A batch is seen whole or not at all within one document; across documents a reader may see part of it.

    **Threads and tasks.** All methods are coroutines and may be called by any number of tasks of the event loop in
    which ``open`` was called. Other processes may use the same data where the implementation says so.

    **Ownership.** A store does not keep or change what it is given; what it returns is the caller's.

    **Errors.** ``StoreClosed`` before ``open`` and after ``close``; ``StoreError`` where the data could not be read
    or written, after which the same call may be tried again.
    """

    kind: ClassVar[str]
    """The word that names the implementation (``sqlite``)."""

    @abstractmethod
    async def open(self) -> None:
        """Make the store ready: connect, create what is missing, bring an older form up to date.

        Raises:
            StoreError: The place cannot be used, or was written by a newer version of X-Ray.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the writes under way and let go of all resources; calling it twice is harmless."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The store in a few words for people: ``kind``, ``location``, and what else is worth showing."""

    @abstractmethod
    async def write(self, project: str, batch: WriteBatch) -> Written | None:
        """Merge a batch; it is durable when this returns.

        Args:
            project: The project.
            batch: What to write. Of the documents, None values are ignored.

        Returns:
            What the store knows without looking for it, which saves the caller a look; None where it knows nothing.

        Raises:
            StoreError: Nothing of the batch, or only a part of it, was written; writing it again is safe.
        """

    @abstractmethod
    async def scan(self, project: str, scan: Scan) -> Sequence[Row]:
        """Find documents in order.

        The answer may hold documents that do not satisfy the conditions where these reach into free-form JSON or
        candidates (the caller evaluates them again), but never lacks one that does; conditions on the schema's own
        scalar fields and on metrics are exact. Rows come in the order of the scan's sort keys, strictly after
        ``scan.after``; fewer than ``scan.limit`` rows mean that there are no more.

        Args:
            project: The project.
            scan: The collection, conditions, order and limit.

        Raises:
            StoreError: The data could not be read.
        """

    @abstractmethod
    def pages(self, project: str, stage_id: str, *, from_seq: int = 0) -> AsyncIterator[CandidatePage]:
        """The candidate pages of a stage in order, from the page that holds ``from_seq`` on.

        Args:
            project: The project.
            stage_id: The stage's id; an unknown one has no pages.
            from_seq: Pages wholly before this place are left out.
        """

    @abstractmethod
    async def pipelines(self, project: str) -> Sequence[PipelineSummary]:
        """Every pipeline of the project, the one with the latest run first."""

    @abstractmethod
    async def declarations(self, project: str) -> Mapping[str, list[dict[str, Any]]]:
        """Stage type → the metric declarations that senders brought for it."""
