"""One call of a stage, under way: what is taken on the caller's thread.

The caller's thread does as little as it can: it takes the candidates as bytes before the call and the result after it,
and reads what bytes do not hold (see :func:`xray.capture.live.take`). Everything else happens on the worker's thread,
in ``xray.capture.records``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xray import ids
from xray.capture.accessors import MISSING, SCALARS, Accessor, compile_accessor, core, infer_id_name, row_id
from xray.capture.guarded import candidates_in, take
from xray.capture.inside import Inside, SaidTooLateError
from xray.capture.live import Taken
from xray.capture.parameters import Parameters
from xray.capture.policy import Policy
from xray.capture.snapshot import plain, snapshot
from xray.context import ActiveRun, current
from xray.runtime import runtime
from xray.sampling import parse_capture
from xray.stage_types.base import StageType

if TYPE_CHECKING:
    from xray.capture.run import RunRecording

MAX_MESSAGE_CHARS = 10_000
MAX_CODE_CHARS = 200

log = logging.getLogger("xray")


class StageSpec:
    """What a stage's decorator was given, worked out for the calls.

    Args:
        name: The stage's name.
        stage_type: Its type.
        function: The callable, undecorated; None for a stage that is opened by hand.
        accessors: Field → accessor.
        options: Field → value, for fields that are no accessors.
        capture: What is kept of it, or None where the run's policy holds.
        redact: What is made unreadable beside the run's rules, or None.
    """

    def __init__(
        self,
        name: str,
        stage_type: StageType,
        function: Callable[..., Any] | None,
        accessors: Mapping[str, Accessor],
        options: Mapping[str, Any],
        capture: Any = None,
        redact: Any = None,
    ) -> None:
        self.name = name
        self.stage_type = stage_type
        self.accessors = dict(accessors)
        self.snapshot_accessors = {name: given for name, given in accessors.items() if not callable(given)}
        self.fields = tuple(field.name for field in stage_type.all_fields() if field.kind == "accessor")
        self.input_fields = ("id", *(name for name in self.fields if name in stage_type.reads_inputs))
        self.defaults = {field.name: field.defaults for field in stage_type.all_fields() if field.defaults}
        self.options = dict(options)
        self.capture = capture
        self.mode = None if capture is None else parse_capture(capture).mode
        """The tier, or None where the run's policy says it."""
        self.redact = redact
        self.parameters = (
            None if function is None else Parameters(function, takes_candidates=stage_type.takes_candidates)
        )
        self.plan_cache: dict[type, Any] = {}
        self._policy: tuple[Policy, Policy] | None = None
        given_id = accessors.get("id")
        self.id_name = given_id if isinstance(given_id, str) and "." not in given_id else None
        self.reads_dicts = (given_id is None or self.id_name is not None) and not any(map(callable, accessors.values()))
        """Whether, of candidates that are dicts, everything can be read from their snapshot."""
        self.plain_names = {
            field: given for field, given in accessors.items() if isinstance(given, str) and "." not in given
        }

    def policy_under(self, policy: Policy) -> Policy:
        """What is kept of the stage in a run of that policy; worked out once for each."""
        if self.capture is None and self.redact is None:
            return policy
        known = self._policy
        if known is None or known[0] is not policy:
            known = self._policy = (policy, policy.refined(self.capture, self.redact))
        return known[1]


@dataclass(slots=True)
class Outcome:
    """How a stage ended, once it has."""

    status: str
    duration_ns: int
    error: dict[str, Any] | None = None


