"""Numbers for texts that repeat from document to document.

Names, types, labels, versions, states and the names of metrics lie in documents as numbers; the collection ``words``
says which number stands for which text of which field of which project. So a number says its project too, and an index
over numbers serves each project by itself.

A word is never changed or removed, and durable before the first document that has its number. Of two processes that
number the same text at once, one is first and the other takes its number.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, DuplicateKeyError

from xray.exceptions import StoreError
from xray_server.stores.mongo.ids import MAX_PROJECTS
from xray_server.stores.mongo.races import MAX_ATTEMPTS, contended, overtaken, pause

COLLECTION = "words"
COUNTERS = "counters"

NOTHING: Final = 0
"""The number of what no document has."""

METRIC: Final = "metric"
PROJECT: Final = "project"
_SPACES = {METRIC: METRIC, PROJECT: PROJECT}
"""These count from 1 by themselves: the numbers of metrics are names of fields, those of projects parts of keys."""

AT_ONCE = 1000
MAX_KNOWN = 100_000


class Word(NamedTuple):
    """A text of a field.

    Args:
        project: The number of the project; 0 for the name of a project.
        field: The field.
        text: The text; None stands for the absence of one.
    """

    project: int
    field: str
    text: str | None

    @property
    def space(self) -> str:
        """What it is numbered among."""
        return _SPACES.get(self.field, "word")


class Words:
    """The numbers of texts, as far as this process knows them; the rest is looked up in the database."""

    def __init__(self) -> None:
        self._numbers: dict[Word, int] = {}
        self._words: dict[tuple[str, int], Word] = {}

    async def project(self, database: AsyncDatabase[Any], name: str, *, make: bool = False) -> int:
        """The number of a project; where it has none and none is to be made, 0."""
        word = Word(NOTHING, PROJECT, name)
        return (await self.numbers(database, [word], make=make)).get(word, NOTHING)

    async def numbers(
        self, database: AsyncDatabase[Any], words: Iterable[Word], *, make: bool = False
    ) -> dict[Word, int]:
        """The numbers of words.

        Args:
            database: The database.
            words: The words.
            make: Whether to number those that have none; else they are left out of the answer.

        Raises:
            StoreError: There are too many projects.
        """
        wanted = set(words)
        found = {word: number for word in wanted if (number := self._numbers.get(word)) is not None}
        missing = wanted - found.keys()
        if missing:
            found |= await self._look_up(database, missing)
            missing -= found.keys()
        for attempt in range(MAX_ATTEMPTS):
            if not missing or not make:
                return found
            await self._make(database, sorted(missing, key=repr))
            found |= await self._look_up(database, missing)
            missing -= found.keys()
            if missing:
                await pause(attempt)
        raise contended(COLLECTION)

    async def words(self, database: AsyncDatabase[Any], numbers: Iterable[int], space: str = "word") -> dict[int, Word]:
        """The words of numbers.

        Raises:
            StoreError: A number is none that was given.
        """
        wanted = set(numbers)
        found = {number: word for number in wanted if (word := self._words.get((space, number))) is not None}
        missing = sorted(wanted - found.keys())
        for start in range(0, len(missing), AT_ONCE):
            where = {"s": space, "n": {"$in": missing[start : start + AT_ONCE]}}
            async for raw in database[COLLECTION].find(where):
                word = self._note(raw)
                found[int(raw["n"])] = word
        if wanted - found.keys():
            raise StoreError(f"The database lacks the {space} {min(wanted - found.keys())} that a document has.")
        return found

    async def of_field(self, database: AsyncDatabase[Any], project: int, field: str) -> dict[str | None, int]:
        """All texts of a field, with their numbers; read each time, because others may have added some."""
        found: dict[str | None, int] = {}
        async for raw in database[COLLECTION].find({"p": project, "f": field}):
            found[self._note(raw).text] = int(raw["n"])
        return found

    async def _look_up(self, database: AsyncDatabase[Any], words: Iterable[Word]) -> dict[Word, int]:
        by_key = {_key(word): word for word in words}
        keys = list(by_key)
        found: dict[Word, int] = {}
        for start in range(0, len(keys), AT_ONCE):
            async for raw in database[COLLECTION].find({"_id": {"$in": keys[start : start + AT_ONCE]}}):
                word = by_key[bytes(raw["_id"])]
                self._note(raw)
                found[word] = int(raw["n"])
        return found

    async def _make(self, database: AsyncDatabase[Any], words: list[Word]) -> None:
        raws = []
        for space in sorted({word.space for word in words}):
            of_space = [word for word in words if word.space == space]
            last = await next_number(database, space, len(of_space))
            if space == PROJECT and last > MAX_PROJECTS:
                raise StoreError(f"A database has at most {MAX_PROJECTS:,} projects.", code="too_large")
            raws += [
                {"_id": _key(word), "s": space, "n": last - place, "p": word.project, "f": word.field, "t": word.text}
                for place, word in enumerate(of_space)
            ]
        try:
            await database[COLLECTION].insert_many(raws, ordered=False)
        except BulkWriteError as error:
            overtaken(error)  # somebody else has numbered the same text

    def _note(self, raw: Mapping[str, Any]) -> Word:
        # Some of them are the users' own: without a bound the memory that they take grows for ever.
        if len(self._numbers) >= MAX_KNOWN:
            self._numbers.clear()
            self._words.clear()
        word = Word(int(raw["p"]), raw["f"], raw["t"])
        self._numbers[word] = int(raw["n"])
        self._words[raw["s"], int(raw["n"])] = word
        return word


async def next_number(database: AsyncDatabase[Any], counter: str, count: int = 1) -> int:
    """Take some numbers that nobody else gets; the last of them."""
    counters = database[COUNTERS]
    while True:
        # Making the counter is a step of its own: not every server makes an upsert by several at once one after the
        # other, and a number must not be given twice.
        raw: Any = await counters.find_one_and_update(
            {"_id": counter}, {"$inc": {"last": count}}, return_document=ReturnDocument.AFTER
        )
        if raw is not None:
            return int(raw["last"])
        with contextlib.suppress(DuplicateKeyError):
            await counters.insert_one({"_id": counter, "last": 0})


def _key(word: Word) -> bytes:
    """Of one length whatever the text is: an index takes no long ones."""
    text = "" if word.text is None else f"={word.text}"
    return hashlib.sha256(f"{word.project}\0{word.field}\0{text}".encode()).digest()[:16]
