"""Delivery against real faults: what was recorded is stored, or counted; where the spool has room, nothing is lost."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xray
from tests.end_to_end.network import proxied, sink
from tests.ports import free_port
from tests.service import Service, all_rows, start_service
from xray import ids
from xray.delivery.http import HttpTransport
from xray.delivery.transport import SendResult


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "xray")


def recorder(label: str) -> Any:
    @xray.filtering_stage(label)
    def keep(pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return pool[:1]

    return keep


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, xray.stats()
        time.sleep(0.01)


def check_balance() -> None:
    stats = xray.stats()
    assert stats.recorded == stats.acknowledged + stats.buffered + stats.spooled + sum(stats.dropped.values()), stats


def check_all_stored(service: Service, label: str, stages: int) -> None:
    """Each stage is stored once, whole, with its run; and the counts say so."""
    assert xray.flush(45), xray.stats()
    stats = xray.stats()
    assert (stats.recorded, stats.acknowledged, stats.spooled, stats.buffered) == (3 * stages, 3 * stages, 0, 0)
    assert (stats.dropped, stats.failures) == ({}, {})
    rows = all_rows(service, stage={"name": label})
    assert len(rows) == len({row["id"] for row in rows}) == stages
    assert {(row["metrics"]["input_count"], row["metrics"]["output_count"]) for row in rows} == {(3, 1)}
    runs = all_rows(service, pipeline={"label": label}, **{"return": "runs"})
    assert [run["status"] for run in runs] == ["success"] * stages


ZYGOTE = """
import os, signal, sys
from xray_server.serve import serve
port, store = int(sys.argv[1]), sys.argv[2]
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        sys.exit(serve(host="127.0.0.1", port=port, store=store))
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""
"""Starts the service again and again without loading it anew each time."""


def killed_again_and_again(port: int, store: str, times: int, then: Any) -> None:
    """Start the service, let it listen a moment, kill it with -9; that many times."""
    generator = random.Random(3)
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, str(port), store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        for _ in range(times):
            print("start", file=zygote.stdin, flush=True)
            said = ""
            pid = 0
            while not (pid and "X-Ray listens" in said):
                line = zygote.stdout.readline()
                assert line, "the service did not start"
                said += line
                pid = int(line) if line.strip().isdigit() else pid
            time.sleep(generator.uniform(0.0, 0.5))
            os.kill(pid, signal.SIGKILL)
            while zygote.stdout.readline() != "ended\n":
                pass
            then()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_service_that_is_killed_twenty_times_under_load_loses_nothing(tmp_path: Path):
    """Killed with -9 while it writes, and started again: all that was recorded is stored, once."""
    port = free_port()
    xray.configure(server_url=f"http://127.0.0.1:{port}", flush_interval_s=0.02, request_timeout_s=5.0)
    keep = recorder("killed")
    ended = threading.Event()
    made = [0]

    def load() -> None:
        while not ended.wait(0.002):
            keep([{"id": n, "run": made[0]} for n in range(3)])
            made[0] += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        killed_again_and_again(port, f"sqlite:///{tmp_path}/xray.sqlite3", 20, check_balance)
    finally:
        ended.set()
        thread.join()
    assert made[0] > 500
    with start_service(tmp_path, "--port", str(port)) as service:
        check_all_stored(service, "killed", made[0])


class Requests:
    """Watches the requests of every transport: which threads send, and which of them is under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: set[int] = set()
        self.under_way: object | None = None
        send = HttpTransport.send

        def watched(transport: HttpTransport, events: Any) -> SendResult:
            self.threads.add(threading.get_ident())
            self.under_way = object()
            try:
                return send(transport, events)
            finally:
                self.under_way = None

        monkeypatch.setattr(HttpTransport, "send", watched)


@pytest.mark.parametrize("mode", ["cut", "reset", "half_open", "slow"])
def test_a_network_that_fails_delays_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str):
    """Good, bad, good again: the caller's thread sends nothing and waits for no request; in the end all is stored."""
    requests = Requests(monkeypatch)
    with start_service(tmp_path) as service, proxied(int(service.url.rpartition(":")[2])) as proxy:
        xray.configure(server_url=proxy.url, flush_interval_s=0.02, connect_timeout_s=1.0, request_timeout_s=1.5)
        keep = recorder(mode)
        returned_meanwhile = 0
        for number in range(120):
            if number == 20:
                proxy.switch(mode)
            before = requests.under_way
            keep([{"id": n, "text": "x" * 200} for n in range(3)])
            returned_meanwhile += before is not None and before is requests.under_way
            time.sleep(0.03)
        assert xray.stats().acknowledged < 360, "the network was not bad at all"
        assert requests.threads
        assert threading.get_ident() not in requests.threads
        if mode in ("half_open", "slow"):  # the others end at once
            assert returned_meanwhile, "each call waited for the request that was under way"
        check_balance()
        proxy.switch("open")
        check_all_stored(service, mode, 120)


