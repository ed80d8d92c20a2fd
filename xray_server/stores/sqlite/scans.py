"""A scan as SQL statements.

The documents without a value of the first sort key come before (ascending) or after (descending) those with one.
Each of the two groups is a statement of its own, because an index serves each of them and not their union.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xray.exceptions import StoreError
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Field, Metric, Reference, Scan, SortKey, Test
from xray_server.stores.encoding import is_number
from xray_server.stores.sqlite import compiler, metrics, ties
from xray_server.stores.sqlite.paths import Path, few_stages, parts, path_to_few_stages, path_to_runs, path_to_stages
from xray_server.stores.sqlite.rows import PAGE_BITS, RUNS, STAGES, Table
from xray_server.stores.sqlite.sql import FALSE, TRUE, Bounds, Sql, all_of, any_of
from xray_server.stores.sqlite.ties import Tied
from xray_server.stores.sqlite.values import WORD, id_text, id_value


def table_of(scan: Scan) -> Table:
    """The table whose rows the scan's statements give, each followed by its sort values."""
    return STAGES if scan.of == "stages" else RUNS


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of a scan.

    Args:
        sql: The statement; its last value, which is not among these, is how many rows there are to be.
        path: The way by which it gets to the rows.
        tied: The same rows, where those that share a value of the first key can be read as far as they are wanted.
        decides: Whether its rows satisfy the scan's conditions on runs and stages for certain.
        ends_in_id: Whether the document's own id is the last sort value, and no other one is an id.
    """

    sql: Sql
    path: Path
    tied: Tied | None = None
    decides: bool = False
    ends_in_id: bool = False


def statements(
    connection: sqlite3.Connection, project: str, scan: Scan, *, listed: bool = False
) -> Iterator[Statement]:
    """The statements whose rows, one after the other, answer the scan.

    Args:
        connection: To choose the way with.
        project: The project.
        scan: The scan.
        listed: Take the stages that the index over metrics gives, however many there are.
    """
    return _Statements(connection, project, scan, listed=listed).each()


def sort_values(found: Sequence[Any]) -> tuple[Any, ...]:
    """The sort values of a row as plain JSON values."""
    return tuple(id_text(value) if isinstance(value, bytes) else value for value in found)


@dataclass(frozen=True, slots=True)
class _Key:
    sql: Sql
    descending: bool
    nullable: bool
    reference: Reference
    is_id: bool = False

    @property
    def is_own_id(self) -> bool:
        """Whether it is the document's own id."""
        return self.reference == Field(("id",))

    @property
    def direction(self) -> str:
        return "DESC" if self.descending else "ASC"