class ActiveStage:
    """A stage under way; what ``xray.current_stage()`` gives. Once it has ended it is the record of itself."""

    __slots__ = (
        "_bits", "_clock_ns", "_id", "_implicit", "_token", "came", "candidates_from", "facts", "input_plan", "inside",
        "markers", "order", "outcome", "parent", "part_plans", "path", "run", "spec", "time_ns", "went",
    )  # fmt: skip

    def __init__(self, spec: StageSpec, parent: ActiveRun | ActiveStage) -> None:
        self.spec = spec
        self.run: ActiveRun = parent.run
        self.parent = parent.stage
        order, path = self.run.place(parent.path, spec.name)
        self.order: int = order
        self.path: str = path
        self.time_ns = ids.clock_ns()
        self._bits = ids.draw_bits(62)
        self._id: str | None = None
        self._implicit: RunRecording | None = None
        self._token: Token[Any] | None = None
        self._clock_ns = 0
        self.came: bytes | bytearray | None = None
        self.went: bytes | bytearray | None = None
        self.input_plan: Taken | None = None
        self.part_plans: list[Taken] = []
        self.candidates_from: str | None = None
        self.markers: list[dict[str, Any]] = []
        self.facts: dict[str, Any] | None = None
        self.inside: Inside | None = None
        self.outcome: Outcome | None = None

    @property
    def stage(self) -> ActiveStage:
        """The stage itself: a run has the same attribute."""
        return self

    @property
    def id(self) -> str:
        """The stage's id."""
        if self._id is None:
            self._id = ids.id_text(self.time_ns, self._bits)
        return self._id

    @property
    def size_bytes(self) -> int:
        """What the record weighs in the buffer."""
        size = 700 + (len(self.came) if self.came else 0) + (len(self.went) if self.went else 0)
        if self.input_plan is not None:
            size += self.input_plan.size_bytes
        for plan in self.part_plans:
            size += plan.size_bytes
        return size if self.inside is None else size + self.inside.size_bytes

    def event(self) -> dict[str, Any]:
        """The event of the wire schema; for the worker, once the stage has ended."""
        from xray.capture.records import stage_event

        return stage_event(self)

    def release(self) -> None:
        """Give large memory back; for the worker, when it is done with the record."""
        if self.input_plan is not None:
            self.input_plan.release()
        for part in self.part_plans:
            part.release()

    # --- the caller's thread ------------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take the arguments of the call."""
        parameters = self.spec.parameters
        assert parameters is not None
        arguments = parameters.sort_out(args, kwargs, runtime.settings.large_value_items)
        if arguments.candidates is None and not arguments.others:
            return
        self.markers = arguments.markers
        self.take_candidates(arguments.candidates, arguments.candidates_from, arguments.others)

    def take_candidates(
        self, candidates: Sequence[Any] | None, candidates_from: str | None, others: Mapping[str, Any]
    ) -> None:
        """Take what came in: the candidates and the other arguments."""
        if candidates is not None:
            self.input_plan = take(candidates, self.spec, self.run, self.spec.input_fields)
            self.candidates_from = candidates_from
        if others:
            self.came = snapshot(others)

    def enter(self) -> None:
        """Make this the current stage of the thread or task, and start its clock."""
        self._token = current.set(self)
        self._clock_ns = ids.monotonic_ns()

    def leave(self) -> int:
        """Stop the clock and go back to where the thread or task was; how long it took, in nanoseconds."""
        duration_ns = ids.monotonic_ns() - self._clock_ns
        token, self._token = self._token, None
        if token is not None:
            reset(token, self)
        return duration_ns

    def take_result(self, result: Any) -> None:
        """Take what went out."""
        parts = candidates_in(self.spec.stage_type, result)
        for part in parts:
            self.part_plans.append(take(part, self.spec, self.run, self.spec.fields))
        if not parts and result is not None:
            self.went = snapshot(result)

    def returned(self, result: Any) -> None:
        """The user's function returned; this never raises."""
        duration_ns = 0
        try:
            duration_ns = self.leave()
            self.take_result(result)
            self.end("success", duration_ns)
        except Exception:
            runtime.count_failure("recording of a result")
            self.part_plans = []
            self.went = None
            self._end_anyway("success", duration_ns)

    def raised(self, error: BaseException) -> None:
        """The user's function raised; this never raises."""
        try:
            duration_ns = self.leave()
            mark = mark_of(error)
            if self.run.failed_at is None or self.run.failed_at[0] != mark:
                self.run.failed_at = (mark, self.path)
            self.end("failure", duration_ns, describe_error(error))
            if self._implicit is not None:
                self._implicit.raised(error)
        except Exception:
            runtime.count_failure("recording of an exception")

    def end(self, status: str, duration_ns: int, error: dict[str, Any] | None = None) -> None:
        """The stage has ended: from here on it belongs to the worker."""
        self.outcome = Outcome(status, duration_ns, error)
        run = self.run
        if (self.spec.mode or run.policy.capture.mode) != "full" and self.spec.stage_type.name != "raw":
            run.lessen("sampled")
        if self.inside is not None:
            self.inside.close()
            if self.inside.lost:
                run.lessen("truncated")
        held = run.held
        if held is None:
            if not runtime.submit(self):
                run.lessen("partial")
        else:
            held.submit(self)
        if self._implicit is not None and status == "success":
            self._implicit.returned(None)

    def _end_anyway(self, status: str, duration_ns: int) -> None:
        try:
            self.facts = {**(self.facts or {}), "capture_error": "the result could not be recorded"}
            self.run.lessen("truncated")
            if self.outcome is None:
                self.end(status, duration_ns)
        except Exception:
            runtime.count_failure("recording of a stage")

    def open_inside(self) -> Inside:
        """Where what the user says from inside the stage is kept."""
        found = self.inside
        if found is None:
            with _opening:
                found = self.inside
                if found is None:
                    limits = self.run.policy.limits
                    found = self.inside = Inside(limits.max_candidates, limits.max_stage_bytes)
            # Looked at after it was put in place, as the stage's end does it the other way round: one sees the other.
            if self.outcome is not None:
                found.close()
        return found

    def key_of(self, candidate: Any) -> str:
        """The id under which a candidate of this stage is recorded."""
        if isinstance(candidate, str):
            return candidate
        item = core(candidate)
        accessor = self.spec.accessors.get("id")
        if accessor is not None:
            for each in (candidate, item):
                found = compile_accessor(accessor)(each)
                if found is not MISSING and found is not None:
                    return str(found)
        name = infer_id_name([item])
        if name is not None:
            return str(compile_accessor(name)(item))
        first = row_id(candidate)
        if first is not MISSING:
            return str(first)
        if hasattr(item, "item") and getattr(item, "ndim", None) == 0:  # a NumPy scalar
            item = item.item()
        if isinstance(item, SCALARS):
            return str(item)
        return f"#{self.run.ordinals([item])[0]}"

    # --- what users say from inside -----------------------------------------------------------------------------

    def reject(self, candidate: Any, label: str | None = None, text: str | None = None) -> None:
        """Record that a candidate was rejected; see :func:`xray.reject`."""
        self._say(lambda inside: inside.judge(self.key_of(candidate), candidate, "failed", label, text))

    def accept(self, candidate: Any, label: str | None = None, text: str | None = None) -> None:
        """Record that a candidate passed; see :func:`xray.accept`."""
        self._say(lambda inside: inside.judge(self.key_of(candidate), candidate, "passed", label, text))

    def score(self, candidate: Any, value: float, name: str | None = None) -> None:
        """Record a candidate's score; see :func:`xray.score`."""
        self._say(lambda inside: inside.add_score(self.key_of(candidate), candidate, value, name))

    def note(self, text: str) -> None:
        """Add a line to the stage's reasoning."""
        self._say(lambda inside: inside.add_note(text))

    def llm(self, **facts: Any) -> None:
        """Record a model call; see :func:`xray.llm`."""
        self._say(lambda inside: inside.add_llm(facts))

    def set_input(self, value: Any) -> None:
        """Record what the stage was given, in place of its arguments."""
        self._say(lambda inside: inside.set("input", value))

    def set_output(self, value: Any) -> None:
        """Record what the stage gave, in place of its result."""
        self._say(lambda inside: inside.set("output", value))

    def set_reasoning(self, text: str) -> None:
        """Record why the stage decided as it did, in prose."""
        self._say(lambda inside: inside.set_reasoning(text))

    def set_metadata(self, **metadata: Any) -> None:
        """Record small facts to filter by."""
        self._say(lambda inside: inside.add_metadata(metadata))

    def counts(self, *, seen: int, passed: int | None = None) -> None:
        """Record how many candidates came in and went on, for stages whose candidates are never in memory."""
        self._say(lambda inside: inside.set_counts(seen, passed))

    def metric(self, name: str, value: float) -> None:
        """Record a metric of the user's own; it can be asked about as ``$name`` at once."""
        self._say(lambda inside: inside.set_metric(name, value))

    def _say(self, say: Callable[[Inside], None]) -> None:
        try:
            say(self.open_inside())
        except SaidTooLateError:
            runtime.count_failure("recording of what was said after the end of a stage")
        except Exception:
            runtime.count_failure("a call from inside a stage")


