"""Markers that say, inside ``Annotated``, what a parameter of a decorated callable is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidates:
    """The parameter holds the candidates that come in.

    Args:
        name: The name under which they are recorded; the parameter's own name where it is left out.
    """

    name: str | None = None


@dataclass(frozen=True, slots=True)
class RawInput:
    """The parameter is recorded as it is, whatever its size.

    Args:
        name: The name under which it is recorded; the parameter's own name where it is left out.
    """

    name: str | None = None