def test_a_request_whose_answer_never_ends_can_be_cut():
    """An answer that comes byte by byte never lets a single wait run out; the transport lets go when it is told to."""
    with sink() as service, proxied(int(service.url.rpartition(":")[2])) as proxy:
        proxy.mode = "slow"
        transport = HttpTransport(proxy.url, connect_timeout_s=5.0, request_timeout_s=60.0)
        results: list[SendResult] = []
        thread = threading.Thread(target=lambda: results.append(transport.send([{"type": "run.start", "id": "a"}])))
        thread.start()
        until(lambda: proxy.connections)
        transport.abort()
        thread.join(30)
        assert [result.outcome for result in results] == ["retry"]
        proxy.switch("open")
        assert transport.send([{"type": "run.start", "id": "a"}]).outcome == "stored"
        transport.close()


@pytest.mark.parametrize("statuses", [(429,), (500, 502), (503,), (429, 500, 503, 408)])
def test_a_storm_of_errors_ends_with_everything_stored_once(statuses: tuple[int, ...]):
    """Nothing is lost, nothing is sent again that was taken, and Retry-After is kept to."""
    generator = random.Random(1)

    def answers():
        for _ in range(12):
            status = generator.choice(statuses)
            headers = {"Retry-After": "0.2"} if status in (429, 503) and generator.random() < 0.7 else {}
            yield (status, headers)
            if generator.random() < 0.3:
                yield None

    with sink() as service:
        service.answers = answers()
        xray.configure(server_url=service.url, flush_interval_s=0.02)
        keep = recorder("storm")
        for number in range(100):
            keep([{"id": number}])
            time.sleep(0.01)
        assert xray.flush(45), xray.stats()
        check_balance()
        assert xray.stats().dropped == {}
        assert sorted(service.stages(), key=lambda stage: int(stage[0])) == [[str(n)] for n in range(100)]
        assert len(service.events) == len({(e["type"], e["id"]) for e in service.events}) == 300


def test_while_the_service_asks_to_be_left_alone_it_is(tmp_path: Path):
    """One request, and no other before the time is over, however much is recorded and somebody waits."""
    with sink() as service:
        service.answers = iter([(503, {"Retry-After": "2"})])
        xray.configure(server_url=service.url, flush_interval_s=0.01)
        keep = recorder("alone")
        keep([{"id": 0}])
        began = time.monotonic()
        while service.requests == 0:
            time.sleep(0.01)
        keep([{"id": 1}])
        assert not xray.flush(1.0)
        if time.monotonic() - began < 2:
            assert service.requests == 1
        assert xray.flush(30)
        assert len(service.stages()) == 2


def test_a_sender_that_is_not_let_in_keeps_everything(caplog: pytest.LogCaptureFixture):
    """401 and 403 are the operator's to mend: said once, and nothing is lost until then."""
    with sink() as service, caplog.at_level(logging.WARNING, "xray"):
        service.answers = iter([(401, {}), (403, {})])
        xray.configure(server_url=service.url, flush_interval_s=0.01)
        keep = recorder("denied")
        for number in range(10):
            keep([{"id": number}])
        assert xray.flush(45), xray.stats()
        assert len(service.stages()) == 10
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1
        assert "does not let this process in (HTTP 401" in said[0]


