"""The packed form of candidates' columns: JSON by column, made to be compressed, and beside it what cannot be.

A pack is ``[form, count, {column: values}]``, a line feed, and the *digits*: numbers in few bytes (``radix.py``), which
no compressor makes shorter. Values are a plain list, or an object that says how they are written:

====================================  =================================================================================
``{"same": value}``                   all of them are this value
``{"ids": true}``                     they are the candidates' ids
``{"around": [before, after]}``       they are the candidates' ids, between two texts
``{"again": n}``                      they are those of the column of numbers or texts with digits that came as number
                                      *n*
``{"of": […]}``                       words that repeat: the distinct ones; which one a candidate has is in the digits
``{"of": […], "at": "…"}``            the same where nearly all are one word: one character a candidate says which
``{"of": […], "as": n}``              words that follow from those of the column of words that came as number *n*: for
                                      each word of that one, what stands here
``{"num": [decimals, low, bits]}``    numbers, in the digits: times ten to the number of decimals, less the lowest
``{"pre": …, "digits": width, …}``    texts: how all of them begin; what follows are decimal digits, as many as
                                      ``width`` (0: without leading zeros), and their values in the digits: less
                                      ``low``, in as many ``bits``, where these are said
``{"pre": …, "text": …}``             texts: how all of them begin, and the rest of each one after the other; with
                                      ``"width"``, the length of each rest, else separated by U+007F
``{"keys": […], "by": […]}``          objects of one form: the keys, and the values of each key, written likewise
====================================  =================================================================================

Each of these keeps what is not predictable apart from what is. Columns that say the same thing (verdict, flag, label)
are written once. Other numbers stand as decimal text: scores have many digits, and those that repeat a compressor sees
in text only. Form 1 had no digits; all other ways of writing were the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from math import copysign
from typing import Any

import msgspec

from xray.exceptions import StoreError
from xray_server import radix
from xray_server.tables import Table, as_table

FORM = 2
"""The form of the packs that are written; all forms from 1 on are read."""

_SYMBOLS = "".join(map(chr, (code for code in range(35, 127) if code != 92)))
"""Printable, and no escapes in JSON."""

_SEPARATOR = "\x7f"
"""Needs no escape in JSON either; texts that have it are written as a plain list."""

_ONE_SIDED_FROM, _ONE_SIDED = 64, 0.85
"""From how many candidates on, and from which share of one word on, words are better left to the compressor."""

_SCALES = tuple((decimals, 10**decimals) for decimals in range(1, 7))
_MAX_BITS = 40
_MAX_DIGITS = 15
_FEWER_BITS = 3
"""Bits a text that saying the lowest number has to save."""

_FIRST = "reason_label"
"""Written before all others: verdicts and flags follow from it, and it does not follow from them."""

_WORDS = ({str}, {str, type(None)}, {bool}, {bool, type(None)}, {type(None)})
_NUMBERS = ({int}, {float})
_OBJECTS = {dict}
_ABSENT: dict[str, Any] = {"same": None}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def pack(ids: Sequence[str], values: Mapping[str, Sequence[Any]]) -> bytes:
    """Pack columns; those in which no candidate has a value are left out.

    Args:
        ids: The candidates' ids, which are not packed.
        values: Column → one value a candidate, JSON by the rules of :mod:`xray_server.json_rules`.
    """
    writer = _Writer(ids)
    specs = {name: writer.column(values[name]) for name in _in_order(values)}
    written = {name: spec for name in values if (spec := specs[name]) != _ABSENT}
    return b"\n".join((_encode([FORM, len(ids), written]), b"".join(writer.digits)))


def unpack(packed: bytes, ids: Sequence[str], only: Container[str] | None = None) -> dict[str, list[Any]]:
    """The columns of a pack.

    Args:
        packed: What :func:`pack` gave.
        ids: The ids that it was given.
        only: The columns that are wanted; all by default. Of the others nothing is made.

    Raises:
        StoreError: It is of a newer form, or is no pack.
    """
    text, _, digits = packed.partition(b"\n")
    try:
        form, count, written = _decode(text)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise StoreError(f"A page of candidates cannot be read: {error}.") from error
    if form not in range(1, FORM + 1):
        raise StoreError(
            f"A page of candidates has form {form}; this version of X-Ray knows forms up to {FORM}.",
            code="newer_store",
            hint="Use the version of X-Ray that wrote it, or a newer one.",
        )
    reader = _Reader(ids, count, digits)
    names = _in_order(written)
    found = {name: reader.column(written[name], wanted=only is None or name in only) for name in names}
    if not reader.is_at_end:
        raise StoreError("A page of candidates cannot be read: its digits are damaged.")
    return {name: column for name in written if (column := found[name]) is not None}


def split(packed: bytes) -> tuple[bytes, bytes]:
    """A pack as what is worth compressing, and the rest."""
    text, _, digits = packed.partition(b"\n")
    return text, digits


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=_FIRST.__ne__)


# --- writing ----------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the columns of one pack, one after the other."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._words: list[tuple[Sequence[Any], list[Any]]] = []
        self._in_digits: list[tuple[type, Sequence[Any]]] = []
        self.digits: list[bytes] = []

    def column(self, values: Sequence[Any]) -> Any:
        """A column as it is written."""
        if type(values) is Table:
            return {"keys": values.keys, "by": [self.column(column) for column in values.columns]}
        kinds = set(map(type, values))
        if kinds in _WORDS:
            return self._texts_or_words(values, kinds)
        if kinds in _NUMBERS:
            return self._numbers(values, kinds)
        if kinds == _OBJECTS:
            table = as_table(values)
            if table is not None:
                return self.column(table)
        return values

    def _texts_or_words(self, values: Sequence[Any], kinds: set[type]) -> Any:
        if bool not in kinds:  # True equals 1, which is of another column
            for number, (others, of) in enumerate(self._words):
                if others == values:
                    return {"of": of, "as": number}
        distinct = dict.fromkeys(values)
        if len(distinct) == 1:
            return {"same": values[0]}
        if len(distinct) * 4 <= len(values) * 3:
            return self._of_words(values, _sorted(distinct))
        if kinds == {str}:
            return self._of_ids(values) or self._again(str, values) or self._texts(values)
        return values

    def _of_ids(self, values: Sequence[str]) -> Any:
        """A column that the ids say, or None."""
        before, between, after = values[0].partition(self._ids[0]) if self._ids[0] else ("", "", "")
        if not between or [before + one + after for one in self._ids] != list(values):
            return None
        return {"around": [before, after]} if before or after else {"ids": True}

    def _texts(self, values: Sequence[str]) -> Any:
        spec = write_texts(values, self.digits)
        if isinstance(spec, dict) and "digits" in spec:
            self._in_digits.append((str, values))
        return spec

    def _again(self, kind: type, values: Sequence[Any]) -> Any:
        """A column that another one says, or None: digits do not show a compressor that they are there twice."""
        for number, (other, others) in enumerate(self._in_digits):
            if other is kind and others == values:
                return {"again": number}
        return None

    def _of_words(self, values: Sequence[Any], words: list[Any]) -> Any:
        for number, (others, of) in enumerate(self._words):
            # Whether each word of the other column always comes with the same one of this.
            if len(of) >= len(words) and len(pairs := set(zip(others, values, strict=True))) == len(of):
                follows = dict(pairs)
                return {"of": [follows[word] for word in of], "as": number}
        self._words.append((values, words))
        if len(values) >= _ONE_SIDED_FROM and len(words) <= len(_SYMBOLS):
            _, most = Counter(values).most_common(1)[0]
            if most >= _ONE_SIDED * len(values):
                symbols = dict(zip(words, _SYMBOLS, strict=False))
                return {"of": words, "at": "".join(map(symbols.__getitem__, values))}
        if len(words) <= len(radix.SYMBOLS):
            symbols = dict(zip(words, radix.SYMBOLS, strict=False))
            self.digits.append(radix.write_text("".join(map(symbols.__getitem__, values)), len(words)))
        else:
            places = dict(zip(words, range(len(words)), strict=True))
            self.digits.append(radix.write(list(map(places.__getitem__, values)), len(words)))
        return {"of": words}

    def _numbers(self, values: Sequence[Any], kinds: set[type]) -> Any:
        distinct = set(values)
        has_negative_zero = 0.0 in distinct and any(value == 0 and copysign(1, value) < 0 for value in values)
        if has_negative_zero:
            return values
        if len(distinct) == 1:
            return {"same": values[0]}
        decimals, whole = (0, values) if kinds == {int} else _decimals(values)
        low, high = (min(whole), max(whole)) if whole else (0, 1 << _MAX_BITS)
        bits = (high - low).bit_length()
        if len(distinct) * 2 <= len(values):
            # As words: each of them once, some three bytes, and for each candidate which one.
            cost = 24 * len(distinct) + (len(distinct) - 1).bit_length() * len(values)
            if bits > _MAX_BITS or cost < bits * len(values):
                return self._of_words(values, sorted(distinct))
        if bits > _MAX_BITS:
            return values
        (kind,) = kinds
        again = self._again(kind, values)
        if again is not None:
            return again
        self._in_digits.append((kind, values))
        self.digits.append(radix.write(whole, 1 << bits, low))
        return {"num": [decimals, low, bits]}


def _decimals(values: Sequence[float]) -> tuple[int, Sequence[int]]:
    """How many decimals some numbers have, and the numbers without their points; nothing where they have many."""
    first = values[0]
    try:
        for decimals, scale in _SCALES:
            if round(first * scale) / scale == first:
                # A quotient is the double next to it, as is what the text of a decimal is read as.
                whole = [round(value * scale) for value in values]
                if [number / scale for number in whole] == values:
                    return decimals, whole
    except OverflowError:  # beyond all numbers
        pass
    return 0, ()


def write_texts(values: Sequence[str], digits: list[bytes]) -> Any:
    """Texts as a spec: what they have in common apart from what differs.

    Args:
        values: The texts.
        digits: What is not in the spec is added here.
    """
    first, last = min(values), max(values)
    begins = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    rests = [value[begins:] for value in values] if begins else list(values)
    widths = set(map(len, rests))
    joined = "".join(rests)
    pre = first[:begins]
    if joined.isdigit() and joined.isascii() and max(widths) <= _MAX_DIGITS:
        width = widths.pop() if len(widths) == 1 else 0
        if width or not any(rest[:1] in ("", "0") and rest != "0" for rest in rests):
            return _write_digits(pre, width, rests, digits)
    if len(widths) == 1:
        return {"pre": pre, "width": widths.pop(), "text": joined}
    joined = _SEPARATOR.join(rests)
    return {"pre": pre, "text": joined} if joined.count(_SEPARATOR) == len(rests) - 1 else list(values)


def _write_digits(pre: str, width: int, rests: list[str], digits: list[bytes]) -> Any:
    # Of one width they are in the order of their numbers.
    low, high = (int(min(rests)), int(max(rests))) if width else (min(map(int, rests)), max(map(int, rests)))
    bits = (high - low).bit_length()
    if width and bits + _FEWER_BITS > (10**width).bit_length():
        digits.append(radix.write_text("".join(rests), 10, width))
        return {"pre": pre, "digits": width}
    digits.append(radix.write(list(map(int, rests)), 1 << bits, low))
    return {"pre": pre, "digits": width, "low": low, "bits": bits}


def _sorted(words: dict[Any, None]) -> list[Any]:
    if None not in words:
        return sorted(words)
    return [None, *sorted(word for word in words if word is not None)]


# --- reading ----------------------------------------------------------------------------------------------------


class _Reader:
    """Reads the columns of one pack, in the order in which they were written."""

    def __init__(self, ids: Sequence[str], count: int, digits: bytes) -> None:
        self._ids = ids
        self._count = count
        self._digits = digits
        self._at = 0
        self._in_digits: list[tuple[Mapping[str, Any], int]] = []
        self._words: list[list[int] | tuple[int, int] | str] = []
        """Of each column of words which one each candidate has: as it is written until it is asked for."""

    @property
    def is_at_end(self) -> bool:
        """Whether all digits are those of a column."""
        return self._at == len(self._digits)

    def column(self, spec: Any, *, wanted: bool) -> list[Any] | None:
        """The values of a column; None, and none of the work, where they are not wanted."""
        if isinstance(spec, list):
            return spec if wanted else None
        if "by" in spec:
            columns = [self.column(column, wanted=wanted) or [] for column in spec["by"]]
            return list(Table(tuple(spec["keys"]), columns, self._count)) if wanted else None
        if "of" in spec:
            number = spec.get("as", len(self._words))
            if "as" not in spec:
                self._words.append(spec["at"] if "at" in spec else self._place(len(spec["of"])))
            return list(map(spec["of"].__getitem__, self._words_at(number))) if wanted else None
        if "num" in spec or "digits" in spec:
            start, _ = self._place(1 << spec["num"][2] if "num" in spec else _radix_of(spec))
            self._in_digits.append((spec, start))
            return self._of_digits(len(self._in_digits) - 1) if wanted else None
        if not wanted:
            return None
        if "again" in spec:
            return self._of_digits(spec["again"])
        if "around" in spec:
            before, after = spec["around"]
            return [before + one + after for one in self._ids]
        if "text" in spec:
            return read_texts(spec, self._count)
        return list(self._ids) if "ids" in spec else [spec["same"]] * self._count

    def _of_digits(self, number: int) -> list[Any]:
        """The values of a column of numbers or texts with digits."""
        spec, start = self._in_digits[number]
        if "digits" in spec:
            return _read_digits(spec, self._digits, start, self._count)
        decimals, low, bits = spec["num"]
        found = radix.read(self._digits, start, self._count, 1 << bits)
        if not decimals:
            return [low + number for number in found]
        scale = 10**decimals
        return [(low + number) / scale for number in found]

    def _place(self, of: int) -> tuple[int, int]:
        """Where the next digits are, of a radix; after them come others'."""
        start = self._at
        self._at += radix.size_of(self._count, of)
        return start, of

    def _words_at(self, number: int) -> list[int]:
        found = self._words[number]
        if isinstance(found, str):
            found = list(map(_PLACE_OF.__getitem__, found))
        elif isinstance(found, tuple):
            found = radix.read(self._digits, found[0], self._count, found[1])
        self._words[number] = found
        return found


