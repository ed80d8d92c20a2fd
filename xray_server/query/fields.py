"""The catalogue of what a question may name: the fields of each part, and the metrics of all stage types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xray.exceptions import PluginError, QueryError
from xray.metrics import METRICS_OF_ALL_TYPES, Metric
from xray.plugins import Plugins
from xray.schema import COMPLETENESS, STATUSES
from xray.stage_types.base import VERDICTS
from xray_server.documents import CANDIDATE_FIELDS, PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Kind
from xray_server.query import ast
from xray_server.query.operators import LONGEST_SLIP, OPERATORS, RESERVED, folded, hint_for, show

Part = Literal["pipeline", "stage", "candidate"]

FIELDS: dict[Part, dict[str, Kind]] = {
    "pipeline": RUN_FIELDS,
    "stage": STAGE_FIELDS,
    "candidate": CANDIDATE_FIELDS,
}
WORDS: dict[Part, dict[str, tuple[str, ...]]] = {
    "pipeline": {"status": STATUSES, "completeness": COMPLETENESS},
    "stage": {"status": STATUSES},
    "candidate": {"verdict": VERDICTS},
}
"""The fields that hold one of a few words."""

SORTABLE: frozenset[Kind] = frozenset({"id", "string", "time", "number", "count"})
MAX_SEGMENTS = 20
_ALIASES: dict[Part, dict[str, str]] = {
    "pipeline": {"_id": "id"},
    "stage": {"_id": "id"},
    "candidate": {"_id": "candidate_id", "id": "candidate_id"},
}
_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Named:
    """What a word of a question turned out to name.

    Args:
        reference: The field or metric.
        kind: The kind of value it holds; a metric holds a ``number``.
        words: The only words it can hold, or None.
    """

    reference: ast.Reference
    kind: Kind
    words: tuple[str, ...] | None = None


MOST_RESOLVED = 2000
"""Words whose meaning is kept, so that it need not be looked up for every question."""


class MetricCatalog:
    """The metrics that questions may name, from the declarations of all stage types.

    Args:
        declarations: Stage type name → its metrics, as ``Plugins.metrics()`` gives them. The metrics that every
            stage has need not be among them.
        candidate_columns: Candidate columns of the types' own, beside the schema's.
        aliases: Name of an indexed field of candidates → the paths that it was declared for.

    Raises:
        PluginError: As :meth:`add`.
    """

    def __init__(
        self,
        declarations: Mapping[str, Iterable[Metric]] | None = None,
        *,
        candidate_columns: Iterable[str] = (),
        aliases: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.candidate_columns = frozenset(candidate_columns)
        self.aliases = dict(aliases or {})
        # Folded name → the declaration that came first, and the stage type that made it.
        self._metrics: dict[str, tuple[Metric, str]] = {}
        self.resolved: dict[tuple[Part, str], Named] = {}
        """What :func:`resolve` found for words that were asked about already."""
        self.add("every type", METRICS_OF_ALL_TYPES)
        for stage_type, metrics in (declarations or {}).items():
            self.add(stage_type, metrics)

    @classmethod
    def of(cls, plugins: Plugins) -> MetricCatalog:
        """The catalogue of everything that a process's plugins bring."""
        columns = (column for stage_type in plugins.stage_types.values() for column in stage_type.columns)
        return cls(plugins.metrics(), candidate_columns=columns)

    def add(self, stage_type: str, declarations: Iterable[Metric | Mapping[str, Any]]) -> None:
        """Add the metrics of one stage type; all of them, or none where it raises.

        Args:
            stage_type: The stage type's name.
            declarations: Metrics, or their declarations as JSON (``xray.metrics.Metric.as_dict``).

        Raises:
            PluginError: A declaration is malformed; its name clashes with an operator or, but for ``_``, with
                another metric's; or another type declares the same name with another kind.
        """
        self.resolved.clear()
        added: dict[str, tuple[Metric, str]] = {}
        for declaration in declarations:
            metric = declaration if isinstance(declaration, Metric) else _from_declaration(stage_type, declaration)
            name = folded(metric.name)
            if name in RESERVED:
                raise PluginError(f"The metric '{metric.name}' of '{stage_type}' has the name of an operator.")
            known = added.get(name) or self._metrics.get(name)
            if known is None:
                added[name] = metric, stage_type
                continue
            other, owner = known
            if other.name != metric.name:
                raise PluginError(
                    f"The metrics '{metric.name}' of '{stage_type}' and '{other.name}' of '{owner}' have names that "
                    "are equal without '_'."
                )
            if other.kind != metric.kind:
                raise PluginError(
                    f"The metric '{metric.name}' of '{stage_type}' is of kind {metric.kind}; that of '{owner}' is of "
                    f"kind {other.kind}."
                )
        self._metrics.update(added)

    def declaration(self, name: str) -> Metric | None:
        """The declaration of a metric by any spelling of its name, or None."""
        found = self._metrics.get(folded(name))
        return found[0] if found else None

    def words(self) -> tuple[str, ...]:
        """Every metric as questions write it (``$failRatio``), sorted."""
        return tuple(sorted(camel(metric.name) for metric, _ in self._metrics.values()))

    def resolve(self, word: str, path: str) -> ast.Metric:
        """The metric that a word of a question names.

        Args:
            word: ``$failRatio``, ``$fail_ratio`` or ``metrics.fail_ratio``; for a table with a key behind a dot.
                Everything behind that dot is the key, further dots included.
            path: Where the word stands in the question.

        Raises:
            QueryError: There is no such metric; a table has no key or a number has one; it is not for searching.
        """
        name, dot, key = word.removeprefix("metrics.").removeprefix("$").partition(".")
        metric = self.declaration(name)
        if metric is None:
            raise QueryError(
                f"There is no metric '{show(name)}'.", code="unknown_metric", path=path, hint=self._near(word, name)
            )
        if metric.kind == "data":
            raise QueryError(f"The metric '{metric.name}' is shown, not searched.", code="not_searchable", path=path)
        if metric.kind == "number" and dot:
            raise QueryError(
                f"The metric '{metric.name}' is one number; it has nothing below it.",
                path=path,
                hint=f"Write {camel(metric.name)}.",
            )
        if metric.kind == "table" and not key:
            raise QueryError(
                f"The metric '{metric.name}' is a table; a question names one of its keys.",
                path=path,
                hint=f"Write {camel(metric.name)}.<key>.",
            )
        return ast.Metric(metric.name, key if metric.kind == "table" else None)

    def _near(self, word: str, name: str) -> str | None:
        by_fold = {fold: camel(metric.name) for fold, (metric, _) in self._metrics.items()}
        if not word.startswith("metrics."):
            by_fold |= {folded(operator): operator for operator in OPERATORS}
        near = difflib.get_close_matches(folded(name), by_fold, n=1) if len(name) <= LONGEST_SLIP else []
        return f"Did you mean '{by_fold[near[0]]}'?" if near else None


