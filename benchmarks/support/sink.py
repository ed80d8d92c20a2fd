"""The other side: a process on loopback that decodes what X-Ray and OpenTelemetry send and counts what arrived.

A process of its own, so that its time is in nobody's figures. Counting goes by stage and place, as the service's
merge does: a batch that is sent twice counts once.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import msgspec
import orjson
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Arrived:
    """What arrived of one stage or span name: ``seen`` is what the stages say they looked at, at any tier."""

    stages: int = 0
    candidates: int = 0
    seen: int = 0


class Counts:
    """What has arrived so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self._name: dict[str, str] = {}
        self._seen: dict[str, int] = {}
        self._candidates: dict[str, dict[int, int]] = defaultdict(dict)

    def take_events(self, body: bytes, content_type: str) -> int:
        """Count a body of ``POST /v1/ingest``; gives the number of events."""
        decode = msgspec.msgpack.decode if "msgpack" in content_type else msgspec.json.decode
        events: list[dict[str, Any]] = decode(body)["events"]
        with self._lock:
            for event in events:
                if event["type"] == "stage":
                    self._name[event["id"]] = event["name"]
                    self._seen[event["id"]] = (event.get("capture") or {}).get("seen", 0)
                if columns := event.get("columns"):
                    self._candidates[event["id"]][event.get("from_seq", 0)] = len(columns["candidate_id"])
        return len(events)

    def take_spans(self, body: bytes) -> None:
        """Count a body of OTLP's ``POST /v1/traces``."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._take_span(span)

    def _take_span(self, span: Any) -> None:
        span_id = span.span_id.hex()
        self._name[span_id] = span.name
        for attribute in span.attributes:
            if attribute.key in {"input", "output"}:
                items = len(orjson.loads(attribute.value.string_value))
                self._seen[span_id] = items
                if attribute.key == "output":
                    self._candidates[span_id][0] = items

    def report(self) -> dict[str, dict[str, int]]:
        """Name → how many arrived."""
        with self._lock:
            totals: dict[str, dict[str, int]] = {}
            for stage_id, name in self._name.items():
                total = totals.setdefault(name, {"stages": 0, "candidates": 0, "seen": 0})
                total["stages"] += 1
                total["seen"] += self._seen.get(stage_id, 0)
                total["candidates"] += sum(self._candidates.get(stage_id, {}).values())
            return totals


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # kept-alive connections, as a real service has
    wbufsize = -1  # one packet for headers and body; two of them would wait for each other's acknowledgement
    disable_nagle_algorithm = True
    counts = Counts()
    delay_s = 0.0

    def do_GET(self) -> None:
        self._answer(json.dumps(self.counts.report()).encode())

    def do_DELETE(self) -> None:
        self.counts.clear()
        self._answer(b"{}")

    def do_POST(self) -> None:
        time.sleep(self.delay_s)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        encoding = self.headers.get("Content-Encoding", "")
        if encoding == "zstd":
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        elif encoding == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.counts.take_spans(body)
            self._answer(b"", "application/x-protobuf")  # an empty ExportTraceServiceResponse: all taken
        else:
            accepted = self.counts.take_events(body, self.headers.get("Content-Type", ""))
            self._answer(json.dumps({"accepted": accepted, "errors": []}).encode())

    def _answer(self, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Sink:
    """The process, as the benchmark sees it; use it as a context manager.

    Args:
        port: Where it listens; 0 takes a free one.
        delay_s: How long it takes over each request.
    """

    def __init__(self, port: int = 0, delay_s: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(delay_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError("The sink did not start.")
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # what it ends by; so it also ends with a benchmark that was killed
        self._process.wait(10)
        self._process.stdout.close()

    def arrived(self, name: str) -> Arrived:
        """What arrived of the stages or spans of a name since the last :meth:`clear`."""
        with urllib.request.urlopen(f"{self.url}/counts", timeout=30) as response:  # noqa: S310 - loopback
            return Arrived(**json.load(response).get(name, {}))

    def clear(self) -> None:
        """Begin to count anew."""
        request = urllib.request.Request(f"{self.url}/counts", method="DELETE")  # noqa: S310 - loopback
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


def main() -> None:
    port, _Handler.delay_s = int(sys.argv[1]), float(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
