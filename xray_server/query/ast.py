"""The form of a question after parsing: what the evaluator and the stores' compilers work on.

A condition is a tree of :class:`And`, :class:`Or`, :class:`Not` over :class:`Test`; a test applies one operator to
one field or metric. Everything is immutable and compares by value.

A store is asked in a core of the language: ``Test`` with :class:`Compare`, :class:`In` and :class:`Exists`. What goes
beyond it (:class:`Special`) is decided by the evaluator; a :class:`Scan` has something weaker of the core in its place,
so that a store never meets an operator that it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# --- what a test is about ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A path into a document, with MongoDB's meaning of dots: ``("data", "price")``.

    The empty path is the value itself: the element that a condition inside ``$elemMatch`` is about.
    """

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


@dataclass(frozen=True, slots=True)
class Special(Exists):
    """An operator beyond the core; it holds only where something is there, so that it is a stricter ``$exists``."""

    wanted: bool = field(default=True, init=False)


@dataclass(frozen=True, slots=True)
class Regex(Special):
    """``$regex``: a text in which the pattern is found, in the syntax of RE2.

    Args:
        pattern: The pattern, known to be valid.
        flags: Some of ``i`` (case does not matter), ``m`` (``^`` and ``$`` match at lines), ``s`` (``.`` matches line
            ends), sorted.
    """

    pattern: str
    flags: str = ""


@dataclass(frozen=True, slots=True)
class Mod(Special):
    """``$mod``: a number whose whole part, divided, leaves the remainder; it has the sign of the number."""

    divisor: int
    remainder: int


@dataclass(frozen=True, slots=True)
class Size(Special):
    """``$size``: an array of so many elements."""

    size: int


@dataclass(frozen=True, slots=True)
class Type(Special):
    """``$type``: a value of one of the types, by MongoDB's names for those that JSON has.

    Args:
        names: Some of ``double``, ``string``, ``object``, ``array``, ``bool``, ``null``, ``int``, ``long``.
    """

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class ElemMatch(Special):
    """``$elemMatch``: an array with one element that satisfies all of a condition.

    Args:
        condition: On one element: tests on its fields, or on itself (the empty path).
        of: ``objects`` where the condition is a filter on elements that are objects (or arrays, by their indexes),
            ``values`` where it is operators on any element.
    """

    condition: Condition
    of: Literal["objects", "values"]


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
NOTHING = Or(())


def weakened(condition: Condition) -> Condition:
    """A condition of the core that holds wherever the given one does, and perhaps elsewhere.

    Args:
        condition: Any condition; it is returned as it is where nothing in it goes beyond the core.
    """
    return _within_core(condition, weaker=True)


def _within_core(condition: Condition, *, weaker: bool) -> Condition:
    match condition:
        case And(conditions) | Or(conditions):
            inner = tuple(_within_core(part, weaker=weaker) for part in conditions)
            if all(one is other for one, other in zip(inner, conditions, strict=True)):
                return condition
            return And(inner) if isinstance(condition, And) else Or(inner)
        case Not(negated):
            kept = _within_core(negated, weaker=not weaker)
            return condition if kept is negated else Not(kept)
        case Test(reference, Special() as operator):
            return _implied(reference, operator) if weaker else NOTHING
    return condition


def _implied(reference: Reference, operator: Special) -> Condition:
    """What a store is asked in place of an operator beyond the core."""
    there = Test(reference, Exists(wanted=True))
    if isinstance(operator, Regex):
        low, high = prefix_range(operator)
        bounds = [Test(reference, Compare("gte", low))] if low else []
        if high:
            bounds.append(Test(reference, Compare("lt", high)))
        return And(tuple(bounds)) if bounds else there
    return there


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-:/@,;=~!%&'\"<>`#")


def prefix_range(regex: Regex) -> tuple[str, str]:
    """The texts between which all matches lie, where the pattern begins with an anchored literal; else empty ones.

    Args:
        regex: The pattern and its flags.

    Returns:
        The lowest possible match, and what is above every match; an empty text where there is no such bound.
    """
    pattern = regex.pattern
    # An alternative could begin otherwise; with "i" and "m" other texts, and later places, match too.
    if not pattern.startswith("^") or "|" in pattern or not set(regex.flags) <= {"s"}:
        return "", ""
    literal = ""
    for character in pattern[1:]:
        if character not in _PLAIN and character.isascii():
            # What may repeat zero times is no part of the prefix.
            literal = literal[:-1] if character in "*?{" else literal
            break
        literal += character
    return (literal, literal[:-1] + chr(ord(literal[-1]) + 1)) if literal and literal.isascii() else (literal, "")


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
        stages: Conditions each of which some stage of the run must satisfy.
        returns: What the answer lists.
        sort: Keys over the documents that are returned (for candidates: over their stages), always ending in the id.
        limit: How many rows a page has.
        after: The sort values of the last row of the page before, or None for the first page; for candidates the
            last value is the place (``seq``) after which to go on in that stage.
        fields: The paths that each row is reduced to, or None for whole rows.
        explain: Whether to say how the question is read and run, instead of answering it.
    """

    pipeline: Condition = EVERYTHING
    stage: Condition = EVERYTHING
    candidate: Condition | None = None
    stages: tuple[Condition, ...] = ()
    returns: Returns = "stages"
    sort: tuple[SortKey, ...] = ()
    limit: int = 50
    after: tuple[Any, ...] | None = None
    fields: tuple[Reference, ...] | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """What a store is asked for: documents of one collection that may satisfy the conditions, in order.

    Its conditions are of the core: what goes beyond is weakened when it is made.

    Args:
        of: The collection.
        pipeline: The condition on the run (of the run itself, or of the stage's run).
        stage: The condition on the stage; for runs: some stage of the run must satisfy it, unless it is EVERYTHING.
        candidate: What one candidate of that stage must satisfy, or None; a store may use it to narrow, or ignore it.
        sort: Keys over the collection's documents, always ending in the id.
        after: Sort values: only documents that come after these, or None.
        limit: How many documents at the most.
        stages: For runs: each of these must be satisfied by some stage of the run; a store may use them to narrow, or
            ignore them.
        deadline: When to stop, by the monotonic clock; None where it may take as long as it takes.
    """

    of: Collection
    pipeline: Condition = EVERYTHING
    stage: Condition = EVERYTHING
    candidate: Condition | None = None
    sort: tuple[SortKey, ...] = field(default=(SortKey(Field(("id",))),))
    after: tuple[Any, ...] | None = None
    limit: int = 100
    stages: tuple[Condition, ...] = ()
    deadline: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pipeline", weakened(self.pipeline))
        object.__setattr__(self, "stage", weakened(self.stage))
        object.__setattr__(self, "stages", tuple(weakened(condition) for condition in self.stages))
        if self.candidate is not None:
            object.__setattr__(self, "candidate", weakened(self.candidate))
