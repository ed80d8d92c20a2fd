"""The stage-type interface: the one thing that a built-in type and a plugin's type implement.

A stage type says which fields its decorator accepts, how a call becomes columns of candidates, and which metrics
it computes from them. The flow is ``call → extract → Columns → compute → metrics``; ``extract`` runs in the SDK,
``compute`` in the SDK or the service, ``panel`` in the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xray.capture.frames import column_values, is_column, is_frame
from xray.exceptions import PluginError
from xray.figures import declared
from xray.metrics import COMMON_METRICS, CRITERIA_METRICS, Metric, MetricValue, criteria_metrics

if TYPE_CHECKING:
    from xray.capture.call import StageCall

Verdict = Literal["passed", "failed", "selected"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "selected")

CANDIDATE_COLUMNS = (
    "verdict",
    "reason_label",
    "reason_text",
    "score",
    "scores",
    "checks",
    "rank",
    "rank_before",
    "data",
    "output",
    "returned",
)
"""The columns that every type may fill, besides the candidate ids. A type's own columns come on top.

``returned`` is a candidate as it went out; the service keeps what of it was added or changed as ``output``.
"""


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that the decorator of a stage type accepts.

    Args:
        name: The keyword argument.
        kind: ``accessor`` reads a value from each candidate of the output (a name, a dotted path, a tuple index or
            a callable); ``option`` is taken as it is.
        meaning: One sentence for help texts.
        defaults: The accessors that are tried, in order, where the decorator was given none.
    """

    name: str
    kind: Literal["accessor", "option"]
    meaning: str
    defaults: tuple[str | int, ...] = ()


COMMON_FIELDS = (
    Field("id", "accessor", "The candidate's id."),
    Field("checks", "accessor", "Several criteria at once: name → passed, or (passed, detail)."),
    Field("scores", "accessor", "Several scores at once: name → number."),
    Field("labels", "option", "The reason labels that are expected; others are counted as unknown."),
)
"""What the decorator of every stage type with candidates accepts."""


