"""How a process ends or becomes two: exit, SIGTERM, fork, and how ``multiprocessing`` and Celery end a child."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_EXIT_PRIORITY = -100
"""After everything that the user's code may still record at its end."""


class LifeCycle:
    """Sees to it that what is left is delivered when the process ends, and that a forked child begins anew.

    Args:
        at_exit: Delivers what is left; called more than once at times.
        after_fork: Begins anew, in the child.
    """

    def __init__(self, at_exit: Callable[[], None], after_fork: Callable[[], None]) -> None:
        self._at_exit = at_exit
        self._hooked_in: int | None = None
        # Before anything else: a fork may come while the first record is being taken.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=after_fork)

    def hook(self, *, with_sigterm: bool) -> None:
        """The process has something to deliver from now on.

        Args:
            with_sigterm: Whether SIGTERM is to deliver it too, where nobody handles that signal.
        """
        if self._hooked_in != os.getpid():
            if self._hooked_in is None:
                atexit.register(self._at_exit)
            self._hooked_in = os.getpid()
            self._hook_multiprocessing()
            self._hook_celery()
        if with_sigterm:
            self._hook_sigterm()

    def _hook_multiprocessing(self) -> None:
        """A forked child of ``multiprocessing`` ends by ``os._exit``, after the finalizers of its own kind."""
        process: Any = sys.modules.get("multiprocessing.process")
        util: Any = sys.modules.get("multiprocessing.util")
        if process is not None and util is not None and process.parent_process() is not None:
            util.Finalize(None, self._at_exit, exitpriority=_EXIT_PRIORITY)

    def _hook_celery(self) -> None:
        """A child of Celery's prefork pool ends by ``os._exit`` and runs no finalizers, but it says so before."""
        signals: Any = sys.modules.get("celery.signals")
        if signals is not None:
            with contextlib.suppress(Exception):
                signals.worker_process_shutdown.connect(self._on_celery, weak=False, dispatch_uid="xray")

    def _on_celery(self, **_: Any) -> None:
        self._at_exit()

    def _hook_sigterm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may
        with contextlib.suppress(ValueError, OSError, AttributeError):
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Deliver what is left, then end as the signal would have."""
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        ending = threading.Thread(target=self._end, args=(number,), name="xray-sigterm", daemon=True)
        try:
            ending.start()
        except RuntimeError:
            os.kill(os.getpid(), number)
            return
        # Where the main thread was stopped inside X-Ray it may hold a lock that is needed now: it goes on meanwhile.
        if not _is_inside_xray(frame):
            ending.join()

    def _end(self, number: int) -> None:
        try:
            self._at_exit()
        finally:
            os.kill(os.getpid(), number)


def _is_inside_xray(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "xray":
            return True
        frame = frame.f_back
    return False
