"""The ASGI middleware: a run per request, under real Starlette and FastAPI applications."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import xray
from tests.sdk.recording import Recorded, recording
from xray.asgi import XRayMiddleware, parse_traceparent, route_template
from xray.delivery.memory import MemoryTransport

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@xray.filtering_stage("even")
def even(numbers: list[int]) -> list[int]:
    return [number for number in numbers if number % 2 == 0]


def ask(app: Any, *paths: str, headers: Any = None, method: str = "GET") -> list[httpx.Response]:
    async def go() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return list(await asyncio.gather(*(client.request(method, path, headers=headers) for path in paths)))

    return asyncio.run(go())


def of_type(recorded: Recorded, kind: str) -> list[dict[str, Any]]:
    return [event for event in recorded.events if event["type"] == kind]


def labels(recorded: Recorded) -> list[str]:
    return sorted(event["run"]["label"] for event in of_type(recorded, "run.start"))


def fast_api(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(XRayMiddleware, **options)
    inner = APIRouter(prefix="/items")

    @inner.get("/{item_id}")
    async def item(item_id: int) -> list[int]:
        await asyncio.sleep(0)
        return even([item_id, item_id + 1])

    @inner.get("/{item_id}/plain")
    def plain(item_id: int) -> list[Any]:
        return [*even([item_id, item_id + 1]), threading.current_thread() is threading.main_thread()]

    @app.get("/broken")
    def broken() -> None:
        even([1])
        raise KeyError("no such thing")

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(str(even([n])) for n in range(3))

    def guard() -> int:
        return len(even([1, 2]))

    @app.get("/guarded/{name}")
    async def guarded(name: str, allowed: Annotated[int, Depends(guard)]) -> int:
        return allowed

    outer = APIRouter(prefix="/v1")
    outer.include_router(inner)
    app.include_router(outer, prefix="/api")
    sub = FastAPI()
    sub.add_api_route("/of/{place}", item_of)
    app.mount("/sub", sub)
    return app


async def item_of(place: str) -> str:
    return place


def starlette(**options: Any) -> Any:
    async def user(request: Any) -> PlainTextResponse:
        even([1, 2])
        return PlainTextResponse(request.path_params["name"])

    async def busy(request: Any) -> PlainTextResponse:
        return PlainTextResponse("busy", status_code=503, background=BackgroundTask(even, [1, 2, 3]))

    app = Starlette(
        routes=[
            Route("/users/{name}", user),
            Route("/busy", busy),
            Route("/health", busy),
            Route("/health/deep", busy),
            Route("/healthy", busy),
            Mount("/shops/{shop}", routes=[Route("/files/{name:path}", user)]),
        ]
    )
    return XRayMiddleware(app, **options)


def test_decorated_functions_below_a_request_join_its_run():
    """One run for each request, labelled by method and route; the stages are in it."""
    with recording() as recorded:
        (response,) = ask(fast_api(), "/api/v1/items/4")
    assert response.json() == [4]
    start, stage, end = recorded.events
    assert [event["type"] for event in recorded.events] == ["run.start", "stage", "run.end"]
    assert {event["run"]["label"] for event in recorded.events} == {"GET /api/v1/items/{item_id}"}
    assert start["run"] == stage["run"] == end["run"]
    assert start["metadata"] == {"method": "GET", "path": "/api/v1/items/4"}
    assert end["metadata"] == {"status_code": 200}
    assert (end["status"], end["stage_count"]) == ("success", 1)


def test_plain_endpoints_run_in_a_thread_pool_and_join_the_run_all_the_same():
    """Starlette's thread pool copies the context."""
    with recording() as recorded:
        (response,) = ask(fast_api(), "/api/v1/items/4/plain")
    assert response.json() == [4, False]
    assert labels(recorded) == ["GET /api/v1/items/{item_id}/plain"]
    assert recorded.stage("even")["run"]["label"] == "GET /api/v1/items/{item_id}/plain"


