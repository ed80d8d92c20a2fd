"""One call of a stage, under way: what is taken on the caller's thread.

The caller's thread does as little as it can: it takes the candidates as bytes before the call and the result after it,
and reads what bytes do not hold (see :func:`xray.capture.live.take`). Everything else happens on the worker's thread,
in ``xray.capture.records``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Token
from typing import TYPE_CHECKING, Any

from xray import ids
from xray.capture.accessors import MISSING, SCALARS, compile_accessor, core, infer_id_name, row_id
from xray.capture.errors import describe_error, mark_of
from xray.capture.guarded import candidates_in
from xray.capture.inside import Inside, SaidTooLateError
from xray.capture.live import take
from xray.capture.snapshot import snapshot
from xray.capture.spec import StageSpec
from xray.capture.taken import Taken
from xray.context import ActiveRun, current
from xray.runtime import runtime

if TYPE_CHECKING:
    from xray.capture.run import RunRecording


class ActiveStage:
    """A stage under way; what ``xray.current_stage()`` gives. Once it has ended it is the record of itself.

    Args:
        spec: The decorator.
        parent: The run or the stage that it is called in.
        run: The run.
    """

    # This is made at every call of the user's code: one object, and as few steps to make it as there can be.
    __slots__ = (
        "_bits", "_clock_ns", "_id", "_implicit", "_token", "came", "candidates_from", "duration_ns", "error", "facts",
        "inside", "markers", "mode", "order", "parent", "path", "run", "size_bytes", "spec", "status", "taken_in",
        "taken_out", "time_ns", "went",
    )  # fmt: skip

    def __init__(self, spec: StageSpec, parent: ActiveRun | ActiveStage, run: ActiveRun) -> None:
        self.spec = spec
        self.run = run
        self.parent: ActiveStage | None = parent.stage
        self.order: int
        self.path: str
        self.order, self.path = run.place(parent.path, spec.name)
        self.mode = spec.mode or run.policy.capture.mode
        self.time_ns = ids.clock_ns()
        self._bits = ids.draw_bits(62)
        self._id: str | None = None
        self._implicit: RunRecording | None = None
        self.came: bytes | bytearray | None = None
        self.went: bytes | bytearray | None = None
        self.taken_in: Taken | None = None
        self.taken_out: tuple[Taken, ...] = ()
        self.candidates_from: str | None = None
        self.markers: Sequence[dict[str, Any]] = ()
        self.facts: dict[str, Any] | None = None
        self.inside: Inside | None = None
        self.status: str | None = None
        """How it ended, once it has."""
        self.error: dict[str, Any] | None = None
        self._token: Token[Any] | None = None

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
    def takens(self) -> Iterator[Taken]:
        """What was taken of the candidates: those that came in, and each list that went out."""
        if self.taken_in is not None:
            yield self.taken_in
        yield from self.taken_out

    def event(self) -> dict[str, Any]:
        """The event of the wire schema; for the worker, once the stage has ended."""
        from xray.capture.records import stage_event

        return stage_event(self)

    def release(self) -> None:
        """Give large memory back; for the worker, when it is done with the record."""
        for taken in self.takens:
            taken.release()

    def lost(self) -> None:
        """The run lacks this stage."""
        self.run.lessen("partial")

    # --- the caller's thread ------------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take the arguments of the call."""
        spec = self.spec
        parameters = spec.parameters
        assert parameters is not None
        if len(args) == parameters.alone and not kwargs and type(args[-1]) is list:
            # Nothing but the candidates came in.
            self.candidates_from = parameters.alone_name
            self.taken_in = take(args[-1], self, spec.input_fields)
            return
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
            self.taken_in = take(candidates, self, self.spec.input_fields)
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
        spec = self.spec
        if spec.lists_are_candidates and type(result) is list:
            self.taken_out = (take(result, self, spec.fields),)
            return
        parts = candidates_in(spec.stage_type, result)
        if parts:
            self.taken_out = tuple([take(part, self, spec.fields) for part in parts])
        elif result is not None:
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
            self.taken_out = ()
            self.went = None
            self._end_anyway("success", duration_ns)

    def raised(self, error: BaseException) -> None:
        """The user's function raised; this never raises."""
        try:
            duration_ns = self.leave()
            mark = mark_of(error)
            if self.run.failed_at is None or self.run.failed_at[0] != mark:
                self.run.failed_at = (mark, self.path)
            self.error = describe_error(error)
            self.end("failure", duration_ns)
            if self._implicit is not None:
                self._implicit.raised(error)
        except Exception:
            runtime.count_failure("recording of an exception")

    def end(self, status: str, duration_ns: int) -> None:
        """The stage has ended: from here on it belongs to the worker."""
        self.duration_ns = duration_ns
        self.status = status
        run = self.run
        if self.mode != "full" and self.spec.type_name != "raw":
            run.lessen("sampled")
        if self.inside is not None:
            self.inside.close()
            if self.inside.lost:
                run.lessen("truncated")
        self.size_bytes = self._weight_bytes()
        held = run.held
        if held is None:
            runtime.submit(self)
        else:
            held.submit(self)
        if self._implicit is not None and status == "success":
            self._implicit.returned(None)

    def _weight_bytes(self) -> int:
        """What the record weighs in the buffer."""
        size = 700
        if self.taken_in is not None:
            size += self.taken_in.size_bytes
        for taken in self.taken_out:
            size += taken.size_bytes
        if self.came is not None:
            size += len(self.came)
        if self.went is not None:
            size += len(self.went)
        return size if self.inside is None else size + self.inside.size_bytes

    def _end_anyway(self, status: str, duration_ns: int) -> None:
        try:
            self.facts = {**(self.facts or {}), "capture_error": "the result could not be recorded"}
            self.run.lessen("truncated")
            if self.status is None:
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
            if self.status is not None:
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
