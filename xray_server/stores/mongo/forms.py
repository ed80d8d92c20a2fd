"""How documents become BSON documents, and back; what lies where is in ``layout`` beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS

from xray.exceptions import StoreError
from xray_server.documents import RUN_FIELDS, Document, Kind
from xray_server.stores.encoding import is_number
from xray_server.stores.frames import shortened
from xray_server.stores.mongo import ids
from xray_server.stores.mongo.dictionaries import Decompressors, decompress
from xray_server.stores.mongo.layout import (
    ALWAYS,
    LISTED,
    METRICS,
    REST,
    RUN_PLACES,
    STAGE_KINDS,
    STAGE_PLACES,
    USUAL,
    WORDS,
    Place,
    Storage,
    places,
)
from xray_server.stores.mongo.words import METRIC, ODD, Word

Raw = dict[str, Any]
"""A document as PyMongo takes and gives it."""

# Python's datetime ends in the year 9999 and starts in 1; a date of MongoDB does not.
CODEC: CodecOptions[Raw] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)

LONGEST_WORD = 200
"""Characters of a key and a text in metadata up to which questions are narrowed by them."""

COMPRESS_FROM_BYTES = 32
"""JSON shorter than this is kept as text."""

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


class Form:
    """The form of the documents of one collection.

    Args:
        collection: The collection's name.
        kinds: Field → the kind of its values.
        where: Field → its path and how it is kept; what is left out lies in the rest.
        has_list: Whether the numbers of listed words lie in one list, with the project's first, or each by itself.
    """

    def __init__(
        self, collection: str, kinds: Mapping[str, Kind], where: Mapping[str, tuple[str, Storage]], *, has_list: bool
    ) -> None:
        self.collection = collection
        self.places = places(kinds, where)
        self.has_list = has_list
        self._listed = [place for place in self.places.values() if place.storage == "listed"]
        self._words = [place for place in self.places.values() if place.storage in WORDS]
        self._mostly = [place for place in self.places.values() if place.storage in ("mostly", "as_name")]
        self._word_paths = [place.path for place in self._words if place.storage != "listed"]
        self._rest = frozenset(name for name, place in self.places.items() if place.storage == "rest")
        self._by_path = {
            place.path: place for place in self.places.values() if place.storage not in ("listed", "rest", "metrics")
        }
        self._single = [] if has_list else self._listed
        self._names = {place.field: place.name for place in self._listed}

    # --- before encoding ----------------------------------------------------------------------------------------

    def words(self, project: int, document: Mapping[str, Any]) -> Iterator[Word]:
        """The words that :meth:`encode` needs the numbers of; ``document`` is flat.

        Raises:
            StoreError: The value of such a field is no text.
        """
        for place in self._words:
            text = document.get(place.name)
            if text is not None or place.storage in ALWAYS:
                if text is not None and not isinstance(text, str):
                    raise StoreError(f"The value {text!r:.100} of '{place.name}' is no text.", path=place.name)
                yield Word(project, place.field, text)
        for name, value in (document.get("metrics") or {}).items():
            if is_number(value):
                yield Word(project, METRIC, name)
            elif _is_table(value):
                yield Word(project, METRIC, name)
                for entry in value:
                    yield Word(project, METRIC, entry)
            else:
                yield Word(project, METRIC, name)
                if value is not None:
                    yield Word(project, ODD, name)

    def rest(self, document: Mapping[str, Any]) -> bytes | None:
        """What is kept in one value, as JSON; None where there is nothing. ``document`` is flat."""
        rest = {name: value for name, value in document.items() if name in self._rest}
        metrics = document.get("metrics")
        if metrics:
            other = {name: value for name, value in metrics.items() if not is_number(value) and not _is_table(value)}
            if other:
                rest["metrics"] = other
        return _encode_json(rest) if rest else None

    def flat(self, document: Mapping[str, Any]) -> Document:
        """A document with the run's fields beside its own, and without what is None.

        Raises:
            StoreError: It has a field that there is no place for.
        """
        flat = {name: value for name, value in document.items() if value is not None and name != "pipeline"}
        if "pipeline.id" in self.places:
            pipeline = document.get("pipeline") or {}
            flat |= {f"pipeline.{name}": value for name, value in pipeline.items() if value is not None}
        if not flat.keys() <= self.places.keys():
            unknown = min(flat.keys() - self.places.keys())
            raise StoreError(f"A document of {self.collection} has no field '{unknown}'.", path=unknown)
        return flat

    # --- encoding -----------------------------------------------------------------------------------------------

    def encode(
        self,
        project: int,
        document: Document,
        rest: bytes | None,
        numbers: Mapping[Word, int],
        compress: Callable[[bytes], bytes],
        project_word: int,
    ) -> Raw:
        """A document as it lies in the collection, but for its revision.

        Args:
            project: The project's number.
            document: The document, flat.
            rest: What :meth:`rest` gave.
            numbers: The numbers of its words.
            compress: Compresses the rest.
            project_word: The number that stands for the project in the list of words.
        """
        raw: Raw = {"_id": ids.key(project, document["id"])}
        if self.has_list:
            listed = [numbers[Word(project, place.field, document.get(place.name))] for place in self._listed]
            raw[LISTED] = [project_word, *listed]
        else:
            raw["p"] = project
            for place in self._single:
                raw[place.path] = numbers[Word(project, place.field, document.get(place.name))]
        for place in self._mostly:
            text = document.get(place.name)
            if text is None or text != _usual(place, document):
                raw[place.path] = numbers[Word(project, place.field, text)]
        for name, value in document.items():
            place = self.places[name]
            match place.storage:
                case "plain":
                    raw[place.path] = value
                case "time":
                    raw[place.path] = DatetimeMS(value)
                case "word":
                    raw[place.path] = numbers[Word(project, place.field, value)]
                case "key":
                    raw[place.path] = ids.key(project, value)
                case "id":
                    raw[place.path] = ids.id_value(value)
                case "own_run" if value != document.get("run_id"):
                    raw[place.path] = ids.id_value(value)
                case "metrics":
                    raw |= _encode_metrics(project, value, numbers)
                case "rest" if name == "metadata":
                    words = sorted(_words_of(value))
                    if words:
                        raw["tw"] = words
                case _:
                    pass
        if self.has_list and "pipeline.id" not in document:
            raw["pi"] = False
        if rest is not None:
            raw[REST] = compressed(rest, compress)
        return raw

    # --- decoding -----------------------------------------------------------------------------------------------

    def numbers(self, raw: Mapping[str, Any]) -> Iterator[int]:
        """The numbers of words that :meth:`decode` needs."""
        if self.has_list:
            yield from raw.get(LISTED, ())[1:]
        for place in self._single:
            yield raw[place.path]
        for path in self._word_paths:
            number = raw.get(path)
            if number is not None:
                yield number

    def decode(
        self,
        raw: Mapping[str, Any],
        words: Mapping[int, Word],
        metrics: Mapping[int, Word],
        decompressors: Decompressors,
    ) -> Document:
        """The document that :meth:`encode` was given, with the run's fields under ``pipeline`` again."""
        document: Document = {"id": ids.id_of(raw["_id"])}
        pipeline: Document = {}
        listed = raw.get(LISTED, ())[1:] if self.has_list else [raw[place.path] for place in self._single]
        for number in listed:
            word = words[number]
            if word.text is not None:
                _put(document, pipeline, self._names[word.field], word.text)
        for path, value in raw.items():
            place = self._by_path.get(path)
            if place is None or path == "_id":
                continue
            match place.storage:
                case "time":
                    found: Any = int(value)
                case "word" | "mostly" | "as_name":
                    found = words[value].text
                case "key":
                    found = ids.id_of(value)
                case "id":
                    found = ids.id_text(value)
                case "own_run":
                    found = ids.id_text(value) if value is not False else None
                case _:
                    found = plain(value)
            if found is not None:
                _put(document, pipeline, place.name, found)
        for place in self._mostly:
            if place.path not in raw:
                document[place.name] = _usual(place, document)
        if self.has_list and "pi" not in raw:
            pipeline["id"] = document["run_id"]
        if METRICS in raw:
            document["metrics"] = _decode_metrics(raw[METRICS], metrics)
        if REST in raw:
            rest = _decode_json(opened(raw[REST], decompressors))
            other = rest.pop("metrics", None)
            document |= rest
            if other:
                document["metrics"] |= other
        if pipeline:
            document["pipeline"] = pipeline
        return document


