"""The operator words: those of this language, and those of MongoDB that it does not have."""

from __future__ import annotations

from typing import Literal

from xray.exceptions import QueryError, did_you_mean

COMPARISONS: dict[str, Literal["eq", "gt", "gte", "lt", "lte"]] = {
    "$eq": "eq",
    "$gt": "gt",
    "$gte": "gte",
    "$lt": "lt",
    "$lte": "lte",
}
FIELD_OPERATORS = (
    *(*COMPARISONS, "$ne", "$in", "$nin", "$exists", "$type", "$not"),
    *("$regex", "$options", "$mod", "$all", "$elemMatch", "$size"),
)
LOGICAL_OPERATORS = ("$and", "$or", "$nor")
OPERATORS = FIELD_OPERATORS + LOGICAL_OPERATORS

JAVASCRIPT = frozenset({"$where", "$function", "$accumulator", "$code"})
EXTENDED_JSON = frozenset(
    {"$date", "$oid", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal", "$uuid", "$binary", "$timestamp"}
)
UNSUPPORTED = frozenset(
    {
        *("$expr", "$jsonSchema", "$text", "$search", "$vectorSearch", "$comment", "$rand", "$sampleRate", "$natural"),
        *("$slice", "$meta", "$literal"),
        *("$geoWithin", "$geoIntersects", "$near", "$nearSphere", "$geometry", "$maxDistance", "$minDistance"),
        *("$within", "$center", "$centerSphere", "$box", "$polygon", "$uniqueDocs"),
        *("$bitsAllClear", "$bitsAllSet", "$bitsAnyClear", "$bitsAnySet", "$query", "$orderby", "$hint", "$explain"),
    }
)
"""What MongoDB knows and this language does not, beside :data:`JAVASCRIPT` and :data:`EXTENDED_JSON`."""

PLACEHOLDER = "$param"
"""Stands in a saved question where a value is to be put; a question that is asked has none."""

LONGEST_SLIP = 60
"""Words longer than this are no slip of the pen: no time is spent on finding what is near them."""


def show(word: object) -> str:
    """A piece of input as messages and paths quote it: short, and safe to encode whatever it holds."""
    text = word if isinstance(word, str) else type(word).__name__
    text = text if len(text) <= LONGEST_SLIP else text[: LONGEST_SLIP - 1] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")


def hint_for(word: str, *known: str) -> str | None:
    """The did-you-mean hint, for words that are not longer than :data:`LONGEST_SLIP`."""
    return did_you_mean(word, known) if len(word) <= LONGEST_SLIP else None


def folded(name: str) -> str:
    """A metric's or an operator's name without what spelling may vary in: case, ``_`` and the ``$``."""
    return name.lstrip("$").replace("_", "").lower()


RESERVED = frozenset(folded(word) for word in {*OPERATORS, *UNSUPPORTED, *JAVASCRIPT, *EXTENDED_JSON, PLACEHOLDER})
"""Folded names that no metric may have."""


def foreign_operator(word: str, path: str) -> QueryError | None:
    """The error for a word that MongoDB knows and this language does not have, or None for any other word."""
    if word == PLACEHOLDER:
        return QueryError(
            f"'{word}' stands for a value in a saved question; a question that is asked has the value itself.",
            code="unsupported",
            path=path,
            hint="Save the question with its parameters, and run it by its name.",
        )
    if word in JAVASCRIPT:
        return QueryError(f"'{word}' is not supported: questions never run code.", code="unsupported", path=path)
    if word in EXTENDED_JSON:
        return QueryError(
            f"'{word}' is not supported: values are plain JSON.",
            code="unsupported",
            path=path,
            hint="A time is ISO 8601 text with a zone (2026-11-01T00:00:00Z); ids are text.",
        )
    if word in UNSUPPORTED:
        return QueryError(
            f"The operator '{word}' is not supported.",
            code="unsupported",
            path=path,
            hint=f"Supported are {', '.join(OPERATORS)}.",
        )
    return None


def unknown_operator(word: str, path: str, *known: str) -> QueryError:
    """The error for a ``$`` word that nobody knows.

    Args:
        word: What was written.
        path: Where.
        known: What would have been right here; the operators on fields where left out.
    """
    known = known or FIELD_OPERATORS
    return foreign_operator(word, path) or QueryError(
        f"There is no operator '{show(word)}' here.",
        code="unknown_operator",
        path=path,
        hint=hint_for(word, *known) or hint_for(word.lower(), *known),
    )
