"""Delivery over a process's life: exits, signals, forks and pools; every event arrives exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.network import Sink, sink
from tests.ports import free_port

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
NOWHERE = "http://127.0.0.1:9"

PROGRAM = """
import os, signal, sys, threading, time
import xray

@xray.filtering_stage("life")
def keep(pool):
    return pool
"""


@pytest.fixture
def service():
    with sink() as made:
        yield made


def environment(folder: Path, url: str, **variables: str) -> dict[str, str]:
    # A busy machine may take seconds to start twenty interpreters: what is asked here is not how long it takes.
    patient = {"XRAY_SHUTDOWN_TIMEOUT_S": "40"}
    return {
        **os.environ, **patient, "XRAY_SERVER_URL": url, "XRAY_SPOOL_DIR": str(folder / "spool"), **variables,
    }  # fmt: skip


def run(body: str, folder: Path, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + body], capture_output=True, text=True, timeout=60, check=False,
        env=environment(folder, url, **variables),
    )  # fmt: skip


def arrived(service: Sink) -> list[str]:
    """The one candidate of each stage, sorted; each event came once, and each stage with its run."""
    kinds = Counter(event["type"] for event in service.events)
    assert kinds["run.start"] == kinds["run.end"] == kinds["stage"]
    assert len(service.events) == len({(event["type"], event["id"]) for event in service.events})
    return sorted(ids[0] for ids in service.stages())


UNTIL_THE_SPOOL_IS_EMPTY = """
deadline = time.monotonic() + 30
while (list(__import__("pathlib").Path(os.environ["XRAY_SPOOL_DIR"]).glob("*.seg"))) and time.monotonic() < deadline:
    time.sleep(0.01)
assert xray.flush(20)
"""


def spooled_then_sent(folder: Path, service: Sink) -> list[str]:
    """What a program left is sent by the next one that records anything."""
    body = 'keep(["next"])' + UNTIL_THE_SPOOL_IS_EMPTY
    done = run(body, folder, service.url)
    assert (done.returncode, done.stderr) == (0, "")
    return [name for name in arrived(service) if name != "next"]


# --- ends ---------------------------------------------------------------------------------------------------------

ENDS = {
    "return": ("keep(['a'])", 0),
    "sys.exit": ("keep(['a']); sys.exit(3)", 3),
    "an exception": ("keep(['a']); 1 / 0", 1),
    "SIGTERM": ("keep(['a']); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
    "SIGINT": ("keep(['a']); os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", 1),
    "a thread alive": (
        "threading.Thread(target=lambda: (time.sleep(0.3), keep(['a']))).start()", 0,
    ),
    "a daemon thread alive": (
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); keep(['a'])", 0,
    ),
    "exec": ("import atexit; keep(['a']); xray.flush(10); os.execv(sys.executable, [sys.executable, '-c', ''])", 0),
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of another kind there")
@pytest.mark.parametrize("how", ENDS)
def test_however_a_program_ends_what_it_recorded_arrives(tmp_path: Path, service: Sink, how: str):
    """And it ends as it would have, with the same exit code."""
    body, code = ENDS[how]
    done = run(body, tmp_path, service.url)
    assert done.returncode == code, done.stderr
    assert arrived(service) == ["a"]
    assert not list((tmp_path / "spool").glob("*.seg"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of another kind there")
@pytest.mark.parametrize("how", [how for how in ENDS if how != "exec"])
def test_however_a_program_ends_while_nothing_listens_the_next_one_sends_it(tmp_path: Path, service: Sink, how: str):
    """An exit without a service takes no five seconds, and loses nothing."""
    body, code = ENDS[how]
    # It is the same service that comes back, at the same address.
    url, service.answers = service.url, iter([(503, {})] * 1000)
    done = run(body, tmp_path, url)
    assert done.returncode == code, done.stderr
    assert list((tmp_path / "spool").glob("*.seg"))
    service.answers = iter(())
    assert spooled_then_sent(tmp_path, service) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of another kind there")
@pytest.mark.parametrize("end", ["os._exit(5)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_spool_first_survives_what_nothing_else_does(tmp_path: Path, service: Sink, end: str):
    """os._exit and kill -9 at any moment: what was recorded before is there."""
    body = f"for n in range(50): keep([f'{{n:02}}'])\n{end}"
    service.answers = iter([(503, {})] * 1000)
    done = run(body, tmp_path, service.url, XRAY_DURABILITY="spool-first")
    assert done.returncode in (5, -signal.SIGKILL), done.stderr
    service.answers = iter(())
    assert spooled_then_sent(tmp_path, service) == [f"{n:02}" for n in range(50)]


def test_nothing_unredacted_reaches_the_disk(tmp_path: Path):
    """Neither from the worker nor from the caller's thread; looked for in the bytes of every file."""
    body = "keep([{'id': 'a', 'password': 'hunter2-in-the-clear'}])"
    for durability in ("memory", "spool-first"):
        folder = tmp_path / durability
        done = run(body, folder, NOWHERE, XRAY_DURABILITY=durability, XRAY_REDACT="password")
        assert done.returncode == 0, done.stderr
        files = [path for path in (folder / "spool").iterdir() if path.suffix == ".seg"]
        assert files
        for path in files:
            assert b"password" in path.read_bytes(), "what is looked for would not be found: it is compressed"
            assert b"hunter2" not in path.read_bytes()


def test_a_sigterm_handler_of_the_programs_own_stays_in_force(tmp_path: Path, service: Sink):
    """X-Ray takes the signal only where nobody does."""
    body = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
