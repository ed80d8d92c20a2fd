"""The resources and questions over HTTP."""

from __future__ import annotations

import html
import itertools
import re

import pytest

from tests.server.helpers import (
    OTHER_STAGE_ID,
    RUN,
    RUN_ID,
    STAGE_ID,
    candidates,
    error_of,
    in_service,
    row,
    run_end,
    run_start,
    stage,
)
from xray_server.api import parameters
from xray_server.api.moments import moment_ms
from xray_server.stores.base import Store

EVENTS = [
    run_start(),
    stage(candidates=[row(n) for n in range(10)]),
    candidates(10, [row(n) for n in range(10, 30)]),
    stage(id=OTHER_STAGE_ID, stage_type="ranking", name="rank", order=1, started_at="2026-11-01T00:00:02Z"),
    run_end(),
]


def later_run(number, **fields):
    """The start of another run, some days later."""
    run = {"id": f"01890000-0000-7000-8000-0000000001{number:02d}", "label": "moderation", "version": str(number)}
    return run_start(run=run | {"started_at": f"2026-11-{number + 2:02d}T12:00:00Z"} | fields)


def reading(folder, use, *events):
    """Use a service that has these events."""

    async def run(client):
        response = await client.post("/v1/ingest", json={"events": [*EVENTS, *events]})
        assert response.status_code == 200, response.text
        await use(client)

    in_service(folder, run)


async def rows(client, path):
    answer = (await client.get(path)).json()
    assert set(answer) == {"rows", "cursor", "coverage"}, answer
    return answer["rows"]


def test_health(tmp_path):
    """The service says that it lives, its version and its store."""

    async def use(client):
        health = (await client.get("/health")).json()
        assert health["status"] == "ok"
        assert health["store"]["kind"] == "sqlite"

    reading(tmp_path, use)


def test_runs_are_filtered_and_come_newest_first(tmp_path):
    """Each filter of the list of runs holds, alone and together."""
    runs = [later_run(n, environment="live" if n % 2 else "test", key=f"k{n}") for n in range(4)]
    id_of = [event["run"]["id"] for event in runs]

    async def use(client):
        for path, expected in (
            ("/v1/runs", [id_of[3], id_of[2], id_of[1], id_of[0], RUN_ID]),
            ("/v1/runs?label=competitor_discovery", [RUN_ID]),
            ("/v1/runs?key=k2", [id_of[2]]),
            ("/v1/runs?status=success", [RUN_ID]),
            ("/v1/runs?environment=live&version=3", [id_of[3]]),
            ("/v1/runs?since=2026-11-04T12:00:00Z", [id_of[3], id_of[2]]),
            ("/v1/runs?since=2026-11-04T13:00:00%2B01:00&until=2026-11-05T12:00:00Z", [id_of[2]]),
            ("/v1/runs?since=2026-11-04T13:00:00+01:00&until=2026-11-05T12:00:00Z", [id_of[2]]),
            ("/v1/runs?label=nothing", []),
        ):
            assert [run["id"] for run in await rows(client, path)] == expected, path

    reading(tmp_path, use, *runs)


def test_a_cursor_goes_on(tmp_path):
    """Following cursors gives every run once, in the order of the whole list."""
    runs = [later_run(n) for n in range(7)]

    async def use(client):
        whole = await rows(client, "/v1/runs")
        found, cursor = [], ""
        while cursor is not None:
            answer = (await client.get("/v1/runs?limit=3" + (f"&cursor={cursor}" if cursor else ""))).json()
            found += answer["rows"]
            cursor = answer["cursor"]
        assert found == whole

    reading(tmp_path, use, *runs)


def test_the_last_days_are_the_same_days_on_every_page(tmp_path, monkeypatch):
    """A stretch of time is counted back from when the first page was asked for, however long reading takes."""
    asked_ms = moment_ms("2026-11-08T00:00:00Z", "since")
    clock = itertools.count(asked_ms, 3_600_000)
    monkeypatch.setattr(parameters, "now_ms", lambda: next(clock))

    async def use(client):
        four = await rows(client, "/v1/runs?since=2026-11-03T00:00:00Z&until=2026-11-07T00:00:00Z")
        for path, expected in (
            ("/v1/runs?since=5d&until=1d", [run["id"] for run in four]),
            ("/v1/stages?since=8d", [OTHER_STAGE_ID, STAGE_ID]),
        ):
            found, cursor = [], ""
            while cursor is not None:
                answer = (await client.get(f"{path}&limit=1" + (f"&cursor={cursor}" if cursor else ""))).json()
                found += [row["id"] for row in answer["rows"]]
                cursor = answer["cursor"]
            assert found == expected
        page, pages = "/?since=5d&until=1d&limit=1", 0
        while page is not None:
            answer = await client.get(page)
            assert answer.status_code == 200, answer.text
            pages += 1
            link = re.search(r'rel="next" href="([^"]+)"', answer.text)
            page = html.unescape(link[1]) if link else None
        assert pages == 4

    reading(tmp_path, use, *(later_run(n) for n in range(7)))


