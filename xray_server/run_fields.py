"""Each stage has its run's immutable fields again; here these copies are kept true.

Senders should say all of a run's fields in each event, but only the run's id is asked of them. Where two events of a
run say different things, the stages written so far get what the run's document has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from typing import Any

from xray_server.documents import PIPELINE_FIELDS, Document
from xray_server.query.ast import And, Compare, Condition, Field, In, Not, Or, Scan, Test
from xray_server.stores.base import Store

MAX_REMEMBERED_RUNS = 10_000
RUNS_PER_SCAN = 50
STAGES_PER_SCAN = 500

Said = tuple[Any, ...]
"""The values of a run's immutable fields in one event, in the order of ``PIPELINE_FIELDS``."""


def said(run: Mapping[str, Any]) -> Said:
    """What one event says of its run."""
    return tuple(run.get(name) for name in PIPELINE_FIELDS)


class RunFields:
    """Finds the stages whose copy of their run's fields is not what the run's document has.

    Args:
        store: The store, open.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heard: OrderedDict[tuple[str, str], set[Said]] = OrderedDict()

    async def missing_copies(
        self, project: str, sayings: Mapping[str, Iterable[Said]], new_runs: Container[str] = ()
    ) -> dict[str, Document]:
        """The stages to correct, after events were written.

        The stages of a run are compared when this process hears something of the run for the first time, which may
        change the run's document, and when the document has more than the events say, which another process may have
        heard. Of two processes that write at once, at least the later one sees what both wrote. A run that these events
        made, all saying the same of it, needs no look.

        Args:
            project: The project.
            sayings: Run id → what the events say of that run.
            new_runs: Runs of which there was nothing before these events.

        Returns:
            Stage id → a partial stage document.

        Raises:
            StoreError: The data could not be read.
        """
        found: dict[str, Document] = {}
        run_ids = [run_id for run_id, said_now in sayings.items() if run_id not in new_runs or len(set(said_now)) > 1]
        for start in range(0, len(run_ids), RUNS_PER_SCAN):
            some = run_ids[start : start + RUNS_PER_SCAN]
            copies = await self._copies(project, some)
            suspects = {
                run_id: copy
                for run_id, copy in copies.items()
                if not self._heard.get((project, run_id), set()) >= set(sayings[run_id])
                or any(said(copy) != saying for saying in sayings[run_id])
            }
            if suspects:
                found |= await self._compare(project, suspects)
        return found

    def remember(self, project: str, sayings: Mapping[str, Iterable[Said]]) -> None:
        """Note that what events say of their runs is in the store, in the stages' copies too."""
        for run_id, heard_now in sayings.items():
            self._heard.setdefault((project, run_id), set()).update(heard_now)
            self._heard.move_to_end((project, run_id))
        while len(self._heard) > MAX_REMEMBERED_RUNS:
            self._heard.popitem(last=False)

    async def _copies(self, project: str, run_ids: list[str]) -> dict[str, Document]:
        """Run id → the immutable fields that the run's document has."""
        by_id = Test(Field(("id",)), In(tuple(run_ids)))
        runs = await self._store.scan(project, Scan(of="runs", pipeline=by_id, limit=len(run_ids)))
        return {
            row.document["id"]: {name: row.document[name] for name in PIPELINE_FIELDS if name in row.document}
            for row in runs
        }

    async def _compare(self, project: str, copies: Mapping[str, Document]) -> dict[str, Document]:
        differs = Or(tuple(_differs(run_id, copy) for run_id, copy in copies.items()))
        of_runs = Test(Field(("run_id",)), In(tuple(copies)))
        found: dict[str, Document] = {}
        after: tuple[Any, ...] | None = None
        while True:
            scan = Scan(of="stages", stage=And((of_runs, differs)), after=after, limit=STAGES_PER_SCAN)
            rows = await self._store.scan(project, scan)
            for stage in (row.document for row in rows):
                found[stage["id"]] = {
                    "id": stage["id"],
                    "run_id": stage["run_id"],
                    "pipeline": copies[stage["run_id"]],
                }
            if len(rows) < STAGES_PER_SCAN:
                return found
            after = rows[-1].sort_values


def _differs(run_id: str, copy: Mapping[str, Any]) -> Condition:
    differences = (Not(Test(Field(("pipeline", name)), Compare("eq", value))) for name, value in copy.items())
    return And((Test(Field(("run_id",)), Compare("eq", run_id)), Or(tuple(differences))))
