"""The command line against a real service: what it prints, its JSON, its errors and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xray
from tests.service import Service, start_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        xray.configure(server_url=running.url)

        @xray.pipeline("shop", id="request", version="7")
        def shop(request: str, broken: bool = False) -> None:
            search("shoes")
            judge([{"id": n} for n in range(40)])
            if broken:
                raise ValueError("[red]no markup[/red] \x1b[31m")

        @xray.retrieval_stage("search")
        def search(words: str) -> list[int]:
            return [1, 2]

        @xray.filtering_stage("judge", passed="ok", reason_label="why")
        def judge(pool: list[dict[str, int]]) -> list[dict[str, object]]:
            return [{**c, "ok": c["id"] < 2, "why": "too_big" if c["id"] % 2 else "too_even"} for c in pool]

        shop("first")
        with pytest.raises(ValueError, match="no markup"):
            shop("second", broken=True)
        assert xray.flush(timeout_s=30)
        yield running


def xray_cli(*arguments: str, service: Service | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    url = service.url if service else "http://127.0.0.1:9"
    return subprocess.run(
        [sys.executable, "-m", "xray.cli", *arguments],
        env={**os.environ, "XRAY_SERVER_URL": url, "COLUMNS": "200", "NO_COLOR": "1"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_runs_lists_the_newest_first(service: Service):
    """A row a run, with status and key; filters narrow it."""
    done = xray_cli("runs", service=service)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert "second" in lines[1]
    assert "failure" in lines[1]
    assert "first" in lines[2]
    assert xray_cli("runs", "--status", "success", service=service).stdout.count("shop") == 1
    assert xray_cli("runs", "--pipeline", "nothing", service=service).stdout == "No runs.\n"


def test_runs_goes_on_at_a_cursor(service: Service):
    """The cursor that is printed leads to the next page."""
    first = json.loads(xray_cli("runs", "-n", "1", "--json", service=service).stdout)
    second = json.loads(xray_cli("runs", "-n", "1", "--cursor", first["cursor"], "--json", service=service).stdout)
    assert [first["rows"][0]["key"], second["rows"][0]["key"]] == ["second", "first"]
    assert f"--cursor {first['cursor']}" in xray_cli("runs", "-n", "1", service=service).stdout


def test_show_prints_a_tree_of_stages(service: Service):
    """Counts, fail ratio, labels and durations, by key, id or 'latest'."""
    done = xray_cli("show", "first", service=service)
    assert done.returncode == 0
    assert "search  retrieval  → 2" in done.stdout
    assert "judge  filtering  40 → 2  fail 95.0%  too_big 19, too_even 19" in done.stdout
    run = json.loads(xray_cli("show", "first", "--json", service=service).stdout)
    assert [stage["name"] for stage in run["stages"]] == ["search", "judge"]
    assert xray_cli("show", run["id"], service=service).stdout == done.stdout


def test_what_users_record_is_printed_inert(service: Service):
    """Markup and escape sequences in an exception's text stay text."""
    shown = xray_cli("show", "latest", service=service).stdout
    assert "ValueError: [red]no markup[/red] �[31m" in shown
    assert "\x1b" not in shown


def test_query_prints_a_table_and_json(service: Service):
    """From an argument, from standard input and from a file."""
    question = '{"stage": {"$failRatio": {"$gt": 0.9}}, "pipeline": {"key": "first"}}'
    table = xray_cli("query", question, service=service).stdout
    assert "95.0%" in table
    assert "too_big 19, too_even 19" in table
    answer = json.loads(xray_cli("query", "-", "--json", service=service, stdin=question).stdout)
    assert [row["name"] for row in answer["rows"]] == ["judge"]
    candidates = xray_cli(
        "query", '{"candidate": {"reason_label": "too_big"}, "return": "candidates", "limit": 3}', service=service
    )
    assert candidates.stdout.count("too_big") == 3
    assert xray_cli("query", '{"stage": {"name": "none"}}', service=service).stdout.startswith("Nothing found.")
    assert (
        "second" in xray_cli("query", '{"pipeline": {"status": "failure"}, "return": "runs"}', service=service).stdout
    )


def test_query_explains(service: Service):
    """--explain says in English how the question is read, and does not ask it."""
    said = xray_cli("query", '{"stage": {"type": "filtering"}}', "--explain", service=service).stdout
    assert 'Stages whose type is "filtering", the latest first' in said
    assert "Index:" in said
    answer = json.loads(xray_cli("query", "{}", "--explain", "--json", service=service).stdout)
    assert answer["explanation"]["question"].startswith("Stages, the latest first")
    assert answer["rows"] == []


