"""One run, under way: how it begins, whether it is kept, how it ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any

from xray import ids
from xray.capture.accessors import MISSING, Accessor, compile_accessor
from xray.capture.errors import describe_error, mark_of
from xray.capture.held import Hold, Unnamed
from xray.capture.parameters import Parameters, condensed
from xray.capture.policy import CaptureChoice, KeepIf, RedactChoice, RunOutcome
from xray.capture.records import RunRecord
from xray.capture.snapshot import plain, restore, snapshot, to_json
from xray.capture.spec import StageSpec
from xray.capture.stage import ActiveStage, reset
from xray.context import ActiveRun, current
from xray.runtime import runtime


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """What ``@pipeline`` was given; see :func:`xray.pipeline`."""

    label: str
    key: Accessor | None = None
    version: str | None = None
    environment: str | None = None
    capture: CaptureChoice = None
    redact: RedactChoice = None
    sample_rate: float | None = None
    keep_if: KeepIf | None = None
    tags: tuple[str, ...] = ()


class RunRecording:
    """One run, from its start to its end.

    Args:
        spec: The pipeline.
        key: The user's own id of the run.
        arguments: What the run was given, by name.
        metadata: Small facts to filter by.
        trace: The ids of the same work in a tracing system.
        label_of: Gives the label where it is not known yet; ``spec.label`` holds where it never is. The records wait
            until then, see :class:`xray.capture.held.Unnamed`.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        key: Any,
        arguments: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        trace: dict[str, str] | None = None,
        label_of: Callable[[], str | None] | None = None,
    ) -> None:
        settings = runtime.settings
        rate = settings.sample_rate if spec.sample_rate is None else spec.sample_rate
        self._sampled = rate >= 1 or ids.draw_bits(53) < rate * 2**53
        self._rate = rate
        self._spec = spec
        self._owner: int | None = None
        self._token: Token[Any] | None = None
        self._hold: Hold | None = None
        self._unnamed: Unnamed | None = None
        self.end_metadata: dict[str, Any] = {}
        """Small facts that are known at the end only."""
        self.run = run = ActiveRun(
            spec.label,
            key=None if key is None or key is MISSING else plain(str(key)),
            version=spec.version or settings.version,
            environment=spec.environment or settings.environment,
            policy=runtime.policy.refined(spec.capture, spec.redact),
            recorded=self._sampled or spec.keep_if is not None,
        )
        run.trace = trace
        self._clock_ns = ids.monotonic_ns()
        if not run.recorded:
            return
        if spec.keep_if is not None and rate < 1:
            run.held = self._hold = Hold(settings.hold_bytes)
        if label_of is not None:
            run.held = self._unnamed = Unnamed(run, label_of, self._hold, settings.hold_bytes)
        fields: dict[str, Any] = {"type": "run.start", "id": run.id, "run": run.info}
        if settings.repository:
            fields["repository"] = settings.repository
        if rate < 1:
            fields["sample_rate"] = rate
        if metadata:
            fields["metadata"] = _as_json(metadata)
        if spec.tags:
            fields["tags"] = list(spec.tags)
        small = {name: condensed(value, settings.large_value_items, name, []) for name, value in arguments.items()}
        self._submit(RunRecord(fields, "input", snapshot(small) if small else None, run))

    def enter(self, owner: Any = None) -> RunRecording:
        """Make this the current run of the thread or task, and of the instance that it belongs to."""
        self._token = current.set(self.run)
        if owner is not None:
            self._owner = id(owner)
            active_runs.add(self._owner, self.run)
        return self

    def settle_label(self) -> None:
        """The label is what is known of it now; this never raises."""
        if self._unnamed is not None:
            try:
                self._unnamed.settle()
            except Exception:
                runtime.count_failure("labelling of a run")

    def returned(self, result: Any) -> None:
        """The run returned ``result``; this never raises."""
        output = None
        try:
            if result is not None and self.run.recorded:
                output = packed_output(result)
        except Exception:
            runtime.count_failure("recording of a run's output")
        self.ended(output)

    def ended(self, output: bytes | bytearray | None, error: dict[str, Any] | None = None) -> None:
        """The run ended of itself; this never raises.

        Args:
            output: The snapshot of what it gave, or None.
            error: Why it counts as a failure all the same, or None.
        """
        try:
            self._end("success" if error is None else "failure", error, output)
        except Exception:
            runtime.count_failure("recording of a run's end")

    def raised(self, error: BaseException) -> None:
        """The run raised ``error``; this never raises."""
        try:
            described = describe_error(error)
            if self.run.failed_at is not None and self.run.failed_at[0] == mark_of(error):
                described["stage"] = self.run.failed_at[1]
            self._end("failure", described, None)
        except Exception:
            runtime.count_failure("recording of a run's end")

    def _end(self, status: str, error: dict[str, Any] | None, output: bytes | bytearray | None) -> None:
        duration_ms = (ids.monotonic_ns() - self._clock_ns) / 1e6
        run = self.run
        token, self._token = self._token, None
        if token is not None:
            reset(token, run)
        if self._owner is not None:
            active_runs.remove(self._owner, run)
        run.forget_objects()
        if not run.recorded:
            return
        fields: dict[str, Any] = {
            "type": "run.end",
            "id": run.id,
            "run": run.info,
            "finished_at": ids.now_ms(),
            "duration_ms": duration_ms,
            "status": status,
            "stage_count": run.stage_count,
        }
        if error is not None:
            fields["error"] = error
        if self.end_metadata:
            fields["metadata"] = _as_json(self.end_metadata)
        self._submit(RunRecord(fields, "output", output, run))
        self.settle_label()
        if self._hold is not None and not self._hold.overflowed:
            label, key = str(run.info["label"]), run.info.get("key")
            self._decide(
                self._hold,
                RunOutcome(label, None if key is None else str(key), status, error, duration_ms, run.stage_count),
            )

    def _decide(self, hold: Hold, outcome: RunOutcome) -> None:
        wanted = True
        try:
            assert self._spec.keep_if is not None
            wanted = bool(self._spec.keep_if(outcome))
        except Exception:
            # The user's condition failed: a run too many is better than one that is missing.
            runtime.count_failure("keep_if")
        # A run that the condition keeps would have been kept whatever was drawn: it stands for itself alone.
        hold.release(wanted or self._sampled, 1.0 if wanted else self._rate)

    def _submit(self, record: RunRecord) -> None:
        (self.run.held or runtime).submit(record)


