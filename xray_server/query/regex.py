"""``$regex``: patterns in RE2's syntax, whose time grows with the text alone, whatever the pattern."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2

from xray.exceptions import QueryError

MAX_PATTERN = 1000
"""Characters."""

FLAGS = "ims"
_MEMORY_BYTES = 1 << 20
"""What one compiled pattern may take."""

_NOT_IN_RE2 = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?>": "an atomic group",
    "(?(": "a conditional group",
    "(?P=": "a back-reference",
}


def finder(pattern: str, flags: str) -> Callable[[Any], bool]:
    """A function that says whether the pattern is found in a value; in what is no text it never is.

    Args:
        pattern: The pattern, known to be valid.
        flags: Some of :data:`FLAGS`.
    """
    search = _compiled(pattern, flags).search
    return lambda value: type(value) is str and search(value.encode("utf-8", "replace")) is not None


def check_pattern(pattern: str, flags: str, path: str) -> None:
    """Hold a pattern to what RE2 takes.

    Args:
        pattern: The pattern.
        flags: Some of :data:`FLAGS`.
        path: Where it stands in the question.

    Raises:
        QueryError: It is too long, malformed, or needs what RE2 does not have.
    """
    if len(pattern) > MAX_PATTERN:
        raise QueryError(f"A pattern has at most {MAX_PATTERN} characters.", code="too_large", path=path)
    try:
        _compiled(pattern, flags)
    except re2.error as error:
        said = error.args[0]
        problem = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise QueryError(
            f"The pattern is not valid: {problem}.", code="bad_pattern", path=path, hint=_hint(pattern, problem)
        ) from None


def _hint(pattern: str, problem: str) -> str | None:
    for opening, name in _NOT_IN_RE2.items():
        if opening in pattern and "perl operator" in problem:
            return f"Patterns are RE2's, which has no {name.removeprefix('a ').removeprefix('an ')}."
    if "escape sequence" in problem and problem[-1:].isdigit():
        return "Patterns are RE2's, which has no back-reference."
    if "repetition operator" in problem:
        return "Patterns are RE2's, which has no possessive repetition."
    if "too large" in problem or "repetition size" in problem:
        return "Repeat less: a repetition counts to 1000 at the most."
    return None


@lru_cache(maxsize=64)
def _compiled(pattern: str, flags: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MEMORY_BYTES
    prefix = f"(?{flags})" if flags else ""
    return re2.compile((prefix + pattern).encode(), options)
