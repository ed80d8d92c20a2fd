"""The form of a question after parsing: what the evaluator and the stores' compilers work on.

A condition is a tree of :class:`And`, :class:`Or`, :class:`Not` over :class:`Test`; a test applies one operator to
one field or metric. Everything is immutable and compares by value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# --- what a test is about ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A path into a document, with MongoDB's meaning of dots: ``("data", "price")``."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a stage by its declared name; ``key`` reaches inside a table and may hold dots itself."""

    name: str
    key: str | None = None

    def __str__(self) -> str:
        return f"metrics.{self.name}" + (f".{self.key}" if self.key is not None else "")


Reference = Field | Metric

# --- operators --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compare:
    """``$eq``, ``$gt``, ``$gte``, ``$lt``, ``$lte`` with a JSON value (a time field: milliseconds since 1970)."""

    op: Literal["eq", "gt", "gte", "lt", "lte"]
    value: Any


@dataclass(frozen=True, slots=True)
class In:
    """``$in``: equal to one of the values."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """``$exists``: whether the path leads to anything, a null included."""

    wanted: bool


Operator = Compare | In | Exists

# --- conditions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class And:
    """All of the conditions; true where there are none."""

    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the conditions; false where there are none."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """What the condition does not hold for; ``$ne``, ``$nin``, ``$nor`` and ``$not`` are parsed to it."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Test:
    """One operator applied to one field or metric."""

    reference: Reference
    operator: Operator


Condition = And | Or | Not | Test

EVERYTHING = And()

# --- the question -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key to sort by. Absent and null values come first when ascending, as in MongoDB."""

    reference: Reference
    descending: bool = False


Collection = Literal["stages", "runs"]
Returns = Literal["stages", "runs", "candidates"]


@dataclass(frozen=True, slots=True)
class Question:
    """A parsed and validated question.

    Args:
        pipeline: The condition on the run.
        stage: The condition on a stage.
        candidate: What one candidate of that stage must satisfy, or None where no candidate is asked about.
        returns: What the answer lists.
        sort: Keys over the documents that are returned (for candidates: over their stages), always ending in the id.
        limit: How many rows a page has.
        after: The sort values of the last row of the page before, or None for the first page; for candidates the
            last value is the place (``seq``) after which to go on in that stage.
    """

    pipeline: Condition = EVERYTHING
    stage: Condition = EVERYTHING
    candidate: Condition | None = None
    returns: Returns = "stages"
    sort: tuple[SortKey, ...] = ()
    limit: int = 50
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a store is asked for: documents of one collection that may satisfy the conditions, in order.

    Args:
        of: The collection.
        pipeline: The condition on the run (of the run itself, or of the stage's run).
        stage: The condition on the stage; for runs: some stage of the run must satisfy it, unless it is EVERYTHING.
        candidate: What one candidate of that stage must satisfy, or None; a store may use it to narrow, or ignore it.
        sort: Keys over the collection's documents, always ending in the id.
        after: Sort values: only documents that come after these, or None.
        limit: How many documents at the most.
    """

    of: Collection
    pipeline: Condition = EVERYTHING
    stage: Condition = EVERYTHING
    candidate: Condition | None = None
    sort: tuple[SortKey, ...] = field(default=(SortKey(Field(("id",))),))
    after: tuple[Any, ...] | None = None
    limit: int = 100
