"""What the service counts of its own work, for Prometheus: ``GET /metrics``.

These are figures about the service. The metrics of stages are :mod:`xray_server.measure`'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray.exceptions import StoreError
from xray_server.daemons.daemon import Daemon
from xray_server.prepare import Prepared
from xray_server.stores.base import Store
from xray_server.write_queue import WriteQueue

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_USAGE_HOLDS_S = 30.0
"""A store may have to count to say what it holds: it is not asked more often."""


class Telemetry:
    """The figures of one service."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._events = Counter(
            "xray_ingest_events", "Events that were taken, by when that was answered.", ["ack"], registry=registry
        )
        self._candidates = Counter("xray_ingest_candidates", "Candidates that were taken.", registry=registry)
        self._bad_events = Counter(
            "xray_ingest_refused_events",
            "Events that were refused, by the code of their error.",
            ["code"],
            registry=registry,
        )
        self._bodies = Counter(
            "xray_ingest_body_bytes", "Bodies, as they travelled and as they were then.", ["form"], registry=registry
        )
        self._errors = Counter(
            "xray_http_errors", "Requests that were answered with an error, by its code.", ["code"], registry=registry
        )
        self._requests = Histogram(
            "xray_http_request_seconds",
            "How long requests took, to the end of the answer.",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._steps = Histogram(
            "xray_ingest_step_seconds",
            "How long the steps of taking a batch took: receive, prepare, write.",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )

    def watch(self, pending: Callable[[], int], max_pending: int, queue: WriteQueue, version: str) -> None:
        """Look at what others count, whenever somebody asks.

        Args:
            pending: Says how many bytes of bodies are in work or wait.
            max_pending: How many there may be.
            queue: What is answered and not written yet.
            version: The service's version.
        """
        gauge = Gauge("xray_ingest_pending_bytes", "Bodies in work and waiting.", registry=self.registry)
        gauge.set_function(pending)
        gauge = Gauge("xray_ingest_pending_bytes_limit", "How many of them there may be.", registry=self.registry)
        gauge.set(max_pending)
        Gauge("xray_build_info", "The service's version.", ["version"], registry=self.registry).labels(version).set(1)
        self.registry.register(_Queue(queue))

    def watch_tasks(self, daemons: Sequence[Daemon]) -> None:
        """Look at the background tasks, whenever somebody asks."""
        self.registry.register(_Tasks(daemons))

    def watch_store(self, usage: StoreUsage) -> None:
        """Tell what the store holds, as it was last asked."""
        self.registry.register(usage)

    def took(self, prepared: Prepared, ack: str) -> None:
        """A batch was taken.

        Args:
            prepared: The batch.
            ack: When that was answered: ``stored`` or ``enqueued``.
        """
        self._events.labels(ack).inc(prepared.result.accepted)
        self._candidates.inc(sum(len(page.seqs) for page in prepared.batch.pages))
        for rejected in prepared.result.errors:
            self._bad_events.labels(rejected.error.code).inc()

    def received(self, received_bytes: int, plain_bytes: int) -> None:
        """A body arrived.

        Args:
            received_bytes: What it weighed as it travelled.
            plain_bytes: What it weighs.
        """
        self._bodies.labels("received").inc(received_bytes)
        self._bodies.labels("plain").inc(plain_bytes)

    def failed(self, code: str) -> None:
        """A request was answered with an error.

        Args:
            code: The error's.
        """
        self._errors.labels(code).inc()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step of taking a batch."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._steps.labels(name).observe(time.perf_counter() - began)

    def answered(self, method: str, route: str, status: int, took_s: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).observe(took_s)

    def shown(self, accept: str) -> tuple[bytes, str]:
        """All figures in a form that Prometheus reads, and its media type.

        Args:
            accept: The request's header of that name.
        """
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


class _Queue(Collector):
    """What is answered and not written yet."""

    def __init__(self, queue: WriteQueue) -> None:
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        queue = self._queue
        yield GaugeMetricFamily(
            "xray_queue_bytes", "Bodies that were answered and are not written.", queue.admission.bytes
        )
        yield GaugeMetricFamily("xray_queue_bytes_limit", "How many there may be.", queue.admission.max_bytes)
        yield GaugeMetricFamily("xray_queue_batches", "Batches that were answered and are not written.", queue.waiting)
        yield CounterMetricFamily("xray_queue_written_events", "Events written after the answer.", queue.written)
        yield CounterMetricFamily("xray_queue_retries", "Writes that failed and were tried again.", queue.retries)
        lost = CounterMetricFamily(
            "xray_queue_lost_events", "Events that were answered and never written.", labels=["reason"]
        )
        for reason in ("shutdown", "internal_error"):
            lost.add_metric([reason], queue.lost[reason])
        yield lost


class _Tasks(Collector):
    """How the background tasks are doing."""

    def __init__(self, daemons: Sequence[Daemon]) -> None:
        self._daemons = daemons

    def collect(self) -> Iterator[Metric]:
        errors = CounterMetricFamily("xray_task_errors", "How often a background task failed.", labels=["task"])
        done = GaugeMetricFamily(
            "xray_task_last_success_timestamp_seconds", "When a part of its work was last done.", labels=["task"]
        )
        for daemon in self._daemons:
            errors.add_metric([daemon.name], daemon.errors)
            if daemon.succeeded_at_s is not None:
                done.add_metric([daemon.name], daemon.succeeded_at_s)
        yield errors
        yield done


class StoreUsage(Collector):
    """What the store holds, as it was last asked.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._usage: Any = None
        self._is_up = False
        self._asked_at = -_USAGE_HOLDS_S
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Ask the store, where that was not just done."""
        async with self._lock:
            if time.monotonic() < self._asked_at + _USAGE_HOLDS_S and self._is_up:
                return
            self._asked_at = time.monotonic()
            self._is_up = False  # also where nobody waits for the answer
            try:
                self._usage = await self._store.usage()
                self._is_up = True
            except StoreError:
                return

    def collect(self) -> Iterator[Metric]:
        """The figures; those of before where the store does not answer."""
        yield GaugeMetricFamily("xray_store_up", "Whether the store answered when it was last asked.", self._is_up)
        if self._usage is None:
            return
        yield GaugeMetricFamily("xray_store_bytes", "What the data takes, with indexes.", self._usage.size_bytes)
        rows = GaugeMetricFamily("xray_store_rows", "What there is; may be estimates.", labels=["of"])
        rows.add_metric(["runs"], self._usage.run_count)
        rows.add_metric(["stages"], self._usage.stage_count)
        rows.add_metric(["pages"], self._usage.page_count)
        yield rows


class Timing:
    """Times every request, by the route that it took.

    Args:
        app: The application within.
        telemetry: Where that is counted.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the application within does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def passed_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, passed_on)
        finally:
            # What somebody made up is not for labels: there is no end of it.
            route = scope.get("route")
            method = scope["method"] if route is not None else "other"
            path = getattr(route, "path", None) or "none"
            self._telemetry.answered(method, path, status, time.perf_counter() - began)
