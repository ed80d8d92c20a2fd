"""A run that is built by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypedDict, Unpack

from xray import ids
from xray.capture.redact import Redactor
from xray.exceptions import SchemaError
from xray.hand_built.stage import Stages
from xray.hand_built.values import Failure, Moment, check_fields, redacted, text_of
from xray.runtime import runtime
from xray.schema import EVENT_FIELDS, RUN_FIELDS, FieldKind


class RunFields(TypedDict, total=False):
    """What a run can be given beside its label and its stages.

    Times are datetimes or ISO 8601 texts; one that names no zone is taken for UTC.

    Args:
        key: Your own id of the run; need not be unique.
        version: The version of the pipeline's code; the setting ``version`` by default.
        environment: Where it ran; the setting ``environment`` by default.
        repository: Where the code lives; the setting ``repository`` by default.
        input: What the run was given.
        output: What it returned.
        metadata: Small facts to filter by.
        tags: Words to filter by.
        started_at: When it began; by default ``finished_at`` less ``duration_ms``, else when the object was made.
        finished_at: When it ended; by default ``started_at`` plus ``duration_ms``, where both are given.
        duration_ms: How long it took; by default from ``started_at`` to ``finished_at``, where both are given.
        status: ``success``, ``failure`` or ``running``; by default a failure where there is an error, else a success.
        error: What it raised.
        id: The run's UUID, for sending the same run again; a new one by default.
    """

    key: str | int | None
    version: str | None
    environment: str | None
    repository: str | None
    input: Any
    output: Any
    metadata: Mapping[str, Any] | None
    tags: Iterable[str] | None
    started_at: Moment | None
    finished_at: Moment | None
    duration_ms: float | None
    status: str | None
    error: Failure | None
    id: str | None


_KINDS: dict[str, FieldKind] = {
    field.name: field.kind
    for field in (*RUN_FIELDS, *EVENT_FIELDS["run.start"], *EVENT_FIELDS["run.end"])
    if field.name in RunFields.__annotations__
}
_AT_START = ("repository", "input", "metadata", "tags")
_AT_END = ("finished_at", "duration_ms", "status", "error", "output")


class Run(Stages):
    """One run that is built by hand: ``client.send(run)`` stores it with its stages.

    Args:
        label: The pipeline's label.
        fields: See :class:`RunFields`.

    Raises:
        SchemaError: A field cannot be so; ``path`` names it.
    """

    def __init__(self, label: str, **fields: Unpack[RunFields]) -> None:
        super().__init__()
        self.label = text_of(label, "run.label")
        self._fields: dict[str, Any] = {}
        self._made_at = ids.now_ms()
        self.update(**fields)
        self.id: str = self._fields.pop("id", None) or ids.new_id()
        """The run's UUID."""

    def __repr__(self) -> str:
        return f"<Run {self.label!r}, {len(list(self.nested()))} stages>"

    def _repr_html_(self) -> str:
        from xray.recorded import RecordedRun

        return RecordedRun(self.events())._repr_html_()

    def update(self, **fields: Unpack[RunFields]) -> Self:
        """Set fields that were not known before, such as the output.

        Args:
            fields: See :class:`RunFields`; None leaves a field as it is.

        Returns:
            The run.

        Raises:
            SchemaError: There is no such field, or it cannot be so; nothing was changed.
        """
        self._fields |= check_fields(fields, _KINDS, "run", [])
        return self

    def events(self) -> list[dict[str, Any]]:
        """The run as events of the wire schema: its start, its stages in order, its end unless it is still running.

        Defaults and redaction are those of the settings in force.

        Raises:
            SchemaError: It ended before it began, or a stage has more candidates than it has seen.
        """
        settings, redactor = runtime.settings, runtime.policy.redactor
        fields = redacted(self._timed(), redactor)
        fields.setdefault("status", "failure" if "error" in fields else "success")
        if settings.repository:
            fields.setdefault("repository", settings.repository)
        immutable = {
            "id": self.id,
            "key": fields.get("key"),
            "label": self.label,
            "version": fields.get("version", settings.version),
            "environment": fields.get("environment", settings.environment),
            "started_at": fields["started_at"],
        }
        info = {name: value for name, value in immutable.items() if value is not None}
        events: list[dict[str, Any]] = [{"type": "run.start", "id": self.id, "run": info}]
        events[0] |= {name: fields[name] for name in _AT_START if name in fields}
        self._add_stages(events, info, self, None, redactor, Counter())
        if fields["status"] != "running":
            stages = list(self.nested())
            end = {"type": "run.end", "id": self.id, "run": info, "stage_count": len(stages)}
            end["completeness"] = "complete" if all(stage.is_whole for stage in stages) else "sampled"
            events.append(end | {name: fields[name] for name in _AT_END if name in fields})
        return events

    def _add_stages(
        self,
        events: list[dict[str, Any]],
        info: dict[str, Any],
        parent: Stages,
        above: tuple[str, str] | None,
        redactor: Redactor | None,
        repeats: Counter[str],
    ) -> None:
        """Add the events of the stages of a parent, of which ``above`` has the id and the path."""
        parent_id, parent_path = above or (None, None)
        for stage in parent.stages:
            path = stage.name if parent_path is None else f"{parent_path}/{stage.name}"
            repeats[path] += 1
            if repeats[path] > 1:
                path = f"{path}#{repeats[path]}"
            # The run's start is the first event, so that a stage's place among the events is its order plus one.
            events.append(stage.event(info, parent_id, len(events) - 1, path, redactor))
            self._add_stages(events, info, stage, (stage.id, path), redactor, repeats)

    def _timed(self) -> dict[str, Any]:
        """The fields, with those times that follow from the others."""
        fields = dict(self._fields)
        started, finished, took = (fields.get(name) for name in ("started_at", "finished_at", "duration_ms"))
        if started is None:
            started = self._made_at if finished is None else finished - round(took or 0)
        elif finished is not None and took is None:
            took = finished - started
        elif finished is None and took is not None:
            finished = started + round(took)
        if (finished is not None and finished < started) or (took is not None and took < 0):
            raise SchemaError("The run ended before it began.", code="bad_value", path="run.finished_at")
        times = {"started_at": started, "finished_at": finished, "duration_ms": took}
        return fields | {name: value for name, value in times.items() if value is not None}
