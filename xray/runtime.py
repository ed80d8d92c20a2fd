"""The one runtime of a process: its settings, its worker, and what goes wrong inside X-Ray."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.capture.limits import Limits
from xray.capture.policy import Policy
from xray.capture.redact import REDACTED, Redactor
from xray.delivery.life_cycle import LifeCycle
from xray.delivery.stats import Record, Stats
from xray.delivery.transport import Transport
from xray.delivery.worker import Worker
from xray.exceptions import XRayError
from xray.plugins import failures as plugin_failures
from xray.plugins import installed
from xray.settings import Settings, load_settings

if TYPE_CHECKING:
    from xray.delivery.spool import Spool

log = logging.getLogger("xray")


class State:
    """What every decorated call looks at first: whether anything is recorded at all."""

    __slots__ = ("enabled",)

    def __init__(self) -> None:
        self.enabled = True


state = State()
"""The process's state; kept up to date by the runtime."""


class Runtime:
    """Wires settings, worker and transport; everything is made at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._overrides: dict[str, Any] = {}
        self._settings: Settings | None = None
        self._worker: Worker | None = None
        self._transport: Transport | None = None
        self._failures: Counter[str] = Counter()
        self._sampled_out = 0
        self._policy: Policy | None = None
        self._life = LifeCycle(self._at_exit, self._after_fork)
        state.enabled = load_settings()[0].enabled

    @property
    def policy(self) -> Policy:
        """What is kept of stages, as the settings say."""
        policy = self._policy
        if policy is None:
            try:
                policy = _policy_of(self.settings)
            except XRayError as error:  # from the environment: configure() has checked its own
                policy = _policy_in_doubt(self.settings, error)
            self._policy = policy
        return policy

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        settings = self._settings
        if settings is None:
            settings, problems = load_settings(self._overrides)
            for problem in problems:
                log.warning("X-Ray: %s", problem)
            self._settings = settings
        return settings

    def configure(self, *, transport: Transport | None = None, **overrides: Any) -> None:
        """Change settings; see :func:`xray.configure`."""
        merged = {**self._overrides, **overrides}
        settings, _ = load_settings(merged)
        if overrides.get("plugins"):  # first: other settings may name what they bring
            installed().add_modules(settings.plugins)
        _policy_of(settings)  # both raise before anything is changed
        with self._lock:
            worker, self._worker = self._worker, None
            self._overrides = merged
            self._settings = self._policy = None
            state.enabled = settings.enabled
            self._transport = transport if transport is not None else self._transport
            if "server_url" in overrides and transport is None:
                self._transport = None
        if worker is not None:
            worker.stop(self.settings.shutdown_timeout_s)

    def reset(self) -> None:
        """Forget all settings and what was recorded, after sending it; for tests."""
        with self._lock:
            worker, self._worker = self._worker, None
            self._overrides = {}
            self._settings = self._policy = None
            self._sampled_out = 0
            state.enabled = load_settings()[0].enabled
            self._transport = None
            self._failures = Counter()
        if worker is not None:
            worker.stop(0.5)

    def submit(self, record: Record) -> bool:
        """Hand a record to the worker; False, counted, where there is no room."""
        worker = self._worker or self._make_worker()
        if worker.submit(record):
            return True
        record.lost()
        return False

    def flush(self, timeout_s: float) -> bool:
        """See :func:`xray.flush`."""
        worker = self._worker
        return worker.flush(timeout_s) if worker is not None else True

    def stats(self) -> Stats:
        """See :func:`xray.stats`."""
        worker = self._worker
        stats = worker.stats() if worker is not None else Stats(0, 0, 0, 0, {}, {})
        failures = dict(self._failures) | plugin_failures()
        return dataclasses.replace(stats, failures=failures, sampled_out=self._sampled_out)

    def count_sampled_out(self, records: int) -> None:
        """Count records of a run that was held and, at its end, not kept."""
        self._sampled_out += records

    def count_failure(self, step: str) -> None:
        """Count that a step of X-Ray failed inside the user's call; called while the exception is handled."""
        self._failures[step] += 1
        log.log(
            logging.WARNING if self._failures[step] == 1 else logging.DEBUG,
            "X-Ray: %s failed; the call ran as if undecorated. This is said once.",
            step,
            exc_info=True,
        )

    def _make_worker(self) -> Worker:
        settings = self.settings
        with self._lock:
            if self._worker is None:
                # A transport of the user's own may go anywhere: what others left in the spool is not for it.
                has_spool = self._transport is None and settings.spool_dir.lower() != "off"
                self._worker = Worker(
                    self._make_transport,
                    where=settings.server_url,
                    max_records=settings.buffer_records,
                    max_bytes=settings.buffer_bytes,
                    batch_bytes=settings.batch_bytes,
                    flush_interval_s=settings.flush_interval_s,
                    request_timeout_s=settings.connect_timeout_s + settings.request_timeout_s,
                    make_spool=spool_maker(settings) if has_spool else None,
                    spool_first=settings.durability == "spool-first",
                )
                self._life.hook(with_sigterm=settings.handle_sigterm)
            return self._worker

    def _make_transport(self) -> Transport:
        if self._transport is not None:
            return self._transport
        from xray.delivery.http import HttpTransport

        settings = self.settings
        return HttpTransport(
            settings.server_url,
            connect_timeout_s=settings.connect_timeout_s,
            request_timeout_s=settings.request_timeout_s,
        )

    def _at_exit(self) -> None:
        worker = self._worker
        if worker is not None:
            worker.stop(self.settings.shutdown_timeout_s)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.forget()


