"""A scan as SQL statements.

The documents without a value of the first sort key come before (ascending) or after (descending) those with one.
Each of the two groups is a statement of its own, because an index serves each of them and not their union.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xray.exceptions import StoreError
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, In, Metric, Scan, SortKey, Test
from xray_server.stores.encoding import is_number
from xray_server.stores.sqlite import compiler
from xray_server.stores.sqlite.rows import PAGE_BITS, RUNS, STAGES, Table
from xray_server.stores.sqlite.sql import FALSE, TRUE, Sql, all_of, any_of
from xray_server.stores.sqlite.values import WORD, id_text, id_value


def table_of(scan: Scan) -> Table:
    """The table whose rows the scan's statements give, each followed by its sort values."""
    return STAGES if scan.of == "stages" else RUNS


def statements(project: str, scan: Scan) -> Iterator[Sql]:
    """The statements whose rows, one after the other, answer the scan; each without its ``LIMIT``."""
    keys = [_key(project, scan, position) for position in range(len(scan.sort))]
    if not keys:
        raise StoreError("A scan needs at least one sort key.")
    groups: Sequence[bool] = (False, True)  # whether there is a value of the first key
    if keys[0].descending:
        groups = (True, False)
    for has_value in groups:
        if has_value or keys[0].nullable:
            where = _after(keys, scan.after, has_value)
            if where != FALSE:
                yield _statement(project, scan, keys, has_value, where)


def sort_values(found: Sequence[Any]) -> tuple[Any, ...]:
    """The sort values of a row as plain JSON values."""
    return tuple(id_text(value) if isinstance(value, bytes) else value for value in found)


@dataclass(frozen=True, slots=True)
class _Key:
    expression: str
    descending: bool
    nullable: bool
    metric: Sql | None = None
    """The number of the metric that the key is."""
    is_id: bool = False


def _key(project: str, scan: Scan, position: int) -> _Key:
    sort: SortKey = scan.sort[position]
    alias = "s" if scan.of == "stages" else "r"
    if isinstance(sort.reference, Metric):
        if scan.of != "stages":
            raise StoreError(f"Runs have no metric '{sort.reference}' to sort by.", code="bad_sort")
        metric = compiler.metric_id(project, compiler.metric_row_name(sort.reference))
        return _Key(f"k{position}.value", sort.descending, True, metric)
    found = compiler.column(sort.reference, alias)
    if found is None:
        raise StoreError(f"The store cannot sort by '{sort.reference}'.", code="bad_sort")
    return _Key(found.ordered, sort.descending, sort.reference.path != ("id",), is_id=found.storage == "id")


def _after(keys: Sequence[_Key], after: Sequence[Any] | None, has_value: bool) -> Sql:
    """What comes after the last row, within the group of rows with or without a value of the first key."""
    if after is None:
        return TRUE
    if len(after) != len(keys):
        raise StoreError(f"The scan has {len(keys)} sort keys and {len(after)} values to go on after.")
    after = [
        id_value(value) if key.is_id and isinstance(value, str) else value
        for key, value in zip(keys, after, strict=True)
    ]
    first, value = keys[0], after[0]
    if has_value and value is not None:
        # The lone bound is implied by the rest; it is what the index can use.
        bound = Sql(f"({first.expression} {'<=' if first.descending else '>='} ?)", (value,))
        return all_of([bound, _later(keys, after)])
    if not has_value and value is None:
        return _later(keys[1:], after[1:])
    return TRUE if has_value != first.descending else FALSE  # the whole group comes after the last row, or before


def _later(keys: Sequence[_Key], after: Sequence[Any]) -> Sql:
    if not keys:
        return FALSE
    name, value = keys[0].expression, after[0]
    if keys[0].descending:
        later = FALSE if value is None else Sql(f"({name} < ? OR {name} IS NULL)", (value,))
    else:
        later = Sql(f"({name} IS NOT NULL)") if value is None else Sql(f"({name} > ?)", (value,))
    return any_of([later, all_of([Sql(f"({name} IS ?)", (value,)), _later(keys[1:], after[1:])])])


