"""Documents and pages into what lies in the collections, and back, many at a time.

Both need words and dictionaries that the process may not know yet: these are looked up, or made, first and at once for
all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.documents import Document
from xray_server.pages import CandidatePage
from xray_server.stores.frames import page_parts
from xray_server.stores.mongo import pages
from xray_server.stores.mongo.dictionaries import Compressors, Decompressors, Dictionaries, Kind
from xray_server.stores.mongo.forms import RUNS, Form, Raw, metric_numbers
from xray_server.stores.mongo.layout import REST
from xray_server.stores.mongo.words import ITSELF, METRIC, Word, Words


@dataclass(frozen=True, slots=True)
class Stored:
    """A run, or a stage with the page that lies in its document.

    Args:
        document: The document.
        page: The page, or None.
    """

    document: Document
    page: CandidatePage | None = None


class Codec:
    """Encodes and decodes for one database; words and dictionaries are remembered."""

    def __init__(self) -> None:
        self.words = Words()
        self.dictionaries = Dictionaries()

    # --- documents ----------------------------------------------------------------------------------------------

    async def encode(
        self, database: AsyncDatabase[Raw], form: Form, project: str, given: Sequence[Stored]
    ) -> list[Raw]:
        """Documents as they lie in their collection, but for their revisions.

        Raises:
            StoreError: A document has a field, or a value, that there is no place for.
        """
        number = await self.words.project(database, project, make=True)
        itself = Word(number, ITSELF, None)
        flat = [form.flat(stored.document) for stored in given]
        wanted = {word for document in flat for word in form.words(number, document)}
        numbers = await self.words.numbers(database, wanted | {itself}, make=True)
        rests = [form.rest(document) for document in flat]
        contents = [None if stored.page is None else page_parts(stored.page) for stored in given]
        kinds = [_kind(form, project, document) for document in flat]
        compressors = await self._compressors(
            database,
            [
                *zip(kinds, rests, strict=True),
                *((_page_kind(kind, "small"), parts and parts[0]) for kind, parts in zip(kinds, contents, strict=True)),
            ],
        )
        raws = []
        for stored, document, rest, content, kind in zip(given, flat, rests, contents, kinds, strict=True):
            compress = compressors[kind].compress if rest is not None else bytes
            raw = form.encode(number, document, rest, numbers, compress, numbers[itself])
            if stored.page is not None and content is not None:
                raw |= pages.encode_inline(
                    stored.page, raw.get(pages.OVER), content, compressors[_page_kind(kind, "small")].compress
                )
            raws.append(raw)
        return raws

    async def decode(self, database: AsyncDatabase[Raw], form: Form, raws: Sequence[Raw]) -> list[Stored]:
        """The documents, each with its page where what was read has one.

        Raises:
            StoreError: A document is damaged.
        """
        words = await self.words.words(database, (number for raw in raws for number in form.numbers(raw)))
        metrics: Mapping[int, Word] = {}
        if form is not RUNS:
            metrics = await self.words.words(
                database, (number for raw in raws for number in metric_numbers(raw)), METRIC
            )
        decompressors = await self._decompressors(database, raws, REST, pages.BLOCK)
        return [
            Stored(
                form.decode(raw, words, metrics, decompressors),
                pages.decode(raw, decompressors) if pages.BLOCK in raw else None,
            )
            for raw in raws
        ]

    # --- pages --------------------------------------------------------------------------------------------------

    async def encode_pages(
        self, database: AsyncDatabase[Raw], project: str, given: Sequence[CandidatePage], names: Mapping[str, Document]
    ) -> list[Raw]:
        """Pages as they lie in their own collection.

        Args:
            database: The database.
            project: The project.
            given: The pages.
            names: What is known of their stages, by id.
        """
        number = await self.words.project(database, project, make=True)
        contents = [page_parts(page) for page in given]
        kinds = [_page_kind(_kind_of_stage(project, names.get(page.stage_id) or {})) for page in given]
        texts = [text for text, _ in contents]
        compressors = await self._compressors(database, list(zip(kinds, texts, strict=True)))
        return [
            pages.encode(number, page, content, compressors[kind].compress)
            for page, content, kind in zip(given, contents, kinds, strict=True)
        ]

    async def decode_pages(self, database: AsyncDatabase[Raw], raws: Sequence[Raw]) -> list[CandidatePage]:
        """The pages of documents of either collection.

        Raises:
            StoreError: One of them is damaged.
        """
        decompressors = await self._decompressors(database, raws, pages.BLOCK)
        return [pages.decode(raw, decompressors) for raw in raws]

    # --- dictionaries -------------------------------------------------------------------------------------------

    async def _compressors(
        self, database: AsyncDatabase[Raw], given: Sequence[tuple[Kind, bytes | None]]
    ) -> Compressors:
        by_kind: dict[Kind, list[bytes]] = {}
        for kind, data in given:
            if data is not None:
                by_kind.setdefault(kind, []).append(data)
        return await self.dictionaries.compressors(database, by_kind)

    async def _decompressors(self, database: AsyncDatabase[Raw], raws: Sequence[Raw], *paths: str) -> Decompressors:
        frames = [raw[path] for raw in raws for path in paths if isinstance(raw.get(path), bytes)]
        return await self.dictionaries.decompressors(database, frames)


def _kind(form: Form, project: str, flat: Mapping[str, Any]) -> Kind:
    if form is RUNS:
        return ("run", project, flat.get("label") or "")
    return ("stage", project, flat.get("pipeline.label") or "", flat.get("name") or "")


def _kind_of_stage(project: str, stage: Mapping[str, Any]) -> Kind:
    return ("stage", project, (stage.get("pipeline") or {}).get("label") or "", stage.get("name") or "")


def _page_kind(kind: Kind, first: str = "page") -> Kind:
    return (first, *kind[1:])
