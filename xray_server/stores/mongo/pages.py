"""How candidates lie: the page of a small stage in the stage's own document, all others in a collection of their own.

A page has in the open only *marks*, a small number for each of its ids and reason labels, and the zones of fields that
its stage declares as indexed; everything else of it is one compressed block.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, AnyStr, Final

from bson.datetime_ms import DatetimeMS

from xray_server.documents import CANDIDATE_FIELDS
from xray_server.packing import split
from xray_server.pages import CandidatePage
from xray_server.query.ast import And, Compare, Condition, Field, In, Or, Test
from xray_server.stores.frames import Opened, shortened
from xray_server.stores.mongo import ids, zones
from xray_server.stores.mongo.dictionaries import Decompressors, decompress
from xray_server.stores.mongo.forms import Raw
from xray_server.zones import Zones, may_match

COLLECTION: Final = "pages"

INLINE_BYTES = 1024
"""About how long the value of a page may be that lies in the stage's document."""

COMPRESSED_TO = 4
"""Compressed, what can be compressed of a pack is about the fourth part of it."""

BLOCK, MARKS, ZONES, COUNT, PROJECT, START, OVER = "b", "k", "f", "n", "p", "a", "c"
INLINE: Final = (BLOCK, MARKS, ZONES, COUNT)
"""What a stage's document has of its page, and only then; the page's start is the run's."""

HAS_PAGE: Final[Mapping[str, Any]] = {MARKS: {"$exists": True}}
"""That a stage's document has a page."""

_BITS = 10

_SEEDS = {name: zlib.crc32(f"{name}\0".encode()) for name in ("candidate_id", "reason_label")}


def may_be_inline(page: CandidatePage, stage: Mapping[str, Any]) -> bool:
    """Whether a page is to lie in its stage's document: it is short, and the stage says the rest."""
    return (
        page.page == 0
        and _about_bytes(page.packed) <= INLINE_BYTES
        and page.run_id == stage.get("run_id")
        and page.started_at is not None
        and page.started_at == (stage.get("pipeline") or {}).get("started_at")
    )


def _about_bytes(packed: bytes) -> int:
    text, digits = split(packed)
    return len(text) // COMPRESSED_TO + len(digits)


def encode(project: int, page: CandidatePage, parts: tuple[bytes, bytes], compress: Callable[[bytes], bytes]) -> Raw:
    """A page as it lies in its collection, but for its revision; ``parts`` are those of ``frames.page_parts``."""
    stage = ids.key(project, page.stage_id)
    raw: Raw = {"_id": ids.page_key(stage, page.page), "st": stage, "r": ids.key(project, page.run_id)}
    if page.started_at is not None:
        raw[START] = DatetimeMS(page.started_at)
    marks = _marks(page)
    packed_marks = struct.pack(f">{len(marks)}H", *marks)
    raw |= {PROJECT: project, COUNT: len(page.seqs), MARKS: packed_marks, BLOCK: _block(parts, compress)}
    return raw | _zones(page)