def camel(name: str) -> str:
    """A metric's name as questions write it: ``fail_ratio`` → ``$failRatio``."""
    first, *rest = name.split("_")
    return "$" + first + "".join(word[:1].upper() + word[1:] for word in rest)


def _from_declaration(stage_type: str, declaration: Any) -> Metric:
    """A metric out of a declaration that a sender brought; what is not needed for questions may be missing."""
    if not isinstance(declaration, Mapping):
        raise PluginError(f"A metric declaration of '{show(stage_type)}' is not an object.")
    name, kind = declaration.get("name"), declaration.get("kind", "number")
    if not isinstance(name, str) or not _METRIC_NAME.match(name):
        raise PluginError(f"A metric of '{show(stage_type)}' has no name of the form [a-z][a-z0-9_]*.")
    if kind not in ("number", "table", "data"):
        raise PluginError(f"The metric '{show(name)}' of '{show(stage_type)}' is of no known kind.")
    bad = declaration.get("bad")
    return Metric(
        name,
        unit=str(declaration.get("unit", "")),
        meaning=str(declaration.get("meaning", "")),
        kind=kind,
        indexed=declaration.get("indexed", True) is True,
        bad=bad if bad in ("high", "low") else None,
    )


def resolve(part: Part, word: str, path: str, catalog: MetricCatalog) -> Named:
    """What a word of a question names in one of its parts.

    Args:
        part: The part of the question.
        word: A field with its dotted path, or a metric.
        path: Where the word stands in the question.
        catalog: The metrics and the types' own candidate columns.

    Raises:
        QueryError: It names nothing; the hint says what is near.
    """
    found = catalog.resolved.get((part, word))
    if found is None:
        found = _resolved(part, word, path, catalog)
        if len(catalog.resolved) < MOST_RESOLVED and len(word) <= LONGEST_SLIP:
            catalog.resolved[part, word] = found
    return found


