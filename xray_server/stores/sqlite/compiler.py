"""Conditions of the query language as SQL.

The SQL *narrows*: it may let through too much where a condition reaches into free-form JSON or candidates, never too
little. For the schema's scalar fields, for tags and for metrics it is exact. The tables' aliases are ``r`` (runs) and
``s`` (stages).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xray_server.documents import CANDIDATE_FIELDS, PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Kind
from xray_server.query.ast import And, Compare, Condition, Exists, Field, In, Metric, Not, Or, Reference, Test
from xray_server.stores.sqlite import metrics, zones
from xray_server.stores.sqlite.rows import RUNS, STAGES, mark
from xray_server.stores.sqlite.sql import (
    FALSE,
    TRUE,
    UNKNOWN,
    Bounds,
    Sql,
    all_of,
    any_of,
    both,
    either,
    exact,
)
from xray_server.stores.sqlite.values import (
    SYMBOLS,
    WORD,
    Storage,
    fits,
    id_expression,
    id_value,
    is_plain,
    word_expression,
)

Compile = Callable[[Test], Bounds]


@dataclass(frozen=True, slots=True)
class Column:
    """A scalar field in SQL.

    Args:
        name: What holds its value as it lies in the file; NULL where a document has none.
        kind: The kind of the field's values.
        storage: How they lie in the file.
    """

    name: str
    kind: Kind
    storage: Storage

    @property
    def ordered(self) -> str:
        """What sorts as the values do."""
        return word_expression(self.name) if self.storage == "word" else self.name


def combine(condition: Condition, compile_test: Compile) -> Bounds:
    """Compile a tree of conditions, given how to compile one test."""
    match condition:
        case And(conditions):
            return both(combine(part, compile_test) for part in conditions)
        case Or(conditions):
            return either(combine(part, compile_test) for part in conditions)
        case Not(inner):
            return ~combine(inner, compile_test)
        case Test():
            return compile_test(condition)


def run_condition(condition: Condition) -> Bounds:
    """A condition on a run, over the columns of ``r``."""
    return combine(condition, lambda test: _field_test(test, "r", RUN_FIELDS))


def stage_condition(condition: Condition, *, odd: bool = True) -> Bounds:
    """A condition on a stage, over the columns of ``s``; metrics are read off the stage's row (``probe.py``).

    Args:
        condition: The condition.
        odd: Whether some stage may have something under a metric that is neither a number nor a table of numbers.
    """

    def compile_test(test: Test) -> Bounds:
        if isinstance(test.reference, Metric):
            found = metrics.metric_test(test.reference, test)
            return found if odd or found == UNKNOWN else exact(found.under)
        return _field_test(test, "s", STAGE_FIELDS)

    return combine(condition, compile_test)


def stage_run_condition(condition: Condition) -> Bounds:
    """A condition on a stage's run, over the stage's copy of the run's fields; all of them must be there."""

    def compile_test(test: Test) -> Bounds:
        assert isinstance(test.reference, Field)
        (name,) = test.reference.path
        of_stage = Field(("run_id",)) if name == "id" else Field(("pipeline", name))
        return _field_test(Test(of_stage, test.operator), "s", STAGE_FIELDS)

    return combine(condition, compile_test)


def is_copied(reference: Reference) -> bool:
    """Whether a stage has this field of its run in its own row."""
    return isinstance(reference, Field) and len(reference.path) == 1 and reference.path[0] in PIPELINE_FIELDS


def references(condition: Condition) -> set[Reference]:
    """Every field and metric that a condition names."""
    match condition:
        case And(conditions) | Or(conditions):
            return {found for part in conditions for found in references(part)}
        case Not(inner):
            return references(inner)
        case Test(reference):
            return {reference}


def cheap_first(condition: Condition) -> Condition:
    """The same conjunction; what is read off columns comes before what has to be unpacked."""
    conditions = list(condition.conditions) if isinstance(condition, And) else [condition]
    conditions.sort(key=lambda part: any(isinstance(found, Metric) for found in references(part)))
    return And(tuple(conditions))


def only_copied(condition: Condition) -> bool:
    """Whether a stage has everything that a condition on its run names in its own row."""
    return all(is_copied(reference) for reference in references(condition))


def column(reference: Field, alias: str) -> Column | None:
    """The column of a scalar field, or None where the field has none."""
    table = RUNS if alias == "r" else STAGES
    match reference.path:
        case ("pipeline", "id") if alias == "s":
            return Column(_OWN_RUN, "id", "id")
        case (name,) if table.kinds.get(name, "json") not in ("json", "strings") and "pipeline_" not in name:
            return Column(f'{alias}."{name}"', table.kinds[name], table.storage[name])
        case ("pipeline", name) if alias == "s" and name in PIPELINE_FIELDS:
            return Column(f'{alias}."pipeline_{name}"', PIPELINE_FIELDS[name], table.storage[f"pipeline_{name}"])
    return None


_OWN_RUN = "(CASE s.pipeline_id WHEN 1 THEN s.run_id ELSE s.pipeline_id END)"


# --- fields -----------------------------------------------------------------------------------------------------


def _field_test(test: Test, alias: str, fields: dict[str, Kind]) -> Bounds:
    assert isinstance(test.reference, Field)
    found = column(test.reference, alias)
    if found is not None:
        return _scalar(found, test)
    match test.reference.path:
        case ("tags",) if fields.get("tags") == "strings":
            return _tags(f"{alias}.tags", test)
        case ("metadata", key):
            return _metadata(f"{alias}.metadata", key, test)
    return UNKNOWN