def encode_inline(
    page: CandidatePage, metrics_over: int | None, parts: tuple[bytes, bytes], compress: Callable[[bytes], bytes]
) -> Raw:
    """What a stage's document has of its page.

    Args:
        page: The page.
        metrics_over: Over how many candidates the stage's metrics are: nearly always as many as the page has.
        parts: What ``frames.page_parts`` gave.
        compress: Compresses the first of them.
    """
    digits = "".join(f"{mark & (1 << _BITS) - 1:0{_BITS}b}" for mark in _marks(page))
    marks = int("1" + digits, 2)  # the first bit says where the marks begin
    raw: Raw = {MARKS: marks.to_bytes(len(digits) // 8 + 1, "big"), BLOCK: _block(parts, compress)}
    if metrics_over != len(page.seqs):
        raw[COUNT] = len(page.seqs)
    return raw | _zones(page)


def _block(parts: tuple[bytes, bytes], compress: Callable[[bytes], bytes]) -> bytes:
    text, digits = parts
    return shortened(compress(text)) + digits


def _zones(page: CandidatePage) -> Raw:
    return {ZONES: zones.encode(page.zones)} if page.zones else {}


def decode(raw: Mapping[str, Any], decompressors: Decompressors) -> CandidatePage:
    """The page of a document of either collection.

    Raises:
        StoreError: It is damaged.
    """
    stage, number = (raw["_id"], 0) if "st" not in raw else ids.page_of(raw["_id"])
    count, started_at = count_of(raw), raw.get(START)
    opened = Opened(raw[BLOCK], count, lambda value: decompress(value, decompressors))
    return CandidatePage(
        run_id=ids.id_of(raw["r"]),
        stage_id=ids.id_of(stage),
        page=number,
        started_at=None if started_at is None else int(started_at),
        seqs=opened.seqs,
        ids=opened.ids,
        reason_labels=opened.reason_labels,
        packed=opened.packed,
        zones=zones.decode(raw.get(ZONES)),
    )


def count_of(raw: Mapping[str, Any]) -> int:
    """How many candidates the page of a document of either collection has."""
    return int(raw[COUNT] if COUNT in raw else raw[OVER])


COUNTED: Final = {"$ifNull": [f"${COUNT}", f"${OVER}"]}
"""The same as an expression."""


# --- marks ------------------------------------------------------------------------------------------------------


def _mark(kind: str, text: str) -> int:
    return zlib.crc32(text.encode(errors="surrogatepass"), _SEEDS[kind]) & 0xFFFF


def _marks(page: CandidatePage) -> list[int]:
    found = [_mark("candidate_id", text) for text in page.ids]
    return found + [_mark("reason_label", text) for text in page.reason_labels]


def narrows(candidate: Condition) -> bool:
    """Whether what a page has in the open says anything about a condition on a candidate."""
    match candidate:
        case And(conditions):
            return any(map(narrows, conditions))
        case Or(conditions):
            return all(map(narrows, conditions))
        case Test(Field((("candidate_id" | "reason_label"),)), Compare("eq", str())):
            return True
        case Test(Field((("candidate_id" | "reason_label"),)), In(values)):
            return all(isinstance(value, str) for value in values)
        case Test(Field(path), Compare() | In()):
            return _is_free(path)
    return False


def may_hold(candidate: Condition, raw: Mapping[str, Any]) -> bool:
    """Whether the page of a document of either collection may hold a candidate that satisfies the condition.

    By ids and labels, of the pages that do not two or three in a hundred seem to.
    """
    marks, fields = bytes(raw[MARKS]), zones.decode(raw.get(ZONES))
    if "st" in raw:
        return _holds(candidate, lambda mark: _is_among(mark.to_bytes(2, "big"), marks), fields)
    digits = f"{int.from_bytes(marks, 'big'):b}"[1:]
    return _holds(candidate, lambda mark: _is_among(f"{mark & (1 << _BITS) - 1:0{_BITS}b}", digits), fields)


def _is_among(mark: AnyStr, marks: AnyStr) -> bool:
    """Whether a mark is among others, one of which follows the other."""
    place = marks.find(mark)
    while place % len(mark) and place >= 0:
        place = marks.find(mark, place + 1)
    return place >= 0


def _holds(candidate: Condition, has: Callable[[int], bool], fields: Zones) -> bool:
    match candidate:
        case And(conditions):
            return all(_holds(part, has, fields) for part in conditions)
        case Or(conditions):
            return any(_holds(part, has, fields) for part in conditions)
        case Test(Field((("candidate_id" | "reason_label") as name,)), Compare("eq", str() as text)):
            return has(_mark(name, text))
        case Test(Field((("candidate_id" | "reason_label") as name,)), In(values)) if all(
            isinstance(value, str) for value in values
        ):
            return any(has(_mark(name, value)) for value in values)
        case Test(Field(path)) if _is_free(path):
            return may_match(candidate, fields)
    return True


def _is_free(path: tuple[str, ...]) -> bool:
    """Whether a path leads into what users record, of which stages may declare fields as indexed."""
    return len(path) > 1 or (bool(path) and path[0] not in CANDIDATE_FIELDS)