def test_requests_at_once_keep_their_runs_apart():
    """Each request's stage has that request's run, key and candidates."""
    paths = [f"/api/v1/items/{n}{'/plain' if n % 3 == 0 else ''}" for n in range(30)]
    with recording() as recorded:
        assert all(response.status_code == 200 for response in ask(fast_api(), *paths))
    metadata = {event["id"]: event["metadata"]["path"] for event in of_type(recorded, "run.start")}
    assert sorted(metadata.values()) == sorted(paths)
    for stage in recorded.stages:
        number = int(metadata[stage["run"]["id"]].split("/")[4])
        assert stage["columns"]["candidate_id"] == [str(number), str(number + 1)]
    assert len(recorded.stages) == 30


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/users/u1", "GET /users/{name}"),
        ("/shops/users/files/a/b.txt", "GET /shops/{shop}/files/{name}"),
        ("/no/such/route", "GET /no/such/route"),
        ("/busy", "GET /busy"),
    ],
)
def test_labels_of_starlette_routes(path: str, label: str):
    """The whole template, also below a mount with parameters; without a route the path."""
    with recording() as recorded:
        ask(starlette(), path)
    assert labels(recorded) == [label]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/sub/of/here", "GET /sub/of/{place}"),
        ("/guarded/x", "GET /guarded/{name}"),
        ("/nothing", "GET /nothing"),
        ("/sub/nothing", "GET /sub/nothing"),
    ],
)
def test_labels_of_fastapi_routes(path: str, label: str):
    """Applications mounted below others, and stages in dependencies."""
    with recording() as recorded:
        ask(fast_api(), path)
    assert labels(recorded) == [label]


def test_a_stage_before_the_router_waits_for_the_label():
    """A stage in another middleware ends before any route is known, and still carries the route's label."""

    class Early:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            even([1, 2])
            await self.app(scope, receive, send)

    app = Starlette(routes=[Route("/users/{name}", lambda _: PlainTextResponse("x"))])
    with recording() as recorded:
        ask(XRayMiddleware(Early(app)), "/users/ann")
    assert [event["run"]["label"] for event in recorded.events] == ["GET /users/{name}"] * 3


