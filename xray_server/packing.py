"""The packed form of candidates' columns: JSON by column, made to be compressed.

A pack is ``[form, count, {column: values}]``. Values are a plain list, or an object that says how they are written:

==========================  ===========================================================================
``{"same": value}``         all of them are this value
``{"ids": true}``           they are the candidates' ids
``{"of": […], "at": "…"}``  words that repeat: the distinct ones, and one character a candidate that says which;
                            up to three stand in the order of their first use, so that columns that say the
                            same thing in other words (verdict, flag) look alike to the compressor, more of
                            them sorted, so that their list looks like that of the next page
``{"pre": …, "text": …}``   texts: how all of them begin, and the rest of each one after the other; with
                            ``"width"``, the length of each rest, else separated by U+007F
``{"keys": […], "by": […]}``  objects of one form: the keys, and the values of each key, written likewise
==========================  ===========================================================================

Each of these keeps what is not predictable apart from what is. Numbers stand as decimal text: prices and ratings have
few digits, and a compressor sees that in text only.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from xray.exceptions import StoreError
from xray_server.tables import Table, as_table

FORM = 1
"""The form of the packs that are written; all forms from 1 on are read."""

_SYMBOLS = "".join(map(chr, (code for code in range(35, 127) if code != 92)))
"""Printable, and no escapes in JSON."""

_SEPARATOR = "\x7f"
"""Needs no escape in JSON either; texts that have it are written as a plain list."""

_WORDS = ({str}, {str, type(None)}, {bool}, {bool, type(None)}, {type(None)})
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def pack(ids: Sequence[str], values: Mapping[str, Sequence[Any]]) -> bytes:
    """Pack columns; those in which no candidate has a value are left out.

    Args:
        ids: The candidates' ids, which are not packed.
        values: Column → one value a candidate, JSON by the rules of :mod:`xray_server.json_rules`.
    """
    written = {name: spec for name, column in values.items() if (spec := _write(column, ids)) != _ABSENT}
    return _encode([FORM, len(ids), written])


def unpack(packed: bytes, ids: Sequence[str], only: Container[str] | None = None) -> dict[str, list[Any]]:
    """The columns of a pack.

    Args:
        packed: What :func:`pack` gave.
        ids: The ids that it was given.
        only: The columns that are wanted; all by default. Of the others nothing is made.

    Raises:
        StoreError: It is of a newer form, or is no pack.
    """
    try:
        form, count, written = _decode(packed)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise StoreError(f"A page of candidates cannot be read: {error}.") from error
    if form != FORM:
        raise StoreError(
            f"A page of candidates has form {form}; this version of X-Ray knows forms up to {FORM}.",
            code="newer_store",
            hint="Use the version of X-Ray that wrote it, or a newer one.",
        )
    return {name: _read(spec, ids, count) for name, spec in written.items() if only is None or name in only}


_IN_ORDER_OF_USE = 3
_ABSENT: dict[str, Any] = {"same": None}


def _write(values: Sequence[Any], ids: Sequence[str]) -> Any:
    if isinstance(values, Table):
        return {"keys": values.keys, "by": [_write(column, ids) for column in values.columns]}
    kinds = set(map(type, values))
    if kinds in _WORDS:
        distinct = dict.fromkeys(values)
        if len(distinct) == 1:
            return {"same": values[0]}
        if len(distinct) <= len(_SYMBOLS) and len(distinct) * 4 <= len(values) * 3:
            words = list(distinct) if len(distinct) <= _IN_ORDER_OF_USE else sorted(distinct, key=_word_order)
            symbols = dict(zip(words, _SYMBOLS, strict=False))
            return {"of": words, "at": "".join(map(symbols.__getitem__, values))}
        if kinds == {str}:
            return {"ids": True} if values[0] == ids[0] and list(values) == list(ids) else write_texts(values)
    elif kinds == {dict}:
        table = as_table(values)
        if table is not None:
            return _write(table, ids)
    return values


def write_texts(values: Sequence[str]) -> Any:
    """Texts as a spec: what they have in common apart from what differs."""
    first, last = min(values), max(values)
    begins = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    rests = [value[begins:] for value in values] if begins else values
    widths = set(map(len, rests))
    if len(widths) == 1:
        return {"pre": first[:begins], "width": widths.pop(), "text": "".join(rests)}
    joined = _SEPARATOR.join(rests)
    return {"pre": first[:begins], "text": joined} if joined.count(_SEPARATOR) == len(rests) - 1 else list(values)


def read_texts(spec: Any, count: int) -> list[str]:
    """The texts of what :func:`write_texts` gave."""
    if isinstance(spec, list):
        return spec
    begin, text, width = spec["pre"], spec["text"], spec.get("width")
    if width is None:
        rests = text.split(_SEPARATOR)
    elif width:
        rests = [text[start : start + width] for start in range(0, len(text), width)]
    else:
        rests = [""] * count
    return [begin + rest for rest in rests] if begin else rests


def _word_order(word: Any) -> str:
    return word or ""


def _read(spec: Any, ids: Sequence[str], count: int) -> list[Any]:
    if isinstance(spec, list):
        return spec
    if "at" in spec:
        words = dict(zip(_SYMBOLS, spec["of"], strict=False))
        return list(map(words.__getitem__, spec["at"]))
    if "text" in spec:
        return read_texts(spec, count)
    if "by" in spec:
        return list(Table(tuple(spec["keys"]), [_read(column, ids, count) for column in spec["by"]], count))
    return list(ids) if "ids" in spec else [spec["same"]] * count
