"""Recording one call: what happens on the caller's thread before and after the user's function.

Nothing here raises into the user's code: each step that may fail is guarded, and a call that cannot be recorded
runs as if it were undecorated.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from xray.capture.accessors import (
    MISSING,
    SCALARS,
    Accessor,
    compile_accessor,
    core,
    infer_id_name,
    reads_from_snapshot,
)
from xray.capture.parameters import Parameters, condensed
from xray.capture.records import ItemsPlan, RunRecord, StageRecord
from xray.capture.snapshot import plain, snapshot
from xray.context import ActiveRun, Frame, current_frame
from xray.ids import new_id, now_ms
from xray.runtime import runtime
from xray.stage_types.base import StageType

MAX_MESSAGE_CHARS = 10_000


P = ParamSpec("P")
R = TypeVar("R")


def guarded(step: Callable[P, R]) -> Callable[P, R | None]:
    """A step of ours that does not raise, whatever happens in it; failures are counted and can be seen in the log."""

    @functools.wraps(step)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return step(*args, **kwargs)
        except Exception:
            runtime.count_failure(step.__qualname__)
            return None

    return wrapper


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """What ``@pipeline`` was given."""

    label: str
    key: Accessor | None = None
    version: str | None = None
    environment: str | None = None


class StageSpec:
    """What a stage's decorator was given, worked out for the calls.

    Args:
        name: The stage's name.
        stage_type: Its type.
        function: The callable, undecorated.
        accessors: Field → accessor.
        options: Field → value, for fields that are no accessors.
    """

    def __init__(
        self,
        name: str,
        stage_type: StageType,
        function: Callable[..., Any],
        accessors: Mapping[str, Accessor],
        options: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.stage_type = stage_type
        self.accessors = accessors
        self.snapshot_accessors = {name: given for name, given in accessors.items() if not callable(given)}
        self.options = options
        self.parameters = Parameters(function, takes_candidates=stage_type.takes_candidates)


class StageRecording:
    """One call of a decorated stage, from its start to its end. Use :func:`begin_stage` to make one."""

    __slots__ = ("_clock", "_fields", "_implicit", "_record", "_run", "_spec", "_token")

    def __init__(self, spec: StageSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._spec = spec
        frame = current_frame.get()
        self._implicit: RunRecording | None = None
        if frame is None:
            self._implicit = _implicit_run(spec, args)
            frame = Frame(self._implicit.run)
        self._run = run = frame.run
        order, path = run.place(frame.path, spec.name)
        stage_id = new_id()
        self._fields: dict[str, Any] = {
            "type": "stage",
            "id": stage_id,
            "run": run.info,
            "parent_id": frame.stage_id,
            "order": order,
            "path": path,
            "started_at": now_ms(),
        }
        arguments = spec.parameters.sort_out(args, kwargs, runtime.settings.large_value_items)
        facts: dict[str, Any] = {}
        input_plan = None
        candidates: Sequence[Any] | None = arguments.candidates
        if candidates is not None:
            candidates, input_plan = _plan(candidates, spec, run)
            facts["candidates_from"] = arguments.candidates_from
        self._record = StageRecord(
            fields=self._fields,
            stage_type=spec.stage_type,
            accessors=spec.snapshot_accessors,
            options=spec.options,
            facts=facts,
            markers=arguments.markers,
            came=snapshot([candidates, arguments.others]),
            input_plan=input_plan,
        )
        self._token: Token[Frame | None] = current_frame.set(Frame(run, stage_id, path))
        self._clock = time.perf_counter_ns()

    @guarded
    def finish(self, result: Any) -> None:
        """The user's function returned ``result``."""
        duration_ms = (time.perf_counter_ns() - self._clock) / 1e6
        self._leave()
        spec = self._spec
        parts: list[Sequence[Any]] = []
        for part in spec.stage_type.candidates_in(result):
            items, plan = _plan(part, spec, self._run)
            parts.append(items)
            self._record.part_plans.append(plan)
        self._record.went = snapshot([None if parts else result, parts])
        self._submit(duration_ms, "success", None)
        if self._implicit is not None:
            self._implicit.finish(None)

    @guarded
    def fail(self, error: BaseException) -> None:
        """The user's function raised ``error``."""
        duration_ms = (time.perf_counter_ns() - self._clock) / 1e6
        self._leave()
        if self._run.failed_at is None or self._run.failed_at[0] != id(error):
            self._run.failed_at = (id(error), self._fields["path"])
        self._submit(duration_ms, "failure", describe_error(error))
        if self._implicit is not None:
            self._implicit.fail(error)

    def _leave(self) -> None:
        leave(self._token)

    def _submit(self, duration_ms: float, status: str, error: dict[str, Any] | None) -> None:
        self._fields |= {
            "name": self._spec.name,
            "stage_type": self._spec.stage_type.name,
            "duration_ms": duration_ms,
            "status": status,
        }
        if error is not None:
            self._fields["error"] = error
        runtime.submit(self._record)


