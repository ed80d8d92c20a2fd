"""A run step by step over HTTP: ``/v1/runs``, ``/v1/stages`` and candidates, in any order, more than once."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from tests.server.helpers import RUN_ID, STAGE_ID, error_of, in_service, row, stage
from xray.ids import new_id

STARTED = "2026-11-01T00:00:00.000Z"


async def good(client, method, path, body, status=200):
    response = await client.request(method, path, json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_a_run_step_by_step(tmp_path):
    """The service makes the ids; a run and a stage are running until something says how they ended."""

    async def use(client):
        made = await good(client, "POST", "/v1/runs", {"label": "moderation", "input": {"text": "hello"}}, 201)
        run_id = made["id"]
        assert made == {"id": run_id, "run_id": run_id}
        body = {"run_id": run_id, "name": "policies", "type": "filtering", "order": 0, "started_at": STARTED}
        stage_id = (await good(client, "POST", "/v1/stages", body, 201))["id"]
        run = await good(client, "GET", f"/v1/runs/{run_id}", None)
        assert (run["status"], [each["status"] for each in run["stages"]]) == ("running", ["running"])

        path = f"/v1/stages/{stage_id}/candidates"
        for start in (0, 200):
            rows = [row(number) for number in range(start, start + 200)]
            answer = await good(client, "POST", path, {"from_seq": start, "candidates": rows})
            assert answer == {"id": stage_id, "run_id": run_id}
        await good(client, "PATCH", f"/v1/stages/{stage_id}", {"duration_ms": 12.5, "metadata": {"team": "ads"}})
        end = {"output": {"allowed": True}, "finished_at": "2026-11-01T00:00:01Z", "metadata": {"team": "ads"}}
        await good(client, "PATCH", f"/v1/runs/{run_id}", end)

        run = await good(client, "GET", f"/v1/runs/{run_id}", None)
        assert (run["status"], run["output"], run["label"]) == ("success", {"allowed": True}, "moderation")
        (found,) = run["stages"]
        assert (found["status"], found["pipeline"]["label"]) == ("success", "moderation")
        assert (found["metrics"]["input_count"], found["metrics"]["duration_ms"]) == (400, 12.5)
        assert found["metrics"]["label_counts"] == {"price_too_high": 133, "rating_too_low": 133}
        found = await good(client, "POST", "/v1/query", {"stage": {"$durationMs": 12.5, "metadata.team": "ads"}})
        assert [each["id"] for each in found["rows"]] == [stage_id]

    in_service(tmp_path, use)


def steps(run_id, stage_id):
    """The requests of a run, each of which says enough to be the first."""
    rows = [row(number) for number in range(60)]
    return [
        ("POST", "/v1/runs", {"id": run_id, "label": "any_order", "started_at": STARTED, "input": 1}),
        ("POST", "/v1/stages", {
            "id": stage_id, "run": {"id": run_id, "label": "any_order"}, "name": "filter", "type": "filtering",
        }),
        ("POST", f"/v1/stages/{stage_id}/candidates", {"run_id": run_id, "from_seq": 0, "candidates": rows[:40]}),
        ("POST", f"/v1/stages/{stage_id}/candidates", {"run_id": run_id, "from_seq": 40, "candidates": rows[40:]}),
        ("PATCH", f"/v1/stages/{stage_id}", {"run_id": run_id, "duration_ms": 3.5, "output": "done"}),
        ("PATCH", f"/v1/runs/{run_id}", {"status": "failure", "error": {"type": "ValueError"}, "stage_count": 1}),
    ]  # fmt: skip


def test_every_order_gives_the_same(tmp_path):
    """Orders of six requests, one of them sent twice, end in the same run, stage, metrics and candidates."""

    async def use(client):
        results = {}
        for number, order in enumerate(list(itertools.permutations(range(6)))[::7]):
            run_id, stage_id = new_id(), new_id()
            requests = steps(run_id, stage_id)
            for place in (*order, order[number % 6]):
                method, path, body = requests[place]
                response = await client.request(method, path, json=body)
                assert response.status_code in (200, 201), response.text
            run = (await client.get(f"/v1/runs/{run_id}")).json()
            if number % 10 == 0:
                listed = (await client.get(f"/v1/stages/{stage_id}/candidates?limit=1000")).json()["rows"]
                assert [found["candidate_id"] for found in listed] == [f"c{n}" for n in range(60)]
            text = (
                msgspec.json.encode(run, order="deterministic")
                .decode()
                .replace(run_id, "RUN")
                .replace(stage_id, "STAGE")
            )
            results.setdefault(text, order)
        assert len(results) == 1, "\n".join(f"{order}: {text}" for text, order in results.items())
        run = msgspec.json.decode(next(iter(results)))
        assert (run["status"], run["stages"][0]["status"]) == ("failure", "success")
        assert run["stages"][0]["metrics"]["duration_ms"] == 3.5
        assert run["stages"][0]["metrics"]["input_count"] == 60

    in_service(tmp_path, use)


def test_steps_and_a_batch_are_the_same(tmp_path):
    """What was sent in one batch may be sent again step by step, and nothing changes."""

    async def use(client):
        whole = stage(candidates=[row(0), row(1)], run={"id": RUN_ID, "label": "both"}, output={"n": 1})
        await good(client, "POST", "/v1/ingest", {"events": [whole]})
        before = await good(client, "GET", f"/v1/runs/{RUN_ID}", None)
        body = {("type" if name == "stage_type" else name): value for name, value in whole.items() if name != "type"}
        await good(client, "POST", "/v1/stages", body, 201)
        part = {"from_seq": 0, "candidates": [row(0), row(1)]}
        await good(client, "POST", f"/v1/stages/{STAGE_ID}/candidates", part)
        assert await good(client, "GET", f"/v1/runs/{RUN_ID}", None) == before

    in_service(tmp_path, use)


def test_columns_and_msgpack_are_taken_too(tmp_path):
    """Candidates by column, in msgpack, as ``/v1/ingest`` takes them."""

    async def use(client):
        body = {"id": STAGE_ID, "run_id": RUN_ID, "name": "f", "type": "filtering"}
        await good(client, "POST", "/v1/stages", body, 201)
        columns = {"candidate_id": ["a", "b"], "verdict": ["passed", "failed"]}
        content = msgspec.msgpack.encode({"from_seq": 0, "columns": columns})
        headers = {"Content-Type": "application/msgpack"}
        answer = await client.post(f"/v1/stages/{STAGE_ID}/candidates", content=content, headers=headers)
        assert answer.json() == {"id": STAGE_ID, "run_id": RUN_ID}
        found = await good(client, "GET", f"/v1/stages/{STAGE_ID}", None)
        assert found["metrics"]["fail_ratio"] == 0.5

    in_service(tmp_path, use)


RUN_OF = {"run_id": RUN_ID}
NAMED = {"name": "f", "type": "filtering"}
STAGE_PATH = f"/v1/stages/{STAGE_ID}"
OTHER = "01890000-0000-7000-8000-0000000000ff"

BAD = [
    ("POST", "/v1/runs", [], 422, "bad_body", None),
    ("POST", "/v1/runs", {"lable": "x"}, 422, "unknown_field", "lable"),
    ("POST", "/v1/runs", {"id": "7"}, 422, "bad_value", "id"),
    ("POST", "/v1/runs", {"label": 7}, 422, "bad_value", "label"),
    ("POST", "/v1/runs", {"stage_count": -1}, 422, "bad_value", "stage_count"),
    ("POST", "/v1/runs?ack=enqueued", {}, 422, "unknown_parameter", "ack"),
    ("PATCH", f"/v1/runs/{RUN_ID}", {"id": OTHER}, 422, "bad_value", "id"),
    ("PATCH", "/v1/runs/7", {"label": "x"}, 422, "bad_value", "id"),
    ("POST", "/v1/stages", NAMED, 422, "missing_run_id", "run.id"),
    ("POST", "/v1/stages", NAMED | {"run": 7}, 422, "missing_run_id", "run"),
    ("POST", "/v1/stages", NAMED | {"run": {"id": OTHER}, **RUN_OF}, 422, "bad_value", "run_id"),
    ("POST", "/v1/stages", {**RUN_OF, "name": "f"}, 422, "missing_field", "type"),
    ("POST", "/v1/stages", {**RUN_OF, **NAMED, "stage_type": "x"}, 422, "unknown_field", "stage_type"),
    ("POST", "/v1/stages", {**RUN_OF, **NAMED, "candidates": [row(0), 7]}, 422, "bad_candidate", "candidates[1]"),
    ("POST", "/v1/stages", {"run": {"id": RUN_ID, "lable": "x"}, **NAMED}, 422, "unknown_field", "run.lable"),
    ("PATCH", STAGE_PATH, {"duration_ms": 1}, 404, "not_found", None),
    ("PATCH", STAGE_PATH, {**RUN_OF, "duration_ms": "long"}, 422, "bad_value", "duration_ms"),
    ("PATCH", STAGE_PATH, {**RUN_OF, "candidates": []}, 422, "unknown_field", "candidates"),
    ("PATCH", "/v1/stages/7", {**RUN_OF, "duration_ms": 1}, 422, "bad_value", "id"),
    ("POST", f"{STAGE_PATH}/candidates", {"from_seq": 0, "candidates": []}, 404, "not_found", None),
    ("POST", f"{STAGE_PATH}/candidates", {**RUN_OF, "candidates": [row(1)]}, 422, "missing_field", "from_seq"),
    ("POST", f"{STAGE_PATH}/candidates", {**RUN_OF, "from_seq": 0}, 422, "missing_field", "candidates"),
    ("POST", f"{STAGE_PATH}/candidates", {**RUN_OF, "from_seq": -1, "candidates": []}, 422, "bad_value", "from_seq"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code", "where"), BAD)
def test_what_is_wrong_is_said_of_the_body(tmp_path, method, path, body, status, code, where):
    """The error names the place in the body that was sent, and nothing of it is stored."""

    async def use(client):
        error = error_of(await client.request(method, path, json=body), status)
        assert (error["code"], error["path"]) == (code, where)
        assert (await client.get("/v1/runs")).json()["rows"] == []
        assert client._transport.app.state.service.admission.bytes == 0

    in_service(tmp_path, use)


def test_a_stage_that_is_not_known_yet(tmp_path):
    """The 404 says what to add; with it the same request is taken before the stage itself."""

    async def use(client):
        refused = await client.patch(STAGE_PATH, json={"duration_ms": 7})
        assert "run_id" in error_of(refused, 404)["hint"]
        await good(client, "PATCH", STAGE_PATH, {"duration_ms": 7, **RUN_OF})
        await good(client, "POST", "/v1/stages", {"id": STAGE_ID, **RUN_OF, **NAMED}, 201)
        found = await good(client, "GET", STAGE_PATH, None)
        assert (found["name"], found["duration_ms"], found["status"]) == ("f", 7, "success")

    in_service(tmp_path, use)


def test_steps_are_asked_to_come_again_like_batches(tmp_path):
    """What they hold counts with everything else that is in work."""

    async def use(client):
        service = client._transport.app.state.service
        with service.admission.hold() as hold:
            hold.grow(100)
            refused = await client.post("/v1/runs", json={"label": "x" * 100})
            assert error_of(refused, 429)["code"] == "busy"
        await asyncio.sleep(0)
        await good(client, "POST", "/v1/runs", {"label": "x" * 100}, 201)

    in_service(tmp_path, use, max_pending_bytes=150)