_PLACE_OF = {symbol: place for place, symbol in enumerate(_SYMBOLS)}


def read_texts(spec: Any, count: int, digits: bytes = b"") -> list[str]:
    """The texts of what :func:`write_texts` gave.

    Args:
        spec: The spec.
        count: How many texts there are.
        digits: What begins with what it added to the digits.
    """
    if isinstance(spec, list):
        return spec
    if "digits" in spec:
        return _read_digits(spec, digits, 0, count)
    begin, text, width = spec["pre"], spec["text"], spec.get("width")
    if width is None:
        rests = text.split(_SEPARATOR)
    elif width:
        rests = [text[start : start + width] for start in range(0, len(text), width)]
    else:
        rests = [""] * count
    return [begin + rest for rest in rests] if begin else rests


def size_of_texts(spec: Any, count: int) -> int:
    """How many bytes of digits :func:`write_texts` added."""
    return radix.size_of(count, _radix_of(spec)) if isinstance(spec, dict) and "digits" in spec else 0


def _radix_of(spec: Mapping[str, Any]) -> int:
    return int(1 << spec["bits"] if "bits" in spec else 10 ** spec["digits"])


def _read_digits(spec: Mapping[str, Any], digits: bytes, start: int, count: int) -> list[str]:
    begin, width = spec["pre"], spec["digits"]
    if "bits" in spec:
        form, low = f"%0{width}d", spec["low"]
        return [begin + form % (low + number) for number in radix.read(digits, start, count, 1 << spec["bits"])]
    text = radix.read_text(digits, start, count, width)
    return [begin + text[first : first + width] for first in range(0, len(text), width)]
