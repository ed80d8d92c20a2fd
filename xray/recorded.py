"""What was recorded, read back from the events of the wire: runs, their stages, and the way of a candidate.

For tests and notebooks, where there is no service that would put the events together.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xray.capture.call import with_output
from xray.exceptions import PluginError, did_you_mean
from xray.plugins import installed
from xray.stage_types.base import Columns, StageType
from xray.wording import funnel

Event = Mapping[str, Any]


class RecordedStage:
    """One stage as it was recorded.

    Args:
        event: Its ``stage`` event.
        more: Its ``candidates`` events.
    """

    def __init__(self, event: Event, more: Iterable[Event] = ()) -> None:
        self.id: str = event["id"]
        self.parent_id: str | None = event.get("parent_id")
        self.name: str = event["name"]
        self.type: str = event["stage_type"]
        self.path: str = event.get("path", self.name)
        self.order: int = event.get("order", 0)
        self.status: str = event.get("status") or ("failure" if event.get("error") else "success")
        self.error: dict[str, Any] | None = event.get("error")
        self.duration_ms: float | None = event.get("duration_ms")
        self.input: Any = event.get("input")
        self.output: Any = event.get("output")
        self.metadata: dict[str, Any] = dict(event.get("metadata") or {})
        self.facts: dict[str, Any] = dict(event.get("facts") or {})
        self.llm: dict[str, Any] | None = event.get("llm")
        self.reasoning: str | None = event.get("reasoning")
        self.capture: dict[str, Any] = dict(event.get("capture") or {})
        self._sent: dict[str, Any] = dict(event.get("metrics") or {})
        self._with_candidates = [event, *more]

    def __repr__(self) -> str:
        return f"<RecordedStage {self.path!r} {self.type}, {len(self.rows)} candidates>"

    def _repr_html_(self) -> str:
        from xray.html import stage_html

        return stage_html(self.document | {"rows": self.rows})

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The candidates that were kept, in order: ``candidate_id`` and each column that has a value."""
        found: dict[int, dict[str, Any]] = {}
        for event in self._with_candidates:
            found |= enumerate(_rows(event), event.get("from_seq") or 0)
        return [found[seq] for seq in sorted(found)]

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """The metrics: those that the sender computed, else the stage type's over the candidates."""
        stage_type = self.stage_type
        if stage_type is None:
            computed = {}
        else:
            declared = {metric.name for metric in stage_type.all_metrics()} - {"duration_ms"}
            is_whole = len(self.rows) >= max(self.seen, 1)
            columns = Columns.from_rows(self.rows, self.facts)
            computed = stage_type.measure(columns) if is_whole or not declared & self._sent.keys() else {}
        took = {} if self.duration_ms is None else {"duration_ms": self.duration_ms}
        return took | computed | self._sent

    @property
    def stage_type(self) -> StageType | None:
        """The stage type, or None where it is none that is installed here."""
        try:
            return installed().stage_type(self.type)
        except PluginError:
            return None

    @property
    def seen(self) -> int:
        """How many candidates the stage looked at; more than there are rows where not all were kept."""
        return max(self.capture.get("seen") or 0, len(self.rows))

    def row(self, candidate_id: str | int) -> dict[str, Any] | None:
        """The first row of a candidate, or None where the stage has none of it.

        Args:
            candidate_id: The candidate's id.
        """
        return next((row for row in self.rows if row["candidate_id"] == str(candidate_id)), None)

    def lost(self, row: Mapping[str, Any]) -> bool:
        """Whether a candidate went no further than this stage.

        It did not where it failed; where others were passed, selected or ranked and it was not.

        Args:
            row: The candidate's row.
        """
        if row.get("verdict") is not None:
            return bool(row["verdict"] == "failed")
        if any(other.get("verdict") in ("passed", "selected") for other in self.rows):
            return True
        return row.get("rank") is None and any(other.get("rank") is not None for other in self.rows)

    @property
    def document(self) -> dict[str, Any]:
        """The stage in the shape of the service's answers, without its candidates."""
        names = ("id", "parent_id", "name", "type", "path", "order", "status", "error", "duration_ms", "reasoning")
        return {name: getattr(self, name) for name in names} | {"metrics": self.metrics}


@dataclass(frozen=True, slots=True)
class CandidateStep:
    """A candidate at one stage.

    Args:
        stage: The stage.
        row: What the stage recorded of the candidate.
    """

    stage: RecordedStage
    row: Mapping[str, Any]

    @property
    def lost(self) -> bool:
        """Whether the candidate went no further; see :meth:`RecordedStage.lost`."""
        return self.stage.lost(self.row)

    def __str__(self) -> str:
        row = self.row
        verdict = row.get("verdict") or ("not returned" if self.lost else "there")
        why = ": ".join(str(row[name]) for name in ("reason_label", "reason_text") if row.get(name) is not None)
        figures = [f"{name} {row[name]}" for name in ("score", "rank", "rank_before") if row.get(name) is not None]
        return f"{self.stage.path}  {verdict}" + (f" ({why})" if why else "") + "".join(f", {f}" for f in figures)


