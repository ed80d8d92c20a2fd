"""What recording a call costs, against ``orjson.dumps`` of the same values and against OpenTelemetry's SDK.

Run: ``python benchmarks/call_overhead.py [--quick] [--json] [--one-by-one]``, or ``--profile [TIER]`` to see where the
time goes.

The recorded call is a filtering stage over dicts of five fields that gives each ``passed`` and ``reason``. Everything
recorded is sent over HTTP to a process that decodes and counts it; the script fails where a candidate was lost. A goal
that is missed is said, and fails nothing: ratios on a busy machine are no verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from support.measure import Burst, Effort, burst, caller_times, cpu_times, disabled_times
from support.profiling import profile
from support.recorders import Recorder, in_run, open_telemetry, orjson_alone, plain, xray_tier
from support.report import Report, as_json, print_tables
from support.sink import Arrived, Sink

import xray
from xray.capture import fields
from xray.settings import load_settings

EFFORTS = {
    1: Effort(500, 10, 9, 1000),
    100: Effort(300, 5, 9, 200),
    5000: Effort(80, 1, 9, 10, deliver_each=True),
}
QUICK = {
    1: Effort(100, 10, 3, 500),
    100: Effort(60, 5, 3, 50),
    5000: Effort(15, 1, 3, 5, deliver_each=True),
}
BURSTS = {5000: 60, 1: 20_000}
QUICK_BURSTS = {5000: 15, 1: 3000}
RAISED_BUFFER_BYTES = 256 << 20


def run(*, quick: bool) -> Report:
    """Measure everything."""
    begin = time.perf_counter()
    report = Report()
    efforts, bursts = (QUICK, QUICK_BURSTS) if quick else (EFFORTS, BURSTS)
    with Sink() as sink:
        xray.configure(server_url=sink.url)
        otel, provider = open_telemetry(sink.url)
        tiers = list(map(xray_tier, ("full", "sampled", "summary")))
        recorders = [plain(), orjson_alone(), otel, *tiers]

        def measure() -> None:
            with provider.get_tracer("benchmark").start_as_current_span("benchmark"):
                for size, effort in efforts.items():
                    report.caller[size] = caller_times(recorders, size, effort)
                    report.caller[size] |= disabled_times(size, effort.rounds, time.perf_counter_ns)
                    report.cpu[size] = cpu_times(recorders, size, effort)
                    report.cpu[size] |= disabled_times(size, effort.cpu_rounds, time.process_time_ns)

        in_run(measure)
        for recorder in recorders:
            if recorder.sent_as is not None:
                report.arrived[recorder.name] = _compared(recorder, sink)
        for size, calls in bursts.items():
            report.bursts.append(burst(otel, size, calls, sink))
            report.bursts += _xray_burst(tiers[0], size, calls, sink)
        provider.shutdown()
    report.took_s = time.perf_counter() - begin
    return report


def _compared(recorder: Recorder, sink: Sink) -> tuple[Arrived, Arrived]:
    assert recorder.sent_as is not None
    arrived = sink.arrived(recorder.sent_as)
    stages, candidates = recorder.expected()
    # A tier that keeps a part must still have looked at every candidate.
    return Arrived(stages, candidates if recorder.whole else arrived.candidates, candidates), arrived


def _xray_burst(recorder: Recorder, size: int, calls: int, sink: Sink) -> list[Burst]:
    tried = [burst(recorder, size, calls, sink)]
    if not tried[0].whole:
        xray.configure(buffer_bytes=RAISED_BUFFER_BYTES)
        tried.append(burst(recorder, size, calls, sink, RAISED_BUFFER_BYTES))
        xray.configure(buffer_bytes=load_settings()[0].buffer_bytes)
    return tried


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions and smaller bursts")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    parser.add_argument("--one-by-one", action="store_true", help="as where the compiled part was not built")
    parser.add_argument("--profile", nargs="?", const="full", metavar="TIER", help="show where the time goes instead")
    options = parser.parse_args()
    if options.one_by_one:
        fields.take_compiled = None
    if options.profile:
        profile(options.profile)
        return
    report = run(quick=options.quick)
    if options.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        print_tables(report, quick=options.quick)
    if lost := report.lost():
        sys.exit("Lost: " + "; ".join(lost))


if __name__ == "__main__":
    main()