keep(["a"])
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
"""
    assert run(body, tmp_path, service.url).returncode == 7
    assert arrived(service) == ["a"]


# --- more than one process ------------------------------------------------------------------------------------------

POOL = """
import multiprocessing, os, sys
import xray

@xray.filtering_stage("life")
def keep(pool):
    return pool

def work(number):
    keep([f"{number:03}"])
    return os.getpid()

def start():
    keep(["started"])

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    how = sys.argv[2]
    if how != "first in the child":
        keep(["before"])
    if how == "processes":
        for few in range(0, 20, 5):
            children = [context.Process(target=work, args=(n,)) for n in range(few, few + 5)]
            for child in children:
                child.start()
            for child in children:
                child.join()
    else:
        # Leaving the block ends the workers with SIGTERM.
        with context.Pool(3) as pool:
            pool.map(work, range(20), chunksize=1)
            if how == "closed":
                pool.close()
                pool.join()
    keep(["~after"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.parametrize(
    ("method", "how"),
    [("fork", "processes")]  # by the others, twenty interpreters would have to start
    + [
        (method, how)
        for method in ("fork", "spawn", "forkserver")
        for how in ("closed", "terminated", "first in the child")
    ],
)
def test_a_pool_of_processes_sends_everything_once(tmp_path: Path, service: Sink, method: str, how: str):
    """As a task queue's prefork pool does it: workers that are forked, spawned, joined or terminated."""
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    done = subprocess.run(
        [sys.executable, str(script), method, how], capture_output=True, text=True, timeout=60, check=False,
        env=environment(tmp_path, service.url, PYTHONPATH=str(Path.cwd())),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    before = [] if how == "first in the child" else ["before"]
    assert arrived(service) == sorted([*(f"{n:03}" for n in range(20)), *before, "~after"])
    assert not list((tmp_path / "spool").glob("*.seg"))


APP = """
import os
import xray

@xray.filtering_stage("life")
def keep(pool):
    return pool

keep(["preload"])

def app(environ, start_response):
    keep([environ["PATH_INFO"]])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@needs_fork
def test_gunicorn_with_preload_and_four_workers_sends_everything_once(tmp_path: Path, service: Sink):
    """The application records before the fork and in each worker; the workers end with the server."""
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "4", "-b", f"127.0.0.1:{port}", "app:app"]
    server = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(tmp_path, service.url, PYTHONPATH=str(Path.cwd())),
    )  # fmt: skip
    workers = set()
    try:
        deadline = time.monotonic() + 60
        number = 0
        while number < 200:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number:03}", timeout=60) as answer:
                    workers.add(answer.read())
                number += 1
            except OSError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.05)
    finally:
        server.terminate()
        assert server.wait(60) == 0
    assert len(workers) > 1
    assert arrived(service) == sorted([*(f"/{n:03}" for n in range(200)), "preload"])


CELERY = """
import os
from celery import Celery
import xray

@xray.filtering_stage("life")
def keep(pool):
    return pool

folder = os.environ["QUEUE"]
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder + "_"},
    worker_prefetch_multiplier=1, task_ignore_result=True,
)

@app.task
def work(number):
    keep([f"{number:03}"])
    return os.getpid()

if os.environ.get("RECORDS_FIRST"):
    keep(["before"])
"""


@needs_fork
@pytest.mark.parametrize("before_the_fork", [True, False])
def test_celery_with_four_forked_workers_sends_everything_once(tmp_path: Path, service: Sink, before_the_fork: bool):
    """A real prefork pool on a broker in a folder, told to end while records still wait for company."""
    (tmp_path / "tasks.py").write_text(CELERY)
    (tmp_path / "queue").mkdir()
    # Nothing is sent for its age: what arrives does so because the pool ends.
    settings = {"QUEUE": str(tmp_path / "queue"), "PYTHONPATH": str(tmp_path), "XRAY_FLUSH_INTERVAL_S": "3600"}
    variables = environment(tmp_path, service.url, **settings)
    subprocess.run(
        [sys.executable, "-c", "import tasks\nfor number in range(40): tasks.work.delay(number)"],
        cwd=tmp_path, env=variables, check=True, timeout=60,
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=4",
         "--without-gossip", "--without-mingle", "--without-heartbeat"],
        cwd=tmp_path, env=variables | ({"RECORDS_FIRST": "1"} if before_the_fork else {}),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        deadline = time.monotonic() + 60
        while any((tmp_path / "queue").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        worker.terminate()  # a warm shutdown: tasks under way are finished
        _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said
    assert "X-Ray:" not in said
    assert arrived(service) == sorted([*(f"{number:03}" for number in range(40)), *["before"] * before_the_fork])


def test_two_programs_at_once_send_what_a_third_left_only_once(tmp_path: Path, service: Sink):
    """Whoever takes the lock sends it."""
    service.answers = iter([(503, {})] * 1000)
    assert run("for n in range(300): keep([f'{n:03}'])", tmp_path, service.url).returncode == 0
    service.answers = iter(())
    body = "keep(['~next'])" + UNTIL_THE_SPOOL_IS_EMPTY
    programs: list[Any] = [
        subprocess.Popen([sys.executable, "-c", PROGRAM + body], env=environment(tmp_path, service.url))
        for _ in range(2)
    ]
    for process in programs:
        assert process.wait(60) == 0
    assert arrived(service) == [*(f"{n:03}" for n in range(300)), "~next", "~next"]
    assert not list((tmp_path / "spool").glob("*.seg"))