class RecordedRun:
    """One run as it was recorded.

    Args:
        events: The events of this run, in order of arrival.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = list(events)
        """Everything that was sent about the run."""
        known: dict[str, Any] = {}
        for event in self.events:
            known |= event["run"]
        ends: dict[str, Any] = {}
        more: dict[str, list[Event]] = {}
        for event in self.events:
            if event["type"] in ("run.start", "run.end"):
                metadata, tags = ends.get("metadata") or {}, ends.get("tags") or []
                ends |= event
                ends["metadata"] = metadata | (event.get("metadata") or {})
                ends["tags"] = sorted({*tags, *(event.get("tags") or ())})
            elif event["type"] == "candidates":
                more.setdefault(event["id"], []).append(event)
        self.id: str = known["id"]
        self.label: str | None = known.get("label")
        self.key: str | None = known.get("key")
        self.version: str | None = known.get("version")
        self.environment: str | None = known.get("environment")
        self.started_at = _moment(known.get("started_at"))
        self.finished_at = _moment(ends.get("finished_at"))
        self.duration_ms: float | None = ends.get("duration_ms")
        self.status: str = ends.get("status") or "running"
        self.error: dict[str, Any] | None = ends.get("error")
        self.input: Any = ends.get("input")
        self.output: Any = ends.get("output")
        self.metadata: dict[str, Any] = ends.get("metadata", {})
        self.tags: list[str] = ends.get("tags", [])
        stages = [RecordedStage(event, more.get(event["id"], ())) for event in self.events if event["type"] == "stage"]
        self.stages = sorted(stages, key=lambda stage: stage.order)
        """The stages in the order of their starts."""

    def __repr__(self) -> str:
        return f"<RecordedRun {self.label!r} {self.status}, {len(self.stages)} stages>"

    def _repr_html_(self) -> str:
        from xray.html import run_html

        return run_html(self.document)

    def stage(self, name: str) -> RecordedStage:
        """The stage of a path (``search/rank#2``) or, where only one has it, of a name.

        Args:
            name: The path or the name.

        Raises:
            LookupError: There is none, or several stages of different paths have the name.
        """
        for stage in self.stages:
            if stage.path == name:
                return stage
        named = [stage for stage in self.stages if stage.name == name]
        if len(named) == 1:
            return named[0]
        paths = [stage.path for stage in self.stages]
        if named:
            raise LookupError(f"Several stages are named '{name}'; give a path: {[s.path for s in named]}.")
        hint = did_you_mean(name, [*paths, *(stage.name for stage in self.stages)])
        raise LookupError(f"{self!r} has no stage '{name}'. {hint or f'It has {paths}.'}")

    def candidate(self, candidate_id: str | int) -> list[CandidateStep]:
        """The way of a candidate: each stage that looked at it, in order; empty where none did.

        Args:
            candidate_id: The candidate's id.
        """
        steps = ((stage, stage.row(candidate_id)) for stage in self.stages)
        return [CandidateStep(stage, row) for stage, row in steps if row is not None]

    def funnel(self) -> str:
        """The run as lines of text, a line a stage."""
        return funnel(self.document)

    @property
    def document(self) -> dict[str, Any]:
        """The run in the shape of the service's answers."""
        names = ("id", "key", "label", "version", "environment", "duration_ms", "status", "error", "input", "output")
        document = {name: getattr(self, name) for name in (*names, "metadata", "tags")}
        for name in ("started_at", "finished_at"):
            moment = getattr(self, name)
            document[name] = None if moment is None else moment.isoformat(timespec="milliseconds")
        return document | {"stages": [stage.document for stage in self.stages]}


def runs_of(events: Iterable[Event]) -> list[RecordedRun]:
    """The runs that events are about, in the order in which they first appear.

    Args:
        events: Events of the wire schema.
    """
    by_run: dict[str, list[Event]] = {}
    for event in events:
        by_run.setdefault(event["run"]["id"], []).append(event)
    return [RecordedRun(of_run) for of_run in by_run.values()]


def _rows(event: Event) -> list[dict[str, Any]]:
    columns = dict(event.get("columns") or {})
    if columns:
        ids = columns.pop("candidate_id", None) or columns.pop("id")
        return list(with_output(Columns(ids, columns)).rows())
    rows = []
    for given in event.get("candidates") or ():
        row = {name: value for name, value in given.items() if value is not None}
        rows.append({"candidate_id": str(row.pop("candidate_id", row.pop("id", None)))} | row)
    return rows


def _moment(value: Any) -> dt.datetime | None:
    """A time of the wire, which is milliseconds since 1970 or text, as a datetime in UTC."""
    if isinstance(value, str):
        return dt.datetime.fromisoformat(value).astimezone(dt.UTC)
    if value is None:
        return None
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=value)
