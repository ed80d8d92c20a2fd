"""Crashes in the middle of writes: what was acknowledged is there, and no document is half there."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.traffic import CANDIDATES, Sender, run_events, whole_content
from tests.mongodb import Databases, running
from tests.service import Service, start_service
from xray_server.conformance.suite import with_open
from xray_server.stores.mongo import MongoStore

KILLS = 20
WRITERS = 4
WAIT_S = 120


class Writers:
    """Threads that send run after run, one batch each, and remember what was acknowledged.

    Args:
        url: Where the service listens at the moment.
    """

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(WRITERS)]
        self.acknowledged: list[int] = []
        self.refused: list[int] = []
        self.last_answer = ""

    def _write(self) -> None:
        sender = Sender()
        while not self._stopping.is_set():
            number = next(self._numbers)
            events = run_events(number, "crashes")
            while (done := sender.post(self._url(), events)) is None and not self._stopping.is_set():
                time.sleep(0.05)
            (self.acknowledged if done else self.refused).append(number)
            self.last_answer = sender.last_answer

    def wait_for_some(self) -> None:
        """Until there are some more acknowledged batches, and others are on their way."""
        wanted, deadline = len(self.acknowledged) + 3, time.monotonic() + WAIT_S
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, (
                f"nothing is acknowledged any more, {len(self.refused)} refused: {self.last_answer}"
            )
            time.sleep(0.005)

    @contextmanager
    def at_work(self):
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()


def look_at(url: str, writers: Writers, service: str) -> None:
    """Hold what is stored to what was acknowledged; then send again what was not, as senders do."""
    assert writers.refused, "no write was cut off"
    runs, stages, candidates = asyncio.run(with_open(MongoStore(url), whole_content))
    expected = {number: run_events(number, "crashes") for number in (*writers.acknowledged, *writers.refused)}
    for number in writers.acknowledged:
        whole(expected[number], runs, stages, candidates)
    # Of what was not acknowledged there may be a part: whole documents, each with all that its events brought.
    known = {run_id for events in expected.values() for run_id in (events[0]["run"]["id"],)}
    assert set(runs) <= known
    for run in runs.values():
        assert run["input"] == expected[int(run["key"].split()[1])][0]["input"]
    for rows in candidates.values():
        assert [seq for seq, _ in rows] == sorted({seq for seq, _ in rows})
    sender = Sender()
    for number in writers.refused:
        assert sender.post(service, expected[number])
    runs, stages, candidates = asyncio.run(with_open(MongoStore(url), whole_content))
    for events in expected.values():
        whole(events, runs, stages, candidates)
    assert len(runs) == len(expected)
    assert len(stages) == 2 * len(expected)


def whole(events: list[dict[str, Any]], runs: Any, stages: Any, candidates: Any) -> None:
    run, judged = runs[events[0]["run"]["id"]], stages[events[4]["id"]]
    assert (run["status"], run["stage_count"], run["key"]) == ("success", 2, events[0]["run"]["key"])
    assert judged["metrics"]["input_count"] == CANDIDATES
    assert judged["pipeline"]["label"] == run["label"]
    assert [seq for seq, _ in candidates[judged["id"]]] == list(range(CANDIDATES))
    assert len(candidates[events[5]["id"]]) == 20


@pytest.mark.timeout(900)  # twenty starts and more: some minutes where a machine is slow
def test_the_server_is_killed_twenty_times(tmp_path: Path):
    """MongoDB is killed (-9) under writers: the service goes on with the server that is started again."""
    with running(tmp_path) as server:
        url = f"{server.uri}xray"
        with start_service(tmp_path, store=url) as service:
            writers = Writers(lambda: service.url)
            with writers.at_work():
                for _ in range(KILLS):
                    writers.wait_for_some()
                    server.kill()
                    server.start()
                writers.wait_for_some()
            look_at(url, writers, service.url)


@pytest.mark.timeout(900)  # twenty starts and more: some minutes where a machine is slow
def test_the_service_is_killed_twenty_times(tmp_path: Path, databases: Databases):
    """The service is killed (-9) under writers: the next one on the same MongoDB has what was acknowledged."""
    url = databases.url(tmp_path)
    with ExitStack() as stack:
        current: list[Service] = [stack.enter_context(start_service(tmp_path, store=url))]
        writers = Writers(lambda: current[0].url)
        with writers.at_work():
            for _ in range(KILLS):
                writers.wait_for_some()
                current[0].process.kill()
                current[0].process.wait()
                current[0] = stack.enter_context(start_service(tmp_path, store=url))
            writers.wait_for_some()
        look_at(url, writers, current[0].url)
