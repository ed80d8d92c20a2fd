"""Reading a request's body: bounded while it arrives, bounded while it is decompressed, then decoded."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import zstandard
from fastapi import Request
from starlette.requests import ClientDisconnect

from xray_server.admission import Hold
from xray_server.errors import ApiError

_MSGPACK_TYPES = frozenset({"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"})
_SLICE_BYTES = 1024 * 1024
_IN_THREAD_FROM_BYTES = 64 * 1024
_DRAINED_TIMES = 8
"""How many times the limit is read, and thrown away, of a body that is too large.

A sender that is still sending when the connection closes would see a broken pipe in place of the answer.
"""

_MAX_WINDOW_BYTES = 64 * 1024 * 1024
"""The memory that a zstd frame may ask for; level 19 asks for 8 MiB."""


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request, decompressed.

    Args:
        plain: The bytes.
        is_msgpack: Whether they are msgpack; else they are JSON.
        received_bytes: How many there were as they travelled.
    """

    plain: bytes
    is_msgpack: bool
    received_bytes: int

    async def decoded(self) -> Any:
        """The value.

        Raises:
            ApiError: It is malformed (400).
        """
        decode = decode_msgpack if self.is_msgpack else decode_json
        if len(self.plain) < _IN_THREAD_FROM_BYTES:
            return decode(self.plain)
        return await asyncio.to_thread(decode, self.plain)


async def read_body(request: Request, *, max_bytes: int, max_decompressed_bytes: int) -> Any:
    """The decoded body of a request; see :func:`receive_body`."""
    body = await receive_body(request, max_bytes=max_bytes, max_decompressed_bytes=max_decompressed_bytes)
    return await body.decoded()


async def receive_body(
    request: Request, *, max_bytes: int, max_decompressed_bytes: int, hold: Hold | None = None
) -> Body:
    """The body of a request, decompressed and not decoded yet.

    Args:
        request: The request, its body not read yet.
        max_bytes: The longest body, as it travels.
        max_decompressed_bytes: The longest body, decompressed.
        hold: What counts the bytes while they are in memory; or None where a body is so small that it does not matter.

    Raises:
        ApiError: It is too large (413), of a type or encoding that is not taken (415), or badly compressed (400); or
            there is no room for it now (429).
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    is_msgpack = media_type in _MSGPACK_TYPES
    if not is_msgpack and media_type != "application/json" and not media_type.endswith("+json"):
        raise ApiError(
            f"A body of type '{media_type:.100}' is not taken.",
            status=415,
            code="unsupported_media_type",
            hint="Send application/json or application/msgpack.",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "zstd"):
        raise ApiError(
            f"The content encoding '{encoding:.100}' is not taken.",
            status=415,
            code="unsupported_encoding",
            hint="Send the body plain, or compressed with gzip or zstd.",
        )
    body = await _receive(request, max_bytes, hold)
    received_bytes = len(body)
    if encoding != "identity":
        body = await asyncio.to_thread(_decompressed, body, encoding, max_decompressed_bytes, hold)
        if hold is not None:
            hold.shrink(received_bytes)
    return Body(body, is_msgpack, received_bytes)


async def _receive(request: Request, max_bytes: int, hold: Hold | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    refused: ApiError | None = None
    try:
        async for part in request.stream():
            size += len(part)
            if size > max_bytes and (refused is None or refused.status != 413):
                refused = _too_large(max_bytes, "")
            elif refused is None and hold is not None:
                try:
                    hold.grow(len(part))
                except ApiError as error:
                    refused = error
            if refused is None:
                parts.append(part)
                continue
            # Read, and thrown away: nothing of it is in memory.
            parts.clear()
            if hold is not None:
                hold.release()
            if size > max_bytes * _DRAINED_TIMES:
                break
    except ClientDisconnect:
        raise ApiError("The sender went away.", status=400, code="incomplete_body") from None
    if refused is not None:
        raise refused
    return b"".join(parts)


def _too_large(max_bytes: int, how: str) -> ApiError:
    return ApiError(
        f"The body has more than {max_bytes} bytes{how}.",
        status=413,
        code="body_too_large",
        hint="Send it in several parts.",
    )


def _decompressed(body: bytes, encoding: str, max_bytes: int, hold: Hold | None) -> bytes:
    """Decompress slice by slice: a small body that would grow beyond all bounds is refused before it does."""
    source = io.BytesIO(body)
    reader: _Reader
    if encoding == "gzip":
        reader = gzip.GzipFile(fileobj=source)
    else:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        reader = decompressor.stream_reader(source, read_across_frames=True)
    parts: list[bytes] = []
    size = 0
    try:
        while part := reader.read(_SLICE_BYTES):
            size += len(part)
            if size > max_bytes:
                raise _too_large(max_bytes, " when decompressed")
            if hold is not None:
                hold.grow(len(part))
            parts.append(part)
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise ApiError(
            f"The body is not valid {encoding}: {error}.", status=400, code="malformed_body", hint=None
        ) from None
    return b"".join(parts)


def decode_json(body: bytes) -> Any:
    """The value of a JSON text; NaN, infinities and lone surrogates are let through, to be replaced later.

    Raises:
        ApiError: It is malformed; the message says where.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        pass
    # Python's own decoder takes what the fast one refuses, and names the line and column of what it refuses too.
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        problem = f"{error.msg}: line {error.lineno} column {error.colno}"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except RecursionError:
        problem = "nested too deep"
    except ValueError as error:
        problem = str(error)
    raise ApiError(f"The body is malformed JSON: {problem}.", status=400, code="malformed_json")


def decode_msgpack(body: bytes) -> Any:
    """The value of a msgpack message.

    Raises:
        ApiError: It is malformed.
    """
    try:
        return msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError, TypeError) as error:
        raise ApiError(f"The body is malformed msgpack: {error}.", status=400, code="malformed_msgpack") from None
