"""What a store owes to whoever asks where a candidate was seen, as tests."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from xray.stage_types.base import Columns
from xray_server.conformance.suite import StoreSuite
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, paginate
from xray_server.sightings import entries, segments
from xray_server.sightings.scanning import sightings_by_scan
from xray_server.stores.base import Sighting, Store, WriteBatch
from xray_server.testing_data import PROJECT, documents

T0 = 1_800_000_000_000
POOL = [f"item {number}" for number in range(12)]
LABELS = "shop", "films"

Filters = dict[str, Any]


def stage_of(number: int, *, run: int, label: str | None, start: int | None) -> Document:
    """The document of a stage."""
    pipeline = {"id": id_of("8", run), "label": label, "started_at": start}
    return {
        "id": id_of("9", number),
        "run_id": id_of("8", run),
        "name": "filter",
        "type": "filtering",
        "pipeline": {name: value for name, value in pipeline.items() if value is not None},
    }


def id_of(kind: str, number: int) -> str:
    """The id of a run (kind 8) or a stage (kind 9)."""
    return f"00000000-0000-7000-{kind}000-{number:012d}"


def columns_of(ids: Sequence[str]) -> Columns:
    """Candidates with these ids."""
    return Columns(list(ids), {"verdict": ["passed"] * len(ids), "score": [0.5] * len(ids)})


async def everything(store: Store, project: str) -> list[Sighting]:
    """Every page of every stage."""
    return [
        Sighting(copy.deepcopy(stage), page)
        for stage in (await documents(store, "stages", project)).values()
        async for page in store.pages(project, stage["id"])
    ]


def expected(pages: Sequence[Sighting], candidate_id: str, filters: Filters) -> list[Sighting]:
    """What ``sightings`` has to return of all pages."""
    since, until, label = (filters.get(name) for name in ("since", "until", "label"))
    found = [
        one
        for one in pages
        if candidate_id in one.page.ids
        and (since is None or (one.at is not None and one.at >= since))
        and (until is None or (one.at is not None and one.at < until))
        and (label is None or one.stage["pipeline"].get("label") == label)
    ]
    return sorted(found, key=lambda one: one.order, reverse=True)


async def found_in_parts(store: Store, project: str, candidate_id: str, limit: int, filters: Filters) -> list[Sighting]:
    """All sightings, so many at a time."""
    found: list[Sighting] = []
    while True:
        after = found[-1].key if found else None
        some = await store.sightings(project, candidate_id, after=after, limit=limit, **filters)
        assert len(some) <= limit
        found += some
        if len(some) < limit:
            return found


async def index_everything(store: Store, project: str = PROJECT) -> None:
    """Let the index come to its rest."""
    for _ in range(1000):
        if not await store.index_candidates(project):
            return
    raise AssertionError("The index never comes to a rest.")


class _History:
    """Writes and removals as they come, drawn at random."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._numbers = itertools.count()
        self._written: list[tuple[str, WriteBatch]] = []
        self._begun: list[tuple[str, Document, int | None, int]] = []

    async def step(self) -> None:
        """Anything that may happen."""
        draw = self._random.random()
        if draw < 0.5 or not self._written:
            await self._write(self._new_batch())
        elif draw < 0.6:
            await self._store.write(*copy.deepcopy(self._random.choice(self._written)))
        elif draw < 0.7:
            await self._write(self._more_candidates())
        elif draw < 0.95:
            await self._store.index_candidates(self._random.choice((PROJECT, PROJECT, "other")))
        elif draw < 0.98:
            await self._store.remove_candidates(PROJECT, before=T0 + self._random.randrange(60), limit=3)
        else:
            await self._store.remove_runs(PROJECT, before=T0 + self._random.randrange(40), limit=2)

    async def _write(self, given: tuple[str, WriteBatch]) -> None:
        self._written.append(copy.deepcopy(given))
        await self._store.write(*given)

    def _new_batch(self) -> tuple[str, WriteBatch]:
        draw = self._random
        project = "other" if draw.random() < 0.1 else PROJECT
        batch = WriteBatch()
        for _ in range(draw.randrange(1, 4)):
            number = next(self._numbers)
            start = None if draw.random() < 0.1 else T0 + draw.randrange(100)
            label = draw.choice((*LABELS, None))
            stage = stage_of(number, run=number, label=label, start=start)
            run: Document = {"id": stage["run_id"], "status": "success", "label": label, "started_at": start}
            batch.runs[stage["run_id"]] = {name: value for name, value in run.items() if value is not None}
            if draw.random() < 0.9:  # else only candidates come, and perhaps their stage never does
                batch.stages[stage["id"]] = stage
            ids = draw.choices(POOL, k=draw.randrange(1, 5))
            first = draw.choice((0, 0, 0, PAGE_SIZE - 2, 5 * PAGE_SIZE))
            known = start if draw.random() < 0.9 else None
            batch.pages += paginate(stage["run_id"], stage["id"], known, columns_of(ids), from_seq=first)
            self._begun.append((project, stage, known, first + len(ids)))
        return project, batch

    def _more_candidates(self) -> tuple[str, WriteBatch]:
        place = self._random.randrange(len(self._begun))
        project, stage, start, seq = self._begun[place]
        ids = self._random.choices(POOL, k=self._random.randrange(1, 4))
        self._begun[place] = project, stage, start, seq + len(ids)
        stages = {stage["id"]: stage} if self._random.random() < 0.5 else {}
        pages = paginate(stage["run_id"], stage["id"], start, columns_of(ids), from_seq=seq)
        return project, WriteBatch(stages=stages, pages=pages)


