"""A stage that is built by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, TypedDict, Unpack

from xray import ids
from xray.capture.redact import Redactor
from xray.exceptions import PluginError, SchemaError
from xray.hand_built.candidates import read_rows, rows_of_items
from xray.hand_built.values import Failure, Markers, Moment, check_fields, json_of, redacted, text_of
from xray.plugins import BUILT_IN, installed
from xray.schema import EVENT_FIELDS, FieldKind
from xray.stage_types.base import Columns, StageType, Verdict


class StageFields(TypedDict, total=False):
    """What a stage can be given beside its name, its type and its candidates.

    Args:
        input: What it was given beside its candidates.
        output: What it returned beside its candidates.
        reasoning: Why it decided as it did, in prose.
        llm: Model, tokens, temperature and cost of a model call.
        metadata: Small facts to filter by.
        facts: What its metrics need beside the candidates: ``{"requested": 100}`` of a retrieval.
        metrics: Metrics that you computed yourself, for a stage whose candidates are not all given.
        seen: How many candidates it looked at, where not all of them are given.
        started_at: When it began, the run's beginning by default; a datetime or ISO 8601 text, in UTC where it names
            no zone.
        duration_ms: How long it took.
        status: ``success`` or ``failure``; by default a failure where there is an error.
        error: What it raised.
        trace: ``{"trace_id": …, "span_id": …}`` of the same work in a tracing system.
        id: The stage's UUID, for sending the same stage again; a new one by default.
    """

    input: Any
    output: Any
    reasoning: str | None
    llm: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None
    facts: Mapping[str, Any] | None
    metrics: Mapping[str, Any] | None
    seen: int | None
    started_at: Moment | None
    duration_ms: float | None
    status: str | None
    error: Failure | None
    trace: Mapping[str, Any] | None
    id: str | None


_KINDS: dict[str, FieldKind] = {
    "id": "id",
    "seen": "count",
    **{field.name: field.kind for field in EVENT_FIELDS["stage"] if field.name in StageFields.__annotations__},
}


class Stages:
    """What stages are added to: a run, or a stage that others run inside of."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        """The stages that were added, in order."""

    def add(self, stage: Stage) -> Stage:
        """Add a stage after those that are there.

        Args:
            stage: A stage that was not added to anything yet.

        Returns:
            The stage.

        Raises:
            SchemaError: It was added before, or would lie inside of itself.
        """
        if stage.is_added or self in (stage, *stage.nested()):
            raise SchemaError(f"The stage '{stage.name}' cannot be added again.", code="bad_value", path=stage.name)
        stage.is_added = True
        self.stages.append(stage)
        return stage

    def stage(self, name: str, stage_type: str = "raw", **fields: Unpack[StageFields]) -> Stage:
        """Make a stage and add it.

        Args:
            name: The stage's name.
            stage_type: Its type: ``filtering``, ``scoring``, … or a plugin's.
            fields: See :class:`StageFields`.

        Returns:
            The stage, for its candidates.

        Raises:
            SchemaError: A field cannot be so; ``path`` names it.
        """
        return self.add(Stage(name, stage_type, **fields))

    def nested(self) -> Iterator[Stage]:
        """Every stage inside, each before those inside of it."""
        for stage in self.stages:
            yield stage
            yield from stage.nested()


class Stage(Stages):
    """One stage of a run that is built by hand.

    Args:
        name: The stage's name.
        stage_type: Its type: ``filtering``, ``scoring``, … or a plugin's. One that no plugin here brings needs
            ``metrics=``, because nobody else could compute them.
        fields: See :class:`StageFields`.

    Raises:
        SchemaError: A field cannot be so; ``path`` names it.
    """

    def __init__(self, name: str, stage_type: str = "raw", **fields: Unpack[StageFields]) -> None:
        super().__init__()
        self.is_added = False
        """Whether it is part of a run or of another stage."""
        self.name = text_of(name, "stage.name")
        self.type = text_of(stage_type, f"stage '{self.name}'.stage_type")
        self._rows: list[dict[str, Any]] = []
        self._markers: Markers = []
        self._fields: dict[str, Any] = {}
        self._stage_type = self._find_type(may_be_unknown=fields.get("metrics") is not None)
        self.update(**fields)
        self.id: str = self._fields.pop("id", None) or ids.new_id()
        """The stage's UUID."""

    def __repr__(self) -> str:
        return f"<Stage {self.name!r} {self.type}, {len(self._rows)} candidates>"

    def _repr_html_(self) -> str:
        from xray.recorded import RecordedStage

        return RecordedStage(self.event({}, None, 0, self.name))._repr_html_()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The candidates so far, as they will be sent: ``candidate_id`` and each column that has a value."""
        return [dict(row) for row in self._rows]

    def update(self, **fields: Unpack[StageFields]) -> Self:
        """Set fields that were not known before.

        Args:
            fields: See :class:`StageFields`; None leaves a field as it is.

        Returns:
            The stage.

        Raises:
            SchemaError: There is no such field, or it cannot be so; nothing was changed.
        """
        self._fields |= check_fields(fields, _KINDS, f"stage '{self.name}'", self._markers)
        return self

    def candidate(
        self,
        id: str | int,
        *,
        verdict: Verdict | None = None,
        reason_label: str | None = None,
        reason_text: str | None = None,
        score: float | None = None,
        scores: Mapping[str, float] | None = None,
        checks: Mapping[str, Any] | None = None,
        rank: int | None = None,
        rank_before: int | None = None,
        data: Any = None,
        output: Any = None,
        **own: Any,
    ) -> Self:
        """Add one candidate.

        Args:
            id: The candidate's id.
            verdict: ``passed``, ``failed`` or ``selected``.
            reason_label: A short code for why: ``price_too_high``.
            reason_text: Why, in prose.
            score: Its score.
            scores: Several scores at once: name → number.
            checks: Several criteria at once: name → whether it passed, ``(passed, detail)`` or
                ``{"passed": …, "detail": …}``.
            rank: Its place after the stage, from 1.
            rank_before: Its place before the stage, from 1.
            data: The candidate as it came in.
            output: What the stage added to it or changed.
            own: Columns of the stage type's own: ``source`` of a retrieval.

        Returns:
            The stage.

        Raises:
            SchemaError: A value cannot be so; ``path`` names it.
        """
        row = {
            "id": id, "verdict": verdict, "reason_label": reason_label, "reason_text": reason_text, "score": score,
            "scores": scores, "checks": checks, "rank": rank, "rank_before": rank_before, "data": data,
            "output": output,
        }  # fmt: skip
        return self.candidates([row | own])

    def candidates(
        self,
        rows: Iterable[Mapping[str, Any]] = (),
        *,
        passed: Iterable[Any] = (),
        failed: Iterable[Any] = (),
        selected: Iterable[Any] = (),
        id: str | int | Callable[[Any], Any] | None = None,
    ) -> Self:
        """Add candidates: as rows, or as your own items by what became of them.

        Args:
            rows: Mappings with ``id`` and what :meth:`candidate` takes.
            passed: Items that passed.
            failed: Items that failed: each alone, as ``(item, reason_label)`` or as ``(item, reason_label,
                reason_text)``.
            selected: Items that were selected.
            id: How an item's id is read: a name, a dotted path, a tuple index or a callable; by default the first of
                ``id``, ``uuid``, ``key`` … that all of them have. A text or a number is its own id.

        Returns:
            The stage.

        Raises:
            SchemaError: A value cannot be so, or an item has no id; ``path`` names it. None was added.
        """
        place = f"stage '{self.name}'"
        given = [*rows, *rows_of_items(place, id, passed=passed, failed=failed, selected=selected)]
        own = None if self._stage_type is None else self._stage_type.columns
        self._rows += read_rows(given, place, own, len(self._rows), self._markers)
        return self

    def event(
        self, run: Mapping[str, Any], parent_id: str | None, order: int, path: str, redactor: Redactor | None = None
    ) -> dict[str, Any]:
        """The stage's event of the wire schema, with all of its candidates.

        Args:
            run: The run's immutable fields.
            parent_id: The stage that this one ran inside of, or None.
            order: Its place in the run's sequence of starts.
            path: The names of its parents and its own, with its repeat number.
            redactor: What is made unreadable, or None.

        Raises:
            SchemaError: It has more candidates than it says that it has seen.
        """
        fields = redacted(self._fields, redactor)
        count = len(self._rows)
        seen = fields.pop("seen", count)
        if seen < count:
            raise SchemaError(
                f"The stage has {count} candidates and cannot have seen only {seen}.",
                code="bad_value",
                path=f"stage '{self.name}'.seen",
            )
        mode = "full" if seen == count else "sampled" if count else "summary"
        event = {
            "type": "stage",
            "id": self.id,
            "run": dict(run),
            "parent_id": parent_id,
            "order": order,
            "path": path,
            "name": self.name,
            "stage_type": self.type,
            "started_at": run.get("started_at"),
            "status": "failure" if "error" in fields else "success",
            **fields,
            "capture": {"mode": mode, "seen": seen, "kept": count, "markers": list(self._markers)},
        }
        columns = Columns.from_rows(self._rows, fields.get("facts"))
        if self._stage_type is not None and seen == count:
            self._measure(self._stage_type, columns, event, is_redacted=redactor is not None)
        if count:
            kept = columns if redactor is None else redactor.apply_columns(columns)
            event["columns"] = {"candidate_id": kept.candidate_id, **kept.values}
        return {name: value for name, value in event.items() if value is not None}

    def _measure(self, stage_type: StageType, columns: Columns, event: dict[str, Any], *, is_redacted: bool) -> None:
        """Add the metrics where the service cannot compute them: it may lack the plugin, or must not see the values."""
        is_plugins = type(stage_type).__module__ not in BUILT_IN
        if is_plugins or is_redacted:
            event["metrics"] = json_of(stage_type.measure(columns)) | self._fields.get("metrics", {})
        if is_plugins:
            event["metric_declarations"] = stage_type.declarations()

    @property
    def is_whole(self) -> bool:
        """Whether every candidate that the stage saw is given."""
        return bool(self._fields.get("seen", 0) <= len(self._rows))

    def _find_type(self, *, may_be_unknown: bool) -> StageType | None:
        try:
            return installed().stage_type(self.type)
        except PluginError as error:
            if may_be_unknown:
                return None
            raise SchemaError(
                error.message,
                code="unknown_stage_type",
                path=f"stage '{self.name}'.stage_type",
                hint=error.hint or "Give metrics= for a type of your own that no plugin here brings.",
            ) from None
