"""Compression with dictionaries: what the stages of one name have in common is kept once, not in each of them.

A page of twenty candidates, or the rest of a stage's document, is too short for a compressor to find much in it that
repeats. A dictionary, trained on the first of a kind, gives it what repeats among them. It lies in the collection
``dictionaries`` under a number that each compressed value names in its header; it is durable before the first value
that needs it, and never changed or removed. Of two processes that train one for the same kind at once, one is first and
the other takes what that has made.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import zstandard
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from xray.exceptions import StoreError
from xray_server.stores.frames import frame_of
from xray_server.stores.mongo.words import next_number

log = logging.getLogger("xray.server")

COLLECTION = "dictionaries"
LEVEL, LEVEL_OF_SMALL = 3, 9
"""Of small pages a higher level saves a tenth of the disk, and takes 35 microseconds more for twenty candidates."""

MAX_DICTIONARIES = 1000
MAX_IN_USE = 64
SAMPLE_BYTES = 256 * 1024
"""What is collected of a kind before its dictionary is trained; more of it gains next to nothing."""

MAX_SAMPLES = 500
MIN_SAMPLES = 10
ALL_SAMPLES_BYTES = 16 * 1024 * 1024
DICTIONARY_BYTES = 32 * 1024
SMALL_DICTIONARY_BYTES = 4 * 1024
"""For documents: they have less to say than candidates."""

Kind = tuple[str, ...]
"""What is compressed alike: ``small`` (pages of small stages), ``page`` (the others), ``stage`` or ``run``, and the
names of the project, pipeline and stage."""

Decompressors = dict[int, zstandard.ZstdDecompressor]
Compressors = dict[Kind, zstandard.ZstdCompressor]


class _Samples:
    """What was collected of a kind so far."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.size_bytes = 0

    def add(self, some: Iterable[bytes]) -> bool:
        """Take as many as are needed; whether there are enough now."""
        for data in some:
            if self.is_enough():
                break
            self.values.append(data)
            self.size_bytes += len(data)
        return self.is_enough()

    def is_enough(self) -> bool:
        """Whether a dictionary can be trained."""
        much = self.size_bytes >= SAMPLE_BYTES or len(self.values) >= MAX_SAMPLES
        return much and len(self.values) >= MIN_SAMPLES


