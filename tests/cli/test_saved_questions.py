"""Saved questions from the command line and from the client, against a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import xray
from tests.cli.test_cli import xray_cli
from tests.service import Service, start_service
from xray import q
from xray.exceptions import ServiceError

STRICT = '{"stage": {"name": {"$in": {"$param": "names"}}, "$failRatio": {"$gt": {"$param": "above"}}}}'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        xray.configure(server_url=running.url)
        for name, dropped in (("loose", 10), ("tight", 95)):
            keep = xray.filtering_stage(name, passed="ok", reason_label="why")
            keep(lambda pool, dropped=dropped: [{"id": n, "ok": n >= dropped, "why": "no"} for n in pool])(range(100))
        assert xray.flush(timeout_s=30)
        yield running


def test_a_question_is_saved_listed_shown_run_and_deleted(service: Service) -> None:
    """With parameters of several types, given as text."""
    declared = ("-p", "above:number=0.5", "--param", "names:strings=loose,tight")
    done = xray_cli("questions", "save", "strict", STRICT, *declared, "-d", "Too strict.", service=service)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Saved as 'strict'.\n", "")
    listed = xray_cli("questions", "list", service=service).stdout
    assert listed.splitlines()[1].split("  ")[0] == "strict"
    assert 'above:number=0.5, names:strings=["loose", "tight"]' in listed
    assert "Too strict." in listed
    shown = xray_cli("questions", "show", "strict", service=service).stdout
    assert "Too strict." in shown
    assert json.loads(shown[shown.index("{") :]) == json.loads(STRICT)

    def found(*values: str) -> list[str]:
        done = xray_cli("questions", "run", "strict", *values, "--json", service=service)
        assert done.returncode == 0, done.stderr
        return sorted(row["name"] for row in json.loads(done.stdout)["rows"])

    assert found() == ["tight"]
    assert found("above=0.05") == ["loose", "tight"]
    assert found("above=0.05", "names=loose") == ["loose"]
    assert "tight" in xray_cli("questions", "run", "strict", service=service).stdout
    explained = xray_cli("questions", "run", "strict", "above=0.25", "--explain", service=service).stdout
    assert "$failRatio is above 0.25" in explained
    assert xray_cli("questions", "delete", "strict", service=service).stdout == "Deleted 'strict'.\n"
    assert xray_cli("questions", "list", service=service).stdout == "No saved questions.\n"


def test_figures_are_saved_and_run(service: Service) -> None:
    """With ``--aggregate``; the answer is a table of groups."""
    asked = '{"group_by": ["name"], "values": {"worst": {"$max": {"$param": "metric"}}}}'
    save = ("questions", "save", "worst", "-", "--aggregate", "-p", "metric:string=$failRatio")
    assert xray_cli(*save, service=service, stdin=asked).returncode == 0
    lines = xray_cli("questions", "run", "worst", service=service).stdout.splitlines()
    assert [line.split() for line in lines] == [["name", "worst"], ["loose", "0.1"], ["tight", "0.95"]]
    lines = xray_cli("questions", "run", "worst", "metric=$failed", service=service).stdout.splitlines()
    assert lines[2].split() == ["tight", "95"]
    xray_cli("questions", "delete", "worst", service=service)


def test_query_saves_what_it_asks(service: Service) -> None:
    """With its limit; not how far it had come, nor that it was to be explained."""
    asked = '{"stage": {"name": "tight"}, "sort": {"name": 1}}'
    done = xray_cli("query", asked, "--limit", "3", "--explain", "--save", "by name", service=service)
    assert done.returncode == 0, done.stderr
    assert 'name is "tight"' in done.stdout
    with service.client() as client:
        assert client.question("by name")["question"] == json.loads(asked) | {"limit": 3}
        client.delete_question("by name")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("save", "bad", '{"stage": {"naem": 1}}'), ("at: question.stage.naem", "Did you mean 'name'?")),
        (("save", "bad", STRICT), ("There is no parameter 'names'.",)),
        (("save", "bad", STRICT, "-p", "names"), ("NAME:TYPE",)),
        (("save", "bad", "{"), ("The question is not JSON",)),
        (("run", "good", "abvoe=1"), ("Did you mean 'above'?",)),
        (("run", "good", "above"), ("Write above=VALUE.",)),
        (("run", "good", "above=high"), ("The parameter 'above' is a number.", "at: parameters.above")),
        (("run", "good"), ("The parameter 'above' has to be given",)),
        (("run", "god", "above=1"), ("Did you mean 'good'?",)),
        (("show", "god"), ("Did you mean 'good'?",)),
        (("delete", "god"), ("Did you mean 'good'?",)),
    ],
)
def test_errors_say_what_is_wrong(service: Service, arguments: tuple[str, ...], says: tuple[str, ...]) -> None:
    """And the exit code is 1."""
    with service.client() as client:
        client.save_question(
            "good", q.metric("fail_ratio") > q.param("above"), parameters={"above": {"type": "number"}}
        )
        done = xray_cli("questions", *arguments, service=service)
        assert (done.returncode, done.stdout) == (1, "")
        assert [text for text in says if text not in done.stderr] == []
        assert [row["name"] for row in client.questions()["rows"]] == ["good"]


def test_the_client_pages_through_a_saved_question(service: Service) -> None:
    """Each page goes on with the question as it was asked first, a stretch of time included."""
    asked = q.pipeline(started_at__gte=q.param("since")).candidate().returning("candidates")
    with service.client() as client:
        client.save_question("recent", asked, parameters={"since": {"type": "time", "default": "1h"}})
        found = client.run_question("recent", limit=30)
        assert len(found["rows"]) == 30
        assert len(list(found.all())) == 200
        assert client.run_question("recent", {"since": "2100-01-01"})["rows"] == []
        with pytest.raises(ServiceError) as caught:
            client.run_question("recent", {"sinec": "1h"})
        assert (caught.value.status, caught.value.path) == (422, "parameters.sinec")
        client.delete_question("recent")
        with pytest.raises(ServiceError, match="no saved question"):
            client.delete_question("recent")


def test_figures_of_a_saved_question_are_rows_too(service: Service) -> None:
    """All of them, once."""
    asked = {"group_by": ["name"], "values": {"worst": {"$max": "$failRatio"}}}
    with service.client() as client:
        client.save_question("worst", aggregate=asked)
        found = client.run_question("worst")
        assert [row["values"] for row in found.all()] == [{"worst": 0.1}, {"worst": 0.95}]
        client.delete_question("worst")


def test_a_file_may_hold_the_question(service: Service, tmp_path: Path) -> None:
    """As for ``xray query``."""
    (tmp_path / "asked.json").write_text('{"stage": {"name": "loose"}}')
    saved = xray_cli("questions", "save", "loose", "--file", str(tmp_path / "asked.json"), "--json", service=service)
    assert json.loads(saved.stdout)["question"] == {"stage": {"name": "loose"}}
    xray_cli("questions", "delete", "loose", service=service)