@dataclass(slots=True)
class Columns:
    """The candidates of one stage, by column.

    ``candidate_id`` has one string a candidate. ``values`` has the columns that are in use, each a list as long as
    ``candidate_id`` with None where a candidate has no value. ``facts`` holds the few numbers and words about the
    stage as a whole that ``compute`` needs and no candidate carries (``requested``, ``id_from``).
    """

    candidate_id: list[str]
    values: dict[str, list[Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.candidate_id)

    def column(self, name: str) -> list[Any]:
        """The column of that name, all None where it is not in use."""
        found = self.values.get(name)
        return [None] * len(self.candidate_id) if found is None else found

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each candidate as ``{"candidate_id": …, column: value}``, without the values that are None."""
        names = list(self.values)
        lists = [self.values[name] for name in names]
        for position, candidate_id in enumerate(self.candidate_id):
            row: dict[str, Any] = {"candidate_id": candidate_id}
            for name, values in zip(names, lists, strict=True):
                if values[position] is not None:
                    row[name] = values[position]
            yield row

    def slice(self, start: int, stop: int) -> Columns:
        """The candidates from ``start`` up to ``stop``, with the same facts."""
        return Columns(
            self.candidate_id[start:stop],
            {name: values[start:stop] for name, values in self.values.items()},
            self.facts,
        )

    def picked(self, places: Sequence[int]) -> Columns:
        """The candidates at these places, in that order, with the same facts."""
        return Columns(
            [self.candidate_id[place] for place in places],
            {name: _picked(values, places) for name, values in self.values.items()},
            self.facts,
        )

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | None = None) -> Columns:
        """Columns out of rows; the inverse of :meth:`rows`."""
        names = dict.fromkeys(name for row in rows for name in row if name != "candidate_id")
        return cls(
            [row["candidate_id"] for row in rows],
            {name: [row.get(name) for row in rows] for name in names},
            dict(facts or {}),
        )


def _picked(values: Any, places: Sequence[int]) -> list[Any]:
    # Candidates that are kept by field need not all be put together for the sake of a few.
    pick = getattr(values, "picked", None)
    found: list[Any] = [values[place] for place in places] if pick is None else pick(places)
    return found


class StageType:
    """A kind of decision step: what its decorator accepts, what it extracts, what it measures.

    A subclass sets the class attributes and implements :meth:`extract` and :meth:`compute`. Instances hold no state:
    one instance serves all threads of a process.
    """

    name: ClassVar[str]
    """The word that ``stage.type`` holds: lower case, ``[a-z][a-z0-9_]*``."""

    meaning: ClassVar[str]
    """One sentence about what a stage of this type decides."""

    fields: ClassVar[tuple[Field, ...]] = ()
    """What the decorator accepts beside the name and ``id=``."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Candidate columns of this type's own, beside ``CANDIDATE_COLUMNS``."""

    metrics: ClassVar[tuple[Metric, ...]] = ()
    """The metrics beside ``COMMON_METRICS``, each declared once."""

    takes_candidates: ClassVar[bool] = True
    """Whether candidates come in: then the first list among the arguments is taken for them where none is marked."""

    reads_candidates: ClassVar[bool] = False
    """Whether :meth:`compute` looks at the candidates themselves (``data``), and not at their columns alone."""

    reads_inputs: ClassVar[tuple[str, ...]] = ()
    """The fields that :meth:`extract` reads from the candidates that come in, beside the id."""

    unmeasured_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that no metric is made of, so that a summary need not read them."""

    def candidates_in(self, result: Any) -> Sequence[Sequence[Any]]:
        """Where in a return value the candidates lie.

        Runs on the caller's thread, on the live value: it may look, but not read attributes or consume anything.

        Args:
            result: What the decorated callable returned.

        Returns:
            The lists of candidates that went out, the main one first; none where there is none.
        """
        if isinstance(result, (list, tuple)) or is_frame(result):
            return [result]
        return [column_values(result)] if is_column(result) else []

    def extract(self, call: StageCall) -> Columns:
        """Turn one call into columns of candidates.

        Runs in the SDK's worker thread, on snapshots: it may read ``call`` freely and never sees the user's objects.

        Args:
            call: The inputs, the output and the decorator's fields of the call.

        Returns:
            The candidates; empty columns where the stage has none.

        Raises:
            Exception: Whatever it raises is caught, counted and noted on the stage; the stage is kept without
                candidates.
        """
        raise NotImplementedError

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """Compute the declared metrics from all candidates of one stage.

        Pure and standard library only: it runs in the SDK or the service, and the same columns give the same values.

        Args:
            columns: Every candidate of the stage.

        Returns:
            Metric name → value; a metric that has no value for these candidates is left out.
        """
        raise NotImplementedError

    def panel(self, stage: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Figures for this type on the stage's page (service only).

        By default bars for each table among the metrics, and each histogram.

        Args:
            stage: The stage as the service keeps it; not to be changed.

        Returns:
            Figures as Plotly takes them, as plain JSON: ``xray.figures`` makes the usual ones. They say what is shown;
            colours and sizes are the page's.
        """
        return declared(self.metrics, stage.get("metrics") or {})

    def all_fields(self) -> tuple[Field, ...]:
        """The common fields and this type's own."""
        return COMMON_FIELDS + self.fields

    def all_metrics(self) -> tuple[Metric, ...]:
        """The common metrics and this type's own."""
        return COMMON_METRICS + self.metrics + CRITERIA_METRICS

    def declarations(self) -> list[dict[str, Any]]:
        """What a service without this type must know to answer questions about its metrics and columns, as JSON."""
        columns = [Metric(name, "", "A candidate's column.", indexed=False).as_dict() for name in self.columns]
        return [metric.as_dict() for metric in self.metrics] + [column | {"kind": "column"} for column in columns]

    def measure(self, columns: Columns) -> dict[str, MetricValue]:
        """What :meth:`compute` gives, and the metrics that X-Ray computes for every type.

        Args:
            columns: Every candidate of the stage.
        """
        return self.compute(columns) | criteria_metrics(
            columns.values.get("checks", ()), columns.values.get("scores", ())
        )


_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_KEYWORDS = ("type", "name", "of", "capture", "redact", "index")
"""What every decorator takes that is no field."""


def check_stage_type(stage_type: StageType) -> None:
    """Hold a stage type to the interface, when it is registered.

    Raises:
        PluginError: A name is not of the form, a column or a metric is declared twice, or a declaration is missing.
    """
    place = type(stage_type).__qualname__
    for attribute in ("name", "meaning"):
        if not isinstance(getattr(stage_type, attribute, None), str):
            raise PluginError(f"Stage type {place} has no '{attribute}'.", path=place)
    declared: tuple[tuple[str, type], ...] = (
        ("fields", Field), ("columns", str), ("metrics", Metric), ("reads_inputs", str), ("unmeasured_fields", str),
    )  # fmt: skip
    for attribute, of in declared:
        given = getattr(stage_type, attribute)
        if not isinstance(given, tuple) or not all(isinstance(each, of) for each in given):
            raise PluginError(f"Stage type {place}: '{attribute}' is no tuple of {of.__name__}.", path=place)
    taken = {f.name for f in stage_type.fields} & {*_KEYWORDS, *(f.name for f in COMMON_FIELDS)}
    if taken:
        raise PluginError(f"Stage type {place} has a field '{min(taken)}', which every decorator has.", path=place)
    metric_names = [metric.name for metric in stage_type.all_metrics()]
    both = set(stage_type.columns) & set(metric_names)
    if both:
        raise PluginError(f"Stage type {place} has a column and a metric '{min(both)}'.", path=place)
    for kind, names in (
        ("type", [stage_type.name]),
        ("field", [f.name for f in stage_type.fields]),
        ("column", list(stage_type.columns) + list(CANDIDATE_COLUMNS)),
        ("metric", metric_names),
    ):
        for name in names:
            if not _NAME.match(name):
                raise PluginError(
                    f"The {kind} name '{name}' of {place} is not of the form [a-z][a-z0-9_]*.", path=place
                )
        folded = [name.replace("_", "") for name in names]
        if len(set(folded)) != len(folded):
            raise PluginError(f"Stage type {place} declares a {kind} twice (names are equal without '_').", path=place)
