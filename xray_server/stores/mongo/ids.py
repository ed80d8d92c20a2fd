"""How ids lie in the collections.

A UUID in its canonical form is 16 bytes, any other id its text. MongoDB orders texts before bytes, and each of the two
as Python orders the ids, so that ids of one kind are in the order of their texts.

The *key* of a document (``_id``) is its id behind its project's number: two bytes, or four hexadecimal digits. So one
collection serves all projects, ids of one never meet those of another, and a project's documents are two ranges.
"""

from __future__ import annotations

from typing import Any

from xray.ids import is_id
from xray_server.stores.mongo.filters import FALSE, Filter, all_of, any_of

Id = bytes | str
Key = bytes | str

MAX_PROJECTS = 2**16 - 2
"""So many numbers there are; 0 stands for a project that has nothing."""

_HIGHEST_TEXT = "\U0010ffff"
_PAGE_BYTES = 4


def id_value(text: str) -> Id:
    """An id as it is stored."""
    return bytes.fromhex(text.replace("-", "")) if is_id(text) else text


def id_text(value: Id) -> str:
    """The id of what is stored."""
    if isinstance(value, str):
        return value
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def key(project: int, document_id: str) -> Key:
    """The key of a run or a stage."""
    value = id_value(document_id)
    return f"{project:04x}{value}" if isinstance(value, str) else project.to_bytes(2, "big") + value


def id_of(found: Key) -> str:
    """The id in a key of a run or a stage."""
    return id_text(found[4:] if isinstance(found, str) else found[2:])


def project_of(found: Key) -> int:
    """The number of the project in any key."""
    return int(found[:4], 16) if isinstance(found, str) else int.from_bytes(found[:2], "big")


def page_key(stage: Key, page: int) -> Key:
    """The key of a page, by the key of its stage."""
    return f"{stage}\0{page:08x}" if isinstance(stage, str) else stage + page.to_bytes(_PAGE_BYTES, "big")


def page_of(found: Key) -> tuple[Key, int]:
    """The key of the stage and the number of the page."""
    if isinstance(found, str):
        stage, _, number = found.rpartition("\0")
        return stage, int(number, 16)
    return found[:-_PAGE_BYTES], int.from_bytes(found[-_PAGE_BYTES:], "big")


def pages_of(stage: Key, first: int = 0) -> Filter:
    """The filter for the pages of a stage from one on, by their keys."""
    return {"_id": {"$gte": page_key(stage, first), "$lte": page_key(stage, 2**32 - 1)}}


def ranges(project: int, path: str = "_id") -> tuple[Filter, Filter]:
    """The filters for a project's keys: those of texts, and those of bytes, in the order of keys."""
    low = project.to_bytes(2, "big")
    # Of two values MongoDB takes the longer one for the greater: the keys of a collection have one length.
    of_bytes = {path: {"$gte": low + bytes(16), "$lte": low + b"\xff" * 16}}
    return {path: {"$gte": f"{project:04x}", "$lt": f"{project:04x}{_HIGHEST_TEXT}"}}, of_bytes


def last_key(project: int, *, is_text: bool) -> Key:
    """What comes after every key of a project, of runs, stages and pages alike."""
    # Of two values of bytes MongoDB takes the longer one for the greater; the keys of pages are the longest.
    return f"{project:04x}{_HIGHEST_TEXT}" if is_text else project.to_bytes(2, "big") + b"\xff" * 20


def compare(path: str, op: str, text: str, project: int | None = None) -> Filter:
    """That the id at a path compares with a text, in the order of texts.

    Args:
        path: The path, which holds ids, or keys where a project is given.
        op: ``eq``, ``gt``, ``gte``, ``lt`` or ``lte``.
        text: What it is compared with; need not be an id.
        project: The number of the project whose keys the path holds.
    """
    if op == "eq":
        return {path: id_value(text) if project is None else key(project, text)}
    texts: Filter = {path: {"$type": "string"}}
    everything: Filter = {path: {"$type": "binData"}}
    prefix, before = "", b""
    if project is not None:
        texts, everything = ranges(project, path)
        prefix, before = f"{project:04x}", project.to_bytes(2, "big")
    of_texts = all_of([texts, {path: {f"${op}": prefix + text}}])
    return any_of([of_texts, _compare_bytes(path, op, text, everything, before)])


def _compare_bytes(path: str, op: str, text: str, everything: Filter, before: bytes) -> Filter:
    """The UUIDs that compare with a text; each bound has the length of what is stored."""
    if is_id(text):
        return all_of([everything, {path: {f"${op}": before + id_value(text)}}])  # type: ignore[operator]
    least = least_id_above(text)
    is_lower = op in ("gt", "gte")
    if least is None:
        return FALSE if is_lower else everything
    return all_of([everything, {path: {"$gte" if is_lower else "$lt": before + least}}])


def least_id_above(text: str) -> bytes | None:
    """The least UUID whose text comes after this text, which is none; None where there is no such UUID."""
    found = ""
    for place in range(36):
        allowed = "-" if place in (8, 13, 18, 23) else "0123456789abcdef"
        if place >= len(text):
            found += "0" if len(allowed) > 1 else "-"
        elif text[place] in allowed:
            found += text[place]
        elif text[place] < allowed[-1]:
            # From here on every UUID that begins like this is greater; the least of them is followed by zeros.
            greater = min(character for character in allowed if character > text[place])
            return _filled(found + greater)
        else:
            return _successor(found)
    return id_value(found) if found > text else _successor(found)  # type: ignore[return-value]


def _filled(beginning: str) -> bytes:
    digits = beginning.replace("-", "")
    return bytes.fromhex(digits.ljust(32, "0"))


def _successor(beginning: str) -> bytes | None:
    """The least UUID that comes after every one that begins like this."""
    digits = beginning.replace("-", "")
    following = int(digits or "0", 16) + 1 if digits else None
    if following is None or following >= 16 ** len(digits):
        return None
    return bytes.fromhex(f"{following:0{len(digits)}x}".ljust(32, "0"))


def after(path: str, value: Any, *, descending: bool, project: int | None = None) -> Filter:
    """What comes after an id in the order of what is stored: texts, then bytes."""
    stored = id_value(value) if project is None else key(project, value)
    beyond: Filter = {path: {"$lt" if descending else "$gt": stored}}
    if isinstance(stored, str) and not descending:
        return any_of([beyond, {path: {"$type": "binData"}}])
    if isinstance(stored, bytes) and descending:
        return any_of([beyond, {path: {"$type": "string"}}])
    return beyond