def test_records_do_not_wait_for_a_label_beyond_the_bound():
    """Beyond hold_bytes the label is what is known by then, the same in all events."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(5):
            even([1, 2])
        scope["endpoint"], scope["path_params"] = app, {"name": "ann"}
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with recording(hold_bytes=2000) as recorded:
        ask(XRayMiddleware(app), "/users/ann")
    assert {event["run"]["label"] for event in recorded.events} == {"GET /users/ann"}
    with recording(hold_bytes=8 << 20) as recorded:
        ask(XRayMiddleware(app), "/users/ann")
    assert {event["run"]["label"] for event in recorded.events} == {"GET /users/{name}"}
    assert len(recorded.events) == 7


def test_a_label_of_ones_own():
    """A text for all requests, or a callable of the scope; one that fails leaves the method and the path."""
    with recording() as recorded:
        ask(starlette(label="web"), "/users/u1", "/busy")
        ask(starlette(label=lambda scope: scope["path"].split("/")[1].upper()), "/users/u1")
    assert labels(recorded) == ["USERS", "web", "web"]

    def broken(scope: Any) -> str:
        raise RuntimeError("no label")

    transport = MemoryTransport()
    xray.configure(transport=transport)
    ask(starlette(label=broken), "/users/u1")
    assert xray.flush(10)
    assert {event["run"]["label"] for event in transport.events} == {"GET /users/u1"}
    assert xray.stats().failures["labelling of a run"] > 0


def test_an_exception_passes_untouched_and_fails_the_run():
    """The same object leaves the middleware; the run says where it came from, and 500."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    error = KeyError("no such thing")
    with recording() as recorded:
        with pytest.raises(KeyError) as caught:
            asyncio.run(XRayMiddleware(app)({"type": "http", "method": "GET", "path": "/x"}, None, None))  # type: ignore[arg-type]
        assert caught.value is error
        (response,) = ask(fast_api(), "/broken")
    assert response.status_code == 500
    for end in of_type(recorded, "run.end"):
        assert (end["status"], end["error"]["type"], end["metadata"]) == ("failure", "KeyError", {"status_code": 500})


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "success"), (404, "success"), (499, "success"), (503, "failure")]
)
def test_statuses_from_500_on_fail_the_run(status: int, outcome: str):
    """A response of the server's fault is a failure without an exception."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("x", status_code=status)(scope, receive, send)

    with recording() as recorded:
        ask(XRayMiddleware(app), "/")
    end = recorded.events[-1]
    assert (end["status"], end["metadata"]["status_code"]) == (outcome, status)
    assert ("error" in end) == (outcome == "failure")
    if outcome == "failure":
        assert end["error"]["code"] == "503"


def test_background_tasks_and_streamed_bodies_belong_to_the_run():
    """The run ends after the last piece and the last task."""
    with recording() as recorded:
        (busy,) = ask(starlette(), "/busy")
        (streamed,) = ask(fast_api(), "/stream")
    assert (busy.text, streamed.text) == ("busy", "[0][][2]")
    by_label = {event["run"]["label"]: event["stage_count"] for event in of_type(recorded, "run.end")}
    assert by_label == {"GET /busy": 1, "GET /stream": 3}


def test_a_stream_that_breaks_fails_the_run_with_the_status_that_was_sent():
    """An exception after the response began leaves the status as it was."""

    async def pieces() -> Any:
        yield "a"
        raise ConnectionError("gone")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(pieces())(scope, receive, send)

    with recording() as recorded, contextlib.suppress(BaseException):
        ask(XRayMiddleware(app), "/")
    end = of_type(recorded, "run.end")[0]
    assert (end["status"], end["metadata"]) == ("failure", {"status_code": 200})


def test_excluded_paths_open_no_run():
    """The path and everything below it, but not what only begins alike."""
    with recording() as recorded:
        ask(starlette(), "/health", "/health/deep", "/healthy")
    # The background tasks of the excluded ones are stages outside of any request.
    assert labels(recorded) == ["GET /healthy", "even", "even"]


def test_the_key_comes_from_a_header():
    """x-request-id by default, another where it is named, none where it is missing or absurdly long."""
    with recording() as recorded:
        ask(starlette(), "/users/a", headers={"X-Request-ID": "r-1"})
        ask(starlette(key_header="X-Call"), "/users/b", headers={"x-call": "c-2"})
        ask(starlette(key_header=None), "/users/c", headers={"x-request-id": "r-3"})
        ask(starlette(), "/users/d", headers={"x-request-id": "r" * 5000})
    assert [event["run"].get("key") for event in of_type(recorded, "run.start")] == ["r-1", "c-2", None, None]


def test_an_incoming_traceparent_is_the_trace_of_the_stages():
    """A valid header's ids are on each stage; an invalid one is ignored."""
    with recording() as recorded:
        ask(starlette(), "/users/a", headers={"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"})
        ask(starlette(), "/users/b", headers={"traceparent": f"00-{'0' * 32}-{SPAN_ID}-01"})
        ask(starlette(), "/users/c")
    assert [stage.get("trace") for stage in sorted(recorded.stages, key=lambda stage: stage["started_at"])] == [
        {"trace_id": TRACE_ID, "span_id": SPAN_ID}, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "is_valid"),
    [
        (f"00-{TRACE_ID}-{SPAN_ID}-00", True),
        (f" 00-{TRACE_ID}-{SPAN_ID}-01 ", True),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes-later", True),
        (f"00-{TRACE_ID}-{SPAN_ID}-01-more", False),
        (f"ff-{TRACE_ID}-{SPAN_ID}-01", False),
        (f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", False),
        (f"00-{TRACE_ID[1:]}-{SPAN_ID}-01", False),
        (f"00-{TRACE_ID}-{'0' * 16}-01", False),
        (f"00-{TRACE_ID}-{SPAN_ID}", False),
        ("", False),
    ],
)
def test_which_traceparents_are_valid(header: str, is_valid: bool):
    """As W3C Trace Context says, later versions with more parts included; two headers are none."""
    expected = {"trace_id": TRACE_ID, "span_id": SPAN_ID} if is_valid else None
    assert parse_traceparent([header.encode()]) == expected
    assert parse_traceparent([header.encode()] * 2) is None


@given(st.binary(max_size=80))
def test_no_traceparent_breaks_a_request(header: bytes):
    """Any bytes are an answer."""
    found = parse_traceparent([header])
    assert found is None or (len(found["trace_id"]), len(found["span_id"])) == (32, 16)


