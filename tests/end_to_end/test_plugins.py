"""Plugins with real parts: a pipeline's process, a service, and what ``xray plugins`` says of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service import start_service
from xray.delivery.http import HttpTransport
from xray.ids import new_id

GOOD = """
import xray
from xray.metrics import Metric
from xray.stage_types.base import Columns, Field, StageType

class Weighing(StageType):
    name = "weighing"
    meaning = "Weighs."
    fields = (Field("weight", "accessor", "How heavy it is."),)
    columns = ("weight",)
    metrics = (
        Metric("total_weight_g", "g", "Together.", bad="high"), Metric("by_size", "candidates", "Sizes.", kind="table"),
    )

    def extract(self, call):
        if call.output is None:
            return Columns([])
        return Columns(list(call.output.ids), {"data": call.output.pieces, "weight": call.output.read("weight")})

    def compute(self, columns):
        weights = columns.column("weight")
        return {
            "output_count": len(columns), "total_weight_g": sum(weights),
            "by_size": {"heavy": sum(weight > 5 for weight in weights)},
        }

@xray.hookimpl
def xray_stage_types():
    return [Weighing()]
"""

HOSTILE = {
    "raises_in_every_hook": """
import xray
from xray.stage_types.base import StageType

def boom(*_):
    raise RuntimeError("on purpose")

class Raising(StageType):
    name, meaning = "raising", "Raises."
    candidates_in = extract = compute = panel = boom

@xray.hookimpl
def xray_stage_types():
    return [Raising()]

@xray.hookimpl
def xray_redactors():
    return {"raising": boom}

@xray.hookimpl
def xray_samplers():
    raise RuntimeError("when it is loaded")

@xray.hookimpl
def xray_exporters():
    return {"raising": boom}

@xray.hookimpl
def xray_analyzers():
    return {"raising": boom}

@xray.hookimpl
def xray_stores():
    return {"raising": boom}

@xray.hookimpl
def xray_alert_channels():
    return {"raising": boom}
""",
    "is_slow": """
import time
import xray
from xray.stage_types.base import Columns, StageType

class Slow(StageType):
    name, meaning = "slow", "Sleeps."

    def candidates_in(self, result):
        time.sleep(0.02)
        return [result]

    def extract(self, call):
        return Columns(list(call.output.ids), {"data": call.output.pieces})

    def compute(self, columns):
        return {}

@xray.hookimpl
def xray_stage_types():
    return [Slow()]
""",
    "gives_wrong_types": """
import xray
from xray.stage_types.base import StageType

class Lying(StageType):
    name, meaning = "lying", "Lies."
    candidates_in = lambda self, result: 7
    extract = lambda self, call: {"candidate_id": [1]}
    compute = lambda self, columns: {"wrong": object()}
    panel = lambda self, stage: "no figures"

@xray.hookimpl
def xray_stage_types():
    return [Lying(), 3]

@xray.hookimpl
def xray_redactors():
    return ["not", "a", "dict"]

@xray.hookimpl
def xray_stores():
    return {"not a scheme": print, "odd": 7}
""",
    "takes_names": """
import xray
from xray.metrics import Metric
from xray.stage_types.base import StageType

class Filtering(StageType):
    name, meaning = "filtering", "Mine now."

class Clash(StageType):
    name, meaning = "clash", "Clashes."
    metrics = (Metric("failratio", "", ""),)

class Operator(StageType):
    name, meaning = "operator", "Clashes."
    metrics = (Metric("where", "", ""),)

@xray.hookimpl
def xray_stage_types():
    return [Filtering(), Clash(), Operator()]
""",
    "cannot_be_imported": "raise ImportError('no such library here')",
}

PIPELINE = """
import xray

POOL = [{"id": "a", "w": 3}, {"id": "b", "w": 9}]

@xray.filtering_stage("sound")
def sound(pool):
    return pool[:1]

