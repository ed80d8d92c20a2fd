"""``/metrics``, ``/ready`` and ``/health``: what the service says of itself."""

from __future__ import annotations

import asyncio
import json

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.server.helpers import error_of, in_service, row, run_end, run_start, stage
from xray.exceptions import StoreError

GOOD = [run_start(), stage(candidates=[row(0), row(1)]), run_end()]
BODY = json.dumps({"events": GOOD}).encode()


def service_of(client):
    return client._transport.app.state.service


async def figures(client):
    """Name and labels of each figure → its value."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_is_taken_is_counted(tmp_path):
    """Events, candidates and bytes are counted exactly; refused events by the code of their error."""

    async def use(client):
        await client.post("/v1/ingest", content=BODY)
        await client.post("/v1/ingest", content=BODY)
        await client.post("/v1/ingest?ack=enqueued", content=BODY)
        bad = json.dumps({"events": [{"type": "stag"}, run_start(), {"type": "run.end"}]}).encode()
        await client.post("/v1/ingest", content=bad)
        found = await figures(client)
        assert found["xray_ingest_events_total", "stored"] == 7
        assert found["xray_ingest_events_total", "enqueued"] == 3
        assert found["xray_ingest_candidates_total",] == 6
        assert found["xray_ingest_body_bytes_total", "plain"] == 3 * len(BODY) + len(bad)
        assert found["xray_ingest_refused_events_total", "unknown_event_type"] == 1
        assert found["xray_ingest_refused_events_total", "missing_run_id"] == 1
        assert found["xray_ingest_pending_bytes",] == 0
        assert found["xray_ingest_step_seconds_count", "prepare"] == 4
        assert found["xray_store_up",] == 1
        assert found["xray_store_bytes",] > 0
        assert found["xray_build_info", client._transport.app.version] == 1

    in_service(tmp_path, use)


def test_refusals_are_counted_by_reason(tmp_path):
    """Each error that was answered counts under its code."""

    async def use(client):
        await client.post("/v1/ingest", content=b"{")
        await client.post("/v1/ingest", content=b"{" * 9000)
        await client.post("/v1/query", json={"stage": {"$failRatoi": 1}})
        await client.get("/nowhere/1")
        await client.get("/nowhere/2")
        await client.get("/health?x=1")
        found = await figures(client)
        for code, count in {"malformed_json": 1, "body_too_large": 1, "unknown_metric": 1, "not_found": 2}.items():
            assert found["xray_http_errors_total", code] == count
        assert found["xray_http_errors_total", "unknown_parameter"] == 1

    in_service(tmp_path, use, max_body_bytes=6000)


def test_requests_are_timed_by_route_and_not_by_address(tmp_path):
    """Ids in the address make no figures of their own, nor do addresses and methods that somebody made up."""

    async def use(client):
        for n in range(3):
            await client.get(f"/v1/runs/01890000-0000-7000-8000-00000000000{n}")
            await client.get(f"/made/up/{n}")
            await client.request(f"MADE{n}", "/made/up")
        found = await figures(client)
        counts = {key: value for key, value in found.items() if key[0] == "xray_http_request_seconds_count"}
        assert counts == {
            ("xray_http_request_seconds_count", "/v1/runs/{run_id}", "404", "GET"): 3,
            ("xray_http_request_seconds_count", "404", "none", "other"): 6,
        }

    in_service(tmp_path, use)


def test_the_queue_and_the_tasks_are_shown(tmp_path):
    """How much waits, what was lost, and whether each background task still gets its work done."""

    async def use(client):
        service = service_of(client)
        opened = asyncio.Event()
        write = service.store.write

        async def gated(project, batch):
            await opened.wait()
            return await write(project, batch)

        service.store.write = gated
        await client.post("/v1/ingest?ack=enqueued", content=BODY)
        found = await figures(client)
        assert (found["xray_queue_batches",], found["xray_queue_written_events_total",]) == (1, 0)
        assert found["xray_queue_bytes",] >= len(BODY)
        assert found["xray_queue_lost_events_total", "shutdown"] == 0
        opened.set()
        names = {daemon.name for daemon in service.daemons}
        for daemon in service.daemons:
            await daemon.tick()
            daemon.errors += 2
            daemon.succeeded_at_s = 5.0
        found = await figures(client)
        assert names
        for name in names:
            assert found["xray_task_errors_total", name] == 2
            assert found["xray_task_last_success_timestamp_seconds", name] == 5.0

    in_service(tmp_path, use)


def test_openmetrics_is_given_to_who_asks_for_it(tmp_path):
    """The same figures in the other form, which a strict parser reads."""

    async def use(client):
        await client.post("/v1/ingest", content=BODY)
        answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        names = {family.name for family in parse_openmetrics(answer.text)}
        assert {"xray_ingest_events", "xray_http_request_seconds", "xray_store_rows"} <= names

    in_service(tmp_path, use)


def test_a_store_that_cannot_be_read(tmp_path):
    """The service lives and is not ready; its figures say that the store is away, and are there all the same."""

    async def use(client):
        assert (await client.get("/ready")).json() == {"status": "ready"}
        before = await figures(client)

        async def fails(*_):
            raise StoreError("the store is away")

        service = service_of(client)
        service.store.declarations = service.store.usage = fails
        service.usage._asked_at = -100.0
        refused = await client.get("/ready")
        assert error_of(refused, 503)["message"] == "the store is away"
        assert (await client.get("/health")).json()["status"] == "ok"
        found = await figures(client)
        assert (before["xray_store_up",], found["xray_store_up",]) == (1, 0)
        assert found["xray_store_bytes",] == before["xray_store_bytes",]

    in_service(tmp_path, use)


def test_a_store_that_does_not_answer(tmp_path, monkeypatch):
    """A store that hangs makes the service not ready, within a time; the probe does not hang with it."""
    monkeypatch.setattr("xray_server.api.health.STORE_TIMEOUT_S", 0.05)
    monkeypatch.setattr("xray_server.api.telemetry.STORE_TIMEOUT_S", 0.05)

    async def use(client):
        async def hangs(*_):
            await asyncio.Event().wait()

        service = service_of(client)
        service.store.declarations = service.store.usage = hangs
        assert error_of(await client.get("/ready"), 503)["code"] == "store_timeout"
        assert (await figures(client))["xray_store_up",] == 0

    in_service(tmp_path, use)


def test_a_service_that_is_about_to_end_is_not_ready(tmp_path):
    """It says so to who asks whether to send to it, and answers everything else."""

    async def use(client):
        service_of(client).is_draining = True
        assert error_of(await client.get("/ready"), 503)["code"] == "draining"
        assert (await client.get("/health")).status_code == 200
        assert (await client.post("/v1/ingest", content=BODY)).status_code == 200

    in_service(tmp_path, use)
