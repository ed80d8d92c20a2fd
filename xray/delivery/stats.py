"""What waits to be sent, and the counts of what became of it."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol


class Record(Protocol):
    """What waits in the buffer: it knows its weight and can be made into an event on the worker's thread."""

    @property
    def size_bytes(self) -> int:
        """What it weighs."""
        ...

    def event(self) -> dict[str, Any]:
        """The event of the wire schema."""
        ...

    def release(self) -> None:
        """The worker is done with the record and its event."""
        ...

    def lost(self) -> None:
        """It will not be stored: what it belongs to may still say so. Called before :meth:`release`, if at all."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """Exact counts of records since the process (or a fork of it) began, or was configured anew.

    ``recorded = acknowledged + buffered + spooled + sum(dropped.values())`` at any moment.

    Args:
        recorded: Runs' starts and ends and stages that were recorded.
        acknowledged: Those that the service says are durably stored.
        buffered: Those that wait in memory or are on their way from there.
        buffered_bytes: What they weigh.
        dropped: Reason → how many were lost.
        failures: Name of a step of X-Ray → how often it failed; the user's code was not affected.
        sampled_out: Records of runs that were held for ``keep_if`` and then not kept; not among ``recorded``.
        spooled: Those that lie in the spool on disk and are not acknowledged yet.
        sent: How many were handed to the transport; one that is tried again counts again.
        from_others: What this process did with records that ended processes had left in the spool: ``acknowledged``,
            or a reason of loss → how many; not among ``recorded``.
    """

    recorded: int
    acknowledged: int
    buffered: int
    buffered_bytes: int
    dropped: dict[str, int]
    failures: dict[str, int]
    sampled_out: int = 0
    spooled: int = 0
    sent: int = 0
    from_others: dict[str, int] = dataclasses.field(default_factory=dict)