def test_aggregate_prints_a_table_and_json(service: Service):
    """A row a group; numbers as they are; nothing found is said."""
    asked = (
        '{"group_by": ["name"], "values": {"n": {"$count": {}}, "worst": {"$max": "$failRatio"}}, "sort": {"name": 1}}'
    )
    lines = [line.split() for line in xray_cli("aggregate", asked, service=service).stdout.splitlines()]
    assert lines == [["name", "n", "worst"], ["judge", "2", "0.95"], ["search", "2"]]
    answer = json.loads(xray_cli("aggregate", "-", "--json", service=service, stdin=asked).stdout)
    assert answer["rows"][0] == {"group": {"name": "judge"}, "values": {"n": 2, "worst": 0.95}}
    daily = xray_cli("aggregate", '{"bucket": "day"}', service=service).stdout
    assert daily.split()[:2] == ["time", "count"]
    nothing = xray_cli("aggregate", '{"stage": {"name": "none"}, "bucket": "day"}', service=service)
    assert nothing.stdout.startswith("Nothing found.")
    wrong = xray_cli("aggregate", '{"group_by": ["nmae"]}', service=service)
    assert wrong.returncode == 1
    assert "Did you mean 'name'?" in wrong.stderr


def test_query_reads_a_file(service: Service, tmp_path: Path):
    """--file; a file that is not there is a clear error."""
    file = tmp_path / "question.json"
    file.write_text('{"stage": {"name": "judge"}}')
    assert "judge" in xray_cli("query", "--file", str(file), service=service).stdout
    missing = xray_cli("query", "--file", str(tmp_path / "no.json"), service=service)
    assert missing.returncode == 1
    assert "no.json cannot be read" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["query", '{"stage": {"$failRatoi": 1}}'], 1,
         ["There is no metric 'failRatoi'", "stage.$failRatoi", "Did you mean '$failRatio'?"]),
        (["query", '{"stage": {"nmae": 1}}'], 1, ["no field 'nmae'", "Did you mean 'name'?"]),
        (["query", '{"stage": \n {"a": }}'], 1, ["not JSON", "line 2, column 8", "^"]),
        (["query", ""], 1, ["not JSON", "line 1, column 1"]),
        (["query", "[1]"], 1, ["A question is a JSON object"]),
        (["query"], 1, ["Give one question"]),
        (["show", "nothing-like-it"], 1, ["no run has the id or key 'nothing-like-it'"]),
        (["show", "01a1fc11-19a7-778f-982d-9cdecc158d75"], 1, ["01a1fc11-19a7-778f-982d-9cdecc158d75"]),
        (["runs", "--cursor", "bent"], 1, ["cursor"]),
        (["runs", "--status", "sucess"], 1, ["Did you mean 'success'?"]),
        (["runs", "--limit", "0"], 2, ["--limit"]),
        (["runs", "--server", "localhost"], 1, ["http://"]),
        (["rnus"], 2, ["No such command 'rnus'"]),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_nearest_right_thing(
    service: Service, arguments: list[str], code: int, said: list[str]
):
    """Nothing on standard output, the message on standard error, no traceback."""
    done = xray_cli(*arguments, service=service)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr


def test_a_server_that_is_not_there(service: Service):
    """What to do is said; with --json the error is JSON of the API's shape."""
    done = xray_cli("runs")
    assert done.returncode == 1
    assert "No X-Ray service answers at http://127.0.0.1:9" in done.stderr
    assert "xray serve" in done.stderr
    error = json.loads(xray_cli("runs", "--json").stderr)["error"]
    assert error["code"] == "service_unreachable"
    assert set(error) == {"code", "message", "path", "hint"}


def test_serve_says_where_it_listens_and_where_data_lies(tmp_path: Path):
    """And ends cleanly when it is told to."""
    with start_service(tmp_path, "--keep-candidates", "30d", XRAY_SERVER_MAX_DISK="auto") as running:
        assert running.announcement.startswith("X-Ray listens on http://127.0.0.1:")
        second = running.process.stdout.readline()
        assert f"Data lies in {tmp_path}/xray.sqlite3" in second
        third = running.process.stdout.readline()
        assert re.fullmatch(r"Keeps candidates 30d, runs for ever, at most [\d.]+ [GT]B on disk\n", third)
        assert running.client().health()["status"] == "ok"
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) in (0, -signal.SIGTERM)
        assert running.process.stdout.read() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--store", "postgres://x"], ["postgres", "sqlite:///"]),
        (["--store", "sqlite:////proc/no/such/folder/x.sqlite3"], ["/proc/no/such/folder"]),
        (["--keep-candidates", "30 days"], ["XRAY_SERVER_KEEP_CANDIDATES", "Did you mean '30d'?"]),
        (["--max-disk", "20gb"], ["XRAY_SERVER_MAX_DISK", "Did you mean '20GB'?"]),
    ],
)
def test_serve_refuses_a_setting_that_cannot_be(arguments: list[str], said: list[str]):
    """A wrong store, age or size is an error of one line, not a traceback."""
    done = xray_cli("serve", "--port", "0", *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    for words in said:
        assert words in done.stderr


def test_serve_refuses_a_taken_port(service: Service):
    """The address is named, and what to do."""
    done = xray_cli("serve", "--port", service.url.rpartition(":")[2])
    assert done.returncode == 1
    assert "Cannot listen on 127.0.0.1:" in done.stderr
    assert "--port" in done.stderr


def test_help_and_version():
    """Every command explains itself."""
    for command in (
        "serve",
        "runs",
        "show",
        "query",
        "aggregate",
        "demo",
        "version",
        "gc",
        "store",
        "export",
        "import",
    ):
        done = xray_cli(command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout
    assert xray_cli("version").stdout.count(".") == 2
