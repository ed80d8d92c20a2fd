"""Too much at once: senders are asked to come again; what is answered early is written in the end."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
import zstandard

from tests.server.helpers import RUN_ID, STAGE_ID, error_of, in_service, row, run_end, run_start, stage
from xray.exceptions import StoreError
from xray_server.admission import Admission
from xray_server.app import create_app
from xray_server.errors import ApiError
from xray_server.settings import ServerSettings
from xray_server.stores.sqlite import SqliteStore
from xray_server.write_queue import WriteQueue

GOOD = [run_start(), stage(candidates=[row(0), row(1)]), run_end()]
BODY = json.dumps({"events": GOOD}).encode()


def service_of(client):
    return client._transport.app.state.service


class Gate:
    """A store's writes wait until it is opened; and fail as often as is said."""

    def __init__(self, client, failures=0):
        self.opened = asyncio.Event()
        self.failures = failures
        self.writing = False
        store = service_of(client).store
        write = store.write

        async def gated(project, batch):
            self.writing = True
            await self.opened.wait()
            if self.failures:
                self.failures -= 1
                raise StoreError("not now")
            return await write(project, batch)

        store.write = gated


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody says when
            await asyncio.sleep(0.005)


def test_beyond_the_limit_senders_are_asked_to_come_again(tmp_path):
    """While bodies of the limit's size are in work, the next sender gets 429 with Retry-After; later it is let in."""

    async def use(client):
        gate = Gate(client)
        first = [asyncio.create_task(client.post("/v1/ingest", content=BODY)) for _ in range(3)]
        await until(lambda: service_of(client).admission.bytes == 3 * len(BODY))
        refused = await client.post("/v1/ingest", content=BODY)
        assert error_of(refused, 429)["code"] == "busy"
        assert 1 <= int(refused.headers["Retry-After"]) <= 3
        assert (await client.get("/health")).status_code == 200
        gate.opened.set()
        assert [answer.status_code for answer in await asyncio.gather(*first)] == [200] * 3
        assert service_of(client).admission.bytes == 0
        assert (await client.post("/v1/ingest", content=BODY)).json()["accepted"] == 3

    in_service(tmp_path, use, max_pending_bytes=3 * len(BODY) + 10)


def test_what_arrives_bit_by_bit_is_counted_as_it_arrives(tmp_path):
    """A sender that stopped in the middle of a body holds what it has sent, until it goes away."""

    async def use(client):
        more = asyncio.Event()

        async def slowly():
            yield BODY[:100]
            await more.wait()
            yield BODY[100:]

        slow = asyncio.create_task(client.post("/v1/ingest", content=slowly()))
        await until(lambda: service_of(client).admission.bytes == 100)
        more.set()
        assert (await slow).status_code == 200
        assert service_of(client).admission.bytes == 0

    in_service(tmp_path, use)


def test_a_body_alone_is_always_let_in(tmp_path):
    """A limit below one body's size delays senders and shuts nobody out."""

    async def use(client):
        assert (await client.post("/v1/ingest", content=BODY)).status_code == 200

    in_service(tmp_path, use, max_pending_bytes=1)


def test_what_a_body_becomes_when_decompressed_counts(tmp_path):
    """Beside another body in work, one that is small as it travels is refused for what it would become; not kept."""

    async def use(client):
        gate = Gate(client)
        first = asyncio.create_task(client.post("/v1/ingest", content=BODY))
        await until(lambda: service_of(client).admission.bytes == len(BODY))
        large = gzip.compress(b" " * 3_000_000)
        refused = await client.post("/v1/ingest", content=large, headers={"Content-Encoding": "gzip"})
        assert error_of(refused, 429)["code"] == "busy"
        assert service_of(client).admission.bytes == len(BODY)
        gate.opened.set()
        assert (await first).status_code == 200

    in_service(tmp_path, use, max_pending_bytes=1_000_000)