def _usual(place: Place, document: Mapping[str, Any]) -> Any:
    return document.get("name") if place.storage == "as_name" else USUAL[place.field]


def _put(document: Document, pipeline: Document, name: str, value: Any) -> None:
    if name.startswith("pipeline."):
        pipeline[name.removeprefix("pipeline.")] = value
    else:
        document[name] = value


RUNS: Final = Form("runs", RUN_FIELDS, RUN_PLACES, has_list=False)
STAGES: Final = Form("stages", STAGE_KINDS, STAGE_PLACES, has_list=True)


def compressed(data: bytes, compress: Callable[[bytes], bytes]) -> str | bytes:
    """JSON as it is kept: compressed where that is shorter."""
    if len(data) >= COMPRESS_FROM_BYTES:
        short = shortened(compress(data))
        if len(short) < len(data):
            return short
    return data.decode()


def opened(value: str | bytes, decompressors: Decompressors) -> str | bytes:
    """The JSON of what :func:`compressed` gave."""
    return decompress(value, decompressors) if isinstance(value, bytes) else value


def plain(value: Any) -> Any:
    """A number as Python's own; PyMongo has a type of its own for long integers."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


# --- metadata ---------------------------------------------------------------------------------------------------


def word(name: str, text: str) -> str | None:
    """What is searched for where a text in metadata is asked for, or None where it is too long to be kept."""
    return f"{name}={text}" if len(name) + len(text) <= LONGEST_WORD else None


def _words_of(metadata: Any) -> set[str]:
    found: set[str] = set()
    for name, value in metadata.items() if isinstance(metadata, dict) else ():
        for text in value if isinstance(value, list) else (value,):
            known = word(name, text) if isinstance(text, str) else None
            if known is not None:
                found.add(known)
    return found


# --- metrics ----------------------------------------------------------------------------------------------------

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def metric_name(number: int) -> str:
    """The name of the field of a metric, or of an entry of a table, by the number of its name."""
    name = ""
    while number:
        number, digit = divmod(number, 36)
        name = _DIGITS[digit] + name
    return name or "-"  # of no document


def metric_path(name: int, entry: int | None) -> str:
    """The path to a metric, or to an entry of a table: it leads to a number, a table of numbers, or nothing."""
    path = f"{METRICS}.{metric_name(name)}"
    return path if entry is None else f"{path}.{metric_name(entry)}"


def metric_numbers(raw: Mapping[str, Any]) -> Iterator[int]:
    """The numbers of the names in a stage's metrics."""
    for name, value in raw.get(METRICS, {}).items():
        yield int(name, 36)
        if isinstance(value, dict):
            for entry in value:
                yield int(entry, 36)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _encode_metrics(project: int, metrics: Mapping[str, Any], numbers: Mapping[Word, int]) -> Raw:
    stored: Raw = {}
    odd: list[int] = []
    nulls: list[int] = []

    def number(name: str) -> int:
        return numbers[Word(project, METRIC, name)]

    for name, value in metrics.items():
        if is_number(value):
            stored[metric_name(number(name))] = value
        elif _is_table(value):
            stored[metric_name(number(name))] = {metric_name(number(entry)): held for entry, held in value.items()}
        else:
            (nulls if value is None else odd).append(number(name))
    raw: Raw = {METRICS: stored}
    return raw | {path: found for path, found in (("mx", odd), ("mn", nulls)) if found}


def _decode_metrics(stored: Mapping[str, Any], names: Mapping[int, Word]) -> Document:
    return {
        str(names[int(name, 36)].text): (
            {str(names[int(entry, 36)].text): plain(held) for entry, held in value.items()}
            if isinstance(value, dict)
            else plain(value)
        )
        for name, value in stored.items()
    }