def _scalar(column: Column, test: Test) -> Bounds:
    match test.operator:
        case Exists(wanted):
            return exact(Sql(f"({column.name} IS {'NOT ' if wanted else ''}NULL)"))
        case In(values):
            return _in(column, values)
        case Compare(op, value):
            return _compare(column, op, value)


def _in(column: Column, values: tuple[Any, ...]) -> Bounds:
    parts = []
    listed = []
    for value in values:
        if value is None or not is_plain(value) or not fits(column.kind, value):
            parts.append(_compare(column, "eq", value))
        else:
            listed.append(id_value(value) if column.storage == "id" else value)
    if listed:
        marks = ", ".join("?" * len(listed))
        if column.storage == "word":
            marks = f"SELECT word FROM words WHERE text IN ({marks})"
        parts.append(exact(Sql(f"(+{column.name} IS NOT NULL AND {column.name} IN ({marks}))", tuple(listed))))
    return either(parts)


def _compare(column: Column, op: str, value: Any) -> Bounds:
    # Without the plus SQLite would take "is not null" for a range of an index, rather than the comparison behind it.
    name = column.name
    if value is None:
        # A null equals a null, and an absent field counts as null.
        return exact(Sql(f"({name} IS NULL)") if op in ("eq", "gte", "lte") else FALSE)
    if not fits(column.kind, value):
        # Values of different types are never equal, and only values of one type are ordered.
        return exact(FALSE)
    if not is_plain(value):
        return UNKNOWN
    if column.storage == "word":
        if op == "eq":
            return exact(Sql(f"(+{name} IS NOT NULL AND {name} = {WORD})", (value,)))
        words = f"SELECT word FROM words WHERE text {SYMBOLS[op]} ?"
        return exact(Sql(f"(+{name} IS NOT NULL AND {name} IN ({words}))", (value,)))
    if column.storage == "id":
        if op == "eq":
            return exact(Sql(f"(+{name} IS NOT NULL AND {name} = ?)", (id_value(value),)))
        return exact(Sql(f"(+{name} IS NOT NULL AND {id_expression(name)} {SYMBOLS[op]} ?)", (value,)))
    return exact(Sql(f"(+{name} IS NOT NULL AND {name} {SYMBOLS[op]} ?)", (value,)))


_TAG = Column("tag.value", "string", "plain")


def _tags(name: str, test: Test) -> Bounds:
    def some(condition: Bounds) -> Bounds:
        template = f"EXISTS (SELECT 1 FROM json_each({name}) AS tag WHERE %s)"
        under, over = (
            sql if sql in (TRUE, FALSE) else Sql(template % sql.text, sql.params)
            for sql in (condition.under, condition.over)
        )
        return Bounds(under, over)

    match test.operator:
        case Exists(wanted):
            return exact(Sql(f"({name} IS {'NOT ' if wanted else ''}NULL)"))
        case Compare(op, value) if value is None or isinstance(value, str):
            return (
                _compare(Column(name, "strings", "plain"), op, None)
                if value is None
                else some(_compare(_TAG, op, value))
            )
        case In(values) if all(isinstance(value, str) for value in values):
            return some(_in(_TAG, values))
    return UNKNOWN


def _metadata(name: str, key: str, test: Test) -> Bounds:
    """Narrow by a word in metadata.

    Only for texts: SQLite reads a decimal fraction out of JSON less exactly than Python does.
    """
    match test.operator:
        case Compare("eq", str() as text):
            texts = [text]
        case In(values) if values and all(isinstance(value, str) for value in values):
            texts = list(values)
        case _:
            return UNKNOWN
    # SQLite's JSON paths have no way to write these in a key.
    if not all(is_plain(text) for text in (key, *texts)) or '"' in key or "\\" in key:
        return UNKNOWN
    path = f'$."{key}"'
    marks = ", ".join("?" * len(texts))
    found = Sql(
        f"COALESCE(json_type({name}, ?) = 'array' OR json_extract({name}, ?) IN ({marks}), 0)", (path, path, *texts)
    )
    return Bounds(FALSE, found)


# --- candidates -------------------------------------------------------------------------------------------------


def page_condition(candidate: Condition) -> Sql:
    """What a page must satisfy to hold a candidate that satisfies the condition, over the columns of ``p``.

    An id or a label is looked for by its two bytes among the page's marks: that never misses it.
    """
    match candidate:
        case And(conditions):
            return all_of(page_condition(part) for part in conditions)
        case Or(conditions):
            return any_of(page_condition(part) for part in conditions)
        case Test(Field((("candidate_id" | "reason_label") as name,)), Compare("eq", str() as text)):
            return _mentions(name, text)
        case Test(Field((("candidate_id" | "reason_label") as name,)), In(values)) if all(
            isinstance(value, str) for value in values
        ):
            return any_of(_mentions(name, value) for value in values)
        case Test(Field(("score",)), Compare(op, value)) if fits("number", value) and is_plain(value):
            return _reaches(op, value)
        case Test(Field((first, *below))) if below or first not in CANDIDATE_FIELDS:
            return zones.condition(candidate)
    return TRUE


def _mentions(name: str, text: str) -> Sql:
    return Sql("(instr(p.marks, ?) > 0)", (mark(name, text),)) if is_plain(text) else TRUE


def _reaches(op: str, value: float) -> Sql:
    """Whether the scores of a page reach to where the condition holds."""
    parts = []
    if op in ("eq", "lt", "lte"):
        parts.append(Sql(f"(ifnull(p.score_low {'<' if op == 'lt' else '<='} ?, 0))", (value,)))
    if op in ("eq", "gt", "gte"):
        parts.append(Sql(f"(ifnull(p.score_high {'>' if op == 'gt' else '>='} ?, 0))", (value,)))
    return all_of(parts)
