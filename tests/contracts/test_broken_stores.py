"""The conformance suite against stores that break one promise each: it fails, and where it should."""

from __future__ import annotations

import inspect
import itertools
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.sqlite import SqliteStore
from xray_server.testing import StoreContract
from xray_server.testing_data import PROJECT


class LosesAnUpdate(SqliteStore):
    """What comes second for a run or stage is gone."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._known: set[str] = set()

    async def write(self, project: str, batch: WriteBatch) -> None:
        runs = {key: value for key, value in batch.runs.items() if project + key not in self._known}
        stages = {key: value for key, value in batch.stages.items() if project + key not in self._known}
        self._known |= {project + key for key in (*runs, *stages)}
        await super().write(project, WriteBatch(runs, stages, batch.pages, batch.declarations))


class MixesProjects(SqliteStore):
    """Everything lies in one project."""

    async def write(self, project: str, batch: WriteBatch) -> None:
        await super().write(PROJECT, batch)

    async def scan(self, project: str, scan: Any) -> Any:
        return await super().scan(PROJECT, scan)

    async def pipelines(self, project: str) -> Any:
        return await super().pipelines(PROJECT)


class BreaksOrder(SqliteStore):
    """Rows come the wrong way round."""

    async def scan(self, project: str, scan: Any) -> Any:
        return list(reversed(await super().scan(project, scan)))


class DecidesTooMuch(SqliteStore):
    """Every row is said to be decided."""

    async def scan(self, project: str, scan: Any) -> Any:
        return [replace(row, decided=True) for row in await super().scan(project, scan)]


class LosesTheLast(SqliteStore):
    """An answer of several rows lacks one of them."""

    async def scan(self, project: str, scan: Any) -> Any:
        rows = list(await super().scan(project, scan))
        return rows[:-1] if 3 <= len(rows) < scan.limit else rows


class ForgetsWhenClosed(SqliteStore):
    """Nothing is left for the next one that opens the same place."""

    async def close(self) -> None:
        await super().close()
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()


class GivesItsOwn(SqliteStore):
    """What it returns is its own, so that a caller's change is everybody's."""

    _own: Any = None

    async def declarations(self, project: str) -> Any:
        if project == PROJECT and not self._own:
            self._own = await super().declarations(project)
        return self._own if project == PROJECT else await super().declarations(project)


class CleansTooMuch(SqliteStore):
    """A rollup takes the mark away although the bucket has been marked since."""

    async def keep_rollups(self, project: str, rollups: Any) -> None:
        await super().keep_rollups(project, [(rollup, 2**62) for rollup, _ in rollups])


class MarksTooLittle(SqliteStore):
    """A batch with a stage that is there already marks nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._known: set[str] = set()

    async def write(self, project: str, batch: WriteBatch) -> None:
        before = self._marks() if batch.stages.keys() & self._known else None
        await super().write(project, batch)
        self._known |= batch.stages.keys()
        if before is not None:
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30)) as connection:
                connection.execute(f"DELETE FROM dirty_buckets WHERE mark > {before}")

    def _marks(self) -> int:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute("SELECT ifnull(max(mark), 0) FROM dirty_buckets").fetchone()[0]


class DoesNotSayWhatIsGone(SqliteStore):
    """Stages whose candidates were removed look as if they never had any."""

    async def remove_candidates(self, project: str, **bounds: Any) -> Any:
        removed = await super().remove_candidates(project, **bounds)
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30)) as connection:
            connection.execute("UPDATE stages SET candidates_removed_at = NULL")
        return removed


class RemovesTheYoungest(SqliteStore):
    """Whatever the age that is asked for, every age will do."""

    async def remove_candidates(self, project: str, *, before: int | None, limit: int, dry_run: bool = False) -> Any:
        return await super().remove_candidates(project, before=None, limit=limit, dry_run=dry_run)


class LeavesStagesBehind(SqliteStore):
    """Of a run that is removed, its own document goes and the rest stays."""

    async def remove_runs(self, project: str, *, before: int | None, limit: int, dry_run: bool = False) -> Any:
        expected = await super().remove_runs(project, before=before, limit=limit, dry_run=True)
        if not dry_run:
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30)) as connection:
                connection.execute(
                    "DELETE FROM runs WHERE row IN (SELECT row FROM runs WHERE project = ?"
                    " AND ifnull(started_at, 0) < ? ORDER BY started_at LIMIT ?)",
                    (project, 2**62 if before is None else before, limit),
                )
        return expected


class RemovesInADryRun(SqliteStore):
    """A dry run is none."""

    async def remove_candidates(self, project: str, *, before: int | None, limit: int, dry_run: bool = False) -> Any:
        return await super().remove_candidates(project, before=before, limit=1000 if dry_run else limit)


class KeepsTheFirstOfAName(SqliteStore):
    """What is saved under a name that there is already is dropped."""

    async def keep_named(self, project: str, kind: str, name: str, document: Any) -> Any:
        return await self.named(project, kind, name) or await super().keep_named(project, kind, name, document)


