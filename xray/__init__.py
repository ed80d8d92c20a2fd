"""X-Ray: why did my pipeline decide this?

Put ``@pipeline``, ``@entrypoint`` and one decorator per stage on the methods you have; what they decide is recorded
and can be asked about. Importing this package starts nothing and loads nothing of the service.
"""

from xray import q
from xray.blocks import run
from xray.capture.policy import RunOutcome
from xray.decorators import entrypoint, pipeline, stage
from xray.exceptions import XRayError
from xray.hand_built import Run, Stage
from xray.hookspecs import hookimpl
from xray.inside import accept, current_stage, llm, note, propagate, reject, score
from xray.markers import Candidates, RawInput
from xray.runtime import configure, flush, stats
from xray.stage_decorators import (
    filtering_stage,
    generation_stage,
    ranking_stage,
    raw_stage,
    retrieval_stage,
    scoring_stage,
    selection_stage,
)

__all__ = [
    "Candidates",
    "RawInput",
    "Run",
    "RunOutcome",
    "Stage",
    "XRayError",
    "accept",
    "configure",
    "current_stage",
    "entrypoint",
    "filtering_stage",
    "flush",
    "generation_stage",
    "hookimpl",
    "llm",
    "note",
    "pipeline",
    "propagate",
    "q",
    "ranking_stage",
    "raw_stage",
    "reject",
    "retrieval_stage",
    "run",
    "score",
    "scoring_stage",
    "selection_stage",
    "stage",
    "stats",
]
