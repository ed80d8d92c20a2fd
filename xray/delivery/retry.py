"""When to try again: exponential backoff with full jitter, and a circuit breaker."""

from __future__ import annotations

import random

OPEN_AFTER_FAILURES = 3
OPEN_AFTER_S = 1.0
"""Failures in a row, and seconds since the first of them, after which the breaker opens."""

_FIRST_WAIT_S = 0.2
_MAX_WAIT_S = 30.0
_MAX_RETRY_AFTER_S = 300.0
_HURRIED_WAIT_S = 1.0


class Breaker:
    """Knows how the last tries ended, and from that when the next one is due.

    While it is closed, everything is tried; after a failure, when the wait is over. Once it is open, what is recorded
    need not wait in memory: only one probe is made after each wait. Times are of the monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._first_failure = 0.0
        self._last_failure = 0.0
        self._told_to_wait = False
        self.next_try = 0.0
        """When the next try is due."""

    @property
    def has_failed(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def opens_at(self) -> float:
        """When the breaker opens unless something succeeds; only to be asked after a failure."""
        return self._first_failure if self._failures >= OPEN_AFTER_FAILURES else self._first_failure + OPEN_AFTER_S

    def is_open(self, now: float) -> bool:
        """Whether the other side is taken to be away."""
        return self._failures > 0 and now >= self.opens_at()

    def may_try(self, now: float) -> bool:
        """Whether a try is due."""
        return self._failures == 0 or now >= self.next_try

    def failed(self, now: float, retry_after_s: float | None = None, *, for_long: bool = False) -> None:
        """A try failed.

        Args:
            now: The time.
            retry_after_s: How long the other side asks to be left alone.
            for_long: Whether it is known that trying again soon is of no use.
        """
        if not self._failures:
            self._first_failure = now
        self._failures = max(self._failures + 1, OPEN_AFTER_FAILURES if for_long else 0)
        self._last_failure = now
        self._told_to_wait = retry_after_s is not None
        if retry_after_s is not None:
            wait_s = min(retry_after_s, _MAX_RETRY_AFTER_S)
        else:
            ceiling = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._failures, 10))
            wait_s = random.uniform(0, ceiling)  # noqa: S311 - jitter, not a secret
        self.next_try = now + wait_s

    def succeeded(self) -> bool:
        """A try succeeded; whether the one before had failed."""
        had_failed = self._failures > 0
        self._failures = 0
        self.next_try = 0.0
        return had_failed

    def hurry(self) -> None:
        """Somebody waits: try soon, unless the other side asked to be left alone."""
        if self._failures and not self._told_to_wait:
            self.next_try = min(self.next_try, self._last_failure + _HURRIED_WAIT_S)
