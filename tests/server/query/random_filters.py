"""Random documents, and random filters that have a fair chance to match them.

Everything comes from a seeded ``random.Random``, so that a seed names a case. Filters take most of their paths and
values from the documents; the rest is drawn from pools of what is known to be hard.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

NAMES = ("a", "b", "c", "0", "1", "é")
NUMBERS = (
    *(0, 1, 2, 3, 5, -1, -7, 12, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(0.0, -0.0, 1.0, 0.5, -7.5, 12.25, float(2**53), 1e18, 1e300, -1e-300),
)
TEXTS = (
    *(
        "",
        "a",
        "A",
        "ab",
        "aB",
        "abc",
        "b",
        "1",
        "10",
        "é",
        "e\u0301",
        "É",
        "\uffff",
        "\U0001f600",
        "日本",
        "a\nb",
        "ß",
    ),
    *("2026-11-01T00:00:00Z", "2026-11-01T12:30:00.5+02:00", "2026-11-01"),
)
PATTERNS = (
    *(
        "a",
        "^a",
        "^ab",
        "b$",
        "^ab?",
        "^a*b",
        "a|b",
        "^a|b$",
        "[a-c]+",
        "^.$",
        "^..$",
        ".",
        "^$",
        "",
        "é",
        "^é",
        "B",
        "^2026",
    ),
    *(
        r"\d+",
        r"^\d{4}-",
        r"\w",
        "(a)(b)",
        "^a.b",
        r"^2026-11-01T\d\d:",
        "(?i)AB",
        "(?:ab)c",
        "[^a]",
        "日",
        r"\.5",
        "^b",
    ),
)
TYPES = ("double", "string", "object", "array", "bool", "null", "int", "long", "number", 1, 2, 3, 4, 8, 10, 16, 18)
COMPARISONS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
LABELS = ("search", "ads", "Ads", "adsense", "böse", "")
STARTED = tuple(1_793_491_200_000 + step for step in (0, 1, 999, 1000, 86_400_000))
"""Milliseconds since 1970."""


class Maker:
    """Makes documents and filters.

    Args:
        seed: Names what it makes.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    # --- documents ----------------------------------------------------------------------------------------------

    def scalar(self) -> Any:
        kind = self._random.random()
        if kind < 0.15:
            return None
        if kind < 0.27:
            return self._random.random() < 0.5
        return self._random.choice(NUMBERS if kind < 0.62 else TEXTS)

    def value(self, depth: int = 0) -> Any:
        kind = self._random.random()
        if depth >= 4 or kind < 0.45:
            return self.scalar()
        if kind < 0.75:
            return [self.value(depth + 1) for _ in range(self._random.choice((0, 1, 1, 2, 2, 3)))]
        return self.object(depth + 1)

    def object(self, depth: int = 0) -> dict[str, Any]:
        names = self._random.sample(NAMES, self._random.choice((0, 1, 2, 2, 3, 4)))
        return {name: self.value(depth) for name in names}

    def run(self) -> dict[str, Any]:
        """A run's document, without its id; some fields are missing."""
        run = {
            "label": self._random.choice(LABELS),
            "tags": self._random.sample(("a", "ab", "b", "é"), self._random.randint(1, 3)),
            "duration_ms": self._random.choice((0, 1, 1.5, 12, 2**40)),
            "started_at": self._random.choice(STARTED),
            "metadata": self.object() | {"a": self.value()},
        }
        return {name: value for name, value in run.items() if self._random.random() < 0.85}

    def candidate(self) -> dict[str, Any]:
        """A candidate's row; some columns are missing."""
        row = {
            "verdict": self._random.choice(("passed", "failed")),
            "reason_label": self._random.choice(("cheap", "dear", "é")),
            "score": self._random.choice((0.0, 0.5, 1.0, -2.5)),
            "data": self.object() | {"a": self.value()},
        }
        return {name: value for name, value in row.items() if self._random.random() < 0.85}

    # --- filters ------------------------------------------------------------------------------------------------

    def filter(self, documents: list[dict[str, Any]], own: dict[str, Any], free: str, depth: int = 0) -> dict[str, Any]:
        """A filter on documents.

        Args:
            documents: What it should have a chance to match.
            own: Scalar field → the values to ask it for.
            free: The field of free-form JSON.
            depth: How deep it is nested already.
        """
        made: dict[str, Any] = {}
        for _ in range(self._random.choice((1, 1, 1, 2))):
            kind = self._random.random()
            if kind < 0.2 and depth < 3:
                inner = [self.filter(documents, own, free, depth + 1) for _ in range(self._random.randint(1, 3))]
                made[self._random.choice(("$and", "$or", "$nor"))] = inner
            elif kind < 0.38:
                name = self._random.choice(list(own))
                made[name] = self._scalar_condition(own[name])
            else:
                document = self._random.choice(documents)
                path, value = self._place(document.get(free))
                made[".".join((free, *path))] = self._condition(value)
        return made

    def _scalar_condition(self, values: tuple[Any, ...]) -> Any:
        if self._random.random() < 0.3:
            return self._random.choice((*values, None))
        operator = self._random.choice((*COMPARISONS, "$in", "$nin", "$exists", "$type", "$not", "$all", "$special"))
        if operator == "$special":
            if isinstance(values[0], str):
                return self._regex()
            return {"$mod": [self._random.choice((1, 2, 4)), self._random.choice((0, 1))]}
        if operator in COMPARISONS:
            return {operator: self._random.choice((*values, None))}
        if operator in ("$in", "$nin", "$all"):
            return {operator: [self._random.choice((*values, None)) for _ in range(self._random.randint(0, 3))]}
        if operator == "$exists":
            return {"$exists": self._random.random() < 0.5}
        if operator == "$type":
            return {"$type": self._random.choice(("string", "null", "bool", "array"))}
        return {"$not": {self._random.choice(COMPARISONS): self._random.choice(values)}}

    def _place(self, value: Any) -> tuple[tuple[str, ...], Any]:
        """A path below a value and what it leads to; now and then one that leads elsewhere, or nowhere."""
        path: list[str] = []
        while isinstance(value, dict | list) and value and self._random.random() < 0.75:
            if isinstance(value, dict):
                name = self._random.choice(list(value))
                path.append(name)
                value = value[name]
            else:
                index = self._random.randrange(len(value))
                if self._random.random() < 0.4:
                    path.append(str(index))
                value = value[index]
        while not path or self._random.random() < 0.12:
            path.append(self._random.choice(NAMES))
        return tuple(path), value

    def _near(self, value: Any) -> Any:
        """The value, something within it, something like it, or anything."""
        kind = self._random.random()
        if kind < 0.35:
            return value
        if kind < 0.55 and isinstance(value, list) and value:
            return self._random.choice(value)
        if kind < 0.6 and isinstance(value, dict):
            return dict(reversed(value.items()))
        if kind < 0.7 and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value) if isinstance(value, int) and abs(value) < 2**63 else value
        return self.value(3) if kind < 0.8 else self.scalar()

    def _regex(self) -> dict[str, Any]:
        made: dict[str, Any] = {"$regex": self._random.choice(PATTERNS)}
        if self._random.random() < 0.3:
            made["$options"] = self._random.choice(("i", "m", "s", "im"))
        return made

    def _condition(self, value: Any, depth: int = 0) -> Any:
        if self._random.random() < 0.2:
            return self._near(value)
        made: dict[str, Any] = {}
        for _ in range(self._random.choice((1, 1, 1, 2))):
            made |= self._operator(value, depth)
        return made

    def _operator(self, value: Any, depth: int) -> dict[str, Any]:
        operator = self._random.choice(
            (
                *COMPARISONS,
                "$in",
                "$nin",
                "$exists",
                "$type",
                "$mod",
                "$size",
                "$regex",
                "$all",
                "$elemMatch",
                "$elemMatch",
                "$not",
            )
        )
        if operator in COMPARISONS:
            return {operator: self._near(value)}
        if operator in ("$in", "$nin"):
            return {operator: [self._near(value) for _ in range(self._random.randint(0, 3))]}
        if operator == "$exists":
            return {"$exists": self._random.random() < 0.5}
        if operator == "$type":
            one = self._random.choice(TYPES)
            return {"$type": one if self._random.random() < 0.6 else [one, self._random.choice(TYPES)]}
        if operator == "$mod":
            return {"$mod": [self._random.choice((1, 2, 3, -4, 5.5)), self._random.choice((0, 0, 1, 2, -1))]}
        if operator == "$size":
            return {"$size": len(value) if isinstance(value, list) else self._random.randint(0, 3)}
        if operator == "$regex":
            return self._regex()
        if operator == "$not":
            return {"$not": self._operators(value, depth + 1)}
        items = value if isinstance(value, list) else []
        if operator == "$all":
            if self._random.random() < 0.3:
                return {
                    "$all": [{"$elemMatch": self._element(items, depth)} for _ in range(self._random.randint(1, 2))]
                }
            several = [self._random.choice(items) for _ in range(self._random.randint(0, 2)) if items]
            return {"$all": several or [self._near(value)]}
        return {"$elemMatch": self._element(items, depth)}

    def _operators(self, value: Any, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for _ in range(self._random.choice((1, 1, 2))):
            made |= self._operator(value, depth)
        return made

    def _element(self, items: list[Any], depth: int) -> dict[str, Any]:
        """What stands behind ``$elemMatch``."""
        item = self._random.choice(items) if items else self.value(3)
        if depth < 3 and (isinstance(item, dict) or self._random.random() < 0.15):
            made: dict[str, Any] = {}
            for _ in range(self._random.choice((0, 1, 1, 2))):
                path, value = self._place(item)
                made[".".join(path)] = self._condition(value, depth + 1)
            if self._random.random() < 0.15:
                path, value = self._place(item)
                made["$or"] = [{".".join(path): self._condition(value, depth + 1)}]
            return made
        if depth >= 3:
            return {self._random.choice(COMPARISONS): self._near(item)}
        return self._operators(item, depth + 1)


def smaller(value: Any) -> Iterator[Any]:
    """The value with one part less, in every way; for finding the smallest case that still fails."""
    if isinstance(value, dict):
        for key in value:
            yield {name: item for name, item in value.items() if name != key}
        for key, item in value.items():
            for less in smaller(item):
                yield value | {key: less}
    elif isinstance(value, list):
        for place in range(len(value)):
            yield value[:place] + value[place + 1 :]
        for place, item in enumerate(value):
            for less in smaller(item):
                yield [*value[:place], less, *value[place + 1 :]]
