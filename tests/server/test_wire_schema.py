"""``GET /v1/schema``: the published schema and the service say the same of an event."""

from __future__ import annotations

import msgspec
import pytest
from jsonschema import Draft202012Validator

import xray
from tests.server.helpers import candidates, in_service, row, run_end, run_start, stage
from xray.testing import Recorder
from xray.wire_schema import wire_schema


def update(**fields):
    run = {"id": "01890000-0000-7000-8000-000000000001"}
    event = {"type": "stage.update", "id": "01890000-0000-7000-8000-000000000002", "run": run} | fields
    return {name: value for name, value in event.items() if name != "id" or value is not None}


def is_valid(event) -> bool:
    return bool(Draft202012Validator(wire_schema()).is_valid({"events": [event]}))


def test_the_service_publishes_it(tmp_path):
    """It is a JSON Schema, and what the function gives."""

    async def read(client):
        return await client.get("/v1/schema")

    answer = in_service(tmp_path, read)
    assert answer.status_code == 200
    Draft202012Validator.check_schema(answer.json())
    assert answer.json() == msgspec.json.decode(msgspec.json.encode(wire_schema()))


def test_what_the_sdk_sends_is_of_it():
    """Stages with columns, by row and by field, runs that fail, and metrics of the sender's own."""

    @xray.pipeline("published", version="1")
    def run(pool):
        return rank(keep(pool))

    @xray.filtering_stage("keep", capture="summary")
    def keep(pool):
        return pool[:20]

    @xray.ranking_stage("rank", score="price")
    def rank(pool):
        raise ValueError("not today")

    with Recorder() as recorder:
        with pytest.raises(ValueError, match="not today"):
            run([{"id": n, "price": n / 3} for n in range(200)])
        events = recorder.events
    assert {event["type"] for event in events} == {"run.start", "stage", "run.end"}
    for event in events:
        Draft202012Validator(wire_schema()).validate({"events": [event]})


@pytest.mark.parametrize(
    "event",
    [
        run_start(),
        run_end(),
        run_end(status=None),
        stage(candidates=[row(1)]),
        candidates(0, [row(1)]),
        update(),
        update(duration_ms=5, status="failure", name="f", stage_type="filtering"),
        update(candidates=[row(1)]),
        update(metrics={"passed": 1}),
        update(id=None),
        run_start(started="2026"),
        run_start(run={"label": "no id"}),
        run_end(status="done"),
        run_end(stage_count=-1),
        run_end(completeness="half"),
        stage(name=None),
        stage(candidates={"id": 1}),
        stage(order="first"),
        stage(metadata=[1]),
        {"type": "run.middle", "run": {"id": "01890000-0000-7000-8000-000000000001"}},
        candidates(-1, [row(1)]),
    ],
)
def test_it_takes_what_the_service_takes(tmp_path, event):
    """A good event is good to both, a bad one bad to both."""

    async def send(client):
        return await client.post("/v1/ingest", json={"events": [event]})

    assert is_valid(event) == (in_service(tmp_path, send).status_code == 200)
