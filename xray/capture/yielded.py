"""What a generator yields, taken item by item while somebody consumes it."""

from __future__ import annotations

from contextvars import Token
from typing import Any

import msgspec

from xray import ids
from xray.capture.accessors import MISSING, core
from xray.capture.guarded import candidates_in
from xray.capture.live import take
from xray.capture.run import RunRecording, Unrecorded, packed_output
from xray.capture.snapshot import marker, snapshot
from xray.capture.stage import ActiveStage, reset
from xray.capture.taken import Taken
from xray.context import ActiveRun, current
from xray.runtime import runtime

Recording = ActiveStage | RunRecording | Unrecorded

_LIVE_VALUE_BYTES = 64


class Yielded:
    """A stage or run whose code is a generator: it is entered at each step and left at each ``yield``.

    So whoever consumes it is not inside of it. Items are taken as they come out, because the consumer may change them
    as soon as it has them, up to a bound of bytes. A stage's duration is the time spent inside; a run's lasts from its
    first step to its end.

    Args:
        recording: The stage or run, begun and entered.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._inside: ActiveStage | ActiveRun = recording if isinstance(recording, ActiveStage) else recording.run
        self._token: Token[Any] | None = None
        self._spent_ns = 0
        self._clock_ns = 0
        self._items: StageItems | RunItems | None = None
        if isinstance(recording, ActiveStage):
            self._items = StageItems(recording)
        elif isinstance(recording, RunRecording) and recording.run.recorded:
            self._items = RunItems(recording)
        # The recording entered itself when it began: from here on this class does it.
        token, recording._token = recording._token, None  # noqa: SLF001 - the two share the stage's life
        if token is not None:
            reset(token, self._inside)

    def resume(self) -> None:
        """The generator's code goes on."""
        self._token = current.set(self._inside)
        self._clock_ns = ids.monotonic_ns()

    def pause(self, item: Any) -> None:
        """The generator yielded an item."""
        # A block that the generator is in stays open over the yield.
        here = current.get()
        if here is not None:
            self._inside = here
        self._leave()
        if self._items is not None:
            try:
                self._items.add(item)
            except Exception:
                runtime.count_failure("recording of a yielded item")

    def finished(self, value: Any, *, abandoned: bool = False) -> None:
        """The generator came to its end, or its consumer did.

        Args:
            value: What it returned.
            abandoned: Whether its consumer went away before its end: what came out until then is the result.
        """
        self._leave()
        recording, items = self._recording, self._items
        try:
            if isinstance(items, StageItems):
                items.close(value, abandoned=abandoned)
                items.stage._clock_ns = ids.monotonic_ns() - self._spent_ns  # noqa: SLF001
            elif isinstance(items, RunItems):
                items.recording.ended(items.output(value))
                return
        except Exception:
            runtime.count_failure("recording of yielded items")
        recording.returned(None)

    def raised(self, error: BaseException) -> None:
        """The generator raised."""
        self._leave()
        if isinstance(self._items, StageItems):
            stage = self._items.stage
            stage._clock_ns = ids.monotonic_ns() - self._spent_ns  # noqa: SLF001
            # What came out says nothing of those that were still to come, so it is counted only.
            stage.facts = {**(stage.facts or {}), "yielded": self._items.count}
        self._recording.raised(error)

    def _leave(self) -> None:
        self._spent_ns += ids.monotonic_ns() - self._clock_ns
        token, self._token = self._token, None
        if token is not None:
            reset(token, self._inside)