class MixesKinds(SqliteStore):
    """Names of all kinds are of one."""

    async def keep_named(self, project: str, kind: str, name: str, document: Any) -> Any:
        return await super().keep_named(project, "any", name, document)

    async def named(self, project: str, kind: str, name: str) -> Any:
        return await super().named(project, "any", name)

    async def all_named(self, project: str, kind: str) -> Any:
        return await super().all_named(project, "any")


class MissesASighting(SqliteStore):
    """Of several sightings the last is left out."""

    async def sightings(self, project: str, candidate_id: str, **bounds: Any) -> Any:
        found = list(await super().sightings(project, candidate_id, **bounds))
        return found[:-1] if len(found) > 1 else found


class HearsOneAnalyst(SqliteStore):
    """What a model said of a run is not kept."""

    async def write(self, project: str, batch: WriteBatch) -> None:
        runs = {key: run for key, run in batch.runs.items() if "model" not in (run.get("analysis") or {})}
        await super().write(project, WriteBatch(runs, batch.stages, batch.pages, batch.declarations))


BROKEN: dict[type[Store], set[str]] = {
    LosesAnUpdate: {
        "test_any_order_and_repetition_give_the_same",
        "test_replaced_metrics_are_found_no_more",
        "test_writes_at_once_lose_nothing",
        "test_rollups_are_what_the_stages_say",
    },
    MixesProjects: {
        "test_projects_do_not_see_each_other",
        "test_projects_are_those_that_have_something",
        "test_dirty_buckets_come_by_hour_and_can_be_narrowed",
    },
    BreaksOrder: {"test_conditions_on_stages_are_exact", "test_scans_go_on_after_any_row"},
    LosesTheLast: {"test_conditions_on_runs_are_exact", "test_runs_by_their_stages", "test_scans_go_on_after_any_row"},
    ForgetsWhenClosed: {"test_data_outlives_the_store_object"},
    GivesItsOwn: {"test_what_was_given_and_returned_is_the_callers"},
    CleansTooMuch: {"test_a_mark_grows_and_goes_only_when_it_has_not"},
    MarksTooLittle: {"test_a_write_marks_the_bucket_and_the_one_before", "test_rollups_are_what_the_stages_say"},
    DoesNotSayWhatIsGone: {"test_candidates_go_and_the_stage_says_so", "test_pages_without_a_start_are_the_oldest"},
    RemovesTheYoungest: {"test_candidates_go_and_the_stage_says_so", "test_removal_and_giving_back_disturb_no_write"},
    LeavesStagesBehind: {"test_runs_go_with_everything", "test_a_large_run_goes_whole"},
    RemovesInADryRun: {"test_a_dry_run_says_what_would_go_and_changes_nothing"},
    KeepsTheFirstOfAName: {"test_keeping_the_same_again_changes_nothing"},
    MixesKinds: {
        "test_what_was_named_is_read",
        "test_kinds_and_projects_have_names_of_their_own",
        "test_a_name_can_be_removed_and_given_again",
    },
    MissesASighting: {
        "test_sightings_are_the_pages_that_have_the_candidate",
        "test_of_what_is_everywhere_the_latest_come_first",
        "test_a_store_that_was_closed_knows_what_it_knew",
    },
    DecidesTooMuch: {"test_the_conditions_hold_for_what_is_decided"},
    HearsOneAnalyst: {
        "test_analyses_stand_side_by_side_in_any_order",
        "test_analyses_that_come_at_once_are_all_there",
    },
}
"""What is broken → the tests that have to notice."""

UNMOVED = {
    "test_a_fresh_store_has_nothing_to_find_fault_with",
    "test_none_is_ignored",
    "test_pages_lie_on_one_grid",
}
"""Tests of promises that none of these breaks (but those that lose what comes second)."""


class Suite(StoreContract):
    """The suite over a broken store."""

    __test__: ClassVar[bool] = False
    broken: type[SqliteStore]

    async def make_store(self, place: Path) -> Store:
        return self.broken(place / "xray.sqlite3")


def fails(broken: type[Store], name: str, place: Path) -> bool:
    """Whether a test of the suite fails on a store, with any of its parameters."""
    suite = Suite()
    suite.broken = broken  # type: ignore[assignment]
    test = getattr(suite, name)
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    choices = [[(mark.args[0], value) for value in mark.args[1]] for mark in marks]
    for number, given in enumerate(itertools.product(*choices)):
        folder = place / f"{name}{number}"
        folder.mkdir(parents=True)
        try:
            test(folder, **dict(given))
        except (Exception, pytest.fail.Exception):
            return True
    return False


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_suite_notices(broken: type[Store], tmp_path: Path):
    """The tests of the broken promise fail, and those that have nothing to do with it pass."""
    names = BROKEN[broken] | UNMOVED
    failed = {name for name in names if fails(broken, name, tmp_path)}
    assert failed - {"test_none_is_ignored"} == BROKEN[broken]


def test_the_tests_that_notice_pass_on_the_store_itself(tmp_path: Path):
    """None of them fails for another reason; and all of their names are the suite's."""
    names = set().union(*BROKEN.values()) | UNMOVED
    assert names <= {name for name, _ in inspect.getmembers(StoreContract, inspect.isfunction)}
    assert {name for name in names if fails(SqliteStore, name, tmp_path)} == set()
