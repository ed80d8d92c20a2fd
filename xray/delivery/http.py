"""The transport to the service: ``POST /v1/ingest`` with msgpack over a kept-alive connection.

Bodies are compressed on their way to another machine.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import math
import socket
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import msgspec

from xray.delivery.transport import SendResult, Transport

_COMPRESS_FROM_BYTES = 1024
_KEPT_BYTES = 16 << 20
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class HttpTransport(Transport):
    """Sends to an X-Ray service.

    Args:
        server_url: The service's address.
        connect_timeout_s: Deadline of connecting.
        request_timeout_s: Deadline of sending a request, and of each wait for the service while it is under way.
    """

    def __init__(self, server_url: str, *, connect_timeout_s: float, request_timeout_s: float) -> None:
        # Imported here, on the worker's thread, so that importing xray stays light.

        import urllib3

        codecs.lookup("idna")  # what the first connection would import, see xray.delivery.forks

        self._url = f"{server_url}/v1/ingest"
        # To the same machine, compressing takes longer than sending.
        self._compresses = urlsplit(server_url).hostname not in _LOOPBACK
        self._live: socket.socket | None = None
        self._pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(connect=connect_timeout_s, read=request_timeout_s),
        )
        self._pool.pool_classes_by_scheme = {
            scheme: self._pool_class(pool, request_timeout_s)
            for scheme, pool in self._pool.pool_classes_by_scheme.items()
        }
        self._encode = msgspec.msgpack.Encoder().encode_into
        self._buffer = bytearray()
        self._errors = urllib3.exceptions.HTTPError
        self._headers = {"Content-Type": "application/msgpack", "User-Agent": f"xray-decisions/{_version()}"}

    def send(self, events: Sequence[dict[str, Any]]) -> SendResult:
        """See :class:`Transport`."""
        # The buffer is kept: new memory of this size would be fetched from the system for each batch.
        self._encode({"events": events}, self._buffer)
        body: Any = self._buffer
        headers = dict(self._headers)
        if self._compresses and len(body) >= _COMPRESS_FROM_BYTES:
            body, headers["Content-Encoding"] = _compress(body)
        try:
            response = self._pool.request("POST", self._url, body=body, headers=headers, redirect=False)
        except (self._errors, OSError) as error:
            return SendResult("retry", {}, reason=f"unreachable: {type(error).__name__}")
        finally:
            if len(self._buffer) > _KEPT_BYTES:
                self._buffer = bytearray()
        return read_answer(response.status, response.data, response.headers.get("Retry-After"))

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()
        self._live = None

    def abort(self) -> None:
        """Cut the connection: an answer that comes byte by byte never lets a single wait run out."""
        live = self._live
        if live is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(live, socket.SHUT_RDWR)

    def _pool_class(self, base: Any, request_timeout_s: float) -> Any:
        return type("Pool", (base,), {"ConnectionCls": self._connection_class(base.ConnectionCls, request_timeout_s)})

    def _connection_class(self, base: Any, request_timeout_s: float) -> Any:
        transport = self

        class Connection(base):  # type: ignore[misc]
            """A connection whose socket can be cut, and that may take as long to send as to answer."""

            def connect(self) -> None:
                super().connect()
                transport._live = self.sock

            def request(self, *args: Any, **kwargs: Any) -> None:
                if self.is_closed:
                    self.connect()
                self.timeout = request_timeout_s  # what remains until here is the deadline of connecting
                super().request(*args, **kwargs)

        return Connection


def read_answer(status: int, body: bytes, retry_after: str | None) -> SendResult:
    """What the service's answer to a batch means for the sender.

    Args:
        status: The HTTP status.
        body: The JSON body.
        retry_after: The header of that name, if it was sent.
    """
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    # Only an answer that says what it accepted comes from the service; a proxy's 200 or 422 does not.
    if status in (200, 422) and isinstance(answer.get("accepted"), int):
        errors = answer.get("errors") or []
        return SendResult("stored", {item["index"]: str(item["error"].get("message")) for item in errors})
    error = answer.get("error")
    detail = error.get("message") if isinstance(error, dict) else None
    reason = f"HTTP {status}" + (f": {detail}" if detail else "")
    if status == 413:
        return SendResult("too_large", {}, reason)
    if status in (408, 425, 429) or status >= 500:
        return SendResult("retry", {}, reason, _seconds(retry_after))
    if status in (401, 403, 407):
        return SendResult("denied", {}, reason, _seconds(retry_after))
    return SendResult("refused", {}, reason)


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _compress(body: bytes | bytearray) -> tuple[bytes, str]:
    try:
        import zstandard
    except ImportError:
        return gzip.compress(body, compresslevel=1), "gzip"
    return zstandard.ZstdCompressor(level=1).compress(body), "zstd"


def _version() -> str:
    try:
        return version("xray-decisions")
    except PackageNotFoundError:
        return "unknown"
