"""What users say from inside a stage: verdicts, scores, notes, model calls, counts and metrics of their own."""

from __future__ import annotations

import enum
import threading
from collections.abc import Mapping
from typing import Any

from xray.capture.snapshot import snapshot

MAX_NOTES = 1000
MAX_METRICS = 1000
MAX_PARTS = 10_000


class SaidTooLateError(Exception):
    """Something was said after the end of its stage."""


class Inside:
    """Takes what is said, from any thread of the stage, until the stage has ended; then it is the worker's to read.

    Values are taken as bytes at once, so that later changes do not reach the record. What is said beyond a bound is
    counted in :attr:`lost`, and so is what is said too late, which also raises :class:`SaidTooLateError`.

    Args:
        max_candidates: How many candidates may be spoken of.
        max_bytes: What all of it may weigh. Of a candidate beyond that the verdict and scores are kept, its data not.
    """

    def __init__(self, max_candidates: int, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._max_candidates = max_candidates
        self._max_bytes = max_bytes
        self.said: dict[str, dict[str, Any]] = {}
        """Candidate id → ``verdict``, ``reason_label``, ``reason_text``, ``score``, ``scores``."""
        self.candidates: dict[str, bytes | bytearray] = {}
        """Candidate id → the candidate as it was when it was first spoken of."""
        self.values: dict[str, bytes | bytearray] = {}
        """``input``, ``output``, ``llm`` and ``metadata`` as bytes."""
        self.notes: list[str] = []
        self.counted: tuple[int, int | None] | None = None
        self.metrics: dict[str, float] = {}
        self.lost = 0
        self.size_bytes = 0

    def close(self) -> None:
        """The stage has ended."""
        with self._lock:
            self._closed = True

    def judge(self, key: str, candidate: Any, verdict: str, label: Any, text: Any) -> None:
        """Take a verdict with its reason, in place of an earlier one."""
        said = {"verdict": verdict, "reason_label": _word(label), "reason_text": _word(text)}
        self._of_candidate(key, candidate, said)

    def add_score(self, key: str, candidate: Any, value: Any, name: str | None) -> None:
        """Take a score, or one of several under a name."""
        number = _number(value)
        self._of_candidate(key, candidate, {"score": number} if name is None else {"scores": {str(name): number}})

    def add_note(self, text: Any) -> None:
        """Take a line of prose."""
        line = str(text)
        with self._lock:
            if not self._refuses(len(self.notes) >= MAX_NOTES, len(line)):
                self.notes.append(line)

    def set_reasoning(self, text: Any) -> None:
        """Take prose in place of what was noted so far."""
        prose = str(text)
        with self._lock:
            if not self._refuses(size_bytes=len(prose)):
                self.notes = [prose]

    def add_llm(self, facts: Mapping[str, Any]) -> None:
        """Take what is known of a model call; a later call adds to it."""
        self._merge("llm", facts)

    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Take small facts."""
        self._merge("metadata", metadata)

    def set(self, name: str, value: Any) -> None:
        """Take an input or output."""
        data = snapshot(value)
        with self._lock:
            if not self._refuses(size_bytes=len(data)):
                self.values[name] = data

    def set_counts(self, seen: int, passed: int | None) -> None:
        """Take counts."""
        counted = (int(seen), None if passed is None else int(passed))
        with self._lock:
            if not self._refuses():
                self.counted = counted

    def set_metric(self, name: str, value: Any) -> None:
        """Take a metric."""
        number = _number(value)
        with self._lock:
            if not self._refuses(name not in self.metrics and len(self.metrics) >= MAX_METRICS):
                self.metrics[str(name)] = number

    def _merge(self, name: str, facts: Mapping[str, Any]) -> None:
        data = snapshot(dict(facts))
        with self._lock:
            if not self._refuses(len(self.values) >= MAX_PARTS, len(data)):
                # Kept apart and merged by the worker: decoding has no place on the caller's thread.
                self.values[f"{name}.{len(self.values)}"] = data

    def _of_candidate(self, key: str, candidate: Any, said: dict[str, Any]) -> None:
        data = None
        if key not in self.candidates and not isinstance(candidate, (str, int, float)):
            data = snapshot(candidate)
        with self._lock:
            if self._refuses(key not in self.said and len(self.said) >= self._max_candidates):
                return
            known = self.said.setdefault(key, {})
            scores = said.pop("scores", None)
            for name, value in said.items():
                if value is None:
                    known.pop(name, None)
                else:
                    known[name] = value
            if scores:
                known.setdefault("scores", {}).update(scores)
            self.size_bytes += 100
            if data is not None and key not in self.candidates and not self._refuses(size_bytes=len(data)):
                self.candidates[key] = data

    def _refuses(self, full: bool = False, size_bytes: int = 0) -> bool:
        if self._closed:
            self.lost += 1
            raise SaidTooLateError
        if full or self.size_bytes + size_bytes > self._max_bytes:
            self.lost += 1
            return True
        self.size_bytes += size_bytes
        return False


def _word(value: Any) -> str | None:
    if isinstance(value, enum.Enum):
        value = value.value
    return None if value is None else str(value)


def _number(value: Any) -> float:
    """An int or float; other numbers (NumPy's, decimals, flags) as one of these.

    Raises:
        TypeError: It is no number.
    """
    if isinstance(value, str):
        raise TypeError(f"{value!r} is text, not a number")
    number = value.item() if hasattr(value, "item") else value
    if type(number) is int or type(number) is float:
        return number
    return int(number) if isinstance(number, int) else float(number)
