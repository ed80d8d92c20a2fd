"""The run and the stage that the current thread or task is in."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from xray.ids import new_id, now_ms

_MAX_KNOWN_OBJECTS = 100_000


class ActiveRun:
    """A run that is under way. Shared by all threads and tasks that work for it."""

    __slots__ = ("_counter", "_known", "_lock", "_ordinals", "_repeats", "failed_at", "id", "info", "started_at_ms")

    def __init__(
        self,
        label: str,
        *,
        key: str | None = None,
        version: str | None = None,
        environment: str | None = None,
    ) -> None:
        self.id = new_id()
        self.started_at_ms = now_ms()
        immutable = {
            "id": self.id,
            "key": key,
            "label": label,
            "version": version,
            "environment": environment,
            "started_at": self.started_at_ms,
        }
        self.info = {name: value for name, value in immutable.items() if value is not None}
        """The run's immutable fields, as each of its events carries them."""
        self.failed_at: tuple[int, str] | None = None
        """The identity of the exception that a stage last raised, and the path of the stage where it came from."""
        self._counter = itertools.count()
        self._lock = threading.Lock()
        self._repeats: dict[str, int] = {}
        self._known: dict[int, tuple[int, Any]] = {}
        self._ordinals = itertools.count(1)

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


class Frame:
    """Where a thread or task is: its run, and the stage that it is inside of."""

    __slots__ = ("path", "run", "stage_id")

    def __init__(self, run: ActiveRun, stage_id: str | None = None, path: str | None = None) -> None:
        self.run = run
        self.stage_id = stage_id
        self.path = path


current_frame: ContextVar[Frame | None] = ContextVar("xray_frame", default=None)
