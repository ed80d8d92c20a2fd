"""Many writers, two services, one MongoDB: what is stored is what one orderly writer would have stored."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.end_to_end.traffic import Sender, run_events, whole_content
from tests.mongodb import Databases
from tests.service import start_service
from xray_server.conformance.suite import with_open
from xray_server.stores.mongo import MongoStore

RUNS = 40
WRITERS = 50
ATTEMPTS = 20


def send(sender: Sender, url: str, batch: list[dict[str, Any]]) -> None:
    """Send a batch as senders do: again, where the service could not store it in time."""
    for _ in range(ATTEMPTS):
        if sender.post(url, batch):
            return
    raise AssertionError(f"not taken {ATTEMPTS} times: {sender.last_answer}")


def test_fifty_writers_over_two_services_leave_what_one_leaves(tmp_path: Path, databases: Databases):
    """Overlapping batches, each sent twice, to either service, out of order: no duplicate, no loss, same metrics."""
    events = [event for number in range(RUNS) for event in run_events(number, "writers")]
    generator = random.Random(5)

    def batches_of(writer: int) -> list[list[dict[str, Any]]]:
        # Every event is with three writers, and each of them sends its batches twice.
        own = [event for place, event in enumerate(events) if (place - writer) % (WRITERS // 3) == 0]
        batches = []
        for _ in range(2):
            generator.shuffle(own)
            batches += [own[start : start + 5] for start in range(0, len(own), 5)]
        return batches

    work = [batches_of(writer) for writer in range(WRITERS)]
    assert {id(event) for batches in work for batch in batches for event in batch} == {id(event) for event in events}
    with ExitStack() as stack:
        orderly, shared = databases.url(tmp_path / "orderly"), databases.url(tmp_path / "shared")
        alone = stack.enter_context(start_service(tmp_path, store=orderly))
        for number in range(RUNS):
            send(Sender(), alone.url, run_events(number, "writers"))
        services = [stack.enter_context(start_service(tmp_path, store=shared)) for _ in range(2)]

        def write(writer: int) -> None:
            sender = Sender()
            for number, batch in enumerate(work[writer]):
                send(sender, services[(writer + number) % 2].url, batch)

        with ThreadPoolExecutor(WRITERS) as threads:
            list(threads.map(write, range(WRITERS)))
        expected, found = (asyncio.run(with_open(MongoStore(url), whole_content)) for url in (orderly, shared))
    assert len(found[0]) == RUNS
    assert found == expected
