"""Taking candidates that may raise whenever they are looked at: what cannot be read well is still recorded."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from xray.capture import live
from xray.capture.plain import plain
from xray.capture.snapshot import snapshot

if TYPE_CHECKING:
    from xray.capture.stage import StageSpec
    from xray.context import ActiveRun
    from xray.stage_types.base import StageType

log = logging.getLogger("xray")


def take(items: Sequence[Any], spec: StageSpec, run: ActiveRun, fields: Collection[str]) -> live.Taken:
    """Take a list of candidates as :func:`xray.capture.live.take` does; where that fails, as plain values.

    Args:
        items: The candidates.
        spec: The decorator.
        run: The run, for identities.
        fields: The fields that will be asked for.
    """
    try:
        return live.take(items, spec, run, fields)
    except Exception as error:
        log.debug("X-Ray: candidates of the stage %s cannot be read", spec.name, exc_info=True)
        taken = live.Taken()
        # A list of one's own type is no hindrance, a list that only says to be one is one candidate.
        copied = plain(items)
        taken.packed = snapshot(copied if isinstance(copied, list) else [copied])
        taken.facts = {"candidates_unreadable": type(error).__name__}
        return taken


def candidates_in(stage_type: StageType, result: Any) -> Sequence[Any]:
    """The lists of candidates in a result; none where a look at it raises."""
    try:
        return stage_type.candidates_in(result)
    except Exception:
        log.debug("X-Ray: a result of a %s stage cannot be looked at", stage_type.name, exc_info=True)
        return []