def test_one_run_with_its_stages(tmp_path):
    """A run comes with its stages in order, and with its times as ISO 8601 in UTC."""

    async def use(client):
        run = (await client.get(f"/v1/runs/{RUN_ID}")).json()
        assert run["started_at"] == "2026-11-01T00:00:00.000Z"
        assert [stage["id"] for stage in run["stages"]] == [STAGE_ID, OTHER_STAGE_ID]
        assert run["stages"][0]["started_at"] == "2026-11-01T00:00:01.000Z"
        assert run["stages"][0]["pipeline"]["started_at"] == RUN["started_at"]

    reading(tmp_path, use)


def test_stages_are_filtered(tmp_path):
    """Each filter of the list of stages holds."""

    async def use(client):
        for path, expected in (
            ("/v1/stages", [OTHER_STAGE_ID, STAGE_ID]),
            (f"/v1/stages?run_id={RUN_ID}&limit=1", [OTHER_STAGE_ID]),
            ("/v1/stages?type=filtering", [STAGE_ID]),
            ("/v1/stages?name=rank&label=competitor_discovery", [OTHER_STAGE_ID]),
            ("/v1/stages?until=2026-11-01T00:00:02Z", [STAGE_ID]),
            ("/v1/stages?label=moderation", []),
        ):
            assert [stage["id"] for stage in await rows(client, path)] == expected, path
        assert (await client.get(f"/v1/stages/{STAGE_ID}")).json()["metrics"]["failed"] == 20

    reading(tmp_path, use)


def test_candidates_come_in_their_order(tmp_path):
    """The candidates of a stage come by their places, filtered and page by page."""

    async def use(client):
        path = f"/v1/stages/{STAGE_ID}/candidates"
        assert [found["seq"] for found in await rows(client, path)] == list(range(30))
        passed = await rows(client, f"{path}?verdict=passed")
        assert [found["candidate_id"] for found in passed] == [f"c{n}" for n in range(0, 30, 3)]
        answer = (await client.get(f"{path}?reason_label=price_too_high&limit=4")).json()
        assert [found["seq"] for found in answer["rows"]] == [1, 4, 7, 10]
        answer = (await client.get(f"{path}?reason_label=price_too_high&limit=4&cursor={answer['cursor']}")).json()
        assert [found["seq"] for found in answer["rows"]] == [13, 16, 19, 22]
        assert answer["rows"][0]["data"] == {"price": 13}
        assert await rows(client, f"/v1/stages/{OTHER_STAGE_ID}/candidates") == []

    reading(tmp_path, use)


def test_pipelines(tmp_path):
    """Each pipeline has its counts and times."""

    async def use(client):
        moderation, discovery = await rows(client, "/v1/pipelines")
        assert (moderation["label"], moderation["run_count"]) == ("moderation", 1)
        assert moderation["last_started_at"] == "2026-11-02T12:00:00.000Z"
        assert discovery["versions"] == ["2026.11"]

    reading(tmp_path, use, later_run(0))


def test_metrics_are_listed(tmp_path):
    """The list of metrics has those of plugins and those of senders, each with its types and how to ask for it."""
    unknown = stage(
        id="01890000-0000-7000-8000-000000000009", stage_type="audit", metrics={"oddness": 1, "failratio": 1}
    )

    async def use(client):
        found = {metric["name"]: metric for metric in await rows(client, "/v1/metrics")}
        assert found["fail_ratio"]["query_name"] == "$failRatio"
        assert found["fail_ratio"]["stage_types"] == ["filtering"]
        assert found["oddness"]["stage_types"] == ["audit"]
        assert "failratio" not in found
        answer = await client.post("/v1/query", json={"stage": {"$oddness": 1}})
        assert [stage["type"] for stage in answer.json()["rows"]] == ["audit"]

    reading(tmp_path, use, unknown)


