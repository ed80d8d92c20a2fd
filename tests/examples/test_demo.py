"""The demo as users start it: its exit code, what it prints, what it leaves behind, and that it can fail."""

from __future__ import annotations

import copy
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import xray
from tests.service import start_service

CONCLUSION = (
    "Stage 'keyword_gen' of version 2026.11 came up with the keyword 'phone case' ('aluminium' and 'stand' are typical "
    "of phone accessories), which version 2026.10 does not for the same request."
)


def processes_with(text: str) -> list[str]:
    """The command lines of the running processes that hold this text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if text in command:
            found.append(command)
    return found


def assert_nothing_left(folder: Path, url: str) -> None:
    """No service listens, no process works in the demo's folder, and the folder is empty."""
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/health", timeout=5)
    assert processes_with(str(folder)) == []
    assert list(folder.iterdir()) == []


def test_demo_prints_the_cause_and_leaves_nothing(run_python, tmp_path: Path) -> None:
    """It exits 0, shows both questions with their answers, and cleans up after itself."""
    done = run_python("-m", "xray.cli", "demo", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert '"$failRatio": {"$gt": 0.9}' in done.stdout
    for part in ("flight_rebooking", "film_recommendation", "other_destination", "not_rated_family", "phone-case-15"):
        assert part in done.stdout
    assert CONCLUSION in " ".join(done.stdout.split())
    assert_nothing_left(tmp_path, re.findall(r"http://127\.0\.0\.1:\d+", done.stdout)[0])


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_demo_leaves_nothing(
    number: signal.Signals, exit_code: int, environment: dict[str, str], tmp_path: Path
) -> None:
    """Ctrl-C and a polite kill stop the service too, though only the demo is told."""
    command = [sys.executable, "-m", "xray.cli", "demo"]
    variables = {**environment, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        url = next(found[0] for line in demo.stdout if (found := re.findall(r"http://127\.0\.0\.1:\d+", line)))
        assert processes_with(str(tmp_path))
        os.kill(demo.pid, number)
        assert demo.wait(timeout=30) == exit_code
        assert demo.stderr is not None
        assert "Traceback" not in demo.stderr.read()
    assert_nothing_left(tmp_path, url)


def test_keep_leaves_the_data(run_python, tmp_path: Path) -> None:
    """With --keep the store's file stays, with three weeks to look at, and the command to look at it is printed."""
    done = run_python("-m", "xray.cli", "demo", "--keep", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = tmp_path.glob("*/xray.db")
    assert f"xray serve --store sqlite:///{kept} --open" in done.stdout
    with start_service(tmp_path, store=f"sqlite:///{kept}") as service, service.client() as client:
        trends = client.trends("review_moderation", since="30d", bucket="1d", name="policies").rows
    assert len(trends) >= 21
    assert trends[-2]["fail_ratio"] > 1.5 * trends[1]["fail_ratio"]
    assert processes_with(str(tmp_path)) == []


def test_results_as_json(demo_results: dict[str, Any]) -> None:
    """The results tell the same as the pages, step by step."""
    walkthrough = demo_results["walkthrough"]
    assert walkthrough["conclusion"].startswith(CONCLUSION)
    assert walkthrough["candidate_id"] == "phone-case-15"
    assert walkthrough["first_stage"] == "catalogue_search"
    assert walkthrough["generated_by"] == "keyword_gen"
    assert len(walkthrough["steps"]) == 5
    assert demo_results["seconds"] > 0


def test_demo_fails_where_there_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd) -> None:
    """Where the answers do not show the fault, the demo says so and exits 1."""
    from xray_examples import competitors, demo

    healthy = ("competitor_discovery", partial(competitors.run_all, fault=False))
    monkeypatch.setattr(demo, "PIPELINES", (healthy,))
    assert demo.run_demo(Console(), data_dir=tmp_path) == 1
    assert "Expected one run that matched a laptop stand with a phone case" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_demo_fails_where_the_service_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd) -> None:
    """A service that ends at once is an error with the end of its log, not a wait."""
    from xray_examples import demo, service

    monkeypatch.setattr(service.sys, "executable", "/bin/false")
    assert demo.run_demo(Console(), data_dir=tmp_path) == 1
    assert "ended at once" in capfd.readouterr().err


def test_demo_fails_where_the_port_is_taken(tmp_path: Path, capfd) -> None:
    """Whatever listens at the port already is not taken for the demo's own service."""
    from xray_examples import demo

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert demo.run_demo(Console(), port=taken.getsockname()[1], data_dir=tmp_path) == 1
    assert "is taken" in capfd.readouterr().err


# --- the walkthrough draws its conclusion from the answers --------------------------------------------------------

Answers = list[tuple[dict[str, Any], list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def recorded_answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Every question of the walkthrough with the service's answer to it."""
    from xray_examples import competitors
    from xray_examples.service import ask, running_service
    from xray_examples.walkthrough import Walkthrough

    answers: Answers = []
    with running_service(tmp_path_factory.mktemp("service")) as client:
        xray.configure(server_url=client.server_url)
        for fault in (False, True):
            competitors.run_all(fault=fault)
        assert xray.flush(timeout_s=30)

        def record(question: dict[str, Any]) -> list[dict[str, Any]]:
            answers.append((question, ask(client, question)))
            return copy.deepcopy(answers[-1][1])

        Walkthrough(record, lambda _: None).run(sold="laptop stand", matched="phone case")
    return answers


def replay(answers: Answers) -> dict[str, Any]:
    """The walkthrough over these answers, given in their order."""
    from xray_examples.walkthrough import Walkthrough

    rows = iter(copy.deepcopy([rows for _, rows in answers]))
    return Walkthrough(lambda _: next(rows), lambda _: None).run(sold="laptop stand", matched="phone case")


def test_replayed_answers_give_the_conclusion(recorded_answers: Answers) -> None:
    """The conclusion follows from the answers alone."""
    assert replay(recorded_answers)["conclusion"].startswith(CONCLUSION)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 5, 6, 7])
def test_an_empty_answer_ends_the_walkthrough(recorded_answers: Answers, place: int) -> None:
    """No step survives an answer without rows (but for which phone cases were rejected, where none is an answer)."""
    from xray_examples.walkthrough import NotSupportedError

    assert len(recorded_answers) == 8
    changed = [(question, [] if i == place else rows) for i, (question, rows) in enumerate(recorded_answers)]
    with pytest.raises(NotSupportedError):
        replay(changed)


def test_other_answers_end_the_walkthrough(recorded_answers: Answers) -> None:
    """A filter that rejected it, a label about categories, a keyword that is not new: each refutes the conclusion."""
    from xray_examples.walkthrough import NotSupportedError

    judged, rejected, elsewhere = 3, 4, 7
    for place, change in (
        (judged, lambda rows: rows[0].update(verdict="failed")),
        (rejected, lambda rows: rows[0].update(reason_label="other_category")),
        (elsewhere, lambda rows: rows[0].update(candidate_id="phone case")),
        (0, lambda rows: rows[0].pop("output")),
        (1, lambda rows: [row.pop("facts") for row in rows]),
        (6, lambda rows: rows[0].update(output=None)),
    ):
        changed = copy.deepcopy(recorded_answers)
        change(changed[place][1])
        with pytest.raises(NotSupportedError):
            replay(changed)