_opening = threading.Lock()


def reset(token: Token[Any], entered: ActiveRun | ActiveStage) -> None:
    """Go back to where the thread or task was before it entered a run or stage.

    Blocks may be left in another context than they were entered in (a fixture, a dependency with ``yield``): there,
    what is current is only changed where it is what was entered.
    """
    try:
        current.reset(token)
    except (ValueError, RuntimeError):
        if current.get() is entered:
            before = token.old_value
            current.set(None if before is Token.MISSING else before)


def mark_of(error: BaseException) -> tuple[int, type, object, int]:
    """What tells an exception from others for as long as the run lasts, without holding it.

    The identity alone does not: an exception that was caught and freed leaves its place to the next one. So the line
    that raised it counts too.
    """
    origin = error.__traceback__
    while origin is not None and origin.tb_next is not None:
        origin = origin.tb_next
    code, line = (None, 0) if origin is None else (origin.tb_frame.f_code, origin.tb_lineno)
    return id(error), type(error), code, line


def describe_error(error: BaseException) -> dict[str, Any]:
    """An exception as ``{type, message, code}``; an exception whose text cannot be made is described without it."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}… [xray: text of {len(message)} characters]"
    described: dict[str, Any] = {"type": type(error).__qualname__, "message": plain(message)}
    try:
        code = getattr(error, "code", None)
        if isinstance(code, (str, int)) and not isinstance(code, bool):
            described["code"] = plain(str(code))[:MAX_CODE_CHARS]
    except Exception:
        log.debug("X-Ray: the code of an exception cannot be read", exc_info=True)
    return described
