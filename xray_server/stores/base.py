"""The store interface: what the service needs from a place that keeps runs, stages and candidates.

The docstrings are the contract; ``xray_server.testing.StoreContract`` holds every implementation to it. What goes in
and comes out is in ``parts`` beside this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from xray_server.documents import Document
from xray_server.pages import CandidatePage
from xray_server.query.ast import Field, Reference, Scan
from xray_server.stores.parts import (
    Bucket,
    Finding,
    Group,
    Grouped,
    HalfDays,
    NamedDocument,
    PipelineSummary,
    Removed,
    Rollup,
    Row,
    ScanCut,
    ScanPlan,
    Sighting,
    Usage,
    WriteBatch,
    Written,
)

__all__ = [
    "Bucket",
    "Finding",
    "Group",
    "Grouped",
    "HalfDays",
    "NamedDocument",
    "PipelineSummary",
    "Removed",
    "Rollup",
    "Row",
    "ScanCut",
    "ScanPlan",
    "Sighting",
    "Store",
    "Usage",
    "WriteBatch",
    "Written",
]


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
        candidates (the caller evaluates them again, but for rows that are ``decided``), but never lacks one that does;
        conditions on the schema's own scalar fields and on metrics are exact. Rows come in the order of the scan's sort
        keys, strictly after ``scan.after``; fewer than ``scan.limit`` rows mean that there are no more.

        Args:
            project: The project.
            scan: The collection, conditions, order and limit.

        Raises:
            ScanCut: ``scan.deadline`` came first. A store that cannot stop in between does not look at it.
            StoreError: The data could not be read.
        """

    async def explain(self, project: str, scan: Scan) -> ScanPlan | None:
        """How a scan would be run, without running it; None where the store cannot say.

        Args:
            project: The project.
            scan: The collection, conditions, order and limit.

        Raises:
            StoreError: The store could not be asked.
        """
        return None

    # --- numbers without their documents --------------------------------------------------------------------------

    async def grouped(
        self, project: str, scan: Scan, by: Sequence[Field], span_ms: int | None, numbers: Sequence[Reference]
    ) -> Grouped | None:
        """The numbers of exactly those stages that the conditions hold for, by what the stages have in common.

        It is for figures over many stages, without reading the rest of them. Unlike :meth:`scan` it must not count a
        stage for which a condition does not hold: nobody looks at it again. Those that started last come first, those
        without a start at the end.

        Args:
            project: The project.
            scan: A scan of stages, whose ``sort`` does not matter. Its ``after`` is None, or :attr:`Grouped.last` of an
                answer to the same scan. A store may count fewer stages than its limit, if more than none.
            by: The fields, of ids and texts, of which the stages of a group have the same values.
            span_ms: The stages of a group began in the same span of so many milliseconds, counted from 1970 on; None
                where their starts do not matter.
            numbers: Fields of numbers, and metrics; of a metric only numbers count.

        Returns:
            None where the store cannot decide the conditions by itself, or would have to read the documents.

        Raises:
            ScanCut: As :meth:`scan` raises it, without rows.
            StoreError: The data could not be read.
        """
        return None

    @abstractmethod
    def pages(self, project: str, stage_id: str, *, from_seq: int = 0) -> AsyncIterator[CandidatePage]:
        """The candidate pages of a stage in order, from the page that holds ``from_seq`` on.

        Args:
            project: The project.
            stage_id: The stage's id; an unknown one has no pages.
            from_seq: Pages wholly before this place are left out.
        """

    async def pages_of_many(self, project: str, stage_ids: Sequence[str]) -> Mapping[str, Sequence[CandidatePage]]:
        """The candidate pages of several stages in one step, of those that have few.

        Args:
            project: The project.
            stage_ids: The ids of the stages; unknown ones have no pages.

        Returns:
            Stage id → all of its pages in order, perhaps none. A stage that is not in it has more pages than are worth
            reading beforehand: they are asked for with ``pages``. A store may leave out any stage.

        Raises:
            StoreError: The data could not be read.
        """
        return {}

    async def candidate_counts(self, project: str, stage_ids: Sequence[str]) -> Mapping[str, int]:
        """How many candidates stages have, without reading them; a store may leave out any stage.

        Args:
            project: The project.
            stage_ids: The ids of the stages.

        Raises:
            StoreError: The data could not be read.
        """
        return {}

    @abstractmethod
    async def pipelines(self, project: str) -> Sequence[PipelineSummary]:
        """Every pipeline of the project, the one with the latest run first."""

    @abstractmethod
    async def declarations(self, project: str) -> Mapping[str, list[dict[str, Any]]]:
        """Stage type → the metric declarations that senders brought for it."""

    # --- sightings ----------------------------------------------------------------------------------------------

    async def sightings(
        self,
        project: str,
        candidate_id: str,
        *,
        label: str | None = None,
        since: int | None = None,
        until: int | None = None,
        after: tuple[int | None, str, int] | None = None,
        limit: int,
    ) -> Sequence[Sighting]:
        """The pages that have a candidate, those of the latest runs first.

        Every page of a stage that a scan would find, and that was durable before the call, is found, whatever else
        happens meanwhile. A store without an index looks through all stages.

        Args:
            project: The project.
            candidate_id: The candidate's id.
            label: Only in runs of this pipeline; None means any.
            since: Only in runs that started then or later, in milliseconds since 1970; one whose start nobody knows
                satisfies no bound.
            until: Only in runs that started before.
            after: Only what comes after the sighting with this ``key``.
            limit: The most to return; fewer mean that there are no more.
        """
        from xray_server.sightings.scanning import sightings_by_scan

        return await sightings_by_scan(self, project, candidate_id, label, since, until, after, limit)

    async def index_candidates(self, project: str) -> bool:
        """Bring the index over candidate ids on by a bounded step; harmless at any time, and in several processes.

        Answers do not depend on it, only how long they take and what the index takes on disk.

        Args:
            project: The project.

        Returns:
            Whether there may be more to do at once.
        """
        return False

    # --- rollups ------------------------------------------------------------------------------------------------
    #
    # A write that changes a stage marks the bucket of the stage dirty, and the one that it was in before, in the
    # same step: a reader never sees the stage and a clean bucket that lacks it. Counting up instead would count a
    # repeated write twice. ``xray_server.rollups`` computes buckets from their stages, for the background task and
    # for readers of dirty ones.

    @abstractmethod
    async def dirty_buckets(
        self, project: str, *, limit: int, label: str | None = None, since: int | None = None, until: int | None = None
    ) -> Sequence[tuple[Bucket, int]]:
        """Buckets whose stages changed since their rollup was kept, each with its mark; the oldest hour first.

        A mark is a number that grows whenever the bucket is marked again.

        Args:
            project: The project.
            limit: The most to return.
            label: Only of this pipeline; None means any.
            since: Only hours from this one on, in milliseconds since 1970.
            until: Only hours before this one.
        """

    @abstractmethod
    async def keep_rollups(self, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
        """Keep rollups in place of what was kept of their buckets; the dirty mark goes where it has not grown since.

        A rollup whose bucket is not dirty any more is passed over: somebody else has kept one of the same or a later
        state, and an older one in its place would never be found out.

        Args:
            project: The project.
            rollups: Rollups, each with the mark that its bucket had **before** its stages were read. One of no stages
                removes what was kept.
        """

    @abstractmethod
    async def rollups(
        self, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
    ) -> Sequence[Rollup]:
        """The rollups that are kept, by hour and bucket; those of dirty buckets too, as they were.

        Args:
            project: The project.
            label: Only of this pipeline; None means any.
            name: Only of stages of this name; None means any.
            since: Hours from this one on, in milliseconds since 1970.
            until: Hours before this one.
        """

    # --- half days ----------------------------------------------------------------------------------------------
    #
    # Months have thousands of hours. Where they are shown in steps of half days or more, the sums of twelve hours stand
    # for them. ``keep_rollups`` marks the half day of each bucket before it keeps the bucket's hour: a reader that
    # finds neither the hour nor the half day marked may take the half day. A store without half days leaves these out.

    async def half_days(
        self, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
    ) -> HalfDays | None:
        """The sums of half days that are kept, and which of them are out of date; None in a store without them.

        Whatever was out of date when this was called is said to be.

        Args:
            project: The project.
            label: Only of this pipeline; None means any.
            name: Only of stages of this name; None means any.
            since: Half days that begin at this time or later, in milliseconds since 1970.
            until: Half days that begin before this time.
        """
        return None

    async def dirty_half_days(self, project: str, *, limit: int, until: int) -> Sequence[tuple[Bucket, int]]:
        """Half days of which hours were kept since their sums were, each with its mark; the oldest first.

        Args:
            project: The project.
            limit: The most to return.
            until: Only half days that begin before this time, in milliseconds since 1970.
        """
        return ()

    async def keep_half_days(  # noqa: B027 - a store without half days has nothing to keep
        self, project: str, rollups: Sequence[tuple[Rollup, int]]
    ) -> None:
        """Keep sums of half days as :meth:`keep_rollups` keeps hours, by the marks of :meth:`dirty_half_days`."""

    # --- named documents ----------------------------------------------------------------------------------------
    #
    # What people save under a name: few and small, and never removed by age. A project that has nothing else is not
    # among :meth:`projects`.

    @abstractmethod
    async def keep_named(self, project: str, kind: str, name: str, document: Document) -> NamedDocument:
        """Keep a document under a name, in place of what had the name before; it is durable when this returns.

        Of writers at once the last one stays, whole.

        Args:
            project: The project.
            kind: What it is; text without NUL, like the name.
            name: Its name.
            document: A JSON object; the order of its keys is kept.

        Returns:
            What is kept, with its times.
        """

    @abstractmethod
    async def named(self, project: str, kind: str, name: str) -> NamedDocument | None:
        """The document of a name, or None where there is none."""

    @abstractmethod
    async def all_named(self, project: str, kind: str) -> Sequence[NamedDocument]:
        """Every document of a kind, by name in the order of code points."""

    @abstractmethod
    async def remove_named(self, project: str, kind: str, name: str) -> bool:
        """Remove the document of a name.

        Returns:
            Whether there was one.
        """

    # --- keeping house ------------------------------------------------------------------------------------------

    @abstractmethod
    async def projects(self) -> Sequence[str]:
        """Every project that has a run, a stage or a page, sorted."""

    @abstractmethod
    async def usage(self) -> Usage:
        """What all projects' data takes."""

    @abstractmethod
    async def remove_candidates(
        self, project: str, *, before: int | None, limit: int, dry_run: bool = False
    ) -> Removed:
        """Remove candidate pages, the oldest first; the stages stay, with their metrics, and say so.

        Each stage whose pages are removed gets ``candidates_removed_at``, the time of the removal, no later than its
        pages go. Writers wait for one such call no longer than for a batch of ``limit`` pages. Whoever is reading
        the pages of a stage gets what is left of them.

        Args:
            project: The project.
            before: Only pages of runs that started before this time, in milliseconds since 1970; those of runs
                without a start are as old as can be. None means any page.
            limit: The most pages to remove.
            dry_run: Only say what a call without a limit would remove.

        Returns:
            What was removed; fewer pages than ``limit`` mean that there are no more.
        """

    @abstractmethod
    async def remove_runs(self, project: str, *, before: int | None, limit: int, dry_run: bool = False) -> Removed:
        """Remove whole runs, the oldest first: with their stages, metrics and pages, and the rollups of their hours.

        A rollup, and a dirty mark, goes when it is older than every run that is left, so that trends reach as far
        back as runs do. A run with very many stages or pages may go in several steps, itself last.

        Args:
            project: The project.
            before: Only runs that started before this time, in milliseconds since 1970; those without a start are
                judged by their id's time, and where the id is no UUID of version 7 they are not removed by age. None
                means any run; those of unknown age come first.
            limit: The most runs to remove.
            dry_run: Only say what a call without a limit would remove.
        """

    @abstractmethod
    async def reclaim(self) -> None:
        """Give what removals freed back to the file system as far as that blocks no writer; harmless at any time."""

    @abstractmethod
    async def check(self) -> Sequence[Finding]:
        """Look at every index that there should be, and at how every question that API and CLI offer is served."""
