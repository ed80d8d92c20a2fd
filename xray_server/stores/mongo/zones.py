"""The zones of pages in MongoDB: a part of the page's document, ``zones``, by the escaped path of the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xray_server.pages import CandidatePage
from xray_server.query.ast import Compare, In, Test
from xray_server.stores.encoding import is_number
from xray_server.stores.mongo import forms
from xray_server.stores.mongo.filters import TRUE, Filter, all_of, any_of
from xray_server.zones import Zone, mark


def encode_page(project: str, page: CandidatePage) -> forms.Raw:
    """A page as it lies in the collection, with its zones, but for its revision."""
    raw = forms.encode_page(project, page)
    if page.zones:
        raw["zones"] = {forms.escaped(path): _encode(zone) for path, zone in page.zones.items()}
    return raw


def decode_page(raw: Mapping[str, Any]) -> CandidatePage:
    """The page that :func:`encode_page` was given."""
    page = forms.decode_page(raw)
    page.zones = {forms.unescaped(name): _decode(held) for name, held in raw.get("zones", {}).items()}
    return page


def _encode(zone: Zone) -> forms.Raw:
    numbers = {} if zone.low is None else {"low": zone.low, "high": zone.high}
    return numbers | ({"any": True} if zone.marks is None else {"marks": sorted(zone.marks)})


def _decode(held: Mapping[str, Any]) -> Zone:
    low, high = (forms.plain(held[name]) if name in held else None for name in ("low", "high"))
    marks = None if held.get("any") else frozenset(int(each) for each in held["marks"])
    return Zone(low, high, marks)


def condition(test: Test) -> Filter:
    """What a page must satisfy to hold a candidate that satisfies a test on a path."""
    zone = f"zones.{forms.escaped(str(test.reference))}"
    holds = _holds(zone, test.operator)
    return TRUE if holds == TRUE else any_of([{zone: {"$exists": False}}, holds])


def _holds(zone: str, operator: Any) -> Filter:
    match operator:
        case In(values):
            return any_of(_holds(zone, Compare("eq", value)) for value in values)
        case Compare(op, value) if is_number(value):
            parts: list[Filter] = []
            if op in ("eq", "lt", "lte"):
                parts.append({f"{zone}.low": {"$lt" if op == "lt" else "$lte": value}})
            if op in ("eq", "gt", "gte"):
                parts.append({f"{zone}.high": {"$gt" if op == "gt" else "$gte": value}})
            return all_of(parts)
        case Compare("eq", str() as text):
            return {"$or": [{f"{zone}.marks": mark(text)}, {f"{zone}.any": True}]}
        case Compare(_, str()):
            return {"$or": [{f"{zone}.marks.0": {"$exists": True}}, {f"{zone}.any": True}]}
    return TRUE
