"""What a page has in the open of the candidates' fields that a stage declares as indexed.

Of each declared field a page keeps a *zone*: the range of its numbers, and two bytes for each distinct text. A question
about the field passes over pages whose zone cannot match, without opening them. A page without a zone for a field,
because the stage did not declare it or the candidates came from an older sender, may hold anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xray.capture.indexing import MAX_INDEXED
from xray_server.query import ast
from xray_server.tables import Table

MAX_MARKS = 1024
"""Distinct texts of a field in one page beyond which it counts as holding any."""

MAX_PATH_CHARS = 200

ALIAS = "indexed"
"""The kind of declaration that gives an indexed field a name: ``price=data.price``."""


@dataclass(frozen=True, slots=True)
class Zone:
    """What the values of one field in one page can be.

    Args:
        low: The lowest number, or None where there is none.
        high: The highest number.
        marks: The mark of each text, or None where they are too many.
    """

    low: float | None = None
    high: float | None = None
    marks: frozenset[int] | None = frozenset()

    def may_hold(self, operator: ast.Operator) -> bool:
        """Whether one of the values may satisfy an operator of the core."""
        match operator:
            case ast.In(values):
                return any(self.may_hold(ast.Compare("eq", value)) for value in values)
            case ast.Compare(op, value) if is_number(value):
                return self._reaches(op, value)
            case ast.Compare("eq", str() as text):
                return self.marks is None or mark(text) in self.marks
            case ast.Compare(_, str()):
                return self.marks is None or bool(self.marks)
        return True

    def _reaches(self, op: str, value: float) -> bool:
        if self.low is None or self.high is None:
            return False
        match op:
            case "lt":
                return self.low < value
            case "lte":
                return self.low <= value
            case "gt":
                return self.high > value
            case "gte":
                return self.high >= value
        return self.low <= value <= self.high


Zones = Mapping[str, Zone]
"""Path (``data.price``) → the zone of the field."""


def mark(text: str) -> int:
    """Two bytes that stand for a text: equal texts have equal marks."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) & 0xFFFF


def is_number(value: object) -> bool:
    """Whether a value is a number to a question; a boolean is none."""
    return type(value) in (int, float)


def declared_fields(facts: Any) -> dict[str, str]:
    """The fields that a stage's facts declare as indexed: name → path. What is malformed is passed over."""
    given = facts.get("indexed") if isinstance(facts, Mapping) else None
    found: dict[str, str] = {}
    for each in given if isinstance(given, list) else ():
        if not isinstance(each, Mapping) or len(found) == MAX_INDEXED:
            continue
        path = each.get("path")
        if isinstance(path, str) and len(path) <= MAX_PATH_CHARS and all(path.split(".")):
            name = each.get("name", path)
            found[name if isinstance(name, str) else path] = path
    return found


def zones_of(values: Mapping[str, Sequence[Any]], paths: Iterable[str]) -> dict[str, Zone]:
    """The zones of some fields.

    Args:
        values: The page's columns.
        paths: The fields' paths.
    """
    return {path: _zone(values, path) for path in paths}


def _zone(values: Mapping[str, Sequence[Any]], path: str) -> Zone:
    root, *way = path.split(".")
    column = values.get(root, ())
    if way and isinstance(column, Table):  # the objects need not be put together for one field of theirs
        column = column.columns[column.keys.index(way[0])] if way[0] in column.keys else ()
        way = way[1:]
    low: float | None = None
    high: float | None = None
    texts: set[str] = set()
    for candidate in column:
        for value in (candidate,) if not way and type(candidate) is not list else _values(candidate, way):
            if type(value) is str:
                texts.add(value)
            elif is_number(value):
                low = value if low is None or value < low else low
                high = value if high is None or value > high else high
    return Zone(low, high, frozenset(map(mark, texts)) if len(texts) <= MAX_MARKS else None)


def _values(value: Any, way: Sequence[str]) -> Iterator[Any]:
    """Every value that a path leads to, by the evaluator's rules or more generously; never fewer."""
    if not way:
        if type(value) is list:
            yield from value
        else:
            yield value
    elif type(value) is dict:
        if way[0] in value:
            yield from _values(value[way[0]], way[1:])
    elif type(value) is list:
        for item in value:
            if type(item) is dict:
                yield from _values(item, way)
        if way[0].isascii() and way[0].isdecimal() and len(way[0]) < 10 and int(way[0]) < len(value):
            yield from _values(value[int(way[0])], way[1:])


def may_match(condition: ast.Condition, zones: Zones) -> bool:
    """Whether a page with these zones may hold a candidate that satisfies a condition.

    Args:
        condition: The condition, of the core of the language.
        zones: The page's zones.
    """
    match condition:
        case ast.And(conditions):
            return all(may_match(part, zones) for part in conditions)
        case ast.Or(conditions):
            return any(may_match(part, zones) for part in conditions)
        case ast.Test(ast.Field(path), operator):
            zone = zones.get(".".join(path))
            return zone is None or zone.may_hold(operator)
    return True


def alias_declarations(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """What has to be remembered of declared fields that have names of their own, in the form of metrics' declarations.

    Args:
        fields: Name → path.
    """
    return [
        {"name": f"{name}={path}", "unit": "", "meaning": "An indexed field of candidates.", "kind": ALIAS,
         "indexed": True, "bad": None}
        for name, path in fields.items()
        if name != path and "." not in name and "=" not in name and not name.startswith("$")
    ]  # fmt: skip


def aliases(declarations: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, tuple[str, ...]]:
    """Name → the paths that senders declared it for, sorted.

    Args:
        declarations: Those of each stage type, as a store gives them.
    """
    found: dict[str, set[str]] = {}
    for declared in declarations:
        for each in declared:
            if each.get("kind") == ALIAS:
                name, _, path = each["name"].partition("=")
                found.setdefault(name, set()).add(path)
    return {name: tuple(sorted(paths)) for name, paths in found.items()}