def test_websockets_and_lifespan_pass_untouched():
    """The application gets the very scope, receive and send; no run is opened."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    given_scopes = [{"type": "lifespan"}, {"type": "websocket", "path": "/ws", "headers": []}]
    receive, send = object(), object()
    with recording() as recorded:
        for scope in given_scopes:
            asyncio.run(XRayMiddleware(app)(scope, receive, send))  # type: ignore[arg-type]
    assert seen == [(scope, receive, send) for scope in given_scopes]
    assert [sorted(scope) for scope in given_scopes] == [["type"], ["headers", "path", "type"]]
    assert recorded.events == []


def test_a_real_websocket_works_below_it():
    """A conversation with a FastAPI endpoint; a stage in it is a stage outside of any request."""
    app = fast_api()

    @app.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        even([int(await websocket.receive_text())])
        await websocket.send_text("done")
        await websocket.close()

    async def go() -> list[str]:
        sent: list[str] = []
        incoming = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "2"}])

        async def receive() -> Any:
            return next(incoming)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app(
            {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": []}, receive, send
        )
        return sent

    with recording() as recorded:
        assert asyncio.run(go()) == ["websocket.accept", "websocket.send", "websocket.close"]
    assert labels(recorded) == ["even"]


def test_twice_in_a_stack_is_once():
    """A mounted application with its own middleware does not open a second run."""
    with recording() as recorded:
        ask(XRayMiddleware(starlette()), "/users/a")
    assert labels(recorded) == ["GET /users/{name}"]


def test_sampled_out_requests_record_nothing_and_failures_are_kept():
    """sample_rate and keep_if hold for requests; the outcome has the route's label."""
    asked: list[str] = []

    def failed(outcome: xray.RunOutcome) -> bool:
        asked.append(outcome.label)
        return outcome.status == "failure"

    with recording() as recorded:
        ask(starlette(sample_rate=0.0), "/users/a", "/busy")
        assert xray.flush(10)
        assert recorded.events == []
        ask(starlette(sample_rate=0.0, keep_if=failed), "/users/a", "/busy")
    assert labels(recorded) == ["GET /busy"]
    assert of_type(recorded, "run.start")[0]["sample_rate"] == 1.0
    assert sorted(asked) == ["GET /busy", "GET /users/{name}"]


def test_disabled_it_is_not_there():
    """With X-Ray switched off the application gets the very send of the server."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(send)

    send = object()
    with recording(enabled=False) as recorded:
        asyncio.run(XRayMiddleware(app)({"type": "http", "method": "GET", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert seen == [send]
    assert recorded.events == []


class _Route:
    def __init__(self, path: str) -> None:
        self.path = path


@pytest.mark.parametrize(
    ("path", "template", "parameters", "expected"),
    [
        ("/a/7", "/a/{n:int}", {"n": 7}, "/a/{n}"),
        ("/a/007", "/a/{n:int}", {"n": 7}, "/a/{n}"),
        ("/files/x/y", "/{rest:path}", {"rest": "x/y"}, "/files/{rest}"),
        ("/7/a/7", "/a/{n}", {"t": "7", "n": "7"}, "/{t}/a/{n}"),
        ("/en/en/x", "/{page}", {"lang": "en", "page": "x"}, "/en/{lang}/{page}"),
        ("/moved", "/elsewhere/{n}", {"n": 1}, "/elsewhere/{n}"),
    ],
)
def test_templates_are_completed_from_the_path(path: str, template: str, parameters: dict[str, Any], expected: str):
    """The prefixes that a route does not know of come from the path, with parameters by name."""
    scope = {"route": _Route(template), "endpoint": print, "path_params": parameters}
    assert route_template(scope, path) == expected
    assert route_template({}, path) is None


def test_a_server_prefix_is_no_part_of_the_label():
    """root_path, as a proxy's prefix, is left out."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("x")(scope, receive, send)

    async def no_message(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/proxy/x", "root_path": "/proxy", "headers": []}
    with recording() as recorded:
        asyncio.run(XRayMiddleware(app)(scope, None, no_message))  # type: ignore[arg-type]
    assert labels(recorded) == ["GET /x"]