@xray.stage("raising", "raising")
def raising(pool):
    return pool

@xray.retrieval_stage("redacted", redact="plugin:raising")
def redacted(pool):
    return pool

@xray.stage("slow", "slow")
def slow(pool):
    return pool

@xray.stage("lying", "lying")
def lying(pool):
    return pool

@xray.pipeline("besieged")
def run():
    kept = sound(POOL)
    assert raising(POOL) is POOL
    assert redacted(POOL) is POOL
    for _ in range(8):
        assert slow(POOL) is POOL
    assert lying(POOL) is POOL
    return kept

assert run() == POOL[:1]
assert xray.flush(timeout_s=60), xray.stats()
print(sorted(xray.stats().failures))
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder with the plugins' modules."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, text in {**HOSTILE, "weighs": GOOD}.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def run(folder: Path, url: str, *command: str, plugins: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "XRAY_SERVER_URL": url, "XRAY_PLUGINS": plugins}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_pipeline_and_a_service_among_hostile_plugins(modules, tmp_path, monkeypatch):
    """Both have all of them: values are the pipeline's own, what is sound is stored, and everything wrong is said."""
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setenv("XRAY_PLUGINS", ",".join(HOSTILE))
    rules = tmp_path / "rules.json"
    rule = {"name": "any", "value": {"$count": {}}, "above": -1, "channels": ["pager"]}
    rules.write_text(json.dumps({"rules": [rule], "channels": {"pager": {"type": "raising"}}}))
    with start_service(tmp_path, XRAY_SERVER_EXPORTERS="raising", XRAY_SERVER_ALERTS=str(rules)) as service:
        done = run(modules, service.url, "-c", PIPELINE, plugins=",".join(HOSTILE))
        client = service.client()
        stages = {row["name"]: row for row in client.query({"pipeline": {"label": "besieged"}, "limit": 50})["rows"]}
        assert stages["sound"]["metrics"]["fail_ratio"] == 0.5
        assert stages["sound"]["type"] == "filtering"
        assert stages["raising"]["facts"]["extract_error"] == "RuntimeError: on purpose"
        lost = {"id": "[redacted: the redactor failed]", "w": "[redacted: the redactor failed]"}
        assert [row["data"] for row in client.candidates(stages["redacted"]["id"])["rows"]] == [lost, lost]
        assert "which is no Columns" in stages["lying"]["facts"]["extract_error"]
        assert len(client.query({"stage": {"name": "slow"}, "candidate": {"id": "b"}})["rows"]) == 8
        said = done.stderr
        for words in (
            "left out the plugin cannot_be_imported or a part of it: ImportError: no such library here",
            "Stage type 'filtering' of takes_names is already brought by xray.stage_types.filtering",
            "'failratio' of 'clash' and 'fail_ratio' of 'filtering' have names that are equal without '_'",
            "'where' of 'operator' has the name of an operator",
            "xray_samplers: RuntimeError: when it is loaded",
            "stage type raising: extract of the plugin raises_in_every_hook failed: RuntimeError: on purpose",
            "stage type slow: candidates_in of the plugin is_slow is switched off in this process",
            "stage type lying: candidates_in of the plugin gives_wrong_types failed",
        ):
            assert words in said, words
        assert "plugin is_slow: stage type slow: candidates_in" in done.stdout
        analysis = client.analyze(stages["sound"]["run_id"])
        assert analysis["plugins"] == {"raising": {"failed": "RuntimeError: on purpose"}}
        assert analysis["by"] == "statistics"
        # What the service says of its own process.
        asked = run(modules, service.url, "-m", "xray.cli", "plugins", "--server", service.url, "--json")
        of_service = json.loads(asked.stdout)
        problems = {row["name"]: row["problems"] for row in of_service["plugins"] if row["problems"]}
        assert set(problems) == {"raises_in_every_hook", "gives_wrong_types", "takes_names", "cannot_be_imported"}
        assert len(problems["takes_names"]) == 3
        # The service's tasks call what they call when they come to it.
        while not (tasks := client.get("/health")["tasks"])["exporters"]["exporters"]["raising"]["lost"]:
            time.sleep(0.1)
        assert tasks["exporters"]["exporters"]["raising"]["exported"] == 0
        while not (tasks := client.get("/health")["tasks"])["alerts"]["waiting"]:
            time.sleep(0.1)
        assert tasks["alerts"]["firing"] == ["any"]
        calls = {call["what"]: call for call in client.plugins()["calls"]}
        for what in ("exporter raising", "analyzer raising"):
            assert calls[what]["failures"] == calls[what]["calls"] > 0
        # And what a look without a service says.
        checked = run(modules, service.url, "-m", "xray.cli", "plugins", "--check", plugins=",".join(HOSTILE)).stdout
        flat = " ".join(checked.split())
        assert "cannot_be_imported: ImportError: no such library here" in flat
        assert "raises_in_every_hook: stage type raising: extract: 6 of 6 calls failed" in flat
        assert "gives_wrong_types: stage type lying: panel: 1 of 1 calls failed" in flat