class StageItems:
    """The items that a stage yielded, one snapshot each, put together at the end as if they had been one list.

    Args:
        stage: The stage.
    """

    def __init__(self, stage: ActiveStage) -> None:
        self.stage = stage
        self.count = 0
        self._max_bytes = stage.run.policy.limits.max_stage_bytes
        self._size_bytes = 0
        self._are_candidates: bool | None = None
        self._packed: list[bytes] = []
        self._live: dict[str, list[Any]] = {}
        self._ordinals: list[int] | None = None
        self._facts: dict[str, Any] = {}
        self._are_records = True

    def add(self, item: Any) -> None:
        """Take an item as it is now."""
        self.count += 1
        if self._size_bytes > self._max_bytes:
            return
        alone = [item]
        if self._are_candidates is None:
            parts = candidates_in(self.stage.spec.stage_type, alone)
            self._are_candidates = len(parts) == 1 and parts[0] is alone
        if not self._are_candidates:
            self._keep(bytes(snapshot(item)))
            return
        taken = take(alone, self.stage, self.stage.spec.fields)
        if taken.packed[:1] != _ONE:
            taken = Taken(snapshot(alone))
        if self._keep(bytes(taken.packed)[1:], _LIVE_VALUE_BYTES * len(taken.live or ())):
            self._keep_plan(item, taken)

    def _keep(self, packed: bytes, beside_bytes: int = 0) -> bool:
        self._size_bytes += len(packed) + beside_bytes
        if self._size_bytes > self._max_bytes:
            return False
        self._packed.append(packed)
        return True

    def _keep_plan(self, item: Any, taken: Taken) -> None:
        before = len(self._packed) - 1
        self._are_records = self._are_records and taken.are_records
        self._facts.update(taken.facts or {})
        live = taken.live or {}
        for name in live.keys() - self._live.keys():
            self._live[name] = [MISSING] * before
        for name, values in self._live.items():
            values.append(live[name][0] if name in live else MISSING)
        # As for a list, the first one tells whether the candidates have ids.
        if before == 0:
            self._ordinals = taken.ordinals
        elif self._ordinals is not None:
            self._ordinals += taken.ordinals or self.stage.run.ordinals([core(item)])

    def close(self, value: Any, *, abandoned: bool) -> None:
        """Give the stage what was taken.

        Args:
            value: What the generator returned.
            abandoned: Whether its consumer went away before its end.
        """
        stage = self.stage
        facts: dict[str, Any] = {"yielded": self.count}
        if abandoned:
            facts["abandoned"] = True
        left_out = self.count - len(self._packed)
        if left_out:
            facts["yielded_beyond_limit"] = left_out
            stage.markers = [*stage.markers, {"path": "candidates", "kind": "candidates", "size": self.count}]
            stage.run.lessen("truncated")
        stage.facts = {**(stage.facts or {}), **facts}
        if self._are_candidates is None:
            self._are_candidates = len(candidates_in(stage.spec.stage_type, [])) == 1
        packed = _array(self._packed)
        if not self._are_candidates:
            stage.went = packed if value is None else snapshot(value)
            return
        taken = Taken(packed, are_records=self._are_records and bool(self._packed))
        taken.live = self._live or None
        taken.ordinals = self._ordinals
        taken.facts = self._facts or None
        stage.taken_out = (taken,)
        if value is not None:
            stage.went = snapshot(value)


class RunItems:
    """What a run yielded: its output where it returns nothing else; a marker where that is much.

    Args:
        recording: The run.
    """

    def __init__(self, recording: RunRecording) -> None:
        self.recording = recording
        self._count = 0
        self._packed: list[bytes] = []
        self._size_bytes = 0
        self._max_items = runtime.settings.large_value_items
        self._max_bytes = recording.run.policy.limits.max_value_bytes

    def add(self, item: Any) -> None:
        """Take an item as it is now."""
        self._count += 1
        if self._count <= self._max_items and self._size_bytes <= self._max_bytes:
            packed = bytes(snapshot(item))
            self._size_bytes += len(packed)
            self._packed.append(packed)
        else:
            self._packed.clear()

    def output(self, value: Any) -> bytes | bytearray:
        """The snapshot of what the run gave.

        Args:
            value: What the generator returned.
        """
        if value is not None:
            return packed_output(value)
        if len(self._packed) < self._count:
            return snapshot(marker(f"generator of {self._count} items"))
        return _array(self._packed)


_ONE = b"\x91"
"""The head of a msgpack array of one item."""


def _array(packed: list[bytes]) -> bytes:
    """The msgpack of a list of items that are msgpack already."""
    return msgspec.msgpack.encode([msgspec.Raw(piece) for piece in packed])
