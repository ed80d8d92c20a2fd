"""X-Ray: why did my pipeline decide this?

Put ``@pipeline``, ``@entrypoint`` and one decorator per stage on the methods you have; what they decide is recorded
and can be asked about. Importing this package starts nothing and loads nothing of the service.
"""

from xray.decorators import (
    entrypoint,
    filtering_stage,
    generation_stage,
    pipeline,
    ranking_stage,
    raw_stage,
    retrieval_stage,
    scoring_stage,
    stage,
)
from xray.exceptions import XRayError
from xray.hookspecs import hookimpl
from xray.markers import Candidates, RawInput
from xray.runtime import configure, flush, stats

__all__ = [
    "Candidates",
    "RawInput",
    "XRayError",
    "configure",
    "entrypoint",
    "filtering_stage",
    "flush",
    "generation_stage",
    "hookimpl",
    "pipeline",
    "ranking_stage",
    "raw_stage",
    "retrieval_stage",
    "scoring_stage",
    "stage",
    "stats",
]