def packed_output(result: Any) -> bytes | bytearray:
    """The snapshot of what a run gave; a large collection leaves a marker."""
    return snapshot(condensed(result, runtime.settings.large_value_items, "output", []))


def _as_json(metadata: Mapping[str, Any]) -> Any:
    return to_json(restore(snapshot(dict(metadata))))


class Unrecorded:
    """Stands for a call below a run that is not recorded, where the thread does not know of that run yet.

    It makes the run current, so that what is called below opens no run of its own.

    Args:
        run: The run.
    """

    def __init__(self, run: ActiveRun) -> None:
        self.run = run
        self._token: Token[Any] | None = current.set(run)

    def returned(self, result: Any) -> None:
        """The call returned."""
        self._leave()

    def ended(self, output: Any, error: Any = None) -> None:
        """The call ended."""
        self._leave()

    def raised(self, error: BaseException) -> None:
        """The call raised."""
        self._leave()

    def _leave(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            reset(token, self.run)


class ActiveRuns:
    """The runs under way by the instance whose entry point opened them, for its methods on other threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[int, list[ActiveRun]] = {}

    def add(self, owner: int, run: ActiveRun) -> None:
        """A run of the instance began."""
        with self._lock:
            self._runs.setdefault(owner, []).append(run)

    def remove(self, owner: int, run: ActiveRun) -> None:
        """A run of the instance ended."""
        with self._lock, contextlib.suppress(KeyError, ValueError):
            self._runs[owner].remove(run)
            if not self._runs[owner]:
                del self._runs[owner]

    def only_one(self, owner: Any) -> ActiveRun | None:
        """The one run that is under way on the instance; None where there is none, or more than one to choose from."""
        found = self._runs.get(id(owner))
        return found[0] if found is not None and len(found) == 1 else None


active_runs = ActiveRuns()


def begin_run(
    spec: PipelineSpec, parameters: Parameters, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> RunRecording | None:
    """Start recording a run; None where that failed, and the call is then not recorded."""
    try:
        bound = parameters.bind(args, kwargs)
        owner = bound.pop(parameters.owner, None) if parameters.owner else None
        key = None
        if spec.key is not None:
            key = compile_accessor(spec.key)(owner if owner is not None else bound)
        return RunRecording(spec, key, bound).enter(owner)
    except Exception:
        runtime.count_failure("beginning of a run")
        return None


def begin_stage(
    spec: StageSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ActiveStage | Unrecorded | RunRecording | None:
    """Start recording a stage; None where it is not to be recorded, or that failed."""
    implicit = None
    try:
        parent: ActiveRun | ActiveStage | None = current.get()
        if parent is None:
            parent, implicit = _outside(spec, args)
            if not parent.run.recorded:
                return Unrecorded(parent.run) if implicit is None else implicit.enter()
        run = parent.run
        if not run.recorded:
            return None
        stage = ActiveStage(spec, parent, run)
        stage._implicit = implicit  # noqa: SLF001 - made here and nowhere else
        try:
            stage.bind(args, kwargs)
        except Exception:
            runtime.count_failure("recording of arguments")
            stage.facts = {"capture_error": "the arguments could not be recorded"}
            run.lessen("truncated")
        stage.enter()
        return stage
    except Exception:
        runtime.count_failure("beginning of a stage")
        if implicit is not None:
            implicit.returned(None)
        return None


def _outside(spec: StageSpec, args: tuple[Any, ...]) -> tuple[ActiveRun, RunRecording | None]:
    """The run of a stage that is called outside of any: its instance's, else one of its own.

    Where several runs are under way on the instance, none of them is guessed.
    """
    owner = args[0] if spec.parameters is not None and spec.parameters.owner and args else None
    if owner is not None:
        found = active_runs.only_one(owner)
        if found is not None:
            return found, None
    pipeline = getattr(owner, "__xray_pipeline__", None)
    if not isinstance(pipeline, PipelineSpec):
        pipeline = PipelineSpec(spec.name)
    key = compile_accessor(pipeline.key)(owner) if pipeline.key is not None else None
    recording = RunRecording(pipeline, key, {})
    return recording.run, recording
