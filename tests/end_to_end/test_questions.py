"""Questions through the client: pages that fetch the next one by themselves, data frames, and figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

import xray
from tests.service import Service, start_service
from xray import q
from xray.client import Client
from xray.exceptions import ClientError, ServiceError
from xray.html import StageView


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with start_service(tmp_path_factory.mktemp("service")) as running:
        xray.configure(server_url=running.url)
        keep = xray.filtering_stage("keep", passed="ok", reason_label="why")(lambda pool: pool)
        for number in range(7):
            keep([{"id": f"{number}-{n}", "ok": n < number, "why": "late", "price": n} for n in range(8)])
        assert xray.flush(timeout_s=30)
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as client:
        yield client


def test_rows_of_all_pages_come_one_after_the_other(client: Client):
    """In order, each once; the dict itself stays the first page."""
    question = q.stage(type="filtering").sort("$failRatio").limit(3)
    found = client.query(question)
    assert json.loads(json.dumps(found))["rows"] == found.rows
    assert len(found.rows) == 3
    rows = list(found.all())
    assert [round(row["metrics"]["fail_ratio"] * 8) for row in rows] == [2, 3, 4, 5, 6, 7, 8]
    assert all(isinstance(row, StageView) for row in rows)
    assert [len(page["rows"]) for page in found.pages()] == [3, 3, 1]


def test_built_questions_find_what_written_ones_find(client: Client):
    """The builder's JSON is the question."""
    built = q.candidate(data__price__gte=6, verdict="failed").stage().metric("fail_ratio") > 0.9
    written = {
        "candidate": {"data.price": {"$gte": 6}, "verdict": "failed"},
        "stage": {"$failRatio": {"$gt": 0.9}},
        "return": "candidates",
    }
    ids = [row["candidate_id"] for row in client.query(built).all()]
    assert ids == [row["candidate_id"] for row in client.query(written).all()] == ["0-6", "0-7"]


def test_rows_have_attributes_for_what_is_asked_most(client: Client):
    """Of runs, stages and candidates, beside being dicts."""
    (stage,) = client.query({"stage": {"$passed": 0}}).all()
    assert (stage.name, stage.type, stage.metrics["failed"]) == ("keep", "filtering", 8)
    assert (stage.id, stage.run_id, stage.label) == (stage["id"], stage["run_id"], stage["pipeline"].get("label"))
    (candidate,) = client.query(q.candidate(candidate_id="3-5")).all()
    assert (candidate.candidate_id, candidate.verdict, candidate.reason_label) == ("3-5", "failed", "late")
    assert (candidate.stage_id, candidate.score, candidate.data["price"]) == (candidate["stage_id"], None, 5)
    runs = list(client.query({"return": "runs", "limit": 3}).all())
    assert {(run.status, run.key) for run in runs} == {("success", None)}
    assert [run.id for run in runs] == [run["id"] for run in runs]
    assert [run.label for run in runs] == [run.get("label") for run in runs]


def test_a_data_frame_has_all_rows_and_flat_columns(client: Client):
    """Of every page; metrics as columns."""
    frame = client.query({"limit": 2, "sort": {"$passed": 1}}).to_pandas()
    assert len(frame) == 7
    assert list(frame["metrics.passed"]) == list(range(7))
    assert set(frame["name"]) == {"keep"}
    assert len(client.query({"limit": 2}).to_pandas(max_rows=3)) == 3
    assert client.query({"stage": {"name": "none"}}).to_pandas().empty


def test_a_data_frame_without_pandas_says_so(client: Client, monkeypatch: pytest.MonkeyPatch):
    """And what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ClientError, match="pip install pandas"):
        client.query({}).to_pandas()


def test_figures_come_by_group(client: Client):
    """As the service worked them out."""
    found = client.aggregate({"group_by": ["name"], "values": {"n": {"$count": {}}, "p": {"$sum": "$passed"}}})
    assert found["rows"] == [{"group": {"name": "keep"}, "values": {"n": 7, "p": 21}}]
    with pytest.raises(ServiceError) as caught:
        client.aggregate({"values": {"n": {"$cuont": {}}}})
    assert (caught.value.status, caught.value.path) == (422, "values.n.$cuont")


def test_an_explained_question_has_no_rows(client: Client):
    """It has the explanation in their place."""
    found = client.query(q.stage(type="filtering").explain())
    assert list(found.all()) == []
    assert found["explanation"]["question"].startswith('Stages whose type is "filtering"')
