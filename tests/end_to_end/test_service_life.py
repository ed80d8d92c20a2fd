"""The service as a process: how it ends, how it behaves under more than it can take, and when its disk is full."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import urllib3

from tests.service import Service, all_rows, start_service
from xray.ids import new_id

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these are signals and limits of POSIX")


def batch(label: str, stages: int = 1, candidates: int = 3) -> dict[str, Any]:
    run = {"id": new_id(), "label": label, "started_at": 1_793_491_200_000}
    rows = [{"id": f"c{n}", "verdict": "passed", "data": {"n": n, "text": f"text {n} " * 5}} for n in range(candidates)]
    made = [
        {"type": "stage", "id": new_id(), "run": run, "name": label, "stage_type": "filtering", "order": order,
         "candidates": rows}
        for order in range(stages)
    ]  # fmt: skip
    return {"events": made}


class Poster:
    """Posts over one pool of connections, and counts the answers."""

    def __init__(self, service: Service) -> None:
        self.url = service.url
        self.answers: Counter[int | str] = Counter()
        self._pool = urllib3.PoolManager(maxsize=64, retries=False, timeout=urllib3.Timeout(60))

    def post(self, body: Any, path: str = "/v1/ingest") -> urllib3.BaseHTTPResponse | None:
        try:
            answer = self._pool.request(
                "POST", self.url + path, body=msgspec.msgpack.encode(body),
                headers={"Content-Type": "application/msgpack"},
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return None
        self.answers[answer.status] += 1
        return answer

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return self._pool.request("GET", self.url + path)


def labels_in(folder: Path) -> Counter[str]:
    """How many stages there are by label, found by a service of its own."""
    with start_service(folder) as service:
        return Counter(row["pipeline"]["label"] for row in all_rows(service, stage={}))


def test_a_service_that_is_told_to_end_keeps_what_it_answered(tmp_path: Path):
    """SIGTERM under load: every batch that was answered, with 200 or with 202, is there afterwards."""
    answered: list[str] = []
    with start_service(tmp_path) as service:
        poster = Poster(service)
        number = iter(range(1_000_000))

        def load() -> None:
            while True:
                label = f"end {next(number)}"
                path = "/v1/ingest?ack=enqueued" if label[-1] in "02468" else "/v1/ingest"
                answer = poster.post(batch(label, candidates=200), path)
                if answer is None:
                    return
                if answer.status in (200, 202):
                    answered.append(label)

        threads = [threading.Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        while len(answered) < 200:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) in (0, -signal.SIGTERM)
        for thread in threads:
            thread.join(30)
    assert poster.answers[202] > 20
    found = labels_in(tmp_path)
    assert set(answered) <= set(found)
    assert set(found.values()) == {1}


def test_a_service_that_drains_answers_and_says_that_it_is_not_ready(tmp_path: Path):
    """Between SIGTERM and its end a load balancer has time to notice, and nobody is turned away."""
    with start_service(tmp_path, XRAY_SERVER_DRAIN_S="60") as service:
        poster = Poster(service)
        assert poster.get("/ready").status == 200
        service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while (answer := poster.get("/ready")).status == 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (answer.status, answer.json()["error"]["code"]) == (503, "draining")
        assert poster.get("/health").status == 200
        answer = poster.post(batch("late"))
        assert answer is not None
        assert answer.status == 200
        service.process.send_signal(signal.SIGINT)  # whoever is in a hurry presses again
        service.process.send_signal(signal.SIGINT)
        service.process.wait(30)
    assert labels_in(tmp_path) == {"late": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded_however_many_send(tmp_path: Path):
    """Forty senders without pause: most are asked to come again, none is lost, and memory follows the limit."""
    limit_mb = 8
    body = batch("much", stages=10, candidates=4000)
    size_mb = len(msgspec.msgpack.encode(body)) / 2**20
    assert 1 < size_mb < limit_mb
    with start_service(
        tmp_path, XRAY_SERVER_MAX_PENDING_BYTES=str(limit_mb << 20), XRAY_SERVER_INGEST_PROCESSES="0"
    ) as service:
        poster = Poster(service)
        poster.post(body)  # so that everything is loaded
        before_mb = peak_mb(service)

        def load() -> None:
            for _ in range(6):
                poster.post(body)

        threads = [threading.Thread(target=load) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        added_mb = peak_mb(service) - before_mb
        assert set(poster.answers) == {200, 429}
        assert poster.answers[429] > poster.answers[200] / 4, "nobody was asked to come again"
        # Without the limit it is more than three times this: forty bodies, each several times its size once decoded.
        assert added_mb < 40 * size_mb
        assert "xray_ingest_pending_bytes 0.0" in poster.get("/metrics").data.decode()


def peak_mb(service: Service) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
