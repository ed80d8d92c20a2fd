"""The commands of insight against a real service: what they print, their JSON, their errors."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

import xray
from tests.cli.test_cli import xray_cli
from tests.service import Service, start_service
from xray.exceptions import XRayError
from xray.insight import Insight


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        xray.configure(server_url=running.url)
        for version, limit in (("1", 3), ("2", 2)):
            for number in range(4):
                record(f"v{version}-{number}", version, limit)
        assert xray.flush(timeout_s=30)
        yield running


def record(key: str, version: str, limit: int) -> None:
    with xray.run("shop", key=key, version=version, input={"limit": limit}) as run:
        pool = [{"id": f"[b]{n}", "n": n} for n in range(6)]
        with run.stage("judge", "filtering", passed="ok", reason_label="why") as stage:
            stage.candidates(pool)
            kept = [{**each, "ok": True, "why": None} for each in pool[:limit]]
            stage.result([*kept, *({**each, "ok": False, "why": "too_big"} for each in pool[limit:])])
        with run.stage("score", "scoring", score="score") as stage:
            stage.candidates(pool[:limit])
            stage.result([{**each, "score": 1 - each["n"] / 10} for each in pool[:limit]])


def test_each_command_answers_for_people_and_as_json(service: Service):
    """Exit code 0, the point of the answer in the first line, markup kept inert; and the service's answer as JSON."""
    for arguments, expected, key in (
        (("why", "v2-0", "[b]2"), "[b]2 was lost at judge (too_big)", "steps"),
        (("lost", "[b]5", "--since", "1d"), "[b]5 was lost 8 times in 8 sightings", "rows"),
        (("funnel", "v2-0"), "Every candidate is accounted for", "stages"),
        (("diff", "v1-0", "v2-0"), "The runs part at judge", "flips"),
        (("compare", "--by", "version", "-p", "shop"), "metrics and labels moved, over 4 and 4 runs", "metrics"),
        (("whatif", "score", "--threshold", "0.95", "--run", "v2-0"), "1 would pass at 0.95", "threshold"),
        (("whatif", "judge", "--run", "v2-0"), "without too_big, 4 more survive", "labels"),
        (("analyze", "v2-0"), "Only 7 other runs to compare with; it takes 8.", "suspects"),
        (("analyze", "v2-0", "--store"), "Stored. The model: not set up.", "stored"),
    ):
        done = xray_cli(*arguments, service=service)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert expected in done.stdout, arguments
        assert key in json.loads(xray_cli(*arguments, "--json", service=service).stdout)
    flips = xray_cli("diff", "v1-0", "v2-0", service=service).stdout
    assert "judge: [b]2 passed → failed (too_big)" in flips
    assert "input limit: 3 → 2" in flips
    over_time = xray_cli("funnel", "--pipeline", "shop", service=service).stdout
    assert "too_big 28" in over_time


def test_wrong_use_is_said(service: Service):
    """A clear message and exit code 1; with --json as JSON."""
    for arguments, expected in (
        (("why", "nobody", "x"), "no run has the id or key 'nobody'"),
        (("compare",), "Give --by, or both --a and --b."),
        (("compare", "--a", "{", "--b", "{}"), "--a is not JSON"),
        (("compare", "--a", "{}", "--b", "[]"), "--b is a JSON object"),
        (("compare", "--by", "colour"), "'by' is one of"),
        (("funnel", "latest", "-p", "shop"), "Give a run or --pipeline, not both."),
        (("funnel", "-p", "shop", "--bucket", "soon"), "no stretch of time"),
        (("whatif", "nothing", "--run", "v1-0"), "The run has no stage 'nothing'"),
    ):
        done = xray_cli(*arguments, service=service)
        assert done.returncode == 1, arguments
        assert expected in done.stderr, (arguments, done.stderr)
    error = json.loads(xray_cli("why", "nobody", "x", "--json", service=service).stderr)
    assert error["error"]["code"] == "not_found"


def test_answers_show_as_tables_and_data_frames(service: Service, monkeypatch: pytest.MonkeyPatch):
    """Escaped HTML, a row a stage; without pandas it is said."""
    client = service.client()
    passport = client.why("v2-0", "[b]2")
    assert "<th" in passport._repr_html_()
    answers: list[Insight] = [
        passport, client.lost("[b]5"), client.funnel("latest"), client.diff("v1-0", "v2-0"),
        client.compare(by="version"), client.whatif("v2-0", "score", threshold=0.5), client.analyze("v2-0"),
        client.pipeline_funnel("shop"),
    ]  # fmt: skip
    for answer in answers:
        assert answer._repr_html_().startswith("<div>")
        assert len(answer.to_pandas()) == len(answer.rows)
    with_markup = client.why("v2-0", "<script>")
    assert "<script>" not in with_markup._repr_html_()
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(XRayError, match="pandas is not installed"):
        passport.to_pandas()
