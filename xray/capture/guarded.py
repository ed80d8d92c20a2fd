"""Looking at values that may raise whenever they are looked at: what cannot be read well is still recorded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xray.capture.plain import plain
from xray.capture.snapshot import snapshot
from xray.capture.taken import Taken

if TYPE_CHECKING:
    from xray.stage_types.base import StageType

log = logging.getLogger("xray")


def taken_plainly(items: Sequence[Any], stage_name: str, error: Exception) -> Taken:
    """Candidates that could not be taken as what they are, as plain values.

    Args:
        items: The candidates.
        stage_name: The stage's name, for the log.
        error: What went wrong.
    """
    log.debug("X-Ray: candidates of the stage %s cannot be read", stage_name, exc_info=error)
    copied = plain(items)
    # A list of one's own type is no hindrance, a list that only says to be one is one candidate.
    taken = Taken(snapshot(copied if isinstance(copied, list) else [copied]))
    taken.facts = {"candidates_unreadable": type(error).__name__}
    return taken


def candidates_in(stage_type: StageType, result: Any) -> Sequence[Any]:
    """The lists of candidates in a result; none where a look at it raises."""
    try:
        return stage_type.candidates_in(result)
    except Exception:
        log.debug("X-Ray: a result of a %s stage cannot be looked at", stage_type.name, exc_info=True)
        return []
