"""Processes that prepare batches: the same result as in the service, whatever becomes of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest

from tests.server.helpers import candidates, error_of, in_service, row, run_start, stage
from tests.service import start_service
from xray.exceptions import SchemaError
from xray.plugins import installed
from xray_server.prepare import prepare, prepare_body
from xray_server.workers import FROM_BYTES, MAX_FAILURES, Workers

EVENTS = [
    run_start(tags=["a"]),
    stage(candidates=[row(n) | {"score": n / 7} for n in range(900)]),
    candidates(900, [row(n) for n in range(900, 2000)]),
    {"type": "stage"},
]
BODY = msgspec.msgpack.encode({"events": EVENTS})
MSGPACK = {"content-type": "application/msgpack"}


def with_workers(use, count=1):
    async def run():
        workers = Workers(count, 100)
        try:
            return await use(workers)
        finally:
            await workers.close()

    return asyncio.run(run())


def children(process_id=None):
    """The process's workers that are still there, those that wait to be collected aside."""
    found = []
    for thread in Path(f"/proc/{process_id or os.getpid()}/task").iterdir():
        found += [int(child) for child in (thread / "children").read_text().split()]
    return [child for child in found if b"xray_server.workers" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_another_process_prepares_alike():
    """What comes back is what the service itself would have made of the batch, errors included."""
    assert len(BODY) > FROM_BYTES
    found = with_workers(lambda workers: workers.prepare(BODY))
    expected = prepare(msgspec.msgpack.decode(BODY)["events"], 1, installed())
    assert found.batch == expected.batch
    assert found.batch.pages[0].ranges == {"score": (0.0, 255 / 7)}
    assert (found.sayings, found.to_measure) == (expected.sayings, expected.to_measure)
    assert found.result.accepted == 3
    (rejected,) = found.result.errors
    assert rejected.index == 3
    assert rejected.error.as_dict() == expected.result.errors[0].error.as_dict()


@pytest.mark.parametrize("events", [EVENTS, [], [7, {"type": "stage"}], EVENTS + EVENTS])
def test_event_by_event_the_same_is_prepared(events):
    """As from a batch that is decoded at once: what is stored, what is refused and where."""
    body = msgspec.msgpack.encode({"events": events, "schema": 1, "analyze": True})
    plugins = installed()
    found, expected = prepare_body(body, 100, plugins), prepare(events, 1, plugins, analyze=True)
    assert (found.batch, found.sayings, found.to_measure) == (expected.batch, expected.sayings, expected.to_measure)
    assert found.result.to_analyze == expected.result.to_analyze
    assert [(one.index, one.error.as_dict()) for one in found.result.errors] == [
        (one.index, one.error.as_dict()) for one in expected.result.errors
    ]


@pytest.mark.parametrize(
    "body",
    [
        msgspec.msgpack.encode({"events": EVENTS, "evnets": []}),
        msgspec.msgpack.encode({"events": EVENTS, "schema": "1"}),
        msgspec.msgpack.encode({"events": [{}] * 101}),
        msgspec.msgpack.encode({"event": EVENTS}),
        msgspec.msgpack.encode({"events": EVENTS})[:-1],
        msgspec.msgpack.encode({"events": EVENTS}) + b"0",
    ],
)
def test_what_is_no_batch_is_left_to_the_service(body):
    """Nothing is prepared of it here: the service says what is wrong with it."""
    with pytest.raises((SchemaError, msgspec.MsgspecError)):
        prepare_body(body, 100, installed())


@pytest.mark.parametrize(
    "body",
    [b"\xc1" * FROM_BYTES, msgspec.msgpack.encode({"events": [{}] * 101, "pad": "x" * FROM_BYTES}), BODY[:-1]],
    ids=["no msgpack", "no batch", "cut off"],
)
def test_a_bad_body_is_left_to_the_service(body):
    """Of what is no batch nothing comes back, and the process goes on."""

    async def use(workers):
        assert await workers.prepare(body) is None
        assert (await workers.prepare(BODY)).result.accepted == 3

    with_workers(use)


def test_small_bodies_and_no_processes():
    """Small bodies, and all where there are no processes, are left to the service, and nothing is started."""

    async def use(workers):
        assert await workers.prepare(BODY[: FROM_BYTES - 1]) is None
        assert workers._running == []

    with_workers(use)

    async def none(workers):
        assert await workers.prepare(BODY) is None

    with_workers(none, count=0)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_a_process_that_dies_is_replaced_until_it_keeps_dying():
    """A process that was killed costs its batch no more than time; after several in a row none is started again."""

    async def use(workers):
        assert await workers.prepare(BODY) is not None
        workers._running[0].kill()
        assert await workers.prepare(BODY) is None
        assert await workers.prepare(BODY) is not None
        workers._command = [sys.executable, "-c", "pass", "xray_server.workers"]
        workers._running[0].kill()
        for _ in range(MAX_FAILURES):
            assert await workers.prepare(BODY) is None
        started = workers._running
        assert started == []
        assert await workers.prepare(BODY) is None

    with_workers(use)
    assert children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_no_process_outlives_a_service_that_was_killed(tmp_path):
    """After kill -9 of the service its processes end by themselves."""
    with start_service(tmp_path, XRAY_SERVER_INGEST_PROCESSES="1") as service:
        request = urllib.request.Request(f"{service.url}/v1/ingest", BODY, {"Content-Type": "application/msgpack"})
        with pytest.raises(urllib.error.HTTPError):  # one of its events is bad
            urllib.request.urlopen(request, timeout=30)
        of_service = children(service.process.pid)
        assert of_service
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait(10)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in of_service) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{child}").exists() for child in of_service)


def test_the_service_answers_alike_with_processes(tmp_path):
    """A large batch is answered alike with processes and without, and so is one that is malformed."""

    async def use(client):
        taken = await client.post("/v1/ingest", content=BODY, headers=MSGPACK)
        bad = await client.post("/v1/ingest", content=b"\xc1" * FROM_BYTES, headers=MSGPACK)
        stages = (await client.get("/v1/stages")).json()["rows"]
        return taken.status_code, taken.json(), error_of(bad, 400), stages

    assert in_service(tmp_path / "with", use, ingest_processes=1) == in_service(tmp_path / "without", use)
