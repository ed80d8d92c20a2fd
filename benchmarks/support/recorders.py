"""Who records the same call: orjson alone, OpenTelemetry's SDK, and X-Ray at each tier."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import xray
from support.workload import POOLS, RESULTS, Pool, judge

FLUSH_TIMEOUT_S = 120.0

PLAIN = "plain call"
ORJSON = "orjson.dumps"
OTEL = "OpenTelemetry"
FULL, SAMPLED, SUMMARY, DISABLED = (f"X-Ray {tier}" for tier in ("full", "sampled", "summary", "disabled"))


def nothing() -> None:
    """What a recorder that sends nothing does to deliver."""


@dataclass(slots=True)
class Recorder:
    """One way to record the call.

    Args:
        name: What the tables call it.
        call: The recorded call.
        deliver: Waits until everything recorded is at the sink.
        sent_as: The stage's or span's name at the sink, or None where nothing is sent.
        whole: Whether every candidate is sent, or only what the tier keeps.
    """

    name: str
    call: Callable[[Pool], Any]
    deliver: Callable[[], object] = nothing
    sent_as: str | None = None
    whole: bool = True
    calls: dict[int, int] = field(default_factory=lambda: dict.fromkeys(POOLS, 0))

    def expected(self) -> tuple[int, int]:
        """Stages and candidates that were recorded so far."""
        return sum(self.calls.values()), sum(size * calls for size, calls in self.calls.items())


def plain() -> Recorder:
    return Recorder(PLAIN, judge)


def orjson_alone() -> Recorder:
    def dump(pool: Pool) -> None:
        orjson.dumps(pool)
        orjson.dumps(RESULTS[len(pool)])

    return Recorder(ORJSON, dump)


def open_telemetry(url: str) -> tuple[Recorder, TracerProvider]:
    """A span with inputs and outputs as JSON, as people write it by hand; all settings at their defaults."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what it drops is counted at the sink instead
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
    tracer = provider.get_tracer("benchmark")

    def traced(pool: Pool) -> Pool:
        with tracer.start_as_current_span("judge_otel") as span:
            span.set_attribute("input", orjson.dumps(pool).decode())
            result = judge(pool)
            span.set_attribute("output", orjson.dumps(result).decode())
            return result

    return Recorder(OTEL, traced, provider.force_flush, "judge_otel"), provider


def decorated(tier: str) -> Callable[[Pool], Pool]:
    """The stage at a tier."""
    stage: Callable[[Pool], Pool] = xray.filtering_stage(
        f"judge_{tier}", id="id", passed="passed", reason_label="reason", capture=tier
    )(judge)
    # A decorator that cannot do what it was told gives the function back as it was.
    assert stage is not judge, f"The tier '{tier}' was refused."
    return stage


def xray_tier(tier: str) -> Recorder:
    """X-Ray at a tier."""
    return Recorder(f"X-Ray {tier}", decorated(tier), deliver_xray, f"judge_{tier}", tier == "full")


def deliver_xray() -> None:
    """Wait until everything is at the sink; a loss shows in the counts there."""
    xray.flush(FLUSH_TIMEOUT_S)


@xray.pipeline("benchmark")
def in_run(work: Callable[[], None]) -> None:
    """Do the work inside a run, as stages are called."""
    work()
