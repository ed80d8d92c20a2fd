"""From "perhaps on these pages" to the latest pages that do have a candidate, with as few of them opened as that takes.

The stores read, each in its own way; what to read next and when that is enough is decided here. Starts of runs come
with the index, so that of an item that is in every run only the latest pages are opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from xray_server.sightings.pages import Place
from xray_server.sightings.segments import Segment
from xray_server.stores.base import Sighting

SEGMENTS_AT_ONCE = 8
PAGES_AT_ONCE = 100
SOME_IN_VAIN = 4
"""Pages that are opened beyond those that are wanted, for those that turn out not to have the candidate."""

Number = TypeVar("Number")


class Hunt:
    """One look-up on its way.

    Args:
        label: Only in this pipeline.
        since: Only in runs that started then or later, in milliseconds since 1970.
        until: Only in runs that started before.
        after: Only what comes after the sighting with this key.
        limit: The most that are wanted.
    """

    def __init__(
        self,
        *,
        label: str | None,
        since: int | None,
        until: int | None,
        after: tuple[int | None, str, int] | None,
        limit: int,
    ) -> None:
        self._label = label
        self._since = since
        self._until = until
        self._after = after
        self._limit = limit
        self._seen: set[tuple[int | str, int]] = set()
        self._timeless: list[Place] = []
        self._timed: list[tuple[int, Place]] = []
        self._sorted = True
        self._found: list[Sighting] = []

    def order(self, segments: Mapping[Number, Segment]) -> list[Number]:
        """The segments that may matter, those with the latest runs first."""
        wanted = [number for number, segment in segments.items() if segment.may_have(self._since)]
        return sorted(wanted, key=lambda number: -_reach(segments[number]))

    def add(self, places: Iterable[Place]) -> None:
        """Take pages that may have the candidate."""
        for place in places:
            if place.key in self._seen:
                continue
            self._seen.add(place.key)
            if place.start is None:
                self._timeless.append(place)
            elif self._may_satisfy(place.start):
                self._timed.append((place.start, place))
                self._sorted = False

    def _may_satisfy(self, start: int) -> bool:
        if self._since is not None and start < self._since:
            return False
        if self._until is not None and start >= self._until:
            return False
        return self._after is None or (self._after[0] is not None and start <= self._after[0])

    def to_open(self, unread: Segment | None) -> list[Place]:
        """The pages to open next.

        Args:
            unread: The first of the segments that were not read yet, in the order of :meth:`order`, or None.

        Returns:
            Pages; none where a segment has to be read first, or where all that is wanted has been found.
        """
        if self._timeless:
            chosen, self._timeless = self._timeless[:PAGES_AT_ONCE], self._timeless[PAGES_AT_ONCE:]
            return chosen
        missing = self._limit - self._settled(unread)
        if missing <= 0:
            return []
        bound = float("-inf") if unread is None else _reach(unread)
        chosen = []
        while self._timed and self._timed[-1][0] > bound and len(chosen) < min(missing + SOME_IN_VAIN, PAGES_AT_ONCE):
            chosen.append(self._timed.pop()[1])
        return chosen

    def take(self, found: Iterable[Sighting]) -> None:
        """Take what was opened and does have the candidate."""
        for sighting in found:
            at = sighting.at
            if self._label is not None and (sighting.stage.get("pipeline") or {}).get("label") != self._label:
                continue
            if self._since is not None and (at is None or at < self._since):
                continue
            if self._until is not None and (at is None or at >= self._until):
                continue
            if self._after is None or sighting.order < Sighting.order_of(self._after):
                self._found.append(sighting)

    def is_over(self, unread: Segment | None) -> bool:
        """Whether nothing that is still unread or unopened can belong to the answer."""
        if self._timeless:
            return False
        return self._settled(unread) >= self._limit or (unread is None and not self._timed)

    def answer(self) -> list[Sighting]:
        """The sightings, the latest first."""
        return sorted(self._found, key=lambda sighting: sighting.order, reverse=True)[: self._limit]

    def _settled(self, unread: Segment | None) -> int:
        """How many of those found nothing unopened can come before."""
        bound = float("-inf") if unread is None else _reach(unread)
        if not self._sorted:
            self._timed.sort(key=lambda item: item[0])
            self._sorted = True
        if self._timed:
            bound = max(bound, self._timed[-1][0])
        if bound == float("-inf"):
            return len(self._found)
        return sum(1 for sighting in self._found if sighting.at is not None and sighting.at > bound)


def _reach(segment: Segment) -> float:
    """How late a run may have started that a segment has a page of; at any time where it has one without a start."""
    if segment.has_timeless:
        return float("inf")
    return float("-inf") if segment.last_at is None else segment.last_at


def sightings_among(pages: Iterable[Sighting], candidate_id: str) -> Sequence[Sighting]:
    """Those of some pages that do have the candidate."""
    return [sighting for sighting in pages if candidate_id in sighting.page.ids]
