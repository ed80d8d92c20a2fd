"""The buffer and its worker: nothing blocks, nothing is lost uncounted."""

from __future__ import annotations

import dataclasses
import http.server
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import xray
from xray.delivery.batch import split_event
from xray.delivery.http import HttpTransport, read_answer
from xray.delivery.memory import MemoryTransport
from xray.delivery.transport import SendResult, Transport
from xray.delivery.worker import Worker
from xray.testing import TransportContract


@dataclasses.dataclass
class Fact:
    """A record of a given weight."""

    number: int
    size_bytes: int = 100

    def event(self) -> dict[str, Any]:
        if self.number < 0:
            raise ValueError("cannot be made into an event")
        return {"type": "run.start", "id": str(self.number), "run": {"id": str(self.number)}}

    def release(self) -> None:
        self.released = True

    def lost(self) -> None:
        self.was_lost = True


class Scripted(Transport):
    """Answers as it is told, then stores."""

    def __init__(self, *answers: SendResult) -> None:
        self.answers = list(answers)
        self.batches: list[list[dict[str, Any]]] = []
        self.stored: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def send(self, events: Sequence[dict[str, Any]]) -> SendResult:
        self.gate.wait(20)
        self.batches.append(list(events))
        result = self.answers.pop(0) if self.answers else SendResult("stored", {})
        if result.outcome == "stored":
            self.stored += [e["id"] for place, e in enumerate(events) if place not in result.rejected]
        return result

    def close(self) -> None: ...


def make_worker(transport: Transport, **limits: Any) -> Worker:
    defaults = {"max_records": 1000, "max_bytes": 10**6, "batch_bytes": 10**5, "flush_interval_s": 0.01}
    return Worker(lambda: transport, where="the test", **{**defaults, **limits})


def check_balance(worker: Worker) -> None:
    stats = worker.stats()
    assert stats.recorded == stats.acknowledged + stats.buffered + stats.spooled + sum(stats.dropped.values())


def test_everything_arrives_once_in_order():
    """Many records, many batches, one order."""
    transport = Scripted()
    worker = make_worker(transport, batch_bytes=1000)
    assert all(worker.submit(Fact(n)) for n in range(500))
    assert worker.flush(10)
    assert transport.stored == [str(n) for n in range(500)]
    assert worker.stats().acknowledged == 500
    check_balance(worker)


