"""The client: asking a service what it knows, and sending it runs that were built by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from xray.delivery.batch import split_event
from xray.exceptions import ServiceError, ServiceUnreachable
from xray.hand_built import Run
from xray.html import Answer, RunView, StageView, answer, run_view
from xray.insight import InsightCalls
from xray.results import Results
from xray.saved_questions import SavedQuestionCalls
from xray.settings import load_settings

Json = dict[str, Any]

_MAX_EVENT_BYTES = 4 << 20
_MAX_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that the service did not store, and why.

    Args:
        type: The event's type: ``run.start``, ``stage``, …
        name: The stage's name, or None where the event is about the run.
        message: What is wrong with it.
        path: Where in the event, or None.
        hint: What to do about it, or None.
    """

    type: str
    name: str | None
    message: str
    path: str | None
    hint: str | None


@dataclass(frozen=True, slots=True)
class SendSummary:
    """What became of a run that was sent.

    Args:
        run_id: The run's id, for :meth:`Client.run`.
        accepted: How many of its events are durably stored.
        rejected: Those that are not.
    """

    run_id: str
    accepted: int
    rejected: tuple[RejectedEvent, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all of the run is stored."""
        return not self.rejected


class Client(InsightCalls, SavedQuestionCalls):
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
        self._connect_timeout_s = settings.connect_timeout_s
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(retries=False)

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

    def plugins(self) -> Json:
        """The service's plugins: what they bring, what could not be loaded, what became of their calls."""
        return self.get("/v1/plugins")

    def pipelines(self) -> Json:
        """Every pipeline, the one with the latest run first, under ``rows``."""
        return self.get("/v1/pipelines")

    def runs(self, **filters: Any) -> Answer:
        """Runs, newest first, under ``rows``.

        Args:
            filters: ``label``, ``key``, ``status``, ``version``, ``environment``, ``since``, ``until``, ``limit``,
                ``cursor``; None values are left out.
        """
        return answer(self.get("/v1/runs", filters), "runs")

    def run(self, run_id: str) -> RunView:
        """One run with its stages in order, under ``stages``.

        Args:
            run_id: The run's id.
        """
        return run_view(self.get(f"/v1/runs/{quote(run_id, safe='')}"))

    def stages(self, **filters: Any) -> Answer:
        """Stages, newest first, under ``rows``.

        Args:
            filters: ``run_id``, ``type``, ``name``, ``label``, ``since``, ``until``, ``limit``, ``cursor``.
        """
        return answer(self.get("/v1/stages", filters), "stages")

    def stage(self, stage_id: str) -> StageView:
        """One stage.

        Args:
            stage_id: The stage's id.
        """
        return StageView(self.get(f"/v1/stages/{quote(stage_id, safe='')}"))

    def candidates(self, stage_id: str, **filters: Any) -> Answer:
        """The candidates of a stage in order, under ``rows``.

        Args:
            stage_id: The stage's id.
            filters: ``verdict``, ``reason_label``, ``limit``, ``cursor``.
        """
        return answer(self.get(f"/v1/stages/{quote(stage_id, safe='')}/candidates", filters), "candidates")

    def query(self, question: Mapping[str, Any]) -> Results:
        """Ask a question of the query language.

        Args:
            question: The JSON object, for example ``{"stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}}}``,
                or one that :mod:`xray.q` made.

        Returns:
            A dict with ``rows``, the ``cursor`` to go on with (or None) and ``coverage``; its ``all()`` gives the
            rows of every page, its ``to_pandas()`` a data frame of them. With ``explain`` there is an
            ``explanation`` in place of rows.
        """
        return Results(question, self._ask("/v1/query", question), lambda more: self._ask("/v1/query", more))

    def aggregate(self, asked: Mapping[str, Any]) -> Answer:
        """Work out figures over all stages that satisfy conditions.

        Args:
            asked: The JSON object: the conditions of a question, ``group_by``, ``bucket`` and ``values``, for example
                ``{"group_by": ["pipeline.label"], "values": {"median": {"$p50": "$failRatio"}}}``.

        Returns:
            A row for each group: ``group``, ``bucket`` where one was asked for, and ``values``; and ``coverage``.
        """
        return Answer(self._ask("/v1/aggregate", asked))

    def send(self, run: Run, *, timeout_s: float | None = None) -> SendSummary:
        """Store a run that was built by hand, with its stages, before this returns.

        Unlike what decorators record, this waits for the service and raises where it cannot be reached. Sending a
        run again, after an error or with more stages, is harmless.

        Args:
            run: The run.
            timeout_s: Deadline of each wait for an answer; the client's by default. A large run is sent in several
                requests.

        Returns:
            What was stored, and which events the service does not take.

        Raises:
            SchemaError: The run cannot be so; nothing was sent.
            ServiceUnreachable: Nothing answers at the address; some of the run may be stored.
            ServiceError: The service answered with an error; some of the run may be stored.
        """
        parts = [part for event in run.events() for part in split_event(event, _MAX_EVENT_BYTES)]
        accepted = 0
        rejected: list[RejectedEvent] = []
        for batch in _batches(parts):
            found = self._send(batch, timeout_s)
            accepted += found["accepted"]
            for problem in found.get("errors") or ():
                event, error = batch[problem["index"]], problem["error"]
                rejected.append(
                    RejectedEvent(
                        event["type"], event.get("name"), str(error.get("message")), error.get("path"),
                        error.get("hint"),
                    )
                )  # fmt: skip
        return SendSummary(run.id, accepted, tuple(rejected))

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Json:
        """Read a path of the API.

        Args:
            path: The path, beginning with ``/``.
            parameters: The query parameters; None values are left out.
        """
        return self._call("GET", path, parameters=parameters)

    def post(self, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None) -> Json:
        """Send JSON to a path of the API.

        Args:
            path: The path, beginning with ``/``.
            body: What to send.
            parameters: The query parameters; None values are left out.
        """
        given = {name: str(value) for name, value in (parameters or {}).items() if value is not None}
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return self._call("POST", path + (f"?{urlencode(given)}" if given else ""), body=data, headers=headers)

    def put(self, path: str, body: Any) -> Json:
        """Put JSON at a path of the API.

        Args:
            path: The path, beginning with ``/``.
            body: What to send.
        """
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return self._call("PUT", path, body=data, headers=headers)

    def delete(self, path: str) -> Json:
        """Delete what is at a path of the API.

        Args:
            path: The path, beginning with ``/``.
        """
        return self._call("DELETE", path)

    def _send(self, events: Sequence[Json], timeout_s: float | None) -> Json:
        body = gzip.compress(msgspec.msgpack.encode({"events": events}), compresslevel=1)
        headers = {"Content-Type": "application/msgpack", "Content-Encoding": "gzip"}
        status, data = self._request("POST", "/v1/ingest", body=body, headers=headers, timeout_s=timeout_s)
        found = _decoded(data)
        # A batch with bad events in it answers with an error's status, and has stored the others.
        if status == 422 and isinstance(found, dict) and isinstance(found.get("accepted"), int):
            return found
        return _read(status, data, self.server_url)

    def _ask(self, path: str, asked: Mapping[str, Any]) -> Json:
        # NaN is let through for the service to refuse, with the place where it stands.
        body = json.dumps(dict(asked)).encode()
        return self._call("POST", path, body=body, headers={"Content-Type": "application/json"})

    def _call(self, method: str, path: str, **request: Any) -> Json:
        status, data = self._request(method, path, **request)
        return _read(status, data, self.server_url)

    def _request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> tuple[int, bytes]:
        content: dict[str, Any] = {"body": body, "headers": headers}
        if body is None:
            given = {name: str(value) for name, value in (parameters or {}).items() if value is not None}
            content = {"fields": given}
        read_s = self._timeout_s if timeout_s is None else timeout_s
        timeout = urllib3.Timeout(connect=self._connect_timeout_s, read=read_s)
        try:
            response = self._pool.request(method, self.server_url + path, timeout=timeout, **content)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServiceUnreachable(
                f"No X-Ray service answers at {self.server_url} ({type(error).__name__}).",
                hint="Start one with 'xray serve', or name its address with --server or XRAY_SERVER_URL.",
            ) from None
        return response.status, response.data


def _batches(events: Sequence[Json]) -> Iterator[list[Json]]:
    """The events in requests that a service takes; one event that is too large goes alone."""
    batch: list[Json] = []
    weight = 0
    for event in events:
        size = len(msgspec.msgpack.encode(event))
        if batch and (weight + size > _MAX_EVENT_BYTES or len(batch) >= _MAX_EVENTS):
            yield batch
            batch, weight = [], 0
        batch.append(event)
        weight += size
    if batch:
        yield batch


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _read(status: int, data: bytes, server_url: str) -> Json:
    found = _decoded(data)
    if status < 400 and isinstance(found, dict):
        return found
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        raise ServiceError(
            f"{server_url} answered {status} with something that is not X-Ray's.",
            status=status,
            hint="Is another service listening at this address?",
        )
    raise ServiceError(
        str(error.get("message")), status=status, code=error.get("code"), path=error.get("path"), hint=error.get("hint")
    )
