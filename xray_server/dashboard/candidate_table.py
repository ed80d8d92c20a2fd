"""The candidates of a stage as a table: filters, order, columns and pages, all in the address."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from pydantic import Field

from xray.exceptions import QueryError
from xray.stage_types.base import VERDICTS
from xray_server.api.answers import Service
from xray_server.api.parameters import Parameters
from xray_server.dashboard.filters import as_text
from xray_server.documents import Document
from xray_server.query.parser import MAX_LIMIT, parse
from xray_server.query.run import answer

ROWS_A_PAGE = 100
MAX_SORTED = 20_000
"""Candidates that are put in order; of a stage with more the first ones are."""

_OWN = ("stage_id", "stage_name", "stage_type", "run_id", "label", "seq")
_FIRST = ("verdict", "reason_label", "score", "rank", "rank_before", "reason_text")
_TABLES = ("data", "output", "scores", "checks")
_SHOWN_FIELDS = 4
_MAX_COLUMNS = 60
OPERATORS = (
    ("eq", "is"), ("ne", "is not"), ("gt", "above"), ("gte", "at least"), ("lt", "below"), ("lte", "at most"),
    ("regex", "matches"), ("exists", "is there"),
)  # fmt: skip
"""How a field can be compared: the parameter's value, and words."""


class TableParameters(Parameters):
    """What the addresses of a stage's candidates take."""

    id: str | None = Field(None, max_length=500, description="What the candidate's id contains.")
    verdict: str | None = Field(None, json_schema_extra={"enum": [*VERDICTS, "none"]})
    reason_label: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    field: str | None = Field(None, max_length=500, description="A field: data.price.")
    op: Literal["eq", "ne", "gt", "gte", "lt", "lte", "regex", "exists"] = "eq"
    value: str | None = Field(None, max_length=2000)
    sort: str | None = Field(None, max_length=500)
    column: list[str] | str | None = None
    limit: int = Field(ROWS_A_PAGE, ge=1, le=MAX_LIMIT)
    cursor: str | None = None
    page: int = Field(1, ge=1, le=10_000)

    @property
    def columns(self) -> list[str]:
        """The columns that were chosen, none where nobody chose."""
        return [self.column] if isinstance(self.column, str) else list(self.column or ())[:_MAX_COLUMNS]

    def condition(self) -> dict[str, Any]:
        """The filter on one candidate, in the query language."""
        found: dict[str, Any] = {}
        if self.id:
            found["candidate_id"] = {"$regex": re.sub(r"([^\w\s-])", r"\\\1", self.id)}
        if self.verdict is not None:
            found["verdict"] = None if self.verdict == "none" else self.verdict
        if self.reason_label is not None:
            found["reason_label"] = self.reason_label
        bounds = {"$gte": self.min_score, "$lte": self.max_score}
        score = {operator: bound for operator, bound in bounds.items() if bound is not None}
        if score:
            found["score"] = score
        if self.field and (self.value is not None or self.op == "exists"):
            found.setdefault(self.field, {})
            given = _value(self.op, self.value)
            if not isinstance(found[self.field], dict):
                raise QueryError(f"'{self.field:.100}' is asked about twice.", path="field")
            found[self.field][f"${self.op}"] = given
        return found


def _value(operator: str, text: str | None) -> Any:
    if operator == "exists":
        return text != "false"
    if operator == "regex":
        return text
    try:
        value = msgspec.json.decode(text or "")
    except msgspec.DecodeError:
        return text
    return text if isinstance(value, list | dict) else value


@dataclass(frozen=True, slots=True)
class Table:
    """One page of candidates.

    Args:
        rows: The candidates.
        columns: The columns that are shown, beside the id.
        available: All columns that these candidates have.
        cursor: Where the next page begins; None on the last one, and where pages are numbered.
        total: How many candidates are like that, where it is known.
        pages: How many numbered pages there are; 0 where pages follow each other by cursor.
        complete: Whether all candidates were looked at.
        numeric: Which of the columns hold numbers.
    """

    rows: Sequence[Document]
    columns: Sequence[str]
    available: Sequence[str]
    cursor: str | None
    total: int | None
    pages: int
    complete: bool
    numeric: frozenset[str]