def test_threads_record_side_by_side():
    """Records of many threads all arrive, each once."""
    transport = Scripted()
    worker = make_worker(transport, max_records=10_000, max_bytes=10**7)
    threads = [
        threading.Thread(target=lambda start=start: [worker.submit(Fact(n)) for n in range(start, start + 200)])
        for start in range(0, 1600, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worker.flush(10)
    assert sorted(map(int, transport.stored)) == list(range(1600))


@pytest.mark.parametrize("limit", [{"max_records": 10}, {"max_bytes": 1000}])
def test_a_full_buffer_drops_and_counts(limit: dict[str, int]):
    """While nothing can be sent, memory stays bounded in records and bytes; the rest is counted."""
    transport = Scripted()
    transport.gate.clear()
    worker = make_worker(transport, flush_interval_s=0.0, **limit)
    taken = sum(worker.submit(Fact(n)) for n in range(100))
    stats = worker.stats()
    assert stats.dropped == {"buffer_full": 100 - taken}
    # A batch that is being sent has left the queue, and may be as large again.
    assert 10 <= taken <= 20
    assert stats.buffered_bytes <= 2000
    transport.gate.set()
    assert not worker.flush(10), "something was lost"
    assert worker.flush(10), "nothing was lost since"
    check_balance(worker)


def test_what_cannot_be_sent_now_is_sent_later(caplog: pytest.LogCaptureFixture):
    """Failures are tried again until they succeed; they are said once."""
    transport = Scripted(*[SendResult("retry", {}, "unreachable", retry_after_s=0.01)] * 5)
    worker = make_worker(transport)
    with caplog.at_level(logging.WARNING, "xray"):
        for n in range(10):
            worker.submit(Fact(n))
        assert worker.flush(10)
    assert transport.stored == [str(n) for n in range(10)]
    assert len(caplog.records) == 1
    assert "the test cannot be reached" in caplog.text


def test_a_batch_that_is_too_large_is_split():
    """One heavy event does not take the others with it."""
    too_large = SendResult("too_large", {}, "HTTP 413")
    transport = Scripted(too_large, too_large, too_large)
    worker = make_worker(transport, flush_interval_s=0.3)
    for n in range(4):
        worker.submit(Fact(n))
    assert not worker.flush(10)
    assert transport.stored == ["1", "2", "3"]
    assert worker.stats().dropped == {"too_large": 1}
    check_balance(worker)


def test_rejected_events_are_counted_and_the_rest_stays():
    """The service refuses some events of a batch."""
    transport = Scripted(SendResult("stored", {1: "bad", 3: "bad"}))
    worker = make_worker(transport, flush_interval_s=0.3)
    for n in range(5):
        worker.submit(Fact(n))
    assert not worker.flush(10)
    assert transport.stored == ["0", "2", "4"]
    assert worker.stats().dropped == {"rejected": 2}
    check_balance(worker)


def test_a_record_that_breaks_and_a_transport_that_raises_are_counted():
    """Defects on the worker's side cost what they touch, and the worker goes on."""

    class Raising(Scripted):
        def send(self, events: Sequence[dict[str, Any]]) -> SendResult:
            if not self.batches:
                self.batches.append([])
                raise ZeroDivisionError
            return super().send(events)

    transport = Raising()
    worker = make_worker(transport)
    worker.submit(Fact(1))
    assert not worker.flush(10)
    worker.submit(Fact(-1))
    worker.submit(Fact(2))
    assert not worker.flush(10)
    assert transport.stored == ["2"]
    assert worker.stats().dropped == {"internal_error: ZeroDivisionError": 1, "not_serialisable": 1}
    check_balance(worker)


def test_flush_and_stop_keep_their_deadline():
    """With the other side stuck, both come back before it lets go, and what is left is counted."""
    transport = Scripted()
    transport.gate.clear()
    worker = make_worker(transport, flush_interval_s=0.0)
    for n in range(5):
        worker.submit(Fact(n))
    assert not worker.flush(0.1)
    worker.stop(0.1)
    assert transport.stored == []
    assert worker.stats().dropped == {"shutdown": 5}
    assert not worker.submit(Fact(9))
    check_balance(worker)
    transport.gate.set()


@given(count=st.integers(0, 200), width=st.integers(1, 50), limit=st.integers(50, 3000))
def test_a_heavy_stage_is_cut_without_loss(count: int, width: int, limit: int):
    """The pieces of a stage hold its candidates in order, each once."""
    run = {"id": "r"}
    columns = {"candidate_id": [str(n) for n in range(count)], "data": ["x" * width] * count}
    event = {"type": "stage", "id": "s", "run": run, "name": "n", "columns": columns}
    first, *rest = split_event(event, limit)
    pieces = rest or [first]
    if rest:
        assert "columns" not in first
        assert all(piece["type"] == "candidates" and piece["id"] == "s" for piece in rest)
        for piece, following in itertools.pairwise(rest):
            assert piece["from_seq"] + len(piece["columns"]["candidate_id"]) == following["from_seq"]
    assert [i for piece in pieces for i in piece["columns"]["candidate_id"]] == columns["candidate_id"]


class Sink(http.server.BaseHTTPRequestHandler):
    """The other side of HTTP: keeps what is posted, answers as it is told."""

    protocol_version = "HTTP/1.1"
    events: list[dict[str, Any]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "zstd":
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        posted = msgspec.msgpack.decode(body)["events"]
        type(self).events += posted
        answer = json.dumps({"accepted": len(posted), "errors": []}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def sink():
    class Own(Sink):
        events: list[dict[str, Any]] = []  # noqa: RUF012 - made anew for each test

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Own, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


class TestMemoryTransport(TransportContract):
    """The transport of tests keeps the contract."""

    def make_transport(self) -> Transport:
        self.transport = MemoryTransport()
        return self.transport

    def received(self) -> list[dict[str, Any]]:
        return self.transport.events


class TestHttpTransport(TransportContract):
    """The transport to the service keeps the contract, over a real connection."""

    @pytest.fixture(autouse=True)
    def _sink(self, sink: Any) -> None:
        self.handler, self.url = sink

    def make_transport(self) -> Transport:
        return HttpTransport(self.url, connect_timeout_s=2, request_timeout_s=5)

    def received(self) -> list[dict[str, Any]]:
        return self.handler.events


def test_nothing_listening_is_a_retry_not_an_exception():
    """A refused connection says so in the result."""
    transport = HttpTransport("http://127.0.0.1:9", connect_timeout_s=1, request_timeout_s=1)
    assert transport.send([{"type": "run.start"}]).outcome == "retry"
    transport.close()


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"accepted": 3, "errors": []}, "stored"),
        (422, {"accepted": 2, "errors": [{"index": 1, "error": {"message": "m"}}]}, "stored"),
        (422, {"error": {"code": "x", "message": "m"}}, "refused"),
        (200, "<html>a proxy's greeting</html>", "refused"),
        (413, {"error": {"message": "too large"}}, "too_large"),
        (429, {}, "retry"),
        (503, "", "retry"),
        (401, {}, "denied"),
        (403, {}, "denied"),
        (404, [], "refused"),
    ],
)
def test_what_an_answer_means(status: int, body: Any, outcome: str):
    """Only an answer that says what it accepted counts as stored."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert read_answer(status, data, "1.5").outcome == outcome
    assert read_answer(429, b"{}", "1.5").retry_after_s == 1.5
    assert read_answer(429, b"{}", "tomorrow").retry_after_s is None


SCRIPT = """
import sys, logging
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
import xray

