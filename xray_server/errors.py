"""The one shape of every error that the API answers with.

``{"error": {"code", "message", "path", "hint"}}``: whether a question was wrong, a path is unknown, a body too large
or the service broken.
"""

from __future__ import annotations

import http
import logging
import random
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from xray.exceptions import SchemaError, StoreError, XRayError, did_you_mean
from xray_server.stores.parts import ScanCut

log = logging.getLogger("xray.server")

RETRY_AFTER_S = 1
BUSY_RETRY_AFTER_S = (1, 3)
"""Senders that were asked to come again do not all come at once."""


class ApiError(XRayError):
    """A request that cannot be answered, with the status that says so.

    Args:
        status: The HTTP status code.
    """

    def __init__(
        self, message: str, *, status: int, code: str, path: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=code, path=path, hint=hint)
        self.status = status


def not_found(what: str, hint: str | None = None) -> ApiError:
    """A 404.

    Args:
        what: What there is none of, in one sentence.
        hint: What to do about it.
    """
    return ApiError(what, status=404, code="not_found", hint=hint)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def error_response(error: XRayError, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """A response in the one shape of errors."""
    return json_response({"error": error.as_dict()}, status, headers)


def status_of(error: XRayError) -> int:
    """The HTTP status that an error has."""
    if isinstance(error, ApiError):
        return error.status
    if isinstance(error, SchemaError | ScanCut):  # asked once more as it is, a question would take as long
        return 422
    return 503 if isinstance(error, StoreError) else 500


def install(app: FastAPI) -> None:
    """Make every error of an application answer in the one shape."""
    app.add_exception_handler(XRayError, _on_xray_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_any_error)


async def _on_xray_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, XRayError)
    status = status_of(error)
    if status >= 500:
        log.error("A request failed: %s", error)
    _count(request, error.code)
    return error_response(error, status, _retry_after(status))


def _retry_after(status: int) -> Mapping[str, str] | None:
    if status == 503:
        return {"Retry-After": str(RETRY_AFTER_S)}
    if status == 429:
        return {"Retry-After": str(random.randint(*BUSY_RETRY_AFTER_S))}  # noqa: S311 - jitter, not a secret
    return None


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, *names = first["loc"]
    known: Mapping[str, Any] = first.get("ctx") or {}
    problem = SchemaError(
        f"{first['msg']}.",
        code="bad_parameter",
        path=".".join(map(str, names)) or str(where),
        hint=known.get("hint") or _nearest_word(first),
    )
    _count(request, problem.code)
    return error_response(problem, 422)


def _nearest_word(error: Mapping[str, Any]) -> str | None:
    """The nearest of the words that a parameter takes, where it takes only some."""
    if error["type"] not in ("enum", "literal_error"):
        return None
    return did_you_mean(str(error.get("input")), re.findall(r"'([^']*)'", str(error["ctx"].get("expected"))))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        near = did_you_mean(request.url.path, request.app.openapi()["paths"])
        problem = not_found(f"There is nothing at {request.url.path:.200}.", near)
    elif error.status_code == 405:
        problem = ApiError(
            f"{request.method} does not go with {request.url.path:.200}.",
            status=405,
            code="method_not_allowed",
            hint=f"Use {error.headers['Allow']}." if error.headers and "Allow" in error.headers else None,
        )
    else:
        phrase = http.HTTPStatus(error.status_code).phrase
        problem = ApiError(
            f"{error.detail or phrase}.".replace("..", "."),
            status=error.status_code,
            code=phrase.lower().replace(" ", "_"),
        )
    _count(request, problem.code)
    return error_response(problem, error.status_code, error.headers)


async def _on_any_error(request: Request, error: Exception) -> Response:
    # The server's log has the traceback; the sender of a request has no business with it.
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    problem = ApiError("The service failed to answer.", status=500, code="internal_error")
    _count(request, problem.code)
    return error_response(problem, 500)


def _count(request: Request, code: str) -> None:
    request.app.state.service.telemetry.failed(code)