class _Statements:
    """Makes the statements of one scan; the arguments are those of :func:`statements`."""

    def __init__(self, connection: sqlite3.Connection, project: str, scan: Scan, *, listed: bool) -> None:
        if not scan.sort:
            raise StoreError("A scan needs at least one sort key.")
        self._connection = connection
        self._project = project
        self._scan = scan
        self._listed = listed
        self._alias = "s" if scan.of == "stages" else "r"
        first = scan.sort[0].reference
        # The rows of the index over metrics come in the order of a metric, unless something else leads to few stages.
        self._few: Path | None = None
        if isinstance(first, Metric) and scan.of == "stages":
            self._few = path_to_few_stages(connection, project, scan, besides=first)
        self._metric = first if isinstance(first, Metric) and self._few is None else None
        self._keys = [self._key(position) for position in range(len(scan.sort))]
        self._decides = True

    def each(self) -> Iterator[Statement]:
        first = self._keys[0]
        if first.nullable and self._is_sorted():
            # Sorting puts those without a value in their place; only an index does not serve all in one.
            after = TRUE if self._scan.after is None else _later(self._keys, _comparable(self._keys, self._scan.after))
            yield self._made(None, after)
            return
        groups: Sequence[bool] = (False, True)  # whether there is a value of the first key
        if first.descending:
            groups = (True, False)
        for has_value in groups:
            if (has_value or first.nullable) and not (self._surely_has_number and not has_value):
                after = _after(self._keys, self._scan.after, has_value)
                if after != FALSE:
                    yield self._made(has_value, after)

    def _made(self, has_value: bool | None, after: Sql) -> Statement:
        made = self._of_runs(has_value, after) if self._alias == "r" else self._of_stages(has_value, after)
        *others, last = self._keys
        ends_in_id = last.is_own_id and not any(key.is_id for key in others)
        return replace(made, decides=self._decides, ends_in_id=ends_in_id)

    def _is_sorted(self) -> bool:
        """Whether the rows are sorted after they were found, whatever their order was."""
        if self._metric is not None:
            return False
        return not (self._path_to_runs if self._alias == "r" else self._path[0]).ordered

    @functools.cached_property
    def _surely_has_number(self) -> bool:
        """Whether only stages with a number under the metric that is sorted by can satisfy the condition."""
        return (
            self._metric is not None
            and bool(_split_bounds(self._scan.stage, self._metric, "")[1])
            and not metrics.has_odd(self._connection, self._project, [self._metric])
        )

    def _without(self, stage: Condition, served: Condition | None) -> Condition:
        """A condition without what the stages that an index gives satisfy already."""
        if not isinstance(served, Test) or not isinstance(served.reference, Metric):
            return stage
        if metrics.has_odd(self._connection, self._project, [served.reference]):
            return stage
        return And(tuple(part for part in parts(stage) if part is not served))

    def _stage_condition(self, condition: Condition) -> Bounds:
        named = [found for found in compiler.references(condition) if isinstance(found, Metric)]
        odd = metrics.has_odd(self._connection, self._project, named)
        return compiler.stage_condition(compiler.cheap_first(condition), odd=odd)

    @functools.cached_property
    def _path_to_runs(self) -> Path:
        return path_to_runs(self._connection, self._project, self._scan, self._keys[0].reference)

    def _over(self, condition: Bounds) -> Sql:
        """The condition as far as SQL knows it."""
        self._decides &= condition.under == condition.over
        return condition.over

    def _key(self, position: int) -> _Key:
        sort: SortKey = self._scan.sort[position]
        if isinstance(sort.reference, Metric):
            if self._alias == "r":
                raise StoreError(f"Runs have no metric '{sort.reference}' to sort by.", code="bad_sort")
            by_index = self._metric is not None and position == 0
            number = Sql("k0.value") if by_index else metrics.metric_number(sort.reference)
            return _Key(number, sort.descending, nullable=True, reference=sort.reference)
        found = compiler.column(sort.reference, self._alias)
        if found is None:
            raise StoreError(f"The store cannot sort by '{sort.reference}'.", code="bad_sort")
        nullable = sort.reference.path != ("id",)
        return _Key(Sql(found.ordered), sort.descending, nullable, sort.reference, is_id=found.storage == "id")

    def _of_group(self, has_value: bool | None) -> Iterator[Sql]:
        """What the rows of a group have in common."""
        yield Sql(f"{self._alias}.project = {WORD}", (self._project,))
        first = self._keys[0]
        if first.nullable and self._metric is None and has_value is not None:
            yield Sql(f"{first.sql.text} IS {'NOT ' if has_value else ''}NULL", first.sql.params)

    # --- runs ---------------------------------------------------------------------------------------------------

    def _of_runs(self, has_value: bool | None, after: Sql) -> Statement:
        scan = self._scan
        path = self._path_to_runs
        every = path.else_listed if self._listed else None
        if every is not None:
            path = Path("runs_by_id", path.by)
        where = [*self._of_group(has_value), self._over(compiler.run_condition(scan.pipeline))]
        where += self._some_stage(scan.stage, _page_exists(scan.candidate), every)
        for stage in scan.stages:
            where += self._some_stage(stage, [])
        return self._select(path, f"runs AS r {path.hint}", [*where, after], self._keys)

    def _some_stage(self, stage: Condition, pages: Sequence[Sql], every: Sql | None = None) -> list[Sql]:
        """That some stage of the run satisfies a condition.

        Args:
            stage: The condition.
            pages: What there must be of the stage's pages.
            every: A query for the rows of all stages that may fit, where it is to be taken.
        """
        if stage == EVERYTHING and not pages:
            return []
        if every is None:
            few = few_stages(self._connection, self._project, stage)
            if few is not None:
                every, stage = few.rows, self._without(stage, few.served)
        condition = [self._over(self._stage_condition(stage)), *pages]
        if every is not None:
            rows = Sql(f"s.row IN ({every.text})", every.params)
            fits = all_of([rows, Sql(f"s.project = {WORD}", (self._project,)), *condition])
            return [Sql(f"(r.id IN (SELECT s.run_id FROM stages AS s NOT INDEXED WHERE {fits.text}))", fits.params)]
        fits = all_of([Sql("s.project = r.project AND s.run_id = r.id"), *condition])
        return [Sql(f"EXISTS (SELECT 1 FROM stages AS s INDEXED BY stages_by_run WHERE {fits.text})", fits.params)]

    # --- stages -------------------------------------------------------------------------------------------------

    def _of_stages(self, has_value: bool | None, after: Sql) -> Statement:
        scan, stage, keys = self._scan, self._scan.stage, self._keys
        where = list(self._of_group(has_value))
        source, of_metric = "stages AS s", None
        if self._metric is not None and has_value:
            # The rows come straight from the tree by (metric, value), from the bound on.
            path = Path(None, f"the metric {metrics.metric_row_name(self._metric)}", ordered=True)
            number = metrics.metric_id(self._project, metrics.metric_row_name(self._metric))
            of_metric = Sql(f"k0.metric = {number.text}", number.params)
            where += [of_metric, ties.NUMBERS]
            stage, bounds = _split_bounds(stage, self._metric, "k0.value")
            where += bounds
            source = f"stage_metrics AS k0 CROSS JOIN stages AS s {path.hint} ON s.row = k0.stage"
        else:
            if self._metric is not None:
                keys = keys[1:]
                number = metrics.metric_number(self._metric)
                where.append(Sql(f"{number.text} IS NULL", number.params))
            path, stage = self._path
            if path.listed is not None:
                stage = self._without(stage, path.served)
                where.append(Sql(f"s.row IN ({path.listed.text})", path.listed.params))
            source = f"stages AS s {path.hint}"
        where.append(Sql("+s.run_id IS NOT NULL"))  # else nothing but candidates came of it so far
        joined = ""
        if compiler.only_copied(scan.pipeline):
            where.append(self._over(compiler.stage_run_condition(scan.pipeline)))
        else:
            joined = " CROSS JOIN runs AS r ON r.project = s.project AND r.id = s.run_id"
            where.append(self._over(compiler.run_condition(scan.pipeline)))
        where.append(self._over(self._stage_condition(stage)))
        where += _page_exists(scan.candidate)
        tied = None if of_metric is None else self._tied(of_metric, where, joined)
        return replace(self._select(path, source + joined, [*where, after], keys), tied=tied)

    def _tied(self, of_metric: Sql, where: Sequence[Sql], joined: str) -> Tied | None:
        """The stages of a metric by their rows, where nothing but their ids orders those that share a value."""
        first, *others = self._keys
        if [key.is_own_id for key in others] != [True] or others[0].descending != first.descending:
            return None
        project = Sql(f"s.project = {WORD}", (self._project,))
        rest = all_of(part for part in where if part not in (of_metric, ties.NUMBERS, project))
        after = None
        if self._scan.after is not None and self._scan.after[0] is not None:
            after = (self._scan.after[0], self._scan.after[1])
        return Tied(STAGES.columns("s"), project, of_metric, rest, joined, first.descending, after)

    @functools.cached_property
    def _path(self) -> tuple[Path, Condition]:
        """The way to stages where no index gives their order, and what of their condition is left to be looked at."""
        stage = self._scan.stage
        if self._few is not None:
            return self._few, stage
        if self._metric is not None:
            rest, bounds = _split_bounds(stage, self._metric, "")
            if bounds:
                self._decides = False
                # Without a number, and yet perhaps within the bounds: it may hold anything.
                odd = metrics.odd_rows_of(self._project, self._metric)
                return Path(None, f"the metric {metrics.metric_row_name(self._metric)}", listed=odd), rest
        order = self._scan.sort[0 if self._metric is None else 1].reference
        path = path_to_stages(self._connection, self._project, self._scan, order)
        if self._listed and path.else_listed is not None:
            path = Path(None, path.by, listed=path.else_listed, served=path.served)
        return path, stage

    # --- both ---------------------------------------------------------------------------------------------------

    def _select(self, path: Path, source: str, where: Sequence[Sql], keys: Sequence[_Key]) -> Statement:
        table, alias = table_of(self._scan), self._alias
        none = [Sql("NULL")] * (len(self._keys) - len(keys))  # of the first key, where the rows have no value of it
        values = [*none, *(key.sql for key in keys)]
        condition = all_of(where)
        named = ", ".join(f"{value.text} AS v{number}" for number, value in enumerate(values))
        order = ", ".join(f"{key.sql.text} {key.direction}" for key in keys)
        sorted_by = [key.sql for key in keys]
        params = tuple(value for one in (*values, condition, *sorted_by) for value in one.params)
        if path.is_short or (path.ordered and path.index is not None):
            # Nothing is sorted but what begins at one time: the rows come one by one.
            text = f"SELECT {table.columns(alias)}, {named} FROM {source} WHERE {condition.text}"
            return Statement(Sql(f"{text} ORDER BY {order} LIMIT ?", params), path)
        # The columns are read of the rows of the answer alone, not of all that are sorted.
        found = f"SELECT {alias}.row AS row, {named} FROM {source} WHERE {condition.text} ORDER BY {order} LIMIT ?"
        names = ", ".join(f"f.v{number}" for number in range(len(values)))
        again = ", ".join(f"f.v{number} {key.direction}" for number, key in enumerate(keys, len(none)))
        text = (
            f"SELECT {table.columns(alias)}, {names} FROM ({found}) AS f CROSS JOIN {table.name} AS {alias}"
            f" ON {alias}.row = f.row ORDER BY {again}"
        )
        return Statement(Sql(text, params), path)