async def table(service: Service, stage_id: str, parameters: TableParameters) -> Table:
    """A page of the candidates of a stage.

    Args:
        service: The service.
        stage_id: The stage's id.
        parameters: Filters, order, columns and page.

    Raises:
        QueryError: A filter is not of the query language.
        StoreError: The data could not be read.
    """
    question = _question(stage_id, parameters)
    if parameters.sort:
        everything = await _everything(service, question)
        ordered = _ordered(everything.rows, parameters.sort)
        start = (parameters.page - 1) * parameters.limit
        rows: Sequence[Document] = ordered[start : start + parameters.limit]
        pages = -(-len(ordered) // parameters.limit)
        cursor: str | None = None
        total: int | None = len(ordered)
        complete = everything.complete
    else:
        found = await service.ask({**question, "limit": parameters.limit, "cursor": parameters.cursor})
        rows, cursor, pages = found["rows"], found["cursor"], 0
        complete = found["coverage"]["complete"]
        total = len(rows) if cursor is None and parameters.cursor is None else None
    available = _available(rows)
    chosen = [column for column in parameters.columns if column]
    columns = chosen or _default(available, rows)
    numeric = frozenset(column for column in columns if _is_numeric(rows, column))
    return Table(rows, columns, available, cursor, total, pages, complete, numeric)


def _is_numeric(rows: Sequence[Document], column: str) -> bool:
    values = [value_at(row, column) for row in rows]
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)


def _question(stage_id: str, parameters: TableParameters) -> dict[str, Any]:
    return {"stage": {"id": stage_id}, "candidate": parameters.condition(), "return": "candidates"}


@dataclass(frozen=True, slots=True)
class _Everything:
    rows: list[Document]
    complete: bool


async def _everything(service: Service, question: Mapping[str, Any]) -> _Everything:
    parsed = parse(question, await service.catalog())
    found = await answer(service.store, service.project, replace(parsed, limit=MAX_SORTED))
    return _Everything(found.rows, found.next is None)


def _ordered(rows: list[Document], sort: str) -> list[Document]:
    """The rows by a column: numbers before texts, and those without a value last whichever way it goes."""
    name, descending = sort.lstrip("-"), sort.startswith("-")
    numbers, texts, absent = [], [], []
    for row in rows:
        value = value_at(row, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((value, row))
        elif value is None:
            absent.append(row)
        else:
            texts.append((as_text(value), row))
    numbers.sort(key=lambda pair: pair[0], reverse=descending)
    texts.sort(key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in numbers] + [row for _, row in texts] + absent


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column of a candidate: ``score``, ``data.price``, ``checks.price``."""
    head, _, rest = name.partition(".")
    value = row.get(head)
    while rest and isinstance(value, Mapping):
        if rest in value:
            return value[rest]
        head, _, rest = rest.partition(".")
        value = value.get(head)
    return None if rest else value


def _available(rows: Sequence[Document]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row if name not in _OWN and name != "candidate_id")
    plain = [name for name in names if name not in _TABLES]
    found = [name for name in _FIRST if name in names] + [name for name in plain if name not in _FIRST]
    for name in _TABLES:
        keys: dict[str, None] = {}
        for row in rows:
            if isinstance(row.get(name), Mapping):
                keys.update(dict.fromkeys(row[name]))
        found += [f"{name}.{key}" for key in keys]
        if name in names and not keys:
            found.append(name)
    return found[:_MAX_COLUMNS]


def _default(available: Sequence[str], rows: Sequence[Document]) -> list[str]:
    """The common columns, and the first fields of the candidates that are short."""
    fields = [name for name in available if name.startswith("data") and all(_is_short(value_at(r, name)) for r in rows)]
    own = [name for name in available if "." not in name and name not in _TABLES]
    others = [name for name in available if name.startswith(("output", "scores."))]
    return [*own, *fields[:_SHOWN_FIELDS], *others[:_SHOWN_FIELDS]]


def _is_short(value: Any) -> bool:
    return not isinstance(value, list | dict) and (not isinstance(value, str) or len(value) <= 200)


# --- downloads --------------------------------------------------------------------------------------------------


async def batches(service: Service, stage_id: str, parameters: TableParameters) -> AsyncIterator[list[Document]]:
    """All candidates of a stage that satisfy the filters, in their order, some at a time."""
    question = _question(stage_id, parameters) | {"limit": MAX_LIMIT, "cursor": None}
    while True:
        found = await service.ask(question)
        yield found["rows"]
        if found["cursor"] is None:
            return
        question["cursor"] = found["cursor"]


async def as_lines(service: Service, stage_id: str, parameters: TableParameters) -> AsyncIterator[bytes]:
    """The candidates as JSON Lines."""
    async for rows in batches(service, stage_id, parameters):
        yield b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


async def as_csv(service: Service, stage_id: str, parameters: TableParameters) -> AsyncIterator[bytes]:
    """The candidates as CSV, with the columns that were chosen, or those that the first ones have."""
    columns: list[str] | None = None
    async for rows in batches(service, stage_id, parameters):
        text = io.StringIO()
        writer = csv.writer(text)
        if columns is None:
            columns = ["candidate_id", *(parameters.columns or _available(rows))]
            writer.writerow([_cell(column) for column in columns])
        for row in rows:
            writer.writerow([_cell(value_at(row, column)) for column in columns])
        yield text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value for a spreadsheet, where a text that begins like a formula must not become one."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = as_text(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
