"""Runs and stages as ``with`` blocks, plain and async, for code that cannot be decorated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from xray.capture.indexing import IndexChoice
from xray.capture.inside import SaidTooLateError
from xray.capture.policy import CaptureChoice, KeepIf, RedactChoice
from xray.capture.run import PipelineSpec, RunRecording, Unrecorded, packed_output
from xray.capture.spec import StageSpec
from xray.capture.stage import ActiveStage
from xray.context import ActiveRun, current
from xray.decorators import keep_if_of, make_spec
from xray.exceptions import DecoratorError
from xray.inside import NoStage
from xray.runtime import runtime, state


class RunBlock:
    """A run as a ``with`` block; made by :func:`run`. It may be entered again once it has been left."""

    def __init__(self, spec: PipelineSpec, key: Any, given: Any, metadata: dict[str, Any]) -> None:
        self._spec = spec
        self._key = key
        self._given = given
        self._metadata = metadata
        self._recording: RunRecording | None = None
        self._output: bytes | bytearray | None = None

    @property
    def id(self) -> str | None:
        """The run's id; None where it is not recorded."""
        return None if self._recording is None or not self._recording.run.recorded else self._recording.run.id

    def set_output(self, value: Any) -> None:
        """Record what the run gave, as it is now; a large collection leaves a marker."""
        if self._recording is not None and self._recording.run.recorded:
            try:
                self._output = None if value is None else packed_output(value)
            except Exception:
                runtime.count_failure("recording of a run's output")

    def set_metadata(self, **metadata: Any) -> None:
        """Record small facts to filter by, beside those that the run began with."""
        if self._recording is not None:
            self._recording.end_metadata |= metadata

    def stage(
        self,
        name: str,
        type: str = "raw",
        *,
        capture: CaptureChoice = None,
        redact: RedactChoice = None,
        index: IndexChoice = None,
        **fields: Any,
    ) -> StageBlock:
        """A stage of this run, as a ``with`` block; a block inside of another is its child.

        Args:
            name: The stage's name.
            type: The stage type.
            capture: What is kept of it.
            redact: What is made unreadable.
            index: Candidates' fields that questions will look for them by.
            fields: What the type's decorator accepts.
        """
        run = None if self._recording is None else self._recording.run
        return StageBlock(name, type, fields, capture, redact, run, index)

    def __enter__(self) -> Self:
        self._recording = self._output = None
        if state.enabled:
            try:
                given = self._given if isinstance(self._given, dict) else {"input": self._given}
                arguments = {} if self._given is None else given
                self._recording = RunRecording(self._spec, self._key, arguments, self._metadata).enter()
            except Exception:
                runtime.count_failure("beginning of a run")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._recording is not None:
            if error is None:
                self._recording.ended(self._output)
            else:
                self._recording.raised(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class StageBlock:
    """A stage as a ``with`` block; made by :meth:`RunBlock.stage`.

    Inside, ``candidates`` says what came in and ``result`` what went out; everything that ``xray.current_stage()``
    takes can be said to the block too. A block that was made before its run began, or without a run, belongs to the
    run that is current, and where there is none to one of its own.
    """

    def __init__(
        self,
        name: str,
        type: str,
        fields: dict[str, Any],
        capture: CaptureChoice,
        redact: RedactChoice,
        run: ActiveRun | None = None,
        index: IndexChoice = None,
    ) -> None:
        self._given = (type, name, None, fields, capture, redact, index)
        self._run = run
        self._stage: ActiveStage | None = None
        self._outer: RunRecording | Unrecorded | None = None

    def candidates(self, candidates: Iterable[Any], name: str = "candidates", **arguments: Any) -> None:
        """Record the candidates that came in, as they are now; said again, they take the place of the earlier ones.

        Args:
            candidates: The candidates; an iterator is not consumed, and not recorded.
            name: The name under which they are recorded.
            arguments: What else the stage was given.
        """
        self._take(lambda stage: stage.take_candidates(_as_sequence(candidates), name, arguments))

    def result(self, result: Any) -> None:
        """Record what went out, as it is now, in any shape that a decorated callable of the type may return."""

        def take(stage: ActiveStage) -> None:
            stage.taken_out, stage.went = (), None
            stage.take_result(result)

        self._take(take)

    def _take(self, take: Callable[[ActiveStage], None]) -> None:
        stage = self._stage
        if stage is None:
            return
        try:
            if stage.status is not None:
                raise SaidTooLateError
            take(stage)
        except SaidTooLateError:
            runtime.count_failure("recording of what was said after the end of a stage")
        except Exception:
            runtime.count_failure("recording of candidates")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stage if self._stage is not None else NoStage(), name)

    def __enter__(self) -> Self:
        self._stage = self._outer = None
        if state.enabled:
            try:
                self._begin()
            except Exception:
                if runtime.settings.strict:
                    raise
                runtime.count_failure("beginning of a stage")
        return self

    def _begin(self) -> None:
        spec: StageSpec = make_spec(*self._given)
        parent = current.get()
        own: RunRecording | None = None
        if self._run is not None and (parent is None or parent.run is not self._run):
            parent = self._run
        if parent is None:
            own = RunRecording(PipelineSpec(spec.name), None, {})
            parent = own.run
        if parent.run.recorded:
            self._stage = ActiveStage(spec, parent, parent.run)
            self._stage._implicit = own  # noqa: SLF001 - as for a decorated callable outside of any run
            self._stage.enter()
        else:
            self._outer = Unrecorded(parent.run) if own is None else own.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        begun = self._stage or self._outer
        if begun is not None:
            if error is None:
                begun.returned(None)
            else:
                begun.raised(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def _as_sequence(candidates: Any) -> Any:
    """The candidates in a form that can be recorded; None for an iterator, which is the user's to consume."""
    if isinstance(candidates, Mapping):
        return list(candidates.values())
    if isinstance(candidates, (list, tuple)) or hasattr(candidates, "shape"):
        return candidates
    return list(candidates) if hasattr(candidates, "__len__") and not isinstance(candidates, (str, bytes)) else None


def run(
    label: str,
    *,
    key: Any = None,
    input: Any = None,
    version: str | None = None,
    environment: str | None = None,
    tags: Iterable[str] = (),
    metadata: dict[str, Any] | None = None,
    capture: CaptureChoice = None,
    redact: RedactChoice = None,
    sample_rate: float | None = None,
    keep_if: KeepIf | str | None = None,
) -> RunBlock:
    """A run as a ``with`` or ``async with`` block.

    Args:
        label: The pipeline's label.
        key: The user's own id of the run.
        input: What the run is given.
        version: The version of the pipeline's code.
        environment: Where it runs.
        tags: Words to filter by.
        metadata: Small facts to filter by.
        capture: What is kept of its stages.
        redact: What is made unreadable.
        sample_rate: The share of such runs that is recorded.
        keep_if: Keeps a run at its end although it was not sampled.

    Returns:
        The block; ``block.stage("name", "filtering")`` is a stage of it.
    """
    return RunBlock(
        run_spec(
            label,
            version=version,
            environment=environment,
            tags=tags,
            capture=capture,
            redact=redact,
            sample_rate=sample_rate,
            keep_if=keep_if,
        ),
        key,
        input,
        dict(metadata or {}),
    )


def run_spec(
    label: str,
    *,
    version: str | None,
    environment: str | None,
    tags: Iterable[str],
    capture: CaptureChoice,
    redact: RedactChoice,
    sample_rate: float | None,
    keep_if: KeepIf | str | None,
) -> PipelineSpec:
    """Check what a run was given; what cannot be is counted, and the settings hold in its place.

    Args:
        label: The pipeline's label.
        version: The version of the pipeline's code.
        environment: Where it runs.
        tags: Words to filter by.
        capture: What is kept of its stages.
        redact: What is made unreadable.
        sample_rate: The share of such runs that is recorded.
        keep_if: Keeps a run at its end although it was not sampled.

    Raises:
        XRayError: Something cannot be, in strict mode only.
    """
    try:
        runtime.policy.refined(capture, redact)
        kept = keep_if_of(keep_if)
        if sample_rate is not None and not 0 <= sample_rate <= 1:
            raise DecoratorError(f"sample_rate={sample_rate!r} is no share from 0 to 1.", path="sample_rate")
        return PipelineSpec(label, None, version, environment, capture, redact, sample_rate, kept, tuple(tags))
    except Exception:
        if runtime.settings.strict:
            raise
        runtime.count_failure("reading of what a run was given")
        if redact is not None:
            # Rather nothing of the candidates than something that was to be unreadable.
            return PipelineSpec(label, None, version, environment, "summary")
        return PipelineSpec(label, None, version, environment)
