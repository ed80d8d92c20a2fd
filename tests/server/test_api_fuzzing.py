"""Requests made from the OpenAPI description, well-formed and not: the service never fails to answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error

import xray
from tests.service import start_service
from xray_server.app import create_app
from xray_server.settings import ServerSettings


@schemathesis.serializer("application/msgpack")
def _as_msgpack(_: Any, value: Any) -> bytes:
    return msgspec.msgpack.encode(jsonable(value))


def jsonable(value: Any) -> Any:
    """What is made may hold integers beyond what msgpack has."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value


# Only the description is taken of this application; it is never started.
api = schemathesis.openapi.from_dict(create_app(ServerSettings(store="sqlite:///never.sqlite3")).openapi())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service runs that has something to find."""
    with start_service(tmp_path_factory.mktemp("fuzzing")) as service:
        xray.configure(server_url=service.url)
        keep = xray.filtering_stage("seed", passed="ok", reason_label="why")
        keep(lambda pool: [{"id": n, "ok": n > 3, "why": "too_small"} for n in pool])([1, 2, 3, 4])
        assert xray.flush(timeout_s=20)
        yield service.url


@api.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_service(case: Case, url: str) -> None:
    """Whatever is sent, the answer is no 5xx."""
    case.call_and_validate(base_url=url, checks=[not_a_server_error])