def test_a_sender_that_went_silent_holds_nothing_for_good(tmp_path, monkeypatch):
    """A body of which nothing more comes is given up; the sender is told to send it again, if it is there at all."""
    monkeypatch.setattr("xray_server.api.bodies.PART_TIMEOUT_S", 0.2)

    async def use(client):
        silent = asyncio.Event()

        async def never_ending():
            yield BODY[:100]
            await silent.wait()
            yield BODY[100:]

        refused = await client.post("/v1/ingest", content=never_ending())
        assert error_of(refused, 408)["code"] == "incomplete_body"
        assert service_of(client).admission.bytes == 0
        assert (await client.post("/v1/ingest", content=BODY)).status_code == 200

    in_service(tmp_path, use)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_of_a_compressed_body_what_it_is_counts_while_it_is_worked_on(tmp_path, encoding):
    """Not what it was as it travelled, which is no longer in memory; nor both."""

    async def use(client):
        gate = Gate(client)
        body = gzip.compress(BODY) if encoding == "gzip" else zstandard.compress(BODY)
        request = asyncio.create_task(client.post("/v1/ingest", content=body, headers={"Content-Encoding": encoding}))
        await until(lambda: gate.writing)
        assert service_of(client).admission.bytes == len(BODY)
        gate.opened.set()
        assert (await request).status_code == 200

    in_service(tmp_path, use)


def test_of_a_body_that_is_too_large_nothing_is_held_while_the_rest_arrives(tmp_path):
    """It is refused at its end, so that the sender hears why, and thrown away until then."""

    async def use(client):
        sent, more = asyncio.Event(), asyncio.Event()

        async def slowly():
            yield b" " * 4000
            yield b" " * 4000
            sent.set()
            await more.wait()
            yield b" "

        request = asyncio.create_task(client.post("/v1/ingest", content=slowly()))
        await sent.wait()
        await until(lambda: service_of(client).admission.bytes == 0)
        assert not request.done()
        more.set()
        assert error_of(await request, 413)["code"] == "body_too_large"

    in_service(tmp_path, use, max_body_bytes=6000)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"{}" * 4000, {}, 413),
        (gzip.compress(b" " * 9000, mtime=0), {"Content-Encoding": "gzip"}, 413),
        (gzip.compress(BODY, mtime=0)[:-9], {"Content-Encoding": "gzip"}, 400),
        (b'{"events": [{}]}', {}, 422),
    ],
)
def test_nothing_stays_counted_of_what_was_refused(tmp_path, content, headers, status):
    """Whatever is wrong with a body, what it held is given back."""

    async def use(client):
        assert (await client.post("/v1/ingest", content=content, headers=headers)).status_code == status
        assert service_of(client).admission.bytes == 0

    in_service(tmp_path, use, max_body_bytes=6000, max_decompressed_bytes=8000)


def test_admission_counts_what_threads_hold():
    """Growing, shrinking and giving back add up; a refusal leaves everything as it was."""
    admission = Admission(10, code="busy", what="bodies")
    with admission.hold() as one, admission.hold() as other:
        one.grow(6)
        other.grow(4)
        with pytest.raises(ApiError):
            other.grow(1)
        assert (admission.bytes, other.bytes) == (10, 4)
        one.shrink(2)
        other.grow(2)
        one.release()
        one.release()
        assert admission.bytes == 6
    assert admission.bytes == 0


# --- answers before the write ---------------------------------------------------------------------------------------


def test_enqueued_is_answered_before_it_is_stored(tmp_path):
    """``ack=enqueued`` answers 202 while the store does not write yet; then everything is there."""

    async def use(client):
        gate = Gate(client)
        answer = await client.post("/v1/ingest?ack=enqueued", content=BODY)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 3, "errors": []})
        assert (await client.get(f"/v1/runs/{RUN_ID}")).status_code == 404
        gate.opened.set()
        await until(lambda: service_of(client).queue.written == 3)
        assert (await client.get(f"/v1/stages/{STAGE_ID}")).json()["metrics"]["fail_ratio"] == 0.5

    in_service(tmp_path, use)


