"""The spool: what cannot be sent waits on disk, damage costs what it touches, and the caps hold."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.sdk.test_delivery import Fact, Scripted, check_balance
from xray.delivery import clocks
from xray.delivery import spool as spool_module
from xray.delivery.owners import take_lock
from xray.delivery.segments import make_frame
from xray.delivery.spool import Spool
from xray.delivery.spool_files import count_records
from xray.delivery.transport import SendResult, Transport
from xray.delivery.worker import Worker

DOWN = SendResult("retry", {}, "unreachable: test")


def make_spool(folder: Path, lost: Counter[str] | None = None, **settings: Any) -> Spool:
    def on_lost(reason: str, records: int) -> None:
        if lost is not None:
            lost[reason] += records

    defaults = {"destination": "http://here", "max_bytes": 1 << 20, "max_age_s": 3600.0, "on_lost": on_lost}
    return Spool(folder, **{**defaults, **settings})


def event(number: int, width: int = 0) -> dict[str, Any]:
    return {"type": "run.start", "id": str(number), "run": {"id": str(number)}, "input": "x" * width}


def write(spool: Spool, *numbers: int, width: int = 0) -> None:
    for number in numbers:
        spool.append([make_frame([event(number, width)])], number)


def read_all(spool: Spool, max_records: int = 100) -> list[int]:
    """The numbers of what is in the spool, settled as they are read."""
    found = []
    while (chunk := spool.next_chunk(1 << 20, max_records)) is not None:
        found += [int(e["id"]) for events in chunk.records for e in events]
        spool.settle(chunk)
    return found


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


@pytest.mark.parametrize("width", [0, 5000])
def test_what_is_written_is_read_in_order_and_then_gone(tmp_path: Path, width: int):
    """Small records and compressed ones, in chunks; nothing is left behind but the folder."""
    spool = make_spool(tmp_path / "spool")
    write(spool, *range(50), width=width)
    assert read_all(spool, max_records=7) == list(range(50))
    assert not spool.has_pending()
    spool.close()
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [".gitignore"]


def test_nothing_is_made_before_something_is_written(tmp_path: Path):
    """A process that never needs its spool leaves no trace."""
    spool = make_spool(tmp_path / "spool")
    assert spool.take_over() == 0
    assert read_all(spool) == []
    spool.close()
    assert not (tmp_path / "spool").exists()


def test_others_cannot_read_the_spool(tmp_path: Path):
    """What users record is nobody else's business."""
    spool = make_spool(tmp_path / "spool")
    write(spool, 1)
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in segments(tmp_path / "spool"))


def test_what_is_not_settled_is_read_again(tmp_path: Path):
    """A chunk that could not be sent stays where it is."""
    spool = make_spool(tmp_path)
    write(spool, 1, 2, 3)
    assert spool.next_chunk(1 << 20, 2) is not None
    spool.put_back()
    assert read_all(spool) == [1, 2, 3]


def test_columns_go_through_unread(tmp_path: Path):
    """A stage's columns, by row and by field, come out as they went in."""
    columns = {
        "candidate_id": ["a", "b"],
        "verdict": msgspec.Raw(msgspec.msgpack.encode(["passed", None])),
        "data": {"price": msgspec.Raw(msgspec.msgpack.encode([1.5, 2])), "title": ["ä", "🙂"]},
    }
    spool = make_spool(tmp_path)
    spool.append([make_frame([{"type": "stage", "id": "s", "run": {"id": "r"}, "columns": columns}])], 0)
    chunk = spool.next_chunk(1 << 20, 10)
    assert chunk is not None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(chunk.records[0][0]["columns"])) == {
        "candidate_id": ["a", "b"],
        "verdict": ["passed", None],
        "data": {"price": [1.5, 2], "title": ["ä", "🙂"]},
    }


# --- damage -------------------------------------------------------------------------------------------------------


