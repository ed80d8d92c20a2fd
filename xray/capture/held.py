"""What stands between a run's records and the worker while something about the run is not decided yet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from xray.capture.records import RunRecord
from xray.context import ActiveRun
from xray.runtime import runtime

_counting = threading.Lock()


class Holder(Protocol):
    """Takes a run's records in the worker's place."""

    def submit(self, record: Any) -> object:
        """Take a record."""
        ...


class Hold:
    """Keeps the records of a run with ``keep_if`` until its end decides; beyond a bound of bytes the run is kept.

    Args:
        max_bytes: The bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._records: list[Any] = []
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._kept: bool | None = None

    @property
    def overflowed(self) -> bool:
        """Whether the run was kept because it grew too large to be held."""
        return self._kept is True

    def submit(self, record: Any) -> None:
        """Hold a record; where the decision has been made, hand it on or count it."""
        with self._lock:
            kept = self._kept
            if kept is None:
                self._records.append(record)
                self._size_bytes += record.size_bytes
                if self._size_bytes <= self._max_bytes:
                    return
        if kept is None:
            # However it was drawn, a run of this size is kept: it stands for itself alone.
            self.release(True, 1.0)
        elif kept:
            runtime.submit(record)
        else:
            _count_out(1)

    def release(self, keep: bool, sample_rate: float) -> None:
        """Hand the records on, or forget them; the first decision holds.

        Args:
            keep: Whether the run is kept.
            sample_rate: The share of such runs that is kept.
        """
        with self._lock:
            if self._kept is not None:
                return
            self._kept = keep
            records, self._records = self._records, []
        if not keep:
            _count_out(len(records))
            return
        for record in records:
            if isinstance(record, RunRecord) and record.fields["type"] == "run.start":
                record.fields["sample_rate"] = sample_rate
            runtime.submit(record)


class Unnamed:
    """Keeps the records of a run whose label is not known when it begins, so that all of them carry the same one.

    They are handed on as soon as the label is known: whoever gives it is asked at each record. It is settled at the
    latest when somebody calls :meth:`settle`, and when the records weigh more than a bound.

    Args:
        run: The run; its ``held`` is replaced once the label is known.
        label_of: Gives the label, or None as long as it is not known.
        then: What takes the records after that, or None for the worker.
        max_bytes: The bound.
    """

    def __init__(self, run: ActiveRun, label_of: Callable[[], str | None], then: Holder | None, max_bytes: int) -> None:
        self._lock = threading.RLock()
        self._run = run
        self._label_of = label_of
        self._then: Holder = then or runtime
        self._next = then
        self._records: list[Any] = []
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._settled = False

    def submit(self, record: Any) -> None:
        """Hold a record, or hand it on."""
        with self._lock:
            if not self._settled:
                self._records.append(record)
                self._size_bytes += record.size_bytes
                if self._settle(force=self._size_bytes > self._max_bytes):
                    self._hand_on()
                return
        self._then.submit(record)

    def settle(self) -> None:
        """The label is what is known of it now."""
        with self._lock:
            if not self._settled:
                self._settle(force=True)
                self._hand_on()

    def _settle(self, *, force: bool) -> bool:
        label = None
        try:
            label = self._label_of()
        except Exception:
            runtime.count_failure("labelling of a run")
        if label is None and not force:
            return False
        if label is not None:
            self._run.info["label"] = str(label)
        self._settled = True
        self._run.held = self._next
        return True

    def _hand_on(self) -> None:
        records, self._records = self._records, []
        for record in records:
            self._then.submit(record)


def _count_out(records: int) -> None:
    with _counting:
        runtime.count_sampled_out(records)