def test_only_the_sender_has_the_plugin(modules, tmp_path):
    """Its metrics are asked about, sorted by, reached into and shown; its columns are asked about."""
    with start_service(tmp_path) as service:
        for factor in (1, 3, 2):
            text = (
                "import xray\n"
                f"weigh = xray.stage('weighing', 's{factor}', weight='w')(lambda pool: pool)\n"
                f"weigh([{{'id': 'a', 'w': {factor}}}, {{'id': 'b', 'w': {factor * 4}}}])\n"
                "assert xray.flush(timeout_s=60)\n"
            )
            run(modules, service.url, "-c", text, plugins="weighs")
        client = service.client()
        assert "weighing" not in {kind["name"] for row in client.plugins()["plugins"] for kind in row["stage_types"]}
        question = {"stage": {"$totalWeightG": {"$gte": 5}}, "sort": {"$totalWeightG": -1}}
        assert [row["name"] for row in client.query(question)["rows"]] == ["s3", "s2", "s1"]
        pages, cursor = [], None
        while cursor is not None or not pages:
            page = client.query({**question, "limit": 1, "cursor": cursor})
            pages += [row["name"] for row in page["rows"]]
            cursor = page["cursor"]
        assert pages == ["s3", "s2", "s1"]
        assert [row["name"] for row in client.query({"stage": {"$by_size.heavy": 1}, "sort": {"name": 1}})["rows"]] == [
            "s2", "s3",
        ]  # fmt: skip
        found = client.query(
            {"stage": {"type": "weighing"}, "candidate": {"weight": {"$gt": 10}}, "return": "candidates"}
        )
        assert [(row["candidate_id"], row["weight"]) for row in found["rows"]] == [("b", 12)]
        shown = run(modules, service.url, "-m", "xray.cli", "show", "latest").stdout
        assert "total_weight_g 10" in shown


def test_the_service_measures_what_comes_without_metrics(modules, tmp_path, monkeypatch):
    """Where it has the plugin: events of another language, whose metrics it computes with the same function."""
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setenv("XRAY_PLUGINS", "weighs")
    with start_service(tmp_path) as service:
        event = {
            "type": "stage", "id": new_id(), "run": {"id": new_id(), "label": "other"}, "name": "s",
            "stage_type": "weighing", "candidates": [{"id": "a", "weight": 2}, {"id": "b", "weight": 7}],
        }  # fmt: skip
        transport = HttpTransport(service.url, connect_timeout_s=5, request_timeout_s=30)
        assert transport.send([event]).outcome == "stored"
        transport.close()
        (row,) = service.client().query({"stage": {"$totalWeightG": 9}})["rows"]
        assert row["metrics"]["by_size"] == {"heavy": 1}
