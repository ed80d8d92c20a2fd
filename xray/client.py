"""The client: asking a service what it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import urllib3

from xray.exceptions import ServiceError, ServiceUnreachable
from xray.settings import load_settings

Json = dict[str, Any]


class Client:
    """Asks an X-Ray service. Safe to share between threads.

    Args:
        server_url: The service's address; the setting ``server_url`` (``XRAY_SERVER_URL``) by default.
        timeout_s: Deadline of each wait for an answer.

    Every method raises:
        ServiceUnreachable: Nothing answers at the address.
        ServiceError: The service answered with an error.
    """

    def __init__(self, server_url: str | None = None, *, timeout_s: float = 30.0) -> None:
        settings, _ = load_settings({"server_url": server_url} if server_url else None)
        self.server_url = settings.server_url
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=settings.connect_timeout_s, read=timeout_s)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def health(self) -> Json:
        """Whether the service lives, its version and its store."""
        return self.get("/health")

    def pipelines(self) -> Json:
        """Every pipeline, the one with the latest run first, under ``rows``."""
        return self.get("/v1/pipelines")

    def runs(self, **filters: Any) -> Json:
        """Runs, newest first, under ``rows``.

        Args:
            filters: ``label``, ``key``, ``status``, ``version``, ``environment``, ``since``, ``until``, ``limit``,
                ``cursor``; None values are left out.
        """
        return self.get("/v1/runs", filters)

    def run(self, run_id: str) -> Json:
        """One run with its stages in order, under ``stages``.

        Args:
            run_id: The run's id.
        """
        return self.get(f"/v1/runs/{quote(run_id, safe='')}")

    def stages(self, **filters: Any) -> Json:
        """Stages, newest first, under ``rows``.

        Args:
            filters: ``run_id``, ``type``, ``name``, ``label``, ``since``, ``until``, ``limit``, ``cursor``.
        """
        return self.get("/v1/stages", filters)

    def stage(self, stage_id: str) -> Json:
        """One stage.

        Args:
            stage_id: The stage's id.
        """
        return self.get(f"/v1/stages/{quote(stage_id, safe='')}")

    def candidates(self, stage_id: str, **filters: Any) -> Json:
        """The candidates of a stage in order, under ``rows``.

        Args:
            stage_id: The stage's id.
            filters: ``verdict``, ``reason_label``, ``limit``, ``cursor``.
        """
        return self.get(f"/v1/stages/{quote(stage_id, safe='')}/candidates", filters)

    def query(self, question: Mapping[str, Any]) -> Json:
        """Ask a question of the query language.

        Args:
            question: The JSON object, for example ``{"stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}}}``.

        Returns:
            ``rows``, the ``cursor`` to go on with (or None), and ``coverage``.
        """
        return self._call("POST", "/v1/query", body=dict(question))

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Json:
        """Read a path of the API.

        Args:
            path: The path, beginning with ``/``.
            parameters: The query parameters; None values are left out.
        """
        return self._call("GET", path, parameters=parameters)

    def _call(
        self, method: str, path: str, *, parameters: Mapping[str, Any] | None = None, body: Json | None = None
    ) -> Json:
        fields = {name: str(value) for name, value in (parameters or {}).items() if value is not None}
        try:
            if body is None:
                response = self._pool.request(method, self.server_url + path, fields=fields)
            else:
                # NaN is let through for the service to refuse, with the place where it stands.
                response = self._pool.request(
                    method,
                    self.server_url + path,
                    body=json.dumps(body).encode(),
                    headers={"Content-Type": "application/json"},
                )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServiceUnreachable(
                f"No X-Ray service answers at {self.server_url} ({type(error).__name__}).",
                hint="Start one with 'xray serve', or name its address with --server or XRAY_SERVER_URL.",
            ) from None
        return _read(response.status, response.data, self.server_url)


def _read(status: int, data: bytes, server_url: str) -> Json:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if status < 400 and isinstance(answer, dict):
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        raise ServiceError(
            f"{server_url} answered {status} with something that is not X-Ray's.",
            status=status,
            hint="Is another service listening at this address?",
        )
    raise ServiceError(
        str(error.get("message")), status=status, code=error.get("code"), path=error.get("path"), hint=error.get("hint")
    )