def spool_maker(settings: Settings) -> Callable[[Callable[[str, int], None]], Spool]:
    """What makes a process's spool.

    Args:
        settings: The settings in force.
    """
    from xray.delivery.spool import Spool
    from xray.delivery.spool_files import destination_of

    # Where the process is now; it may go elsewhere later.
    folder = Path(settings.spool_dir).expanduser().absolute()

    def make(on_lost: Callable[[str, int], None]) -> Spool:
        return Spool(
            folder,
            destination=destination_of(settings.server_url),
            max_bytes=settings.spool_max_bytes,
            max_age_s=settings.spool_max_age_s,
            on_lost=on_lost,
        )

    return make


def _policy_of(settings: Settings) -> Policy:
    limits = Limits(
        max_candidates=settings.max_candidates,
        max_value_bytes=settings.max_value_bytes,
        max_stage_bytes=settings.max_stage_bytes,
        max_text_chars=settings.max_text_chars,
    )
    return Policy(limits=limits).refined(settings.capture, settings.redact or None)


def _policy_in_doubt(settings: Settings, error: XRayError) -> Policy:
    """What holds where the environment says what cannot be: nothing leaves readable that was to be unreadable."""
    try:
        policy = _policy_of(dataclasses.replace(settings, capture="full"))
    except XRayError as redaction:
        log.warning("X-Ray: %s Every value is made unreadable.", redaction)
        return Policy(redactor=Redactor(lambda _path, _value: REDACTED))
    log.warning("X-Ray: %s Everything is captured whole.", error)
    return policy


runtime = Runtime()
"""The process's runtime."""


def configure(*, transport: Transport | None = None, **settings: Any) -> None:
    """Change X-Ray's settings for this process; what was recorded so far is sent first.

    Args:
        transport: Where events go instead of the service at ``server_url``.
        settings: Values by name, see ``xray.settings.SETTINGS``: ``server_url="http://…"``, ``enabled=False``.

    Raises:
        ConfigurationError: A setting is unknown or its value cannot be; nothing was changed.
    """
    runtime.configure(transport=transport, **settings)


def flush(timeout_s: float = 10.0) -> bool:
    """Wait until everything recorded so far is stored.

    Args:
        timeout_s: How long to wait at most.

    Returns:
        True where every record since the last flush is durably stored and can be queried; False where time ran out
        or something was lost, see :func:`stats`.
    """
    return runtime.flush(timeout_s)


def stats() -> Stats:
    """Exact counts of what was recorded, stored, is waiting, and was lost by reason."""
    return runtime.stats()