def _statement(project: str, scan: Scan, keys: Sequence[_Key], has_value: bool, after: Sql) -> Sql:
    first = keys[0]
    alias = "s" if scan.of == "stages" else "r"
    joins: list[Sql] = []
    where = [Sql(f"{alias}.project = {WORD}", (project,))]
    if first.nullable and first.metric is None:
        where.append(Sql(f"{first.expression} IS {'NOT ' if has_value else ''}NULL"))
    expressions = [key.expression for key in keys]
    if scan.of == "stages":
        where.append(Sql("s.run_id IS NOT NULL"))  # else nothing but candidates came of it so far
        stage = scan.stage
        for position, key in enumerate(keys):
            if key.metric is None:
                continue
            numbers = Sql(f"metric = {key.metric.text} AND value < ''", key.metric.params)
            if position > 0:
                # A subquery with a limit is looked through once, and not once for each row.
                joins.append(
                    Sql(
                        f"LEFT JOIN (SELECT stage, value FROM stage_metrics WHERE {numbers.text} LIMIT -1)"
                        f" AS k{position} ON k{position}.stage = s.row",
                        numbers.params,
                    )
                )
            elif has_value:
                # The rows come straight from the tree by (metric, value), from the bound on.
                joins.append(
                    Sql(
                        f"JOIN stage_metrics AS k0 ON k0.stage = s.row AND k0.metric = {key.metric.text}"
                        " AND k0.value < ''",
                        key.metric.params,
                    )
                )
                stage, bounds = _split_bounds(scan.stage, scan.sort[0].reference, key.expression)
                where += bounds
            else:
                where.append(
                    Sql(f"s.row NOT IN (SELECT stage FROM stage_metrics WHERE {numbers.text})", numbers.params)
                )
                expressions[0] = "NULL"
        if compiler.only_copied(scan.pipeline):
            where.append(compiler.stage_run_condition(scan.pipeline).over)
        else:
            joins.append(Sql("JOIN runs AS r ON r.project = s.project AND r.id = s.run_id"))
            where.append(compiler.run_condition(scan.pipeline).over)
        where.append(compiler.stage_condition(project, stage).over)
        where += _page_exists(scan.candidate)
    else:
        where.append(compiler.run_condition(scan.pipeline).over)
        where += _stage_exists(project, scan)
    table = table_of(scan)
    values = ", ".join(expressions)
    order = ", ".join(
        f"{name} {'DESC' if key.descending else 'ASC'}" for name, key in zip(expressions, keys, strict=True)
    )
    condition = all_of([*where, after])
    text = f"SELECT {table.columns(alias)}, {values} FROM {table.name} AS {alias}"
    for join in joins:
        text += f" {join.text}"
    params = tuple(value for join in joins for value in join.params) + condition.params
    return Sql(f"{text} WHERE {condition.text} ORDER BY {order}", params)


def _split_bounds(stage: Condition, reference: object, expression: str) -> tuple[Condition, list[Sql]]:
    """Take the plain bounds on a metric out of a conjunction: the rest, and the bounds on the joined value."""
    rest: list[Condition] = []
    bounds: list[Sql] = []
    for part in stage.conditions if isinstance(stage, And) else (stage,):
        match part:
            case Test(found, Compare(op, value)) if found == reference and is_number(value):
                symbol = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[op]
                bounds.append(Sql(f"({expression} {symbol} ?)", (value,)))
            case _:
                rest.append(part)
    return And(tuple(rest)), bounds


def _stage_exists(project: str, scan: Scan) -> list[Sql]:
    """That some stage of the run satisfies the condition on stages."""
    pages = _page_exists(scan.candidate)
    if scan.stage == EVERYTHING and not pages:
        return []
    stage = compiler.stage_condition(project, scan.stage).over
    if _has_metric_bound(scan.stage):
        condition = all_of([Sql(f"s.project = {WORD}", (project,)), stage, *pages])
        return [Sql(f"(r.id IN (SELECT s.run_id FROM stages AS s WHERE {condition.text}))", condition.params)]
    condition = all_of([Sql("s.project = r.project AND s.run_id = r.id"), stage, *pages])
    return [
        Sql(f"EXISTS (SELECT 1 FROM stages AS s INDEXED BY stages_by_run WHERE {condition.text})", condition.params)
    ]


def _has_metric_bound(stage: Condition) -> bool:
    """Whether the index over metrics leads to the stages: then it pays to start from them, else from the runs."""
    for part in stage.conditions if isinstance(stage, And) else (stage,):
        match part:
            case Test(Metric(), Compare(_, value)) if value is not None:
                return True
            case Test(Metric(), In(values)) if None not in values:
                return True
    return False


def _page_exists(candidate: Condition | None) -> list[Sql]:
    """That some page of the stage may hold such a candidate."""
    condition = TRUE if candidate is None else compiler.page_condition(candidate)
    if condition in (TRUE, FALSE):
        return [] if condition == TRUE else [FALSE]
    return [
        Sql(
            f"EXISTS (SELECT 1 FROM pages AS p WHERE p.row >= (s.row << {PAGE_BITS})"
            f" AND p.row < ((s.row + 1) << {PAGE_BITS}) AND {condition.text})",
            condition.params,
        )
    ]