class Dictionaries:
    """The dictionaries that this process uses, and the samples of those that there are to be."""

    def __init__(self) -> None:
        self._plain = _compressor(LEVEL, None)
        self._compressors: OrderedDict[Kind, zstandard.ZstdCompressor] = OrderedDict()
        self._decompressors: OrderedDict[int, zstandard.ZstdDecompressor] = OrderedDict()
        self._without_dictionary = zstandard.ZstdDecompressor()
        self._samples: OrderedDict[Kind, _Samples] = OrderedDict()
        self._without: set[Kind] = set()
        self._training = asyncio.Lock()

    async def compressors(self, database: AsyncDatabase[Any], given: dict[Kind, list[bytes]]) -> Compressors:
        """What compresses each kind; a dictionary is made where there are samples enough.

        Args:
            database: The database.
            given: Kind → what is about to be compressed, which counts as samples.
        """
        found: Compressors = {}
        for kind, samples in given.items():
            compressor = self._compressors.get(kind)
            if compressor is None and kind not in self._without:
                async with self._training:
                    compressor = self._compressors.get(kind) or await self._made(database, kind, samples)
            found[kind] = compressor or self._plain
        return found

    async def decompressors(self, database: AsyncDatabase[Any], frames: Iterable[bytes]) -> Decompressors:
        """What decompresses some values, by the number of the dictionary that each names.

        Raises:
            StoreError: A value is damaged, or its dictionary is missing.
        """
        numbers = set(map(number_of, frames)) - {0}
        found = {number: known for number in numbers if (known := self._decompressors.get(number)) is not None}
        missing = sorted(numbers - found.keys())
        if missing:
            async for raw in database[COLLECTION].find({"_id": {"$in": missing}}):
                dictionary = zstandard.ZstdCompressionDict(raw["data"])
                found[int(raw["_id"])] = zstandard.ZstdDecompressor(dict_data=dictionary)
            for number in missing:
                if number not in found:
                    raise StoreError(f"The dictionary {number} of a compressed value is missing.")
                self._decompressors[number] = found[number]
            while len(self._decompressors) > MAX_IN_USE:
                self._decompressors.popitem(last=False)
        return found | {0: self._without_dictionary}

    async def _made(
        self, database: AsyncDatabase[Any], kind: Kind, samples: Sequence[bytes]
    ) -> zstandard.ZstdCompressor | None:
        """The compressor of a kind, whose dictionary is looked up first and trained where there is none."""
        name = "\0".join(kind)
        known = kind in self._samples  # looked up before
        raw = None if known else await database[COLLECTION].find_one({"kind": name})
        if raw is None:
            collected = self._samples.setdefault(kind, _Samples())
            if not collected.add(samples):
                while sum(waiting.size_bytes for waiting in self._samples.values()) > ALL_SAMPLES_BYTES:
                    self._samples.popitem(last=False)
                return None
            raw = await self._trained(database, kind, name, collected.values)
            if raw is None:
                self._without.add(kind)
                self._samples.pop(kind, None)
                return None
        self._samples.pop(kind, None)
        made = _compressor(_level(kind), zstandard.ZstdCompressionDict(raw["data"]))
        self._compressors[kind] = made
        while len(self._compressors) > MAX_IN_USE:
            self._compressors.popitem(last=False)
        return made

    async def _trained(
        self, database: AsyncDatabase[Any], kind: Kind, name: str, samples: list[bytes]
    ) -> dict[str, Any] | None:
        if await database[COLLECTION].estimated_document_count() >= MAX_DICTIONARIES:
            return None
        size = SMALL_DICTIONARY_BYTES if kind[0] in ("stage", "run") else DICTIONARY_BYTES
        try:
            data = (
                await asyncio.to_thread(zstandard.train_dictionary, size, [*samples], level=_level(kind))
            ).as_bytes()
        except (zstandard.ZstdError, ValueError) as error:  # too alike, or too different: nothing would be gained
            log.debug("No dictionary was made for %s: %s", kind, error)
            return None
        number = await next_number(database, "dictionary")
        # A dictionary has its number after four bytes that say what it is; zstd writes it into each frame's header.
        raw = {"_id": number, "kind": name, "data": data[:4] + number.to_bytes(4, "little") + data[8:]}
        try:
            await database[COLLECTION].insert_one(raw)
        except DuplicateKeyError:
            return await database[COLLECTION].find_one({"kind": name})  # another process was faster
        return raw


def _compressor(level: int, dictionary: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdCompressor:
    if dictionary is not None:
        dictionary.precompute_compress(level=level)
    return zstandard.ZstdCompressor(level=level, dict_data=dictionary, write_content_size=True)


def _level(kind: Kind) -> int:
    return LEVEL_OF_SMALL if kind[0] == "small" else LEVEL


def number_of(frame: bytes) -> int:
    """The number of the dictionary that a compressed value needs; 0 for none.

    Raises:
        StoreError: It is no compressed value.
    """
    try:
        return int(zstandard.get_frame_parameters(frame_of(frame)).dict_id)
    except zstandard.ZstdError as error:
        raise StoreError(f"A compressed value cannot be read: {error}.") from error


def decompress(frame: bytes, decompressors: Decompressors) -> bytes:
    """The value.

    Raises:
        StoreError: It is damaged.
    """
    try:
        return decompressors[number_of(frame)].decompress(frame_of(frame))
    except zstandard.ZstdError as error:
        raise StoreError(f"A compressed value cannot be read: {error}.") from error
