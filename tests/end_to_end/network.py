"""A network that misbehaves, and a service that does: real sockets on loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec


class Proxy:
    """Stands between a sender and a service. ``mode`` is what the network does now.

    ``open``: passes everything on; ``cut``: closes connections; ``reset``: resets them once something was sent;
    ``half_open``: takes everything and answers nothing; ``slow``: passes one byte a second on, each way.
    """

    def __init__(self, target_port: int) -> None:
        self.mode = "open"
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ended = False
        self._start(self._accept)

    def close(self) -> None:
        self._ended = True
        self._listener.close()
        self.switch("cut")
        for thread in self._threads:
            thread.join(10)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def switch(self, mode: str) -> None:
        """The network is like that from now on; connections of before are gone."""
        self.mode = mode
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._listener.settimeout(0.1)
        while not self._ended:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, near: socket.socket) -> None:
        self._open.add(near)
        mode = self.mode
        try:
            with near:
                if mode == "cut":
                    return
                if mode == "reset":
                    near.recv(100)
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif mode == "half_open":
                    while near.recv(65536):
                        pass
                else:
                    self._pass_on(near, mode)
        except OSError:
            pass
        finally:
            self._open.discard(near)

    def _pass_on(self, near: socket.socket, mode: str) -> None:
        with socket.create_connection(self._target, timeout=5) as far, selectors.DefaultSelector() as selector:
            self._open.add(far)
            near.settimeout(5)
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            try:
                while not self._ended and self.mode == mode:
                    for key, _ in selector.select(0.1):
                        assert isinstance(key.fileobj, socket.socket)
                        data = key.fileobj.recv(1 if mode == "slow" else 65536)
                        if not data:
                            return
                        key.data.sendall(data)
                    if mode == "slow":
                        time.sleep(1)
            finally:
                self._open.discard(far)


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


class Sink:
    """A service that answers as it is told: ``answers`` gives the next status and headers, ``None`` means 200."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.answers: Iterator[tuple[int, dict[str, str]] | None] = iter(())
        self.requests = 0
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.requests += 1
                answer = next(sink.answers, None)
                if answer is None:
                    events = msgspec.msgpack.decode(body)["events"]
                    sink.events += events
                    self._answer(200, {}, {"accepted": len(events), "errors": []})
                else:
                    self._answer(*answer, {"error": {"message": "not now"}})

            def _answer(self, status: int, headers: dict[str, str], body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def stages(self) -> list[list[str]]:
        """The candidate ids of the stages that arrived, in order."""
        return [event["columns"]["candidate_id"] for event in self.events if event["type"] == "stage"]


@contextmanager
def sink() -> Iterator[Sink]:
    made = Sink()
    try:
        yield made
    finally:
        made.close()