class SightingContract(StoreSuite):
    """Where a candidate was seen."""

    @pytest.fixture
    def small_segments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Segments of a few pages, so that a few batches make several of them, and merges."""
        for name, value in (
            ("PAGES_PER_SEGMENT", 4), ("ENTRIES_PER_SEGMENT", 12), ("PAGES_AT_ONCE", 8), ("ENTRIES_AT_ONCE", 24),
            ("FAN_OUT", 3), ("MAX_PAGES", 40), ("MAX_ENTRIES", 120),
        ):  # fmt: skip
            monkeypatch.setattr(segments, name, value)
        monkeypatch.setattr(entries, "ENTRIES_PER_PART", 10)

    @pytest.mark.usefixtures("small_segments")
    @pytest.mark.parametrize("seed", range(3))
    def test_sightings_are_the_pages_that_have_the_candidate(self, tmp_path: Path, seed: int) -> None:
        """Whatever was written, repeated, added to, indexed and removed, in any order, and with any filter."""
        draw = random.Random(seed)  # noqa: S311 - no secret

        async def use(store: Store) -> None:
            history = _History(store, seed)
            for number in range(120):
                await history.step()
                if number % 6:
                    continue
                filters: Filters = {}
                if draw.random() < 0.5:
                    filters["since"] = T0 + draw.randrange(100)
                if draw.random() < 0.3:
                    filters["until"] = T0 + draw.randrange(100)
                if draw.random() < 0.3:
                    filters["label"] = draw.choice((*LABELS, "nowhere"))
                project = draw.choice((PROJECT, PROJECT, "other", "nowhere"))
                pages = await everything(store, project)
                for candidate_id in (*draw.sample(POOL, 3), "never seen", ""):
                    wanted = expected(pages, candidate_id, filters)
                    found = await found_in_parts(store, project, candidate_id, draw.choice((1, 3, 50)), filters)
                    assert found == wanted, (number, candidate_id, filters)

        self.with_store(tmp_path, use)

    @pytest.mark.usefixtures("small_segments")
    def test_a_store_that_was_closed_knows_what_it_knew(self, tmp_path: Path) -> None:
        """Sightings are the same after the store was opened again, before and after the index comes to a rest."""

        async def write(store: Store) -> None:
            history = _History(store, 7)
            for _ in range(60):
                await history.step()

        async def use(store: Store) -> None:
            pages = await everything(store, PROJECT)
            wanted = {candidate_id: expected(pages, candidate_id, {}) for candidate_id in POOL}
            assert sum(map(len, wanted.values())) > 50
            for _ in range(2):
                for candidate_id, sightings in wanted.items():
                    assert await store.sightings(PROJECT, candidate_id, limit=1000) == sightings
                    assert (
                        await sightings_by_scan(store, PROJECT, candidate_id, None, None, None, None, 1000) == sightings
                    )
                await index_everything(store)

        self.with_store(tmp_path, write)
        self.with_store(tmp_path, use)

    def test_of_what_is_everywhere_the_latest_come_first(self, tmp_path: Path) -> None:
        """A limit cuts off what is older, and pages without a start come last."""

        async def use(store: Store) -> None:
            batch = WriteBatch()
            for number in range(300):
                start = None if number < 3 else T0 + number * 7 % 300
                stage = stage_of(number, run=number, label="shop", start=start)
                batch.stages[stage["id"]] = stage
                batch.pages += paginate(
                    stage["run_id"], stage["id"], start, columns_of(["everywhere", f"only {number}"])
                )
            await store.write(PROJECT, batch)
            wanted = expected(await everything(store, PROJECT), "everywhere", {})
            assert len(wanted) == 300
            for _ in range(2):
                assert await store.sightings(PROJECT, "everywhere", limit=40) == wanted[:40]
                assert await store.sightings(PROJECT, "everywhere", limit=400) == wanted
                since = wanted[10].at
                assert await store.sightings(PROJECT, "everywhere", since=since, limit=40) == wanted[:11]
                assert await store.sightings(PROJECT, "everywhere", until=since, limit=5) == wanted[11:16]
                assert len(await store.sightings(PROJECT, "only 8", limit=5)) == 1
                await index_everything(store)

        self.with_store(tmp_path, use)

    @pytest.mark.usefixtures("small_segments")
    def test_nothing_is_missed_while_it_is_indexed(self, tmp_path: Path) -> None:
        """Of two users of the same data that write, index and look up at once, each finds all that was durable."""

        async def use(store: Store) -> None:
            other = await self.make_store(tmp_path) if self.is_shared else store
            await other.open()
            durable: list[str] = []
            numbers = itertools.count()
            writing = 3

            async def write(through: Store) -> None:
                nonlocal writing
                for _ in range(25):
                    number = next(numbers)
                    stage = stage_of(number, run=number, label="shop", start=T0 + number)
                    pages = paginate(stage["run_id"], stage["id"], T0 + number, columns_of(["wanted", f"own {number}"]))
                    await through.write(PROJECT, WriteBatch(stages={stage["id"]: stage}, pages=pages))
                    durable.append(stage["id"])
                writing -= 1

            async def index(through: Store) -> None:
                while writing or await through.index_candidates(PROJECT):
                    await through.index_candidates(PROJECT)
                    await asyncio.sleep(0)

            async def look_up(through: Store) -> None:
                over = False
                while not over:
                    over = not writing
                    before = set(durable)
                    found = await through.sightings(PROJECT, "wanted", limit=1000)
                    assert before <= {one.page.stage_id for one in found}
                    assert len(found) == len({one.key for one in found})

            try:
                await asyncio.gather(
                    write(store), write(other), write(store), index(store), index(other), look_up(store), look_up(other)
                )
            finally:
                if self.is_shared:
                    await other.close()
            assert len(await store.sightings(PROJECT, "wanted", limit=1000)) == 75

        self.with_store(tmp_path, use)
