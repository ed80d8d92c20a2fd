"""Some values of many stages, read without the rest of their documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.query.ast import Field, Metric, Reference, Scan
from xray_server.query.narrowing import concerns_only_pipeline
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import Row
from xray_server.stores.encoding import is_number
from xray_server.stores.mongo import ids
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.extents import START
from xray_server.stores.mongo.finds import wanted_by
from xray_server.stores.mongo.forms import STAGES, Raw, plain
from xray_server.stores.mongo.known import Known, place_of
from xray_server.stores.mongo.layout import LISTED, USUAL, WORDS, Place
from xray_server.stores.mongo.scans import Scanner
from xray_server.stores.mongo.spans import Spans

_READABLE = (*WORDS, "own_id", "key", "id", "own_run", "time", "plain")


@dataclass(frozen=True, slots=True)
class Values:
    """Some values of the stages that a scan is about, those that started last first.

    Args:
        columns: For each field or metric that was asked for, the values: one for each stage, None where it has none.
        stages: How many stages there are.
        last: What the next scan has to go on after; None where there is no stage.
    """

    columns: Sequence[Sequence[Any]]
    stages: int
    last: tuple[Any, ...] | None


async def values(
    codec: Codec,
    database: AsyncDatabase[Raw],
    project: str,
    scan: Scan,
    references: Sequence[Reference],
    spans: Spans | None = None,
) -> Values | None:
    """Some values of exactly those stages that a scan's conditions hold for; None where only documents tell them.

    Args:
        codec: Looks up words.
        database: The database.
        project: The project.
        scan: The scan; its order does not matter.
        references: Fields, and metrics; of a metric only numbers count.
        spans: What is remembered of scans by start; None reads all of time at once.
    """
    if scan.of != "stages" or scan.candidate is not None:
        return None
    places = [place_of(one, STAGES) for one in references if isinstance(one, Field)]
    if any(place is None or place.storage not in _READABLE or place.kind == "strings" for place in places):
        return None
    scan = replace(scan, sort=DEFAULT_SORT)
    wanted = wanted_by(scan)
    for reference in references:
        if isinstance(reference, Metric):
            wanted.order(reference, STAGES)
    known = await wanted.look_up(codec.words, database, project)
    if any(known.is_odd(one) for one in references if isinstance(one, Metric)):
        return None  # what is no number may hold some
    reader = _Reader(codec, database, scan, known, references, spans)
    if not reader.decides():
        return None
    rows = await reader.rows()
    raws = [row.document for row in rows]
    columns = [await _column(codec, database, known, reference, raws) for reference in references]
    return Values(columns, len(rows), rows[-1].sort_values if rows else None)


class _Reader(Scanner):
    """A scan whose rows have the values as they are stored.

    Args:
        codec: Looks up words.
        database: The database.
        scan: The scan, by start and id.
        known: The numbers that the scan and the references need.
        references: What is wanted.
        spans: As of any scan.
    """

    def __init__(
        self,
        codec: Codec,
        database: AsyncDatabase[Raw],
        scan: Scan,
        known: Known,
        references: Sequence[Reference],
        spans: Spans | None,
    ) -> None:
        super().__init__(codec, database, scan, known, spans)
        paths = {START}
        for reference in references:
            if isinstance(reference, Metric):
                paths.add(known.metric(Metric(reference.name)))
            else:
                place = STAGES.places[".".join(reference.path)]
                paths |= {place.path, LISTED} if place.storage == "as_name" else {place.path}
                paths |= {"r"} if place.storage == "own_run" else set()
        self.wanted = dict.fromkeys(paths, 1)

    def decides(self) -> bool:
        """Whether the filters hold for exactly the stages that the conditions hold for."""
        scan, compiler = self._scan, self._compiler
        of_run = compiler.stage_by_run if concerns_only_pipeline(scan.pipeline) else compiler.run
        return all(bounds.under == bounds.over for bounds in (compiler.stage(scan.stage), of_run(scan.pipeline)))

    async def _made(self, raws: Sequence[Raw]) -> list[Row]:
        return [Row(raw, (_time(raw.get(START)), ids.id_of(raw["_id"]))) for raw in raws]


async def _column(
    codec: Codec, database: AsyncDatabase[Raw], known: Known, reference: Reference, raws: Sequence[Raw]
) -> list[Any]:
    """The values of a field, or the numbers of a metric."""
    if isinstance(reference, Metric):
        return _numbers(raws, known.metric(reference).split(".")[1:])
    place = STAGES.places[".".join(reference.path)]
    if place.storage in WORDS:
        return await _texts(codec, database, place, raws)
    read = _READ.get(place.storage, plain)
    if place.storage == "own_run":
        return [ids.id_of(raw["r"]) if "pi" not in raw else read(raw["pi"] or None) for raw in raws]
    return [read(raw.get(place.path)) for raw in raws]


async def _texts(codec: Codec, database: AsyncDatabase[Raw], place: Place, raws: Sequence[Raw]) -> list[str | None]:
    """The texts of what is kept as numbers."""
    if place.storage == "listed":
        listed = [tuple(raw.get(LISTED, ())[1:]) for raw in raws]
        kinds = set(listed)  # few, of however many stages
        words = await codec.words.words(database, {number for numbers in kinds for number in numbers})
        of_field = {number: word.text for number, word in words.items() if word.field == place.field}
        text_of = {kind: next((of_field[number] for number in kind if number in of_field), None) for kind in kinds}
        return [text_of[kind] for kind in listed]
    found = [raw.get(place.path) for raw in raws]
    words = await codec.words.words(database, {number for number in found if number is not None})
    if place.storage == "as_name":
        names = await _texts(codec, database, STAGES.places["name"], raws)
        return [name if at is None else words[at].text for at, name in zip(found, names, strict=True)]
    usual = USUAL[place.field] if place.storage == "mostly" else None
    return [usual if number is None else words[number].text for number in found]


def _numbers(raws: Sequence[Raw], path: Sequence[str]) -> list[Any]:
    tables = [raw.get("m") or {} for raw in raws]
    found = [table.get(path[0]) for table in tables]
    if len(path) > 1:
        found = [value.get(path[1]) if type(value) is dict else None for value in found]
    return [plain(value) if is_number(value) else None for value in found]


def _time(value: Any) -> int | None:
    return None if value is None else int(value)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "own_id": ids.id_of,
    "key": lambda value: None if value is None else ids.id_of(value),
    "id": lambda value: None if value is None else ids.id_text(value),
    "own_run": lambda value: None if value is None else ids.id_text(value),
    "time": _time,
}