@xray.filtering_stage
def keep(pool):
    return [n for n in pool if n > 2]

print(keep(list(range(6))))
"""


def run_script(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_what_is_recorded_at_the_end_of_a_program_is_sent(sink: Any):
    """The interpreter's exit sends what is left."""
    handler, url = sink
    done = run_script(SCRIPT, XRAY_SERVER_URL=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[3, 4, 5]\n", "")
    assert [event["type"] for event in handler.events] == ["run.start", "stage", "run.end"]


def test_without_a_service_a_program_ends_soon_and_says_it_once():
    """No server reachable: same result, exit code 0, one warning."""
    done = run_script(SCRIPT, XRAY_SERVER_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, "[3, 4, 5]\n")
    assert done.stderr.count("WARNING") == 1
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr


FORK = """
import os, sys, xray

@xray.filtering_stage
def keep(pool):
    return pool

keep(["parent before"])
pid = os.fork()
if pid == 0:
    keep(["child"])
    ok = xray.flush(10) and xray.stats().recorded == 3
    os._exit(0 if ok else 3)
_, status = os.waitpid(pid, 0)
keep(["parent after"])
sys.exit(os.waitstatus_to_exitcode(status) or (0 if xray.flush(10) else 4))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_sends_its_own_records_and_only_those(sink: Any):
    """After a fork each process sends what it recorded itself, exactly once."""
    handler, url = sink
    done = run_script(FORK, XRAY_SERVER_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    seen = [e["columns"]["candidate_id"] for e in handler.events if e["type"] == "stage"]
    assert sorted(seen) == [["child"], ["parent after"], ["parent before"]]


def test_configure_refuses_what_cannot_be_and_changes_nothing():
    """A typo in a setting names the nearest one."""
    with pytest.raises(xray.XRayError, match=r"Did you mean 'server_url'\?"):
        xray.configure(serverurl="http://127.0.0.1:1")
    with pytest.raises(xray.XRayError, match="http://"):
        xray.configure(server_url="localhost")
    with pytest.raises(xray.XRayError, match="buffer_bytes"):
        xray.configure(buffer_bytes=-1)


def test_an_unreadable_variable_warns_and_the_default_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A bad environment never breaks the program."""
    from xray.runtime import runtime

    monkeypatch.setenv("XRAY_BUFFER_BYTES", "lots")
    with caplog.at_level(logging.WARNING, "xray"):
        assert runtime.settings.buffer_bytes == 128 << 20
    assert "XRAY_BUFFER_BYTES='lots' cannot be read" in caplog.text