def _after(keys: Sequence[_Key], after: Sequence[Any] | None, has_value: bool) -> Sql:
    """What comes after the last row, within the group of rows with or without a value of the first key."""
    if after is None:
        return TRUE
    after = _comparable(keys, after)
    first, value = keys[0], after[0]
    if has_value and value is not None:
        # The lone bound is implied by the rest; it is what the index can use.
        bound = Sql(f"({first.sql.text} {'<=' if first.descending else '>='} ?)", (*first.sql.params, value))
        return all_of([bound, _later(keys, after)])
    if not has_value and value is None:
        return _later(keys[1:], after[1:])
    return TRUE if has_value != first.descending else FALSE  # the whole group comes after the last row, or before


def _comparable(keys: Sequence[_Key], after: Sequence[Any]) -> list[Any]:
    """The values to go on after, as they lie in the file."""
    if len(after) != len(keys):
        raise StoreError(f"The scan has {len(keys)} sort keys and {len(after)} values to go on after.")
    return [
        id_value(value) if key.is_id and isinstance(value, str) else value
        for key, value in zip(keys, after, strict=True)
    ]


def _later(keys: Sequence[_Key], after: Sequence[Any]) -> Sql:
    if not keys:
        return FALSE
    (name, params), value = (keys[0].sql.text, keys[0].sql.params), after[0]
    if keys[0].descending:
        later = FALSE if value is None else Sql(f"({name} < ? OR {name} IS NULL)", (*params, value, *params))
    else:
        later = Sql(f"({name} IS NOT NULL)", params) if value is None else Sql(f"({name} > ?)", (*params, value))
    return any_of([later, all_of([Sql(f"({name} IS ?)", (*params, value)), _later(keys[1:], after[1:])])])


def _split_bounds(stage: Condition, reference: object, expression: str) -> tuple[Condition, list[Sql]]:
    """Take the plain bounds on a metric out of a conjunction: the rest, and the bounds on the joined value."""
    rest: list[Condition] = []
    bounds: list[Sql] = []
    for part in parts(stage):
        match part:
            case Test(found, Compare(op, value)) if found == reference and is_number(value):
                symbol = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[op]
                bounds.append(Sql(f"({expression} {symbol} ?)", (value,)))
            case _:
                rest.append(part)
    return And(tuple(rest)), bounds


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
