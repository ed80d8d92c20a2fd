"""What notebooks show: complete, escaped, and still plain dicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.service import Service, start_service
from xray.hand_built import Run, Stage
from xray.html import MAX_ROWS, Answer, RunView, StageView, answer, run_view, table
from xray.recorded import RecordedRun

HOSTILE = "<script>alert(1)</script>\"'&</td><img src=x onerror=alert(1)>\x1b[31m\x00"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        yield running


class Read(HTMLParser):
    """Reads HTML strictly: which elements, which attributes, what text; elements have to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_run() -> Run:
    """A run in which every text that a user may choose is hostile."""
    run = Run(
        HOSTILE, key=HOSTILE, version=HOSTILE, environment=HOSTILE, metadata={HOSTILE: HOSTILE}, tags=[HOSTILE],
        error={"type": HOSTILE, "message": HOSTILE, "stage": HOSTILE}, duration_ms=3,
    )  # fmt: skip
    stage = run.stage(HOSTILE, "filtering", reasoning=HOSTILE, error=HOSTILE, input={HOSTILE: HOSTILE}, duration_ms=2)
    stage.candidate(HOSTILE, verdict="failed", reason_label=HOSTILE, reason_text=HOSTILE, data={HOSTILE: HOSTILE})
    stage.stage(HOSTILE, HOSTILE, metrics={"own": HOSTILE})
    return run


def shown_by(service: Service) -> dict[str, str]:
    """Name → the HTML of everything that a notebook can show of the hostile run."""
    run = hostile_run()
    with service.client() as client:
        client.send(run)
        found = client.run(run.id)
        answers: dict[str, Any] = {
            "run": found,
            "stage of a run": found["stages"][0],
            "stage": client.stage(found["stages"][0]["id"]),
            "runs": client.runs(key=run.events()[0]["run"]["key"]),
            "stages": client.stages(run_id=run.id),
            "candidates": client.candidates(found["stages"][0]["id"]),
            "query for runs": client.query({"pipeline": {"id": run.id}, "return": "runs"}),
            "query for stages": client.query({"pipeline": {"id": run.id}}),
            "query for candidates": client.query({"pipeline": {"id": run.id}, "candidate": {}, "return": "candidates"}),
            "built run": run,
            "built stage": run.stages[0],
            "recorded run": RecordedRun(run.events()),
            "recorded stage": RecordedRun(run.events()).stages[0],
        }
    assert all(shown.get("rows", True) for shown in answers.values() if isinstance(shown, dict))
    return {name: shown._repr_html_() for name, shown in answers.items()}


def test_nothing_recorded_becomes_markup(service: Service):
    """No element and no attribute of the user's, in any view; the text itself is there, inert."""
    for name, shown in shown_by(service).items():
        read = Read(shown)
        assert read.elements <= {"div", "span", "b", "p", "table", "thead", "tbody", "tr", "th", "td"}, name
        assert read.attributes <= {"style"}, name
        assert "<script>alert(1)</script>\"'&</td>" in read.text, name
        assert "\x1b" not in shown, name
        assert "\0" not in shown, name


def test_a_run_is_a_funnel():
    """Stages indented below their parents, counts, labels, and bars as long as the stage is large."""
    run = Run("shop", duration_ms=1500)
    run.stage("judge", "filtering", duration_ms=0.5).candidates(
        passed=["a"], failed=[("b", "dear"), ("c", "dear"), "d"]
    ).stage("inner")
    run.stage("rank", "filtering").candidates(passed=["a"])
    shown = run._repr_html_()
    text = Read(shown).text
    assert "4 → 1 · fail 75.0% · dear 2" in text
    assert "1.50 s" in text
    assert "500 µs" in text
    assert "padding-left:1.2em" in shown
    assert shown.count("width:100.0%") == 1
    assert shown.count("width:25.0%") == 3


def test_what_is_long_is_cut_and_says_so():
    """Rows beyond the first and long texts."""
    read = Read(table([{"candidate_id": str(n), "text": "x" * 1000} for n in range(MAX_ROWS + 7)]))
    assert "7 more" in read.text
    assert "x… (1,000 characters)" in read.text
    run = Run("r")
    for _ in range(MAX_ROWS + 1):
        run.stage("s")
    assert "1 more" in Read(run._repr_html_()).text


def test_an_answer_says_what_it_covers():
    """How many there are, whether there are more, and what is missing."""
    found = answer(
        {
            "rows": [{"id": "r", "label": "shop", "duration_ms": 2.0}],
            "cursor": "x",
            "coverage": {"matched": 1234, "without_all_candidates": 3},
        },
        "runs",
    )
    text = Read(found._repr_html_()).text
    assert "1,234 found; 3 stages do not hold all their candidates; the cursor leads to more" in text
    assert "shop" in text
    assert "Nothing found" in Answer(rows=[])._repr_html_()
    assert "No stages" in Run("r")._repr_html_()
    assert Read(RunView()._repr_html_()).text.strip() == "run"
    assert Read(StageView(metrics={"input_count": "many", "score": 3})._repr_html_()).text


def test_answers_are_plain_dicts(service: Service):
    """Equal to dicts, printed as dicts, and JSON; what they hold is what the service said."""
    run = Run("plain")
    run.stage("s", "filtering").candidates(passed=["a"])
    with service.client() as client:
        client.send(run)
        found = client.run(run.id)
        listed = client.runs(label="plain")
        plain = client.get(f"/v1/runs/{run.id}")
    assert isinstance(found, RunView)
    assert isinstance(found["stages"][0], StageView)
    assert isinstance(listed, Answer)
    assert isinstance(listed["rows"][0], RunView)
    assert found == plain
    assert repr(found) == repr(plain)
    assert json.loads(json.dumps(found)) == plain
    assert run_view(plain) == plain


def test_a_stage_shows_its_candidates():
    """Where it has them at hand, those that say why before the others."""
    stage = Stage("judge", "filtering", reasoning="so it is").candidate(
        "a", data={"n": 1}, verdict="failed", reason_label="dear"
    )
    text = Read(stage._repr_html_()).text
    assert "so it is" in text
    assert text.index("candidate_id") < text.index("verdict") < text.index("reason_label") < text.index("data")
    assert '{"n": 1}' in text
