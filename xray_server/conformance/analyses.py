"""What a store owes to the analyses of a run, as tests."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from xray_server.conformance.suite import StoreSuite
from xray_server.documents import Document, analysis_of
from xray_server.stores.base import Store, WriteBatch
from xray_server.testing_data import PROJECT, RUN_ID, documents


def said(by: str, minute: int, stage: str) -> Document:
    """A partial run with what one analyst said at some time."""
    found = {"analyzed_at": f"2026-11-01T00:{minute:02}:00.000Z", "faulty_stage": stage, "confidence": 0.5}
    return {"id": RUN_ID, "analysis": analysis_of({by: found})}


class AnalysisContract(StoreSuite):
    """Analyses of one run by several analysts."""

    def test_analyses_stand_side_by_side_in_any_order(self, tmp_path: Path) -> None:
        """Each analyst's last word stays, the last of all is in front, and events that come again change nothing."""
        event: Document = {"id": RUN_ID, "label": "shop", "status": "success"}
        parts = [said("statistics", 1, "a"), said("model", 2, "b"), said("statistics", 3, "c"), event]
        statistics, model = parts[2]["analysis"]["statistics"], parts[1]["analysis"]["model"]

        async def use(store: Store) -> None:
            for number, order in enumerate(itertools.permutations(parts)):
                project = f"{PROJECT} {number}"
                for part in (*order, order[0], event):
                    await store.write(project, WriteBatch(runs={RUN_ID: part}))
                run = (await documents(store, "runs", project))[RUN_ID]
                analysis = run["analysis"]
                assert (analysis["statistics"], analysis["model"]) == (statistics, model)
                assert (analysis["by"], analysis["faulty_stage"]) == ("statistics", "c")
                assert (run["label"], run["status"]) == ("shop", "success")

        self.with_store(tmp_path, use)

    def test_analyses_that_come_at_once_are_all_there(self, tmp_path: Path) -> None:
        """Nobody overwrites what another one has stored meanwhile."""

        async def use(store: Store) -> None:
            parts = [said(by, minute, f"{by} {minute}") for minute in range(9) for by in ("statistics", "model")]
            await asyncio.gather(*(store.write(PROJECT, WriteBatch(runs={RUN_ID: part})) for part in parts))
            analysis = (await documents(store, "runs"))[RUN_ID]["analysis"]
            assert {by: analysis[by]["faulty_stage"] for by in ("statistics", "model")} == {
                "statistics": "statistics 8", "model": "model 8",
            }  # fmt: skip
            assert analysis["faulty_stage"] == "model 8"  # at the same time the model's word is the last one

        self.with_store(tmp_path, use)