def test_a_question(tmp_path):
    """A question over pipeline, stage and candidate finds the stage, and says what it looked at."""

    async def use(client):
        question = {
            "pipeline": {"label": "competitor_discovery", "started_at": {"$gte": "2026-11-01T00:00:00Z"}},
            "stage": {"type": "filtering", "$failRatio": {"$gt": 0.6}},
            "candidate": {"reason_label": "price_too_high", "data.price": {"$lt": 5}},
            "sort": {"$failRatio": -1},
        }
        answer = (await client.post("/v1/query", json=question)).json()
        assert [stage["id"] for stage in answer["rows"]] == [STAGE_ID]
        assert answer["coverage"]["pages_opened"] == 1
        answer = (await client.post("/v1/query", json=question | {"return": "candidates"})).json()
        assert [found["candidate_id"] for found in answer["rows"]] == ["c1", "c4"]
        answer = (await client.post("/v1/query", json=question | {"return": "runs", "sort": None})).json()
        assert [run["id"] for run in answer["rows"]] == [RUN_ID]
        error = error_of(await client.post("/v1/query", json={"stage": {"$failRation": 1}}), 422)
        assert error["path"] == "stage.$failRation"
        assert "$failRatio" in error["hint"]

    reading(tmp_path, use)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "where"),
    [
        ("GET", "/v1/nothing", 404, "not_found", None),
        ("GET", "/v1/runs/01890000-0000-7000-8000-00000000ffff", 404, "not_found", None),
        ("GET", "/v1/runs/request%201", 404, "not_found", None),
        ("GET", "/v1/stages/x", 404, "not_found", None),
        ("GET", "/v1/stages/01890000-0000-7000-8000-00000000ffff/candidates", 404, "not_found", None),
        ("DELETE", "/v1/runs", 405, "method_not_allowed", None),
        ("GET", "/v1/runs?lable=x", 422, "unknown_parameter", "lable"),
        ("GET", f"/v1/runs/{RUN_ID}?full=1", 422, "unknown_parameter", "full"),
        ("GET", "/health?x=1", 422, "unknown_parameter", "x"),
        ("GET", "/v1/runs?limit=1001", 422, "bad_parameter", "limit"),
        ("GET", "/v1/runs?limit=many", 422, "bad_parameter", "limit"),
        ("GET", "/v1/runs?status=done", 422, "unknown_word", "status"),
        ("GET", "/v1/runs?since=yesterday", 422, "bad_parameter", "since"),
        ("GET", "/v1/stages?run_id=7", 422, "wrong_type", "run_id"),
        ("GET", "/v1/runs?cursor=x", 422, "bad_cursor", "cursor"),
    ],
)
def test_errors_have_one_shape(tmp_path, method, path, status, code, where):
    """Whatever is wrong with a request, the answer has the one shape and names the parameter."""

    async def use(client):
        error = error_of(await client.request(method, path), status)
        assert (error["code"], error["path"]) == (code, where)

    in_service(tmp_path, use)


def test_an_unknown_parameter_gets_a_hint(tmp_path):
    """A misspelt parameter, or path, gets the nearest right one."""

    async def use(client):
        assert error_of(await client.get("/v1/runs?lable=x"), 422)["hint"] == "Did you mean 'label'?"
        assert error_of(await client.get("/v1/run"), 404)["hint"] == "Did you mean '/v1/runs'?"

    in_service(tmp_path, use)


def test_a_failing_store_is_a_503_and_a_fault_a_500(tmp_path, monkeypatch):
    """A store that cannot answer is 503 with Retry-After; a fault of ours is 500 without its details."""

    async def use(client):
        store: Store = client._transport.app.state.service.store
        await store.close()
        response = await client.get("/v1/runs")
        assert error_of(response, 503)["code"] == "store_closed"
        assert response.headers["retry-after"] == "1"
        assert error_of(await client.post("/v1/ingest", json={"events": EVENTS}), 503)["code"] == "store_closed"
        monkeypatch.setattr(type(store), "pipelines", None)
        error = error_of(await client.get("/v1/pipelines"), 500)
        assert (error["code"], error["message"]) == ("internal_error", "The service failed to answer.")

    in_service(tmp_path, use)


def test_the_api_is_described(tmp_path):
    """OpenAPI has every path with a model of its answer, and errors of the one shape only."""

    async def use(client):
        described = (await client.get("/openapi.json")).json()
        assert set(described["paths"]) == {
            "/v1/ingest", "/v1/query", "/v1/aggregate", "/v1/metrics", "/v1/pipelines", "/v1/runs", "/v1/runs/{run_id}",
            "/v1/stages", "/v1/stages/{stage_id}", "/v1/stages/{stage_id}/candidates", "/v1/schema",
            "/v1/stages/{stage_id}/panel", "/v1/questions", "/v1/questions/{name}", "/v1/questions/{name}/run",
            "/v1/plugins", "/health", "/ready", "/metrics", "/v1/trends", "/v1/system",
            "/v1/runs/{run_id}/candidates/{candidate_id}",
            "/v1/lost/{candidate_id}", "/v1/runs/{run_id}/funnel", "/v1/pipelines/{label}/funnel",
            "/v1/diff/{run_id}/{other_id}", "/v1/compare", "/v1/stages/{stage_id}/whatif",
            "/v1/runs/{run_id}/whatif/{stage}", "/v1/runs/{run_id}/analysis",
        }  # fmt: skip
        assert "HTTPValidationError" not in described["components"]["schemas"]
        for name, path in described["paths"].items():
            for operation in path.values():
                good = min(operation["responses"])
                if name != "/metrics":  # which is text
                    assert "$ref" in operation["responses"][good]["content"]["application/json"]["schema"]

    in_service(tmp_path, use)
