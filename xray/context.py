"""The run and the stage that the current thread or task is in."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from xray import ids
from xray.capture.policy import Policy
from xray.schema import COMPLETENESS

if TYPE_CHECKING:
    from xray.capture.stage import ActiveStage

_MAX_KNOWN_OBJECTS = 100_000


class ActiveRun:
    """A run that is under way. Shared by all threads and tasks that work for it.

    Args:
        label: The pipeline's label.
        key: The user's own id of the run.
        version: The version of the pipeline's code.
        environment: Where it runs.
        policy: What is kept of its stages.
        recorded: Whether anything of it is recorded; a run that was not sampled still has to be known, so that the
            stages below it open no run of their own.
    """

    __slots__ = (
        "_counter", "_known", "_lock", "_ordinals", "_repeats", "completeness", "failed_at", "held", "id", "info",
        "policy", "recorded", "started_ns", "trace",
    )  # fmt: skip

    path: str | None = None
    stage: ActiveStage | None = None

    def __init__(
        self,
        label: str,
        *,
        key: str | None = None,
        version: str | None = None,
        environment: str | None = None,
        policy: Policy,
        recorded: bool = True,
    ) -> None:
        self.started_ns = ids.clock_ns()
        self.id = ids.id_text(self.started_ns, ids.draw_bits(62))
        immutable = {
            "id": self.id,
            "key": key,
            "label": label,
            "version": version,
            "environment": environment,
            "started_at": self.started_ns // 1_000_000,
        }
        self.info = {name: value for name, value in immutable.items() if value is not None}
        """The run's immutable fields, as each of its events carries them."""
        self.policy = policy
        self.recorded = recorded
        self.held: Any = None
        """What holds the run's records until its end decides whether they are kept, or None."""
        self.trace: dict[str, str] | None = None
        """The ids of the same work in a tracing system."""
        self.failed_at: tuple[Any, str] | None = None
        """What identifies the exception that a stage last raised, and the path of the stage where it came from."""
        self.completeness = "complete"
        """``complete``, ``sampled`` or ``truncated``, as far as it is known on the threads that work for the run."""
        self._counter = itertools.count()
        self._lock = threading.Lock()
        self._repeats: dict[str, int] = {}
        self._known: dict[int, tuple[int, Any]] = {}
        self._ordinals = itertools.count(1)

    @property
    def run(self) -> ActiveRun:
        """The run itself: a stage has the same attribute."""
        return self

    def lessen(self, completeness: str) -> None:
        """Less than everything is kept of the run; of several words the one that says most stays.

        Args:
            completeness: ``sampled``, ``truncated`` or ``partial`` (a stage is missing), in this order.
        """
        self.completeness = max(self.completeness, completeness, key=COMPLETENESS.index)

    def place(self, parent_path: str | None, name: str) -> tuple[int, str]:
        """The order and the path of a stage that begins now.

        Args:
            parent_path: The path of the stage that it runs inside of, or None.
            name: The stage's name.

        Returns:
            Its place in the sequence of starts, and its path with a repeat number from the second time on.
        """
        path = name if parent_path is None else f"{parent_path}/{name}"
        with self._lock:
            repeat = self._repeats[path] = self._repeats.get(path, 0) + 1
            order = next(self._counter)
        return order, path if repeat == 1 else f"{path}#{repeat}"

    @property
    def stage_count(self) -> int:
        """How many stages have begun."""
        with self._lock:
            return sum(self._repeats.values())

    def ordinals(self, objects: Sequence[Any]) -> list[int]:
        """A number for each object by identity: the same object has the same number throughout the run.

        The objects are held until the run ends, because a freed object's identity may be taken by the next one;
        beyond a bound they no longer are, and an object may then be given a number again.
        """
        known = self._known
        numbers = []
        with self._lock:
            for item in objects:
                found = known.get(id(item))
                if found is None:
                    found = (next(self._ordinals), item)
                    if len(known) < _MAX_KNOWN_OBJECTS:
                        known[id(item)] = found
                numbers.append(found[0])
        return numbers

    def forget_objects(self) -> None:
        """Let go of the objects that were numbered; the run has ended."""
        with self._lock:
            self._known = {}


current: ContextVar[ActiveRun | ActiveStage | None] = ContextVar("xray_current", default=None)
"""The innermost stage, or the run where no stage is under way, or None outside of any run."""