def test_clocks_that_jump_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten years ahead and back while records wait: they are sent all the same, once."""
    port = free_port()
    xray.configure(server_url=f"http://127.0.0.1:{port}", flush_interval_s=0.02)
    keep = recorder("clock")
    real = time.time
    for number, years in enumerate((0, 10, -10, 0)):
        jump_s = years * 365 * 86_400
        monkeypatch.setattr("xray.delivery.clocks.wall_s", lambda jump_s=jump_s: real() + jump_s)
        monkeypatch.setattr(ids, "clock_ns", lambda jump_s=jump_s: time.time_ns() + jump_s * 10**9)
        for n in range(10):
            keep([{"id": f"{number}-{n}-{i}"} for i in range(3)])
        until(lambda number=number: xray.stats().spooled >= 30 * (number + 1))
    monkeypatch.undo()
    with start_service(tmp_path, "--port", str(port)) as service:
        check_all_stored(service, "clock", 40)


# --- programs that end --------------------------------------------------------------------------------------------

PROGRAM = """
import json, os, sys
import xray

@xray.filtering_stage("program")
def keep(pool):
    return pool[:1]

def record(count, width=10):
    for n in range(count):
        keep([{"id": f"{n}-{i}", "text": "x" * width} for i in range(3)])

def report():
    stats = xray.stats()
    left = stats.buffered + stats.spooled
    assert stats.recorded == stats.acknowledged + left + sum(stats.dropped.values()), stats
    print(json.dumps({"recorded": stats.recorded, "acknowledged": stats.acknowledged, "left": left,
                      "spooled": stats.spooled, "dropped": stats.dropped, "from_others": stats.from_others}))
"""


def program(body: str, tmp_path: Path, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + body], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "XRAY_SERVER_URL": url, "XRAY_SPOOL_DIR": str(tmp_path / "spool"), **variables},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit on Windows")
def test_a_full_disk_costs_what_memory_cannot_hold_and_that_is_counted(tmp_path: Path):
    """The kernel refuses to write: what the buffer holds arrives later, the rest is counted; nothing is unaccounted."""
    port = free_port()
    body = """
import resource, time
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
xray.configure(buffer_records=600, flush_interval_s=0.02)
for _ in range(40):
    record(20, 3000)
    time.sleep(0.05)
report()
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
xray.flush(40)
report()
"""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + body], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "XRAY_SERVER_URL": f"http://127.0.0.1:{port}", "XRAY_SPOOL_DIR": str(tmp_path / "spool")},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        down = json.loads(process.stdout.readline())
        assert down["recorded"] == 2400
        assert set(down["dropped"]) == {"buffer_full"}
        assert down["left"] >= 600
        with start_service(tmp_path, "--port", str(port)) as service:
            process.stdin.write("\n")
            process.stdin.flush()
            up = json.loads(process.stdout.readline())
            assert process.wait(30) == 0
            assert up["dropped"] == down["dropped"]
            assert up["acknowledged"] == 2400 - up["dropped"]["buffer_full"]
            stages = len(all_rows(service, stage={"name": "program"}))
            runs = all_rows(service, pipeline={"label": "program"}, **{"return": "runs"})
            assert stages + len(runs) <= up["acknowledged"] <= stages + 2 * len(runs)


def test_damaged_segments_cost_what_was_damaged(tmp_path: Path):
    """A program spools and ends; the files are damaged; the next program sends what is whole, and counts the rest."""
    with start_service(tmp_path) as service:
        url = service.url
    first = program("record(100, 50); report()", tmp_path, url)
    assert first.returncode == 0, first.stderr
    generator = random.Random(8)
    (path,) = (tmp_path / "spool").glob("*.seg")
    with path.open("r+b") as file:
        for _ in range(4):
            file.seek(generator.randrange(200, path.stat().st_size))
            file.write(generator.randbytes(20))
    with start_service(tmp_path, "--port", url.rpartition(":")[2]) as service:
        second = program(
            """
import time
keep([{"id": "last"}])
deadline = time.monotonic() + 30
while sum(xray.stats().from_others.values()) < 300 and time.monotonic() < deadline:
    time.sleep(0.02)
assert xray.flush(20)
report()
""",
            tmp_path, url,
        )  # fmt: skip
        assert second.returncode == 0, second.stderr
        counts = json.loads(second.stdout)
        assert (counts["recorded"], counts["acknowledged"], counts["dropped"]) == (3, 3, {})
        others = counts["from_others"]
        assert others["acknowledged"] + others["spool_corrupt"] == 300
        assert 1 <= others["spool_corrupt"] <= 8
        rows = all_rows(service, stage={"name": "program"})
        assert 100 - others["spool_corrupt"] < len(rows) <= 101
    assert not list((tmp_path / "spool").glob("*.seg"))