def _resolved(part: Part, word: str, path: str, catalog: MetricCatalog) -> Named:
    if part == "stage" and word.startswith(("$", "metrics.")):
        return Named(catalog.resolve(word, path), "number")
    segments = word.split(".")
    check_segments(segments, word, path)
    head = _ALIASES[part].get(segments[0], segments[0])
    kind = FIELDS[part].get(head)
    if kind is None and part == "candidate" and head in catalog.candidate_columns:
        kind = "json"
    if kind is None and part == "candidate" and head in catalog.aliases:
        return _indexed(head, segments[1:], path, catalog)
    if kind is None:
        raise _unknown_field(part, head, path, catalog)
    if part == "stage" and head == "metrics":
        raise QueryError("A question names one metric.", path=path, hint="Write $failRatio or metrics.fail_ratio.")
    if part == "stage" and head == "pipeline":
        return _pipeline_of_stage(segments, path)
    if len(segments) > 1 and kind != "json":
        raise QueryError(f"'{head}' is one value; it has nothing below it.", path=path, hint=f"Write {head}.")
    return Named(ast.Field((head, *segments[1:])), kind, WORDS[part].get(head))


def check_segments(segments: Sequence[str], word: str, path: str) -> None:
    """Hold the segments of a path to what a path can have.

    Args:
        segments: The path in its parts.
        word: The path as it was written.
        path: Where it stands in the question.

    Raises:
        QueryError: They are too many, or one is empty or starts with ``$``.
    """
    if len(segments) > MAX_SEGMENTS:
        raise QueryError(f"A path has at most {MAX_SEGMENTS} segments.", code="too_large", path=path)
    if "" in segments:
        raise QueryError(f"'{show(word)}' has an empty segment.", path=path)
    if any(segment.startswith("$") for segment in segments[1:]):
        raise QueryError(f"'{show(word)}' has a segment that starts with '$'.", path=path)


def kind_of(returns: ast.Returns, reference: ast.Reference) -> Kind:
    """The kind of values that a sort key over the returned collection has."""
    if isinstance(reference, ast.Metric):
        return "number"
    if returns == "runs":
        return RUN_FIELDS[reference.path[0]]
    if reference.path[0] == "pipeline":
        return PIPELINE_FIELDS[reference.path[1]]
    return STAGE_FIELDS[reference.path[0]]


def _indexed(name: str, below: list[str], path: str, catalog: MetricCatalog) -> Named:
    """What the name of an indexed field stands for."""
    first, *others = catalog.aliases[name]
    if others:
        raise QueryError(
            f"'{name}' names several indexed fields.",
            code="ambiguous_field",
            path=path,
            hint=f"Write one of {', '.join((first, *others))}.",
        )
    segments = [*first.split("."), *below]
    check_segments(segments, first, path)
    return Named(ast.Field(tuple(segments)), "json")


def _pipeline_of_stage(segments: list[str], path: str) -> Named:
    name = ".".join(segments[1:])
    name = "id" if name == "_id" else name
    if name not in PIPELINE_FIELDS:
        raise QueryError(
            f"A stage has no '{show('.'.join(segments))}'.",
            code="unknown_field",
            path=path,
            hint=hint_for(name, *PIPELINE_FIELDS) or f"It has pipeline.{', pipeline.'.join(PIPELINE_FIELDS)}.",
        )
    return Named(ast.Field(("pipeline", name)), PIPELINE_FIELDS[name])


def _own_names(part: Part, catalog: MetricCatalog) -> tuple[str, ...]:
    return (*catalog.candidate_columns, *catalog.aliases) if part == "candidate" else ()


def _unknown_field(part: Part, head: str, path: str, catalog: MetricCatalog) -> QueryError:
    metric = catalog.declaration(head)
    hint = None
    if part == "stage" and metric is not None:
        hint = f"Did you mean '{camel(metric.name)}'?"
    hint = hint or hint_for(head, *FIELDS[part], *_own_names(part, catalog))
    if hint is None:
        others = [other for other, fields in FIELDS.items() if head in fields]
        hint = f"'{show(head)}' belongs under '{others[0]}'." if others else None
    owner = "run" if part == "pipeline" else part
    return QueryError(f"A {owner} has no field '{show(head)}'.", code="unknown_field", path=path, hint=hint)
