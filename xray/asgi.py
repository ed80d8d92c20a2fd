"""A run for each web request, for every ASGI framework: Starlette, FastAPI, Litestar, Quart.

Usage::

    app.add_middleware(XRayMiddleware)          # Starlette, FastAPI
    app = XRayMiddleware(app, label="api")      # anything else

Decorated functions and blocks below a request belong to its run, in plain endpoints that a framework runs in its
thread pool too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from xray.blocks import run_spec
from xray.capture.policy import CaptureChoice, KeepIf, RedactChoice
from xray.capture.run import RunRecording
from xray.runtime import runtime, state

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
LabelOf = Callable[[Mapping[str, Any]], str | None]

MAX_KEY_CHARS = 1000
_SEEN = "xray.request"


class XRayMiddleware:
    """Opens a run for each HTTP request; everything else passes untouched.

    The run's label is the method and the route's template, ``GET /items/{item_id}``, so that all requests to a route
    are one pipeline; where no route was found it is the method and the path. A router chooses the route only after
    the run has begun. So the run's records wait until the route is known, and at the longest until the response begins
    or they weigh more than ``hold_bytes``.

    ``metadata`` has ``method``, ``path`` and ``status_code``; no query, header or body is recorded. The run fails
    where an exception leaves the application (with status 500 where no response had begun: it is what servers answer)
    or the response has a status of 500 or above. It ends when the application is done with the request: after the
    last piece of a streamed body, and after background tasks.

    Args:
        app: The application.
        label: The label of all runs, or a callable that is given the request's scope; None from it stands for "not
            known yet".
        key_header: The request header whose value is the run's key, or None.
        version: The version of the application; the setting ``version`` by default.
        environment: Where it runs; the setting ``environment`` by default.
        tags: Words to filter its runs by.
        capture: What is kept of the stages.
        redact: What is made unreadable.
        sample_rate: The share of requests that is recorded.
        keep_if: Keeps a request's run at its end although it was not sampled: ``"failure"``, or a callable.
        exclude: Paths that open no run, each with everything below it.

    Raises:
        XRayError: Something cannot be, in strict mode only; otherwise the settings hold in its place.
    """

    def __init__(
        self,
        app: App,
        *,
        label: str | LabelOf | None = None,
        key_header: str | None = "x-request-id",
        version: str | None = None,
        environment: str | None = None,
        tags: Iterable[str] = (),
        capture: CaptureChoice = None,
        redact: RedactChoice = None,
        sample_rate: float | None = None,
        keep_if: KeepIf | str | None = None,
        exclude: Iterable[str] = ("/health",),
    ) -> None:
        self.app = app
        self._label = label
        self._key_header = None if key_header is None else key_header.lower().encode("latin-1", "replace")
        self._excluded = tuple(path.rstrip("/") for path in exclude)
        self._spec = run_spec(
            label if isinstance(label, str) else "request",
            version=version,
            environment=environment,
            tags=tags,
            capture=capture,
            redact=redact,
            sample_rate=sample_rate,
            keep_if=keep_if,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        recording = self._begin(scope) if state.enabled and scope["type"] == "http" else None
        if recording is None:
            await self.app(scope, receive, send)
            return
        watched = _Watched(recording, send)
        try:
            await self.app(scope, receive, watched.send)
        except BaseException as error:
            watched.raised(error)
            raise
        watched.ended()

    def _begin(self, scope: Scope) -> RunRecording | None:
        try:
            path = str(scope["path"])
            root = str(scope.get("root_path") or "")
            if _SEEN in scope or any(path == each or path.startswith(f"{each}/") for each in self._excluded):
                return None  # below another one of these, the request has its run already
            scope[_SEEN] = True
            if root and path.startswith(f"{root}/"):
                path = path[len(root) :]
            method = str(scope.get("method", "GET"))
            headers = [(bytes(name).lower(), bytes(value)) for name, value in scope.get("headers", ())]
            spec, label_of = self._spec, None
            if not isinstance(self._label, str):
                spec = dataclasses.replace(spec, label=f"{method} {path}")
                label_of = self._late_label(scope, method, path)
            return RunRecording(
                spec,
                self._key(headers),
                {},
                {"method": method, "path": path},
                parse_traceparent([value for name, value in headers if name == b"traceparent"]),
                label_of,
            ).enter()
        except Exception:
            runtime.count_failure("beginning of a request's run")
            return None

    def _late_label(self, scope: Scope, method: str, path: str) -> Callable[[], str | None]:
        given = self._label

        def from_route() -> str | None:
            template = route_template(scope, path)
            return None if template is None else f"{method} {template}"

        return from_route if given is None or isinstance(given, str) else lambda: given(scope)

    def _key(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        for name, value in headers:
            if name == self._key_header and 0 < len(value) <= MAX_KEY_CHARS:
                return value.decode("latin-1").strip() or None
        return None


class _Watched:
    """What is learnt of a request's run from the messages that the application sends."""

    def __init__(self, recording: RunRecording, send: Send) -> None:
        self._recording = recording
        self._send = send
        self._status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._began(message.get("status"))
        await self._send(message)

    def _began(self, status: Any) -> None:
        self._recording.settle_label()
        if isinstance(status, int):
            self._status = int(status)
            self._recording.end_metadata["status_code"] = self._status

    def raised(self, error: BaseException) -> None:
        if self._status is None and isinstance(error, Exception):
            self._recording.end_metadata["status_code"] = 500
        self._recording.raised(error)

    def ended(self) -> None:
        error = None
        if self._status is not None and self._status >= 500:
            error = {
                "type": "HTTPStatus",
                "message": f"The response had status {self._status}.",
                "code": str(self._status),
            }
        self._recording.ended(None, error)