def test_a_torn_end_costs_the_torn_record(tmp_path: Path):
    """A process that was killed while it wrote: what was whole is sent, by the next one."""
    first = make_spool(tmp_path)
    write(first, *range(10), width=2000)
    first.close()
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size - 3)
    second = make_spool(tmp_path)
    assert second.take_over() == 1
    found = []
    damaged = 0
    while (chunk := second.next_chunk(1 << 20, 4)) is not None:
        found += [int(e["id"]) for events in chunk.records for e in events]
        damaged += chunk.damaged
        second.settle(chunk)
    assert (found, damaged) == (list(range(9)), 1)
    assert not list(tmp_path.glob("*.lock"))


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), holes=st.integers(1, 5), length=st.integers(1, 400))
def test_damage_costs_what_it_touches_and_is_counted(
    tmp_path_factory: pytest.TempPathFactory, seed: int, holes: int, length: int
):
    """However bytes are overwritten: every record is read whole, or counted as lost."""
    folder = tmp_path_factory.mktemp("spool")
    generator = random.Random(seed)
    spool = make_spool(folder)
    write(spool, *range(40), width=generator.choice([10, 300, 3000]))
    (path,) = segments(folder)
    with path.open("r+b") as file:
        for _ in range(holes):
            file.seek(generator.randrange(path.stat().st_size))
            file.write(generator.randbytes(length))
    found, damaged = [], 0
    while (chunk := spool.next_chunk(500, 3)) is not None:
        for events in chunk.records:
            found += [int(e["id"]) for e in events]
            assert all(e == event(int(e["id"]), len(e["input"])) for e in events)
        damaged += chunk.damaged
        spool.settle(chunk)
    assert len(found) + damaged == 40
    assert found == sorted(set(found))
    assert len(found) >= 40 - holes * (2 + length // 20)


def test_a_segment_that_somebody_removed_is_counted(tmp_path: Path):
    """Nothing hangs, and nothing is lost uncounted."""
    lost: Counter[str] = Counter()
    spool = make_spool(tmp_path, lost)
    write(spool, 1, 2, 3)
    segments(tmp_path)[0].unlink()
    assert read_all(spool) == []
    assert lost == {"spool_missing": 3}
    write(spool, 4)
    assert read_all(spool) == [4]


def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path: Path):
    """Whatever else lies in the folder stays there."""
    (tmp_path / "notes.seg").write_text("mine")
    (tmp_path / "0-1-abc-000001.seg").write_bytes(b"")
    spool = make_spool(tmp_path, max_bytes=3000)
    spool.take_over()
    for number in range(30):
        write(spool, number, width=100)
    assert read_all(spool)
    assert (tmp_path / "notes.seg").read_text() == "mine"


def test_a_write_that_fails_half_way_leaves_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was written of the records that do not count as written is cut off: the next process finds no damage."""
    real = spool_module.write_all
    spool = make_spool(tmp_path)
    write(spool, 1, 2)

    def half(file: int, data: bytes) -> None:
        real(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module, "write_all", half)
    with pytest.raises(OSError, match="No space left"):
        write(spool, 3)
    monkeypatch.undo()
    write(spool, 4)
    spool.close()
    later = make_spool(tmp_path)
    assert later.take_over() == 2
    found, damaged = [], 0
    while (chunk := later.next_chunk(1 << 20, 10)) is not None:
        found += [int(e["id"]) for events in chunk.records for e in events]
        damaged += chunk.damaged
        later.settle(chunk)
    assert (found, damaged) == ([1, 2, 4], 0)


# --- caps ---------------------------------------------------------------------------------------------------------


def test_the_oldest_goes_first_when_it_is_full(tmp_path: Path):
    """The cap holds at each moment; what is left is the newest; what went is counted."""
    lost: Counter[str] = Counter()
    spool = make_spool(tmp_path, lost, max_bytes=20_000)
    for number in range(500):
        write(spool, number, width=200)
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= 20_000
    left = read_all(spool)
    assert left == list(range(500 - len(left), 500))
    assert len(left) > 40
    assert lost == {"spool_full": 500 - len(left)}


def test_what_is_too_old_goes_and_clock_jumps_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The age of own records is measured by a clock that does not jump; that of others' by their files' times."""
    now = [1000.0]
    monkeypatch.setattr(clocks, "monotonic_s", lambda: now[0])
    monkeypatch.setattr(clocks, "wall_s", lambda: time.time() + 10 * 365 * 86_400)
    lost: Counter[str] = Counter()
    spool = make_spool(tmp_path, lost, max_age_s=60.0)
    write(spool, 1, 2)
    spool.take_over()
    assert lost == {}, "the wall clock jumped by ten years, and nothing of ours is lost"
    monkeypatch.setattr(clocks, "wall_s", lambda: 0.0)
    spool.take_over()
    assert lost == {}
    now[0] += 61
    spool.take_over()
    assert lost == {"spool_expired": 2}
    assert read_all(spool) == []
    monkeypatch.setattr(clocks, "wall_s", time.time)
    write(spool, 3, 4, 5)
    spool.close()
    (path,) = segments(tmp_path)
    os.utime(path, (time.time() - 100, time.time() - 100))
    later = make_spool(tmp_path, max_age_s=60.0)
    assert later.take_over() == 0
    assert later.from_others == {"spool_expired": 3}
    assert not segments(tmp_path)


