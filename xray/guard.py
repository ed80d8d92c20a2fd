"""Calling what plugins bring: errors are caught, time is measured, and what takes too long too often is switched off.

Python cannot interrupt a thread. So a call on the caller's thread is measured, and not made again once it overran its
budget some times. A call on the worker's thread, or in the service, is made on a thread of its own that is waited for
until a deadline; one that goes on beyond it is left behind there, and what waited for it goes on without it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from xray.exceptions import PluginError

log = logging.getLogger("xray")

T = TypeVar("T")

CALL_BUDGET_S = 0.005
"""What a call on the caller's thread, or for one value, may take."""

DEADLINE_S = 2.0
"""What a call for all candidates of a stage may take, on the worker's thread or in the service."""

SERVICE_DEADLINE_S = 10.0
"""What a call may take that waits for others: an exporter's, an analyzer's, an alert's delivery."""

MAX_OVERRUNS = 5
"""How many overruns among ``WINDOW_CALLS`` calls switch a hook off."""

WINDOW_CALLS = 100


class SwitchedOffError(PluginError):
    """What a plugin brings is not called any more, because it took too long too often."""

    default_code = "plugin_switched_off"


class OverrunError(PluginError):
    """What a plugin brings was not done at its deadline."""

    default_code = "plugin_overrun"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the calls of one thing that a plugin brings.

    Args:
        plugin: The plugin's name.
        what: What was called: ``stage type dedup: extract``.
        calls: How often.
        failures: How often it raised, or gave what it must not.
        overruns: How often it took longer than its budget.
        slowest_ms: The longest call that ended.
        switched_off: Whether it is called no more.
        message: The last thing that went wrong, or None.
    """

    plugin: str
    what: str
    calls: int
    failures: int
    overruns: int
    slowest_ms: float
    switched_off: bool
    message: str | None


class Guard:
    """One thing that a plugin brings, and what became of its calls.

    Args:
        plugin: The plugin's name.
        what: What is called, for the log and for reports.
        budget_s: How long a call may take.
    """

    def __init__(self, plugin: str, what: str, budget_s: float) -> None:
        self.plugin = plugin
        self.what = what
        self.budget_s = budget_s
        self.switched_off = False
        self._lock = threading.Lock()
        self._calls = self._failures = self._overruns = 0
        self._window_calls = self._window_overruns = 0
        self._slowest_s = 0.0
        self._message: str | None = None

    def call(self, function: Callable[..., T], *args: Any, expected: tuple[type[Exception], ...] = ()) -> T:
        """Call it here and now, and measure it.

        Args:
            function: What is called.
            args: What it is called with.
            expected: What it may raise as its answer, which is no failure of its.

        Raises:
            SwitchedOffError: It is called no more.
            Exception: What it raised; it is counted.
        """
        self._refuse_if_off()
        started = time.perf_counter()
        try:
            return function(*args)
        except Exception as error:
            if not isinstance(error, expected):
                self.failed(error)
            raise
        finally:
            self._took(time.perf_counter() - started)

    def call_within(self, function: Callable[..., T], *args: Any) -> T:
        """Call it on a thread of its own, and wait for it until its deadline.

        Raises:
            SwitchedOffError: It is called no more.
            OverrunError: It was not done in time; its thread goes on until it returns.
            Exception: What it raised; it is counted.
        """
        self._refuse_if_off()
        started = time.perf_counter()
        try:
            done = _threads.run(lambda: function(*args), self.budget_s)
        except RuntimeError:
            return self.call(function, *args)  # no thread can be started while the interpreter ends
        if done is None:
            self._took(time.perf_counter() - started, ended=False)
            raise OverrunError(f"It was not done within {self.budget_s:g} s.")
        self._took(time.perf_counter() - started)
        if done.error is not None:
            self.failed(done.error)
            raise done.error
        result: T = done.result
        return result

    def failed(self, error: Exception) -> None:
        """Count that it raised, or gave what it must not; said once."""
        with self._lock:
            self._failures += 1
            is_first = self._failures == 1
            self._message = f"{type(error).__name__}: {error}"[:500]
        if is_first:
            log.warning("X-Ray: %s of the plugin %s failed: %s", self.what, self.plugin, self._message)

    def report(self) -> Report:
        """What became of the calls so far."""
        with self._lock:
            return Report(
                self.plugin, self.what, self._calls, self._failures, self._overruns,
                round(self._slowest_s * 1000, 3), self.switched_off, self._message,
            )  # fmt: skip

    def _refuse_if_off(self) -> None:
        if self.switched_off:
            raise SwitchedOffError(f"It took too long too often: {self._overruns} times over {self.budget_s:g} s.")

    def _took(self, seconds: float, *, ended: bool = True) -> None:
        with self._lock:
            self._calls += 1
            self._window_calls += 1
            if self._window_calls > WINDOW_CALLS:
                self._window_calls, self._window_overruns = 1, 0
            if ended:
                self._slowest_s = max(self._slowest_s, seconds)
                if seconds <= self.budget_s:
                    return
            self._overruns += 1
            self._window_overruns += 1
            self._message = f"It took {'' if ended else 'more than '}{seconds:.3g} s; it may take {self.budget_s:g} s."
            if self.switched_off or self._window_overruns < MAX_OVERRUNS:
                return
            self.switched_off = True
        log.warning(
            "X-Ray: %s of the plugin %s is switched off in this process: %d of its last %d calls took longer than "
            "%g s, the slowest %.3g s.",
            self.what,
            self.plugin,
            self._window_overruns,
            self._window_calls,
            self.budget_s,
            max(seconds, self._slowest_s),
        )


@dataclass(slots=True)
class _Done:
    result: Any = None
    error: Exception | None = None


class _Thread:
    """A thread that makes one call after the other; left behind with the call that does not end."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._run, name="xray-plugin", daemon=True).start()

    def _run(self) -> None:
        while True:
            job = self.jobs.get()
            if job is None:
                return
            function, answers = job
            try:
                done = _Done(function())
            except Exception as error:
                done = _Done(error=error)
            except BaseException as error:  # SystemExit and its like end nobody's thread here
                done = _Done(error=PluginError(f"{type(error).__name__}: {error}"))
            answers.put(done)
            del job, function, answers, done  # what was called with is not kept until the next call


class _Threads:
    """The threads that wait for calls."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []
        self._pid = os.getpid()

    def run(self, function: Callable[[], Any], deadline_s: float) -> _Done | None:
        """Make a call; None where it does not end in time."""
        if self._pid != os.getpid():  # a forked child has none of the parent's threads
            self._idle, self._pid = [], os.getpid()
        try:
            thread = self._idle.pop()  # one step, so that two threads never take the same one
        except IndexError:
            thread = _Thread()
        answers: SimpleQueue[_Done] = SimpleQueue()
        thread.jobs.put((function, answers))
        try:
            done = answers.get(timeout=deadline_s)
        except Exception:  # queue.Empty
            thread.jobs.put(None)  # it ends when the call does
            return None
        self._idle.append(thread)
        return done


_threads = _Threads()
