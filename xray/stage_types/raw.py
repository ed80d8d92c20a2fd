"""The raw stage type: any input and output, no candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xray.capture.call import StageCall
from xray.hookspecs import hookimpl
from xray.metrics import MetricValue
from xray.stage_types.base import Columns, StageType


class RawStage(StageType):
    """Records what went in and what came out, as it is."""

    name = "raw"
    meaning = "Any step: what went in and what came out."
    takes_candidates = False

    def candidates_in(self, result: Any) -> Sequence[Sequence[Any]]:
        """None: the result is recorded whole."""
        return []

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`."""
        return Columns([])

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; there is only the duration."""
        return {}


@hookimpl
def xray_stage_types() -> list[StageType]:
    """The raw stage type."""
    return [RawStage()]