class RunRecording:
    """One run, from its start to its end.

    Args:
        spec: The pipeline.
        key: The user's own id of the run.
        arguments: What the run was given, by name.
    """

    __slots__ = ("_clock", "_token", "run")

    def __init__(self, spec: PipelineSpec, key: Any, arguments: Mapping[str, Any]) -> None:
        settings = runtime.settings
        self.run = run = ActiveRun(
            spec.label,
            key=None if key is None or key is MISSING else str(key),
            version=spec.version or settings.version,
            environment=spec.environment or settings.environment,
        )
        fields: dict[str, Any] = {"type": "run.start", "id": run.id, "run": run.info}
        if settings.repository:
            fields["repository"] = settings.repository
        small = {name: condensed(value, settings.large_value_items, name, []) for name, value in arguments.items()}
        runtime.submit(RunRecord(fields, "input", snapshot(small) if small else None))
        self._token: Token[Frame | None] | None = None
        self._clock = time.perf_counter_ns()

    def enter(self) -> RunRecording:
        """Make this the current run of the thread or task."""
        self._token = current_frame.set(Frame(self.run))
        return self

    @guarded
    def finish(self, result: Any) -> None:
        """The run returned ``result``."""
        small = condensed(result, runtime.settings.large_value_items, "output", [])
        self._end("success", None, None if small is None else snapshot(small))

    @guarded
    def fail(self, error: BaseException) -> None:
        """The run raised ``error``."""
        described = describe_error(error)
        if self.run.failed_at is not None and self.run.failed_at[0] == id(error):
            described["stage"] = self.run.failed_at[1]
        self._end("failure", described, None)

    def _end(self, status: str, error: dict[str, Any] | None, output: bytes | None) -> None:
        duration_ms = (time.perf_counter_ns() - self._clock) / 1e6
        if self._token is not None:
            leave(self._token)
        fields: dict[str, Any] = {
            "type": "run.end",
            "id": self.run.id,
            "run": self.run.info,
            "finished_at": now_ms(),
            "duration_ms": duration_ms,
            "status": status,
            "stage_count": self.run.stage_count,
            "completeness": "complete",
        }
        if error is not None:
            fields["error"] = error
        runtime.submit(RunRecord(fields, "output", output))


@guarded
def begin_stage(spec: StageSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StageRecording:
    """Start recording a stage; None where that failed, and the call is then not recorded."""
    return StageRecording(spec, args, kwargs)


@guarded
def begin_run(
    spec: PipelineSpec, parameters: Parameters, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> RunRecording:
    """Start recording a run; None where that failed."""
    bound = parameters.bind(args, kwargs)
    owner = bound.pop(parameters.owner, None) if parameters.owner else None
    key = None
    if spec.key is not None:
        source = owner if owner is not None else bound
        key = compile_accessor(spec.key)(source)
    return RunRecording(spec, key, bound).enter()


def _implicit_run(spec: StageSpec, args: tuple[Any, ...]) -> RunRecording:
    """The run of a stage that is called outside of any: labelled by the class's pipeline, else by the stage."""
    owner = args[0] if spec.parameters.owner and args else None
    pipeline = getattr(owner, "__xray_pipeline__", None)
    if not isinstance(pipeline, PipelineSpec):
        return RunRecording(PipelineSpec(spec.name), None, {})
    key = compile_accessor(pipeline.key)(owner) if pipeline.key is not None else None
    return RunRecording(pipeline, key, {})


def leave(token: Token[Frame | None]) -> None:
    """Go back to where the thread or task was; harmless in another context than the one that was entered."""
    try:
        current_frame.reset(token)
    except ValueError:
        current_frame.set(None)


def _plan(items: Sequence[Any], spec: StageSpec, run: ActiveRun) -> tuple[Sequence[Any], ItemsPlan]:
    """Read from the live candidates what their snapshots will not hold."""
    plan = ItemsPlan()
    kinds = set(map(type, items))
    for name, accessor in spec.accessors.items():
        if not reads_from_snapshot(accessor, kinds):
            reader = compile_accessor(accessor)
            plan.live[name] = [_scalar(reader(item)) for item in items]
    if "id" not in spec.accessors or not _has_ids(items, spec.accessors["id"], plan):
        plan.id_name = infer_id_name(items)
        if plan.id_name is None:
            if not all(issubclass(type(core(item)), SCALARS) for item in items):
                plan.ordinals = run.ordinals([core(item) for item in items])
        elif not reads_from_snapshot(plan.id_name, {type(core(item)) for item in items}):
            reader = compile_accessor(plan.id_name)
            plan.live["id"] = [_scalar(reader(core(item))) for item in items]
    if any(hasattr(kind, "_fields") for kind in kinds):
        # The encoder writes named tuples as arrays, which loses their names.
        return [
            dict(zip(item._fields, item, strict=False)) if hasattr(item, "_fields") else item for item in items
        ], plan
    return items, plan


def _has_ids(items: Sequence[Any], accessor: Accessor, plan: ItemsPlan) -> bool:
    if "id" in plan.live:
        if all(value is not MISSING and value is not None for value in plan.live["id"]):
            return True
        del plan.live["id"]
        return False
    if isinstance(accessor, str) and set(map(type, items)) == {dict} and accessor in items[0]:
        # The common case, at the price of one lookup a candidate.
        return all(item.get(accessor) is not None for item in items)
    reader = compile_accessor(accessor)
    return all(reader(item) not in (MISSING, None) or reader(core(item)) not in (MISSING, None) for item in items)


def _scalar(value: Any) -> Any:
    """A value that was read on the caller's thread, in a form that cannot change later."""
    if value is None or value is MISSING or isinstance(value, SCALARS):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy scalar
        return value.item()
    return plain(value)


def describe_error(error: BaseException) -> dict[str, Any]:
    """An exception as ``{type, message, code}``; an exception whose text cannot be made is described without it."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}… [xray: text of {len(message)} characters]"
    described: dict[str, Any] = {"type": type(error).__qualname__, "message": plain(message)}
    code = getattr(error, "code", None)
    if isinstance(code, (str, int)) and not isinstance(code, bool):
        described["code"] = str(code)
    return described
