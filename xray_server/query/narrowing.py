"""What follows from a condition without evaluating it: which pages can be passed over, what it is about."""

from __future__ import annotations

from collections.abc import Iterator

from xray_server.documents import PIPELINE_FIELDS
from xray_server.pages import CandidatePage
from xray_server.query import ast
from xray_server.zones import may_match


def references(condition: ast.Condition) -> Iterator[ast.Reference]:
    """Every field and metric that a condition tests, repeats included."""
    match condition:
        case ast.And(conditions) | ast.Or(conditions):
            for inner in conditions:
                yield from references(inner)
        case ast.Not(inner):
            yield from references(inner)
        case ast.Test(reference, _):
            yield reference


def concerns_only_pipeline(condition: ast.Condition) -> bool:
    """Whether a condition on a run names only its immutable fields, which its stages have too."""
    return all(
        isinstance(reference, ast.Field) and reference.path[0] in PIPELINE_FIELDS for reference in references(condition)
    )


def necessary_values(condition: ast.Condition, field: ast.Field) -> frozenset[str] | None:
    """The texts of which a field must hold one for the condition to be true, or None where it may hold others.

    Args:
        condition: The condition.
        field: A field that holds one text or nothing.
    """
    match condition:
        case ast.Test(reference, ast.Compare("eq", str() as value)) if reference == field:
            return frozenset({value})
        case ast.Test(reference, ast.In(one_of)) if reference == field:
            texts = [value for value in one_of if isinstance(value, str)]
            return frozenset(texts) if len(texts) == len(one_of) else None
        case ast.And(conditions):
            known = [values for inner in conditions if (values := necessary_values(inner, field)) is not None]
            return frozenset.intersection(*known) if known else None
        case ast.Or(conditions):
            each = [necessary_values(inner, field) for inner in conditions]
            known = [values for values in each if values is not None]
            return frozenset().union(*known) if len(known) == len(each) else None
    return None


class PageFilter:
    """Passes over candidate pages by what they have in the open.

    Args:
        condition: The condition on a candidate.
    """

    def __init__(self, condition: ast.Condition) -> None:
        self._ids = necessary_values(condition, ast.Field(("candidate_id",)))
        self._reason_labels = necessary_values(condition, ast.Field(("reason_label",)))
        self.decides = isinstance(condition, ast.Test) and (self._ids is not None or self._reason_labels is not None)
        """Whether a page that is not passed over has a candidate that satisfies the condition, without opening it."""
        self._core = ast.weakened(condition)

    def may_match(self, page: CandidatePage) -> bool:
        """Whether a candidate of the page may satisfy the condition."""
        if self._ids is not None and self._ids.isdisjoint(page.ids):
            return False
        if self._reason_labels is not None and self._reason_labels.isdisjoint(page.reason_labels):
            return False
        return not page.zones or may_match(self._core, page.zones)
