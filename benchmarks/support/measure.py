"""How it is measured: the recorders take turns within one run, so that a noisy moment hits them all alike."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median, quantiles

import xray
from support.recorders import DISABLED, ORJSON, OTEL, PLAIN, Recorder, decorated, in_run
from support.sink import Arrived, Sink
from support.workload import POOLS, judge


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure of a size: rounds and calls in a round, of the caller's thread and of processor time.

    Small calls are delivered once a round, so that the recorders' turns lie close together: machines slow down for some
    milliseconds at a time. A round is far shorter than the half second after which a worker sends by itself. Large
    calls are delivered after each recorder's turn, lest one recorder's worker takes time from the others.
    """

    rounds: int
    calls: int
    cpu_rounds: int
    cpu_calls: int
    deliver_each: bool = False


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of many calls back to back."""

    recorder: str
    size: int
    calls: int
    arrived: Arrived
    caller_s: float
    delivered_s: float
    buffer_bytes: int | None = None

    @property
    def whole(self) -> bool:
        """Whether every candidate arrived."""
        return (self.arrived.stages, self.arrived.candidates) == (self.calls, self.calls * self.size)


Rounds = dict[str, list[float]]
"""Recorder → microseconds per call, one value a round."""

_LOOP, _LOOP_CALLS = "plain, in a loop", 2000
_BASE: dict[str, str | None] = {DISABLED: _LOOP, ORJSON: None}
"""What to subtract, where it is not the plain call timed alike: orjson alone makes no call."""


def caller_times(recorders: Sequence[Recorder], size: int, effort: Effort) -> Rounds:
    """The caller's thread: the median call of each round.

    A round's few calls go into empty buffers and are delivered after the clock has stopped: what a worker thread takes
    from the caller through the interpreter's lock is a matter of load, and shows in the processor time.
    """
    pool = POOLS[size]
    times: Rounds = {recorder.name: [] for recorder in recorders}
    order = list(recorders)
    for recorder in recorders:
        _record(recorder, size, 1)  # connections and caches
        recorder.deliver()
    for number in range(effort.rounds):
        random.Random(number).shuffle(order)  # nobody always follows the same neighbour
        for recorder in order:
            call = recorder.call
            took = []
            for _ in repeat(None, effort.calls):
                begin = time.perf_counter_ns()
                call(pool)
                took.append(time.perf_counter_ns() - begin)
            times[recorder.name].append(median(took) / 1000)
            recorder.calls[size] += effort.calls
            if effort.deliver_each:
                recorder.deliver()
        for recorder in recorders:
            recorder.deliver()
    return times


def cpu_times(recorders: Sequence[Recorder], size: int, effort: Effort) -> Rounds:
    """Processor time of the whole process, from the first call until everything is delivered."""
    times: Rounds = {recorder.name: [] for recorder in recorders}
    for _ in range(effort.cpu_rounds):
        for recorder in recorders:
            gc.collect()
            begin = time.process_time_ns()
            _record(recorder, size, effort.cpu_calls)
            recorder.deliver()
            times[recorder.name].append((time.process_time_ns() - begin) / effort.cpu_calls / 1000)
    return times


def disabled_times(size: int, rounds: int, clock: Callable[[], int]) -> Rounds:
    """A plain call and one of a decorated function while X-Ray is disabled, timed by the loop: a clock costs more.

    Args:
        size: The number of candidates.
        rounds: How many rounds.
        clock: ``time.perf_counter_ns`` or ``time.process_time_ns``.
    """
    pool = POOLS[size]
    stage = decorated("full")
    times: Rounds = {_LOOP: [], DISABLED: []}
    for _ in range(rounds):
        xray.configure(enabled=False)
        for name, call in ((_LOOP, judge), (DISABLED, stage)):
            call(pool)
            begin = clock()
            for _ in repeat(None, _LOOP_CALLS):
                call(pool)
            times[name].append((clock() - begin) / _LOOP_CALLS / 1000)
        xray.configure(enabled=True)
    return times


def burst(recorder: Recorder, size: int, calls: int, sink: Sink, buffer_bytes: int | None = None) -> Burst:
    """Many calls back to back, and what of them is at the sink in the end."""
    assert recorder.sent_as is not None
    recorder.deliver()
    sink.clear()
    gc.collect()
    pool, call = POOLS[size], recorder.call

    def work() -> None:
        for _ in repeat(None, calls):
            call(pool)

    begin = time.perf_counter()
    if recorder.name == OTEL:
        work()
    else:
        in_run(work)
    caller_s = time.perf_counter() - begin
    recorder.deliver()
    delivered_s = time.perf_counter() - begin
    return Burst(recorder.name, size, calls, sink.arrived(recorder.sent_as), caller_s, delivered_s, buffer_bytes)


def over_plain(times: Rounds, name: str) -> float:
    """The median cost over a plain call."""
    return median(_costs(times, name))


def ratios(times: Rounds, name: str, yardstick: str) -> list[float]:
    """How many times the yardstick it costs, round by round: what slows a whole round down cancels out."""
    return [cost / of for cost, of in zip(_costs(times, name), _costs(times, yardstick), strict=True)]


def ratio(times: Rounds, name: str, yardstick: str) -> float:
    """How many times the yardstick it costs: the median of the rounds."""
    return median(ratios(times, name, yardstick))


def spread(times: Rounds, name: str, yardstick: str) -> tuple[float, float]:
    """Between which ratios the middle half of the rounds lies: how much the machine wavered."""
    low, _, high = quantiles(ratios(times, name, yardstick), n=4)
    return low, high


def _costs(times: Rounds, name: str) -> list[float]:
    base = _BASE.get(name, PLAIN)
    if base is None:
        return times[name]
    return [taken - plain for taken, plain in zip(times[name], times[base], strict=True)]


def _record(recorder: Recorder, size: int, calls: int) -> None:
    pool, call = POOLS[size], recorder.call
    for _ in repeat(None, calls):
        call(pool)
    recorder.calls[size] += calls
