"""The order of a scan, by the paths of the stored form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bson.datetime_ms import DatetimeMS

from xray.exceptions import StoreError
from xray_server.documents import Document
from xray_server.query.ast import Field, Metric, Scan, SortKey
from xray_server.stores.encoding import is_number
from xray_server.stores.mongo import ids
from xray_server.stores.mongo.filters import FALSE, Filter, all_of, any_of
from xray_server.stores.mongo.forms import RUNS, STAGES, Form, Place
from xray_server.stores.mongo.known import Known, place_of

_IDS = ("own_id", "key", "id")


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a scan's order, by its path in the stored form.

    Args:
        path: The path.
        place: Of a field: where it lies; None for a metric.
        descending: The direction.
        reference: What is sorted by.
        project: The number of the project.
    """

    path: str
    place: Place | None
    descending: bool
    reference: Field | Metric
    project: int

    @property
    def is_word(self) -> bool:
        """Whether the path holds numbers, whose order is not that of the texts."""
        return self.place is not None and self.place.storage in ("word", "listed")

    @property
    def is_id(self) -> bool:
        """Whether it is the document's own id."""
        return self.place is not None and self.place.storage == "own_id"

    @property
    def is_walked(self) -> bool:
        """Whether an index has its values in order, but not what shares a value in the order of other keys."""
        return self.place is None or self.place.path == "s"

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

    def same(self, value: Any) -> Filter:
        """That the key has this value, which is not None."""
        if self.place is not None and self.place.storage in _IDS:
            return ids.compare(self.path, "eq", value, self._project)
        return {self.path: self._stored(value)}

    def beyond(self, value: Any) -> Filter:
        """That the key has a value, and one that comes after this, which is not None."""
        if self.place is not None and self.place.storage in _IDS:
            return ids.after(self.path, value, descending=self.descending, project=self._project)
        return {self.path: {"$lt" if self.descending else "$gt": self._stored(value)}}

    def has_value(self) -> Filter:
        """That there is a value; of a metric, a number."""
        return {self.path: {"$gte": -math.inf}} if self.place is None else {self.path: {"$ne": None}}

    def has_none(self) -> Filter:
        """That there is no value; of a metric, no number at its path."""
        return {"$nor": [self.has_value()]} if self.place is None else {self.path: None}

    @property
    def _project(self) -> int | None:
        return self.project if self.place is not None and self.place.storage != "id" else None

    def _stored(self, value: Any) -> Any:
        return DatetimeMS(value) if self.place is not None and self.place.storage == "time" else value


def sort_keys(scan: Scan, known: Known) -> list[Key]:
    """The keys of a scan's order.

    Raises:
        StoreError: There are none, or the store cannot sort by one of them.
    """
    if not scan.sort:
        raise StoreError("A scan needs at least one sort key.")
    if scan.after is not None and len(scan.after) != len(scan.sort):
        raise StoreError(f"The scan has {len(scan.sort)} sort keys and {len(scan.after)} values to go on after.")
    form = STAGES if scan.of == "stages" else RUNS
    return [_sort_key(scan, key, form, known) for key in scan.sort]


def _sort_key(scan: Scan, sort: SortKey, form: Form, known: Known) -> Key:
    reference = sort.reference
    if isinstance(reference, Metric):
        if scan.of != "stages":
            raise StoreError(f"Runs have no metric '{reference}' to sort by.", code="bad_sort")
        return Key(known.metric(reference), None, sort.descending, reference, known.project)
    place = place_of(reference, form)
    if place is None or place.kind == "strings" or place.storage == "own_run":
        raise StoreError(f"The store cannot sort by '{reference}'.", code="bad_sort")
    return Key(place.path, place, sort.descending, reference, known.project)


def later(keys: Sequence[Key], after: Sequence[Any]) -> Filter:
    """What comes after a row, given the values of its keys, none of which is a word."""
    if not keys:
        return FALSE
    key, value = keys[0], after[0]
    if key.is_id:
        return key.beyond(value)
    following = later(keys[1:], after[1:])
    if value is None:
        beyond = FALSE if key.descending else key.has_value()
        return any_of([beyond, all_of([key.has_none(), following])])
    parts = [key.beyond(value), all_of([key.same(value), following])]
    return any_of([*parts, key.has_none()] if key.descending else parts)
