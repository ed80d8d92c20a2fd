"""For tests: what a pipeline decided, and what holds for every stage type and every transport.

A :class:`Recorder` keeps what is recorded in memory; the assertions say what must have been decided. With pytest there
is the fixture ``xray_recorder``.

Each contract, for authors of plugins, is a class of pytest tests; subclass it, say what is to be tested, and run
pytest.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from xray import ids
from xray.assertions import assert_label_counts, assert_metric, assert_rejected, assert_survives
from xray.capture.call import Items, StageCall
from xray.delivery.memory import MemoryTransport
from xray.delivery.transport import Transport
from xray.ids import new_id
from xray.recorded import CandidateStep, RecordedRun, RecordedStage, runs_of
from xray.runtime import runtime
from xray.settings import SETTINGS
from xray.stage_types.base import CANDIDATE_COLUMNS, VERDICTS, Columns, StageType, check_stage_type

__all__ = [
    "CandidateStep",
    "RecordedRun",
    "RecordedStage",
    "Recorder",
    "StageTypeContract",
    "TransportContract",
    "assert_label_counts",
    "assert_metric",
    "assert_rejected",
    "assert_survives",
    "fixed_ids_and_clock",
    "sample_calls",
]

FIRST_MOMENT_NS = 1_767_225_600_000_000_000
"""What a fixed clock begins at: 2026-01-01T00:00:00Z."""


class Recorder:
    """Records into memory while its ``with`` block lasts.

    Within the block every setting has its default, whatever the environment says; after it, what the environment
    says. Reading waits for what is still under way.

    Args:
        settings: Settings by name, as ``xray.configure`` takes them.

    Raises:
        ConfigurationError: A setting is unknown or cannot be so; raised when the block begins.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = {setting.name: setting.default for setting in SETTINGS} | settings
        self._transport = MemoryTransport()

    def __enter__(self) -> Self:
        runtime.reset()
        runtime.configure(transport=self._transport, **self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        runtime.flush(10)
        runtime.reset()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that was recorded, as events of the wire schema.

        Raises:
            AssertionError: Something that was recorded is not there.
        """
        if not runtime.flush(10):
            raise AssertionError(f"Not everything that was recorded could be kept: {runtime.stats()}")
        return list(self._transport.events)

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs, in the order in which they began."""
        return runs_of(self.events)

    @property
    def last_run(self) -> RecordedRun:
        """The run that began last.

        Raises:
            LookupError: There is none.
        """
        runs = self.runs
        if not runs:
            raise LookupError("No run was recorded: no decorated callable was called within the recorder's block.")
        return runs[-1]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        runtime.flush(10)
        self._transport.events.clear()


@contextlib.contextmanager
def fixed_ids_and_clock(first_ns: int = FIRST_MOMENT_NS, step_ns: int = 1_000_000) -> Iterator[None]:
    """The same ids, times and durations every time.

    Ids are counted up, and each look at a clock finds it one step later. For code that runs in one thread: several
    threads take turns as they please.

    Args:
        first_ns: What the wall clock begins at, in nanoseconds since 1970.
        step_ns: How far each look at a clock moves it.
    """
    bits, wall, monotonic = itertools.count(1), itertools.count(first_ns, step_ns), itertools.count(0, step_ns)
    fixed = {
        "draw_bits": lambda _bits: next(bits),
        "clock_ns": lambda: next(wall),
        "monotonic_ns": lambda: next(monotonic),
    }
    real = {name: getattr(ids, name) for name in fixed}
    try:
        for name, function in fixed.items():
            setattr(ids, name, function)
        yield
    finally:
        for name, function in real.items():
            setattr(ids, name, function)


def sample_calls() -> list[StageCall]:
    """Calls of a stage that every stage type must bear: full, empty, without inputs, without candidates, with gaps."""
    records = [{"id": "a", "price": 1.5}, {"id": "b", "price": 2.5}, {"id": "c", "price": 0.5}]

    def items(values: list[Any]) -> Items:
        return Items(values, {})

    return [
        StageCall(items(records), [items(records[:2])], None, {}, {}),
        StageCall(items(records), [items([])], None, {}, {}),
        StageCall(items([]), [items([])], None, {}, {}),
        StageCall(None, [items(records)], None, {}, {}),
        StageCall(None, [], {"anything": 1}, {}, {"k": 3}),
        StageCall(None, [], None, {}, {}),
    ]


class StageTypeContract(ABC):
    """What the service and the SDK rely on in every stage type."""

    @abstractmethod
    def make_stage_type(self) -> StageType:
        """A new instance of the type."""

    def sample_calls(self) -> Sequence[StageCall]:
        """Calls that :meth:`StageType.extract` is tried on; add those that are typical for the type."""
        return sample_calls()

    def test_declares_itself_as_the_interface_says(self) -> None:
        """Names are of the form, nothing is declared twice."""
        check_stage_type(self.make_stage_type())

    def test_extracts_whole_columns(self) -> None:
        """Every column is declared and as long as there are candidates; ids are strings, verdicts are words."""
        stage_type = self.make_stage_type()
        allowed = {*CANDIDATE_COLUMNS, *stage_type.columns}
        for call in self.sample_calls():
            columns = stage_type.extract(call)
            assert set(columns.values) <= allowed
            assert all(len(values) == len(columns) for values in columns.values.values())
            assert all(type(candidate_id) is str for candidate_id in columns.candidate_id)
            assert {verdict for verdict in columns.column("verdict") if verdict} <= set(VERDICTS)

    def test_computes_only_declared_metrics_of_their_kind(self) -> None:
        """Numbers are finite numbers, tables are names to numbers, all of it is JSON."""
        stage_type = self.make_stage_type()
        kinds = {metric.name: metric.kind for metric in stage_type.all_metrics()}
        for call in self.sample_calls():
            for name, value in stage_type.compute(stage_type.extract(call)).items():
                assert name in kinds, f"{name} is not declared"
                msgspec.json.encode(value)
                numbers = [value] if kinds[name] == "number" else []
                if kinds[name] == "table":
                    assert all(isinstance(key, str) for key in value)
                    numbers = list(value.values())
                assert all(type(number) in (int, float) and math.isfinite(number) for number in numbers), name

    def test_computes_from_nothing(self) -> None:
        """No candidates is an answer, not an error."""
        self.make_stage_type().compute(Columns([]))

    def test_compute_is_pure(self) -> None:
        """The same columns give the same metrics, on any instance, and are not changed."""
        for call in self.sample_calls():
            columns = self.make_stage_type().extract(call)
            before = copy.deepcopy(columns)
            first = self.make_stage_type().compute(columns)
            assert columns == before
            assert self.make_stage_type().compute(columns) == first


class TransportContract(ABC):
    """What the worker relies on in every transport."""

    @abstractmethod
    def make_transport(self) -> Transport:
        """A transport whose other side takes events."""

    @abstractmethod
    def received(self) -> list[dict[str, Any]]:
        """The events that arrived at the other side of the last transport made, in order."""

    @staticmethod
    def sample_events(count: int) -> list[dict[str, Any]]:
        """Events of the wire schema."""
        runs = [new_id() for _ in range(count)]
        return [{"type": "run.start", "id": run, "run": {"id": run, "label": "é 漢字 🙂"}} for run in runs]

    def test_delivers_whole_and_in_order(self) -> None:
        """What is stored has arrived, unchanged."""
        transport = self.make_transport()
        events = self.sample_events(300)
        result = transport.send(events)
        assert (result.outcome, result.rejected) == ("stored", {})
        assert self.received() == events
        transport.close()

    def test_leaves_the_events_alone(self) -> None:
        """The events belong to the caller."""
        transport = self.make_transport()
        events = self.sample_events(3)
        before = copy.deepcopy(events)
        transport.send(events)
        assert events == before
        transport.close()

    def test_sends_after_close(self) -> None:
        """Closing lets go of connections, not of the ability to send."""
        transport = self.make_transport()
        transport.close()
        assert transport.send(self.sample_events(1)).outcome == "stored"
        transport.close()

    def test_another_thread_may_take_over(self) -> None:
        """One thread at a time, not always the same."""
        transport = self.make_transport()
        outcomes: list[str] = [transport.send(self.sample_events(1)).outcome]
        thread = threading.Thread(target=lambda: outcomes.append(transport.send(self.sample_events(1)).outcome))
        thread.start()
        thread.join()
        assert outcomes == ["stored", "stored"]
        transport.close()
