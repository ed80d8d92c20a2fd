"""Compression with dictionaries: what the stages of one name have in common is kept once, not in each of them.

A page of twenty candidates, or a stage's document, is too short for a compressor to find much in it that repeats. A
dictionary, trained on the first few hundred of a kind, gives it what repeats among them. It lies in the file under a
number that each compressed value names in its header, and is never changed or removed.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import zstandard

from xray.exceptions import StoreError
from xray_server.stores.frames import frame_of, shortened

log = logging.getLogger("xray.server")

LEVEL = 3
MAX_DICTIONARIES = 1000
MAX_IN_USE = 64
SAMPLE_BYTES = 128 * 1024
"""What is collected of a kind before its dictionary is trained; more of it gains next to nothing."""

MAX_WAIT_S = 0.1
MAX_SAMPLES = 500
MIN_SAMPLES = 10
ALL_SAMPLES_BYTES = 16 * 1024 * 1024
DICTIONARY_BYTES = 32 * 1024
SMALL_DICTIONARY_BYTES = 4 * 1024
"""For documents: they have less to say than candidates."""

Kind = tuple[str, ...]
"""What is compressed alike: ``page`` or ``stage`` or ``run``, and the names of the project, pipeline and stage."""


class Decompressor:
    """Decompresses what any :class:`Compressor` of the same file made. Not for several threads at once.

    Args:
        read: Gives the bytes of the dictionary of a number, or None.
    """

    def __init__(self, read: Callable[[int], bytes | None]) -> None:
        self._read = read
        self._plain = zstandard.ZstdDecompressor()
        self._of: OrderedDict[int, zstandard.ZstdDecompressor] = OrderedDict()

    def decompress(self, data: bytes) -> bytes:
        """The value.

        Raises:
            StoreError: It is damaged, or its dictionary is missing.
        """
        try:
            frame = frame_of(data)
            number = zstandard.get_frame_parameters(frame).dict_id
            found = self._of.get(number) if number else self._plain
            if found is None:
                found = self._made(number)
            return found.decompress(frame)
        except zstandard.ZstdError as error:
            raise StoreError(f"A compressed value cannot be read: {error}.") from error

    def _made(self, number: int) -> zstandard.ZstdDecompressor:
        data = self._read(number)
        if data is None:
            raise StoreError(f"The dictionary {number} of a compressed value is missing.")
        while len(self._of) >= MAX_IN_USE:
            self._of.popitem(last=False)
        found = self._of[number] = zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(data))
        return found


def read_dictionary(connection: sqlite3.Connection, number: int) -> bytes | None:
    """The bytes of a dictionary."""
    found = connection.execute("SELECT data FROM dictionaries WHERE dictionary = ?", (number,)).fetchone()
    return None if found is None else bytes(found[0])


class _Samples:
    """What was collected of a kind so far."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.size_bytes = 0

    def add(self, data: bytes) -> bool:
        """Whether there is enough now."""
        self.values.append(data)
        self.size_bytes += len(data)
        enough = self.size_bytes >= SAMPLE_BYTES or len(self.values) >= MAX_SAMPLES
        return enough and len(self.values) >= MIN_SAMPLES


class Compressor:
    """Compresses for the writer's thread, and trains dictionaries beside it.

    Args:
        connection: The writer's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._plain = zstandard.ZstdCompressor(level=LEVEL)
        self._numbers: dict[Kind, int] = {}
        self._of: OrderedDict[Kind, zstandard.ZstdCompressor] = OrderedDict()
        self._samples: OrderedDict[Kind, _Samples] = OrderedDict()
        self._trained: list[tuple[Kind, bytes | None]] = []
        self._training: set[Kind] = set()
        self._threads: list[threading.Thread] = []
        for number, kind in connection.execute("SELECT dictionary, kind FROM dictionaries ORDER BY dictionary"):
            self._numbers[tuple(kind.split("\0"))] = number

    def compress(self, kind: Kind, data: bytes) -> bytes:
        """A value compressed."""
        found = self._of.get(kind)
        if found is not None:
            return shortened(found.compress(data))
        if kind in self._numbers:
            return shortened(self._made(kind).compress(data))
        if kind not in self._training and len(self._numbers) + len(self._training) < MAX_DICTIONARIES:
            self._collect(kind, data)
        return shortened(self._plain.compress(data))

    def _made(self, kind: Kind) -> zstandard.ZstdCompressor:
        data = read_dictionary(self._connection, self._numbers[kind])
        if data is None:
            return self._plain
        dictionary = zstandard.ZstdCompressionDict(data)
        dictionary.precompute_compress(level=LEVEL)
        while len(self._of) >= MAX_IN_USE:
            self._of.popitem(last=False)
        found = self._of[kind] = zstandard.ZstdCompressor(
            level=LEVEL, dict_data=dictionary, write_content_size=True, write_checksum=False
        )
        return found

    def _collect(self, kind: Kind, data: bytes) -> None:
        samples = self._samples.setdefault(kind, _Samples())
        if samples.add(data):
            del self._samples[kind]
            self._training.add(kind)
            thread = threading.Thread(target=self._train, args=(kind, samples.values), daemon=True)
            self._threads.append(thread)
            thread.start()
        elif sum(waiting.size_bytes for waiting in self._samples.values()) > ALL_SAMPLES_BYTES:
            self._samples.popitem(last=False)

    def _train(self, kind: Kind, samples: list[bytes]) -> None:
        size = DICTIONARY_BYTES if kind[0] == "page" else SMALL_DICTIONARY_BYTES
        data: bytes | None = None
        try:
            data = zstandard.train_dictionary(size, list(samples), level=LEVEL).as_bytes()
        except (zstandard.ZstdError, ValueError) as error:  # too alike, or too different: nothing would be gained
            log.debug("No dictionary was made for %s: %s", kind, error)
        self._trained.append((kind, data))

    def keep_trained(self) -> None:
        """Put the dictionaries that were trained meanwhile into the file; between two transactions.

        Training takes some hundredths of a second, once for each kind; what is written meanwhile takes twice the disk
        for ever. So there is a short wait.

        Raises:
            sqlite3.Error: The file could not be written; the dictionary is tried again the next time.
        """
        deadline = time.monotonic() + MAX_WAIT_S
        while self._threads and time.monotonic() < deadline:
            self._threads[0].join(max(0.0, deadline - time.monotonic()))
            self._threads = [thread for thread in self._threads if thread.is_alive()]
        while self._trained:
            kind, data = self._trained[0]
            if data is not None:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._numbers[kind] = self._inserted("\0".join(kind), data)
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._numbers.pop(kind, None)
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            del self._trained[0]

    def _inserted(self, kind: str, data: bytes) -> int:
        found = self._connection.execute("SELECT dictionary FROM dictionaries WHERE kind = ?", (kind,)).fetchone()
        if found is not None:  # another process was faster
            return int(found[0])
        number = int(self._connection.execute("SELECT ifnull(max(dictionary), 0) + 1 FROM dictionaries").fetchone()[0])
        # A dictionary has its number after four bytes that say what it is; zstd writes it into each frame's header.
        numbered = data[:4] + number.to_bytes(4, "little") + data[8:]
        self._connection.execute(
            "INSERT INTO dictionaries (dictionary, kind, data) VALUES (?, ?, ?)", (number, kind, numbered)
        )
        return number