# --- the route ----------------------------------------------------------------------------------------------------

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def route_template(scope: Mapping[str, Any], path: str) -> str | None:
    """The template of the route that a router chose, or None where none did yet.

    Routers write what they chose into the scope: the route, whose template lacks the prefixes of what it is mounted
    or included below, or the endpoint alone. What is missing comes from the path itself, with the values of parameters
    replaced by their names.

    Args:
        scope: The request's scope.
        path: The request's path, below the server's own prefix.
    """
    parameters: Mapping[str, Any] = scope.get("path_params") or {}
    route = scope.get("route")
    if route is None:
        return _with_names(path, parameters) if scope.get("endpoint") is not None else None
    if getattr(route, "routes", None):
        return None  # a mount: one of the routes below it is still to be chosen
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(template, str):
        return _with_names(path, parameters)
    prefix = _prefix(path, template, parameters)
    rest = {name: value for name, value in parameters.items() if name not in _PARAMETER.findall(template)}
    return _with_names(prefix, rest) + _PARAMETER.sub(r"{\1}", template)


def _prefix(path: str, template: str, parameters: Mapping[str, Any]) -> str:
    """What of the path comes before the part that the template describes."""
    concrete = _PARAMETER.sub(lambda found: str(parameters.get(found[1], found[0])), template)
    if path.endswith(concrete):
        return path[: len(path) - len(concrete)]
    pieces = _PARAMETER.split(template)
    pattern = "".join(re.escape(piece) if place % 2 == 0 else ".+" for place, piece in enumerate(pieces))
    found = re.fullmatch(f"(.*?){pattern}", path, re.DOTALL)
    return found[1] if found is not None else ""


def _with_names(path: str, parameters: Mapping[str, Any]) -> str:
    """A path with the values of parameters, from the last one on, replaced by their names."""
    segments = path.split("/")
    end = len(segments)
    for name, value in reversed(list(parameters.items())):
        wanted = str(value).split("/")
        for start in range(end - len(wanted), -1, -1):
            if segments[start : start + len(wanted)] == wanted:
                segments[start : start + len(wanted)] = [f"{{{name}}}"]
                end = start
                break
    return "/".join(segments)


# --- the trace ----------------------------------------------------------------------------------------------------

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.DOTALL)


def parse_traceparent(values: list[bytes]) -> dict[str, str] | None:
    """The ids in a W3C ``traceparent`` header; None where there is not exactly one that is valid.

    Args:
        values: The values of all headers of that name.
    """
    if len(values) != 1:
        return None
    found = _TRACEPARENT.fullmatch(values[0].decode("latin-1").strip())
    if found is None:
        return None
    version, trace_id, span_id, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return {"trace_id": trace_id, "span_id": span_id}
