"""``POST /v1/ingest`` over HTTP: encodings, limits, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import msgspec
import pytest
import uvicorn
import zstandard

from tests.server.helpers import RUN, RUN_ID, STAGE_ID, error_of, in_service, row, run_end, run_start, stage
from tests.service import KEPT
from xray_server.app import create_app
from xray_server.settings import ServerSettings

GOOD = [run_start(), stage(candidates=[row(0), row(1)]), run_end()]


def test_a_good_batch(tmp_path):
    """A good batch answers 200 with how many events it had, and is there at once."""

    async def use(client):
        response = await client.post("/v1/ingest", json={"events": GOOD, "schema": 1})
        assert (response.status_code, response.json()) == (200, {"accepted": 3, "errors": []})
        assert (await client.get(f"/v1/runs/{RUN_ID}")).json()["status"] == "success"

    in_service(tmp_path, use)


@pytest.mark.parametrize("encoding", [None, "identity", "gzip", "zstd"])
@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "application/msgpack"])
def test_encodings(tmp_path, encoding, media_type):
    """JSON and msgpack, plain and compressed, mean the same."""

    async def use(client):
        encode = msgspec.msgpack.encode if "msgpack" in media_type else msgspec.json.encode
        body = encode({"events": GOOD})
        if encoding in ("gzip", "zstd"):
            body = gzip.compress(body) if encoding == "gzip" else zstandard.compress(body)
        headers = {"Content-Type": media_type} | ({"Content-Encoding": encoding} if encoding else {})
        response = await client.post("/v1/ingest", content=body, headers=headers)
        assert response.json() == {"accepted": 3, "errors": []}
        stages = (await client.get("/v1/stages")).json()["rows"]
        assert [found["metrics"]["fail_ratio"] for found in stages] == [0.5]

    in_service(tmp_path, use)


BAD_EVENTS = [
    ({"type": "stag", "run": RUN}, "unknown_event_type", "events[1].type"),
    ({"type": "run.end"}, "missing_run_id", "events[1].run"),
    (stage(candidates=["not an object"]), "bad_candidate", "events[1].candidates[0]"),
    (run_end(outputs=1), "unknown_field", "events[1].outputs"),
]


@pytest.mark.parametrize(("bad", "code", "path"), BAD_EVENTS)
def test_bad_events_are_reported_and_good_ones_stored(tmp_path, bad, code, path):
    """A batch with a bad event answers 422 with its place, and the good events around it are stored."""

    async def use(client):
        response = await client.post("/v1/ingest", json={"events": [run_start(), bad, run_end()]})
        error = error_of(response, 422)
        assert (error["code"], error["path"]) == (code, path)
        assert response.json()["accepted"] == 2
        assert response.json()["errors"] == [{"index": 1, "error": error}]
        run = (await client.get(f"/v1/runs/{RUN_ID}")).json()
        assert (run["status"], run["stages"]) == ("success", [])

    in_service(tmp_path, use)


BAD_BODIES = [
    (b'{"events": [\n  {"type": }\n]}', {}, 400, "malformed_json"),
    (b"", {}, 400, "malformed_json"),
    (b"\xff{}", {}, 400, "malformed_json"),
    (b"[" * 100_000, {}, 400, "malformed_json"),
    (b"9" * 5000, {}, 400, "malformed_json"),
    (b"\xc1", {"Content-Type": "application/msgpack"}, 400, "malformed_msgpack"),
    (b"\x91" * 100_000, {"Content-Type": "application/msgpack"}, 400, "malformed_msgpack"),
    (b"{}", {"Content-Encoding": "gzip"}, 400, "malformed_body"),
    (gzip.compress(b"{}" * 100, mtime=0)[:-9], {"Content-Encoding": "gzip"}, 400, "malformed_body"),
    (b"{}", {"Content-Encoding": "zstd"}, 400, "malformed_body"),
    (zstandard.compress(b'{"events": []}' * 9)[:-4], {"Content-Encoding": "zstd"}, 400, "malformed_json"),
    (b"{}", {"Content-Encoding": "br"}, 415, "unsupported_encoding"),
    (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    (b"[]", {}, 422, "bad_batch"),
    (b"{}", {}, 422, "bad_batch"),
    (b'{"events": {}}', {}, 422, "bad_batch"),
    (b'{"event": []}', {}, 422, "unknown_field"),
    (b'{"events": [], "schema": 0}', {}, 422, "bad_value"),
    (b'{"events": [1, 2, 3, 4]}', {}, 422, "too_many_events"),
]


@pytest.mark.parametrize(("body", "headers", "status", "code"), BAD_BODIES)
def test_bad_bodies(tmp_path, body, headers, status, code):
    """Every body that is no batch gets its status in the one shape of errors."""

    async def use(client):
        response = await client.post("/v1/ingest", content=body, headers={"Content-Type": "application/json"} | headers)
        assert error_of(response, status)["code"] == code

    in_service(tmp_path, use, max_events_per_batch=3)


def test_malformed_json_says_where(tmp_path):
    """The error for malformed JSON names the line and the column."""

    async def use(client):
        response = await client.post("/v1/ingest", content=b'{"events": [\n  {"type": }\n]}')
        assert "line 2 column 12" in error_of(response, 400)["message"]

    in_service(tmp_path, use)


def test_what_json_cannot_say_is_kept_as_markers(tmp_path):
    """NaN and lone surrogates, which some encoders write, are replaced and do not cost the event."""

    async def use(client):
        body = json.dumps({"events": [run_start(input={"a": float("nan"), "b": "\ud800", "c": 10**30})]})
        assert (await client.post("/v1/ingest", content=body)).json()["accepted"] == 1
        stored = (await client.get(f"/v1/runs/{RUN_ID}")).json()["input"]
        assert stored == {"a": "[xray: nan]", "b": "\ufffd", "c": "[xray: integer of 100 bits]"}

    in_service(tmp_path, use)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_refused(tmp_path, encoding):
    """A small body that would decompress to 10 GB is refused with 413."""
    part = b" " * 100_000_000
    body = 100 * (gzip.compress(part, 9) if encoding == "gzip" else zstandard.compress(part))
    assert len(body) < (1_000_000 if encoding == "zstd" else 11_000_000)

    async def use(client):
        response = await client.post("/v1/ingest", content=body, headers={"Content-Encoding": encoding})
        error = error_of(response, 413)
        assert error["code"] == "body_too_large"
        assert "decompressed" in error["message"]

    in_service(tmp_path, use)


def test_a_large_body_is_refused_over_a_socket(tmp_path):
    """A body of 50 MB gets its 413 in the one shape, with or without a length, and the service goes on."""

    async def in_parts():
        for _ in range(50):
            yield b" " * 1_000_000

    async def use():
        app = create_app(ServerSettings(store=f"sqlite:///{tmp_path}/xray.sqlite3", **KEPT))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for content in (b" " * 50_000_000, in_parts()):
                response = await client.post("/v1/ingest", content=content, timeout=60)
                assert error_of(response, 413)["code"] == "body_too_large"
            good = await client.post("/v1/ingest", json={"events": GOOD})
            assert good.json()["accepted"] == 3
        server.should_exit = True
        await serving

    asyncio.run(use())


def test_sending_again_changes_nothing(tmp_path):
    """The same batch twice gives the same answers as once."""

    async def use(client):
        answers = []
        for _ in range(2):
            await client.post("/v1/ingest", json={"events": GOOD})
            answers.append(
                [
                    (await client.get(path)).json()
                    for path in ("/v1/pipelines", f"/v1/runs/{RUN_ID}", f"/v1/stages/{STAGE_ID}/candidates")
                ]
            )
        assert answers[0] == answers[1]

    in_service(tmp_path, use)
