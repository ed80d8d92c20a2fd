"""The order of a scan, by the paths of the stored form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xray.exceptions import StoreError
from xray_server.documents import RUN_FIELDS, STAGE_FIELDS, Document, Kind
from xray_server.query.ast import Field, Metric, Scan, SortKey
from xray_server.stores.encoding import is_number
from xray_server.stores.mongo import forms
from xray_server.stores.mongo.compiler import kind_of
from xray_server.stores.mongo.filters import FALSE, Filter, all_of, any_of


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a scan's order, by its path in the stored form."""

    path: str
    kind: Kind
    descending: bool
    reference: Field | Metric

    def value_of(self, document: Document) -> Any:
        """The key's value of a document; None where it has none."""
        value: Any = document
        names: tuple[str | None, ...] = (
            self.reference.path
            if isinstance(self.reference, Field)
            else ("metrics", self.reference.name, self.reference.key)
        )
        for name in names:
            if name is not None:
                value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(self.reference, Field) or is_number(value) else None

    def compare(self, op: str, value: Any) -> Filter:
        """A comparison of the key with one of its values."""
        return {self.path: {op: forms.to_bson(self.kind, value)}}


def sort_keys(scan: Scan) -> list[Key]:
    """The keys of a scan's order.

    Raises:
        StoreError: The store cannot sort by one of them.
    """
    fields = STAGE_FIELDS if scan.of == "stages" else RUN_FIELDS
    return [_sort_key(scan, key, fields) for key in scan.sort]


def _sort_key(scan: Scan, sort: SortKey, fields: dict[str, Kind]) -> Key:
    reference = sort.reference
    if isinstance(reference, Metric):
        if scan.of != "stages":
            raise StoreError(f"Runs have no metric '{reference}' to sort by.", code="bad_sort")
        return Key(forms.metric_path(reference.name, reference.key), "number", sort.descending, reference)
    if reference.path == ("id",):
        return Key("_id.i", "id", sort.descending, reference)
    kind = kind_of(reference.path, fields)
    if kind is None:
        raise StoreError(f"The store cannot sort by '{reference}'.", code="bad_sort")
    return Key(".".join(reference.path), kind, sort.descending, reference)


def has_number(key: Key) -> Filter:
    """That there is a number at a metric's path."""
    return {key.path: {"$gte": -math.inf}}


def later(keys: Sequence[Key], after: Sequence[Any]) -> Filter:
    """What comes after a row, given the values of its keys."""
    if not keys:
        return FALSE
    key, value = keys[0], after[0]
    absent: Filter = {key.path: None}
    if value is None:
        beyond = FALSE if key.descending else {key.path: {"$ne": None}}
        return any_of([beyond, all_of([absent, later(keys[1:], after[1:])])])
    same = all_of([key.compare("$eq", value), later(keys[1:], after[1:])])
    if not key.descending:
        # The lone bound is implied by the rest; it is what the index can use.
        return all_of([key.compare("$gte", value), any_of([key.compare("$gt", value), same])])
    bound: Filter = {key.path: {"$not": {"$gt": forms.to_bson(key.kind, value)}}}
    return all_of([bound, any_of([key.compare("$lt", value), absent, same])])
