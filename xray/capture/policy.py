"""What is kept of what is seen: the capture tier, the redaction rules and the limits of a stage.

A policy is put together from three levels: the process's settings, the pipeline's decorator, the stage's decorator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xray.capture.limits import Limits
from xray.capture.redact import Redactor
from xray.sampling import Capture, Strategy, parse_capture

CaptureChoice = str | Strategy | None
"""``"full"``, ``"sampled"``, ``"summary"``, or a strategy such as ``top(10) | random(5)``."""

RedactChoice = Any
"""A name, a pattern, a callable, or a list of them; see ``xray.capture.redact.Redactor``."""

FULL = Capture("full", None)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept of a stage.

    Args:
        capture: The tier, and the strategy that chooses a sample.
        redactor: What is made unreadable before anything leaves the process, or None.
        limits: How much of a stage is kept at the most.
    """

    capture: Capture = FULL
    redactor: Redactor | None = None
    limits: Limits = field(default_factory=Limits)

    def refined(self, capture: CaptureChoice, redact: RedactChoice) -> Policy:
        """This policy with what an inner level says: its tier wins, its redaction rules come on top.

        Args:
            capture: The inner level's tier or strategy, or None.
            redact: The inner level's rules, or None.

        Raises:
            ConfigurationError: One of them cannot be.
        """
        if capture is None and redact is None:
            return self
        rules = [self.redactor] if self.redactor is not None else []
        if redact is not None:
            rules.append(Redactor(redact))
        return Policy(
            capture=self.capture if capture is None else parse_capture(capture),
            redactor=Redactor.of(*rules) if rules else None,
            limits=self.limits,
        )


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What is known of a run at its end, for ``keep_if``.

    Args:
        label: The pipeline's label.
        key: The user's own id of the run.
        status: ``success`` or ``failure``.
        error: ``{type, message, …}`` where it failed.
        duration_ms: How long it took.
        stage_count: How many stages it had.
    """

    label: str
    key: str | None
    status: str
    error: Mapping[str, Any] | None
    duration_ms: float
    stage_count: int


KeepIf = Callable[[RunOutcome], bool]
"""Decides at the end of a run whether it is kept although it was not sampled."""


def keep_failures(outcome: RunOutcome) -> bool:
    """Keep runs that failed: ``keep_if="failure"``."""
    return outcome.status == "failure"