def test_enqueued_still_says_what_is_wrong(tmp_path):
    """Bad events are named as ever, and the good ones are written."""

    async def use(client):
        answer = await client.post("/v1/ingest?ack=enqueued", json={"events": [run_start(), {"type": "stag"}]})
        assert error_of(answer, 422)["path"] == "events[1].type"
        assert answer.json()["accepted"] == 1
        await until(lambda: service_of(client).queue.written == 1)
        assert (await client.get(f"/v1/runs/{RUN_ID}")).status_code == 200

    in_service(tmp_path, use)


def test_a_full_queue_asks_to_come_again(tmp_path):
    """The queue is bounded in bytes; who wants the answer after the write is not held up by it."""

    async def use(client):
        gate = Gate(client)
        answers = [await client.post("/v1/ingest?ack=enqueued", content=BODY) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
        assert error_of(answers[-1], 429)["code"] == "queue_full"
        assert "Retry-After" in answers[-1].headers
        gate.opened.set()
        assert (await client.post("/v1/ingest", content=BODY)).status_code == 200
        await until(lambda: service_of(client).queue.written == 6)
        assert service_of(client).queue.admission.bytes == 0

    in_service(tmp_path, use, max_enqueued_bytes=2 * max(len(BODY), 1024))


def test_many_small_batches_are_bounded_too(tmp_path):
    """A batch weighs a kilobyte at least, so that empty ones do not pile up."""

    async def use(client):
        gate = Gate(client)
        answers = [await client.post("/v1/ingest?ack=enqueued", json={"events": [run_start()]}) for _ in range(11)]
        assert [answer.status_code for answer in answers] == [202] * 10 + [429]
        gate.opened.set()

    in_service(tmp_path, use, max_enqueued_bytes=10_240)


def test_a_store_that_fails_for_a_while_costs_nothing_that_was_answered(tmp_path):
    """Nobody would send it again, so the service writes it until the store takes it."""

    async def use(client):
        gate = Gate(client, failures=3)
        gate.opened.set()
        await client.post("/v1/ingest?ack=enqueued", content=BODY)
        await until(lambda: service_of(client).queue.written == 3)
        assert service_of(client).queue.retries == 3
        assert (await client.get(f"/v1/runs/{RUN_ID}")).json()["status"] == "success"

    in_service(tmp_path, use)


def test_the_end_waits_for_what_was_answered(tmp_path):
    """A service that ends with batches in its queue writes them first."""
    store = SqliteStore(tmp_path / "xray.sqlite3")

    async def fill(client):
        gate = Gate(client)
        for _ in range(20):
            assert (await client.post("/v1/ingest?ack=enqueued", content=BODY)).status_code == 202
        assert service_of(client).queue.written == 0
        asyncio.get_running_loop().call_later(0.2, gate.opened.set)

    in_service(tmp_path, fill)

    async def look():
        await store.open()
        try:
            app = create_app(ServerSettings(), store)
            return await app.state.service.ask({"return": "runs"})
        finally:
            await store.close()

    assert [run["status"] for run in asyncio.run(look())["rows"]] == ["success"]


def test_what_cannot_be_written_by_the_end_is_counted(caplog):
    """A store that fails to the end loses what was answered; the queue says how much, and the log too."""

    async def run():
        async def write(_):
            raise StoreError("the disk is full")

        queue = WriteQueue(write, 10_000)
        app = create_app(ServerSettings(store="sqlite:///never.sqlite3"))
        prepared = await app.state.service.ingest.prepare(
            type("B", (), {"events": GOOD, "schema_version": 1, "analyze": False})
        )
        for _ in range(6):
            queue.put(prepared, 10)
        await queue.drain(0.3)
        assert queue.lost == {"shutdown": 18}
        assert (queue.waiting, queue.admission.bytes) == (0, 0)

    asyncio.run(run())
    assert "18 events that were answered before they were written are lost" in caplog.text