# --- several processes ----------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.sdk.test_spool import make_spool, write
write(make_spool(Path(sys.argv[1])), 1, 2, 3)
print("written", flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_taken_over_but_not_that_of_one_that_lives(tmp_path: Path):
    """The lock ends with its process, however that ends."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "written\n"
        spool = make_spool(tmp_path)
        assert spool.take_over() == 0
        living.kill()
    assert spool.take_over() == 1
    assert make_spool(tmp_path).take_over() == 0, "two processes would send the same"
    assert read_all(spool) == [1, 2, 3]
    assert list(tmp_path.glob("*.lock")) == []


def test_what_was_to_go_elsewhere_stays(tmp_path: Path):
    """Records of another service's are not sent to this one, unless somebody says so."""
    first = make_spool(tmp_path, destination="http://staging")
    write(first, 1)
    first.close()
    assert make_spool(tmp_path).take_over() == 0
    every = make_spool(tmp_path, any_destination=True)
    assert every.take_over() == 1
    assert read_all(every) == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_does_not_give_up_the_parents_lock(tmp_path: Path):
    """A child forgets the parent's files, and the parent keeps them."""
    spool = make_spool(tmp_path)
    write(spool, 1)
    pid = os.fork()
    if pid == 0:
        spool.forget()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    owner = segments(tmp_path)[0].name.rpartition("-")[0]
    assert take_lock(tmp_path, owner) is None
    assert read_all(spool) == [1]


# --- the worker with a spool ----------------------------------------------------------------------------------------


def make_worker(folder: Path, transport: Transport, **limits: Any) -> Worker:
    defaults = {"max_records": 1000, "max_bytes": 10**6, "batch_bytes": 10**5, "flush_interval_s": 0.01}
    return Worker(
        lambda: transport, where="the test", make_spool=lambda on_lost: make_spool(folder, on_lost=on_lost),
        **{**defaults, **limits},
    )  # fmt: skip


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


class Switched(Scripted):
    """Fails while it is down."""

    def __init__(self, failure: SendResult = DOWN) -> None:
        super().__init__()
        self.is_down = True
        self.failure = failure

    def send(self, events: Any) -> SendResult:
        return self.failure if self.is_down else super().send(events)


@pytest.mark.parametrize(
    "failure", [DOWN, SendResult("denied", {}, "HTTP 401"), SendResult("retry", {}, "HTTP 503", retry_after_s=0.2)]
)
def test_while_the_service_is_away_memory_is_empty_and_afterwards_all_arrives(tmp_path: Path, failure: SendResult):
    """Away, or it lets nobody in: records leave memory for the spool, and come back from there."""
    transport = Switched(failure)
    worker = make_worker(tmp_path, transport)
    for number in range(300):
        worker.submit(Fact(number))
    until(lambda: worker.stats().spooled == 300)
    stats = worker.stats()
    assert (stats.buffered, stats.buffered_bytes, stats.dropped) == (0, 0, {})
    check_balance(worker)
    assert not worker.flush(0.1)
    transport.is_down = False
    assert worker.flush(20)
    assert sorted(map(int, transport.stored)) == list(range(300))
    stats = worker.stats()
    assert (stats.acknowledged, stats.spooled, stats.dropped) == (300, 0, {})
    check_balance(worker)
    worker.stop(5)
    assert not segments(tmp_path)


def test_a_flush_waits_for_what_is_spooled(tmp_path: Path):
    """Newer records that were sent first do not stand for older ones that still lie in the spool."""
    transport = Switched()
    worker = make_worker(tmp_path, transport)
    worker.submit(Fact(1))
    until(lambda: worker.stats().spooled == 1)
    transport.is_down = False
    for number in range(2, 5):
        worker.submit(Fact(number))
        assert worker.flush(20)
        assert "1" in transport.stored
    worker.stop(5)


def test_what_a_request_that_hangs_keeps_waiting_goes_to_the_spool(tmp_path: Path):
    """A connection that is half open: later records are on disk long before it gives up, at the end its own."""
    transport = Scripted()
    transport.gate.clear()
    worker = make_worker(tmp_path, transport, request_timeout_s=60.0)
    worker.submit(Fact(1))
    until(lambda: worker.stats().sent == 1)
    worker.submit(Fact(2))
    until(lambda: worker.stats().spooled == 1)
    worker.stop(0.4)
    stats = worker.stats()
    assert (stats.spooled, stats.buffered, stats.dropped) == (2, 0, {})
    check_balance(worker)
    transport.gate.set()
    later = make_spool(tmp_path)
    assert later.take_over() == 1
    assert sorted(read_all(later)) == [1, 2]


def test_a_request_that_takes_too_long_is_given_up(tmp_path: Path):
    """The transport is told to let go, and what it had is sent anew."""

    class Hanging(Scripted):
        def abort(self) -> None:
            self.gate.set()

    transport = Hanging()
    transport.gate.clear()
    worker = make_worker(tmp_path, transport, request_timeout_s=0.2)
    worker.submit(Fact(1))
    assert worker.flush(20)
    assert set(transport.stored) == {"1"}
    assert worker.stats().acknowledged == 1
    worker.stop(5)


def test_what_the_service_refuses_is_set_aside_with_its_error(tmp_path: Path):
    """The bad event can be looked at, the good ones are stored."""
    transport = Scripted(SendResult("stored", {1: "no such field"}))
    worker = make_worker(tmp_path, transport, flush_interval_s=0.2)
    for number in range(3):
        worker.submit(Fact(number))
    assert not worker.flush(10)
    worker.stop(5)
    assert transport.stored == ["0", "2"]
    (path,) = tmp_path.glob("*.rejected.jsonl")
    (line,) = path.read_text().splitlines()
    kept = msgspec.json.decode(line)
    assert (kept["reason"], kept["error"], kept["event"]["id"]) == ("rejected", "no such field", "1")


def test_an_event_that_breaks_the_transport_takes_no_other_with_it(tmp_path: Path):
    """A batch that cannot be encoded is sent in parts until the bad one is alone."""

    class Encoding(Scripted):
        def send(self, events: Any) -> SendResult:
            if any(e["id"] == "3" for e in events):
                raise TypeError("cannot be encoded")
            return super().send(events)

    transport = Encoding()
    worker = make_worker(tmp_path, transport, flush_interval_s=0.2)
    for number in range(8):
        worker.submit(Fact(number))
    assert not worker.flush(10)
    assert sorted(transport.stored) == ["0", "1", "2", "4", "5", "6", "7"]
    assert worker.stats().dropped == {"internal_error: TypeError": 1}
    check_balance(worker)
    worker.stop(5)


def test_a_spool_that_cannot_be_written_leaves_memory_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The disk is full: what is recorded waits in memory as if there were no spool, and goes on when there is room."""
    real = spool_module.write_all
    room = [False]

    def full(file: int, data: bytes) -> None:
        if room[0]:
            real(file, data)
            return
        real(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module, "write_all", full)
    monkeypatch.setattr(spool_module, "_WAIT_AFTER_ERROR_S", 0.05)
    transport = Switched()
    worker = make_worker(tmp_path, transport, max_records=50)
    taken = sum(worker.submit(Fact(number)) for number in range(200))
    until(lambda: "No space left on device" in caplog.text)
    stats = worker.stats()
    assert (stats.spooled, stats.buffered) == (0, taken)
    assert stats.dropped == {"buffer_full": 200 - taken}
    room[0] = True
    until(lambda: worker.stats().spooled == taken)
    check_balance(worker)
    transport.is_down = False
    assert not worker.flush(20), "some were lost"
    assert len(set(transport.stored)) == taken
    assert worker.stats().acknowledged == taken
    worker.stop(5)


def test_a_disk_with_some_room_takes_some_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What does not fit as a whole is written as far as it fits; the rest waits in memory, and nothing comes twice."""
    real = spool_module.write_all
    room = 3000

    def nearly_full(file: int, data: bytes) -> None:
        if sum(path.stat().st_size for path in segments(tmp_path)) + len(data) > room:
            raise OSError(28, "No space left on device")
        real(file, data)

    monkeypatch.setattr(spool_module, "write_all", nearly_full)
    transport = Switched()
    worker = make_worker(tmp_path, transport, flush_interval_s=60.0)
    for number in range(200):  # all of them in one batch
        worker.submit(Fact(number))
    worker.flush(0.01)
    until(lambda: worker.stats().spooled > 0)
    stats = worker.stats()
    assert (stats.spooled + stats.buffered, stats.dropped) == (200, {})
    assert sum(path.stat().st_size for path in segments(tmp_path)) > 0.9 * room
    transport.is_down = False
    assert worker.flush(20)
    assert sorted(map(int, transport.stored)) == list(range(200))
    check_balance(worker)
    worker.stop(5)


def test_spool_first_is_on_disk_before_the_call_returns(tmp_path: Path):
    """Whatever becomes of the process, the next one has it; in good times it is sent soon, and once."""
    transport = Switched()
    worker = make_worker(tmp_path, transport, spool_first=True)
    for number in range(20):
        assert worker.submit(Fact(number))
        assert worker.stats().spooled == number + 1
        assert sum(map(count_records, segments(tmp_path))) >= number + 1
    check_balance(worker)
    transport.is_down = False
    assert worker.flush(20)
    for number in range(20, 30):
        worker.submit(Fact(number))
    assert worker.flush(20)
    assert transport.stored == [str(number) for number in range(30)]
    assert worker.stats().spooled == 0
    check_balance(worker)
    worker.stop(5)


def test_what_ended_processes_left_is_sent_by_the_next_one(tmp_path: Path):
    """At the next start of any process, beside its own records, and counted apart."""
    first = make_worker(tmp_path, Switched())
    for number in range(5):
        first.submit(Fact(number))
    first.stop(5)
    assert first.stats().spooled == 5
    transport = Scripted()
    second = make_worker(tmp_path, transport)
    second.submit(Fact(9))
    until(lambda: len(transport.stored) == 6)
    assert second.flush(10)
    until(lambda: second.stats().from_others == {"acknowledged": 5})
    assert second.stats().acknowledged == 1
    check_balance(second)
    second.stop(5)
    assert not segments(tmp_path)


def test_counts_hold_at_each_moment_whatever_happens(tmp_path: Path):
    """Failures, refusals and good times in turn, with threads recording: the counts add up, and each record is once."""
    generator = random.Random(5)
    answers = [
        generator.choice(
            [DOWN, SendResult("too_large", {}), SendResult("stored", {}), SendResult("stored", {0: "bad"})]
        )
        for _ in range(60)
    ]
    transport = Scripted(*answers)
    worker = make_worker(tmp_path, transport, max_records=100, batch_bytes=2000)
    for number in range(600):
        worker.submit(Fact(number))
        if number % 20 == 0:
            check_balance(worker)
            time.sleep(0.005)
    with contextlib.suppress(AssertionError):
        until(lambda: worker.flush(5), 30)
    stats = worker.stats()
    check_balance(worker)
    assert stats.buffered == stats.spooled == 0
    assert stats.acknowledged == len(set(transport.stored)) == len(transport.stored)
    worker.stop(5)
