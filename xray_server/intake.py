"""What a service has taken in since it started, and what it refused and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xray.exceptions import XRayError
from xray_server.prepare import IngestResult

KEPT_MINUTES = 60
_OTHER = "other"
_MAX_CODES = 50
"""Reasons are this program's own words; the bound only makes sure of it."""


class Intake:
    """Counts events as they come in; used by one event loop.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.batches = 0
        """Batches that were taken, wholly or in part."""
        self.events = 0
        """Events that were stored."""
        self.refused_events: Counter[str] = Counter()
        """Reason → events that were refused, out of batches that were taken."""
        self.refused_batches: Counter[str] = Counter()
        """Reason → batches of which nothing was taken: malformed, too large, or the store could not write."""
        self._minutes: dict[int, int] = {}

    @contextmanager
    def batch(self) -> Iterator[Callable[[IngestResult], None]]:
        """A block in which a batch is taken; an error that leaves it counts as a refusal.

        Yields:
            To be told what became of the batch.
        """
        try:
            yield self._note
        except XRayError as error:
            self.refused_batches[self._reason(self.refused_batches, error.code)] += 1
            raise

    def _note(self, result: IngestResult) -> None:
        self.batches += 1
        self.events += result.accepted
        for rejected in result.errors:
            self.refused_events[self._reason(self.refused_events, rejected.error.code)] += 1
        minute = int(self._clock() // 60)
        self._minutes[minute] = self._minutes.get(minute, 0) + result.accepted
        for old in [each for each in self._minutes if each <= minute - KEPT_MINUTES]:
            del self._minutes[old]

    def _reason(self, counts: Counter[str], code: str) -> str:
        return code if code in counts or len(counts) < _MAX_CODES else _OTHER

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON.

        Returns:
            ``batches``, ``events``, ``refused_events`` and ``refused_batches`` by reason, ``per_minute`` (the events
            of each of the last 60 minutes by the service's clock, the one under way last) and ``events_last_hour``.
        """
        now = int(self._clock() // 60)
        per_minute = [self._minutes.get(minute, 0) for minute in range(now - KEPT_MINUTES + 1, now + 1)]
        return {
            "batches": self.batches,
            "events": self.events,
            "events_last_hour": sum(per_minute),
            "per_minute": per_minute,
            "refused_events": dict(self.refused_events.most_common()),
            "refused_batches": dict(self.refused_batches.most_common()),
        }
