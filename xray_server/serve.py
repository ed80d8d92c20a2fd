"""Running the service in this process: what ``xray serve`` does."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from xray.exceptions import XRayError
from xray_server.api.answers import Service
from xray_server.app import create_app, open_store
from xray_server.daemons.retention import Policy, policy_of
from xray_server.settings import PREFIX, ServerSettings
from xray_server.stores.base import Store
from xray_server.workers import default_processes


def serve(**given: Any) -> int:
    """Run the service until it is told to stop (SIGINT, SIGTERM).

    Args:
        given: Settings by name (see :class:`ServerSettings`), over those of the environment; None is not given.

    Returns:
        The exit code.

    Raises:
        XRayError: The address or the store cannot be used.
    """
    settings = ServerSettings.from_environment()
    if f"{PREFIX}INGEST_PROCESSES" not in os.environ:
        settings = dataclasses.replace(settings, ingest_processes=default_processes())
    settings = dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})
    used_store = open_store(settings.store)
    policy = asyncio.run(_try(used_store, settings))
    if policy.max_disk_bytes is not None:
        # Worked out once, so that what is printed is what holds.
        settings = dataclasses.replace(settings, max_disk=f"{policy.max_disk_bytes}B")
    # Bound here, so that the address that is printed is the one that listens, and a taken port is a clear error.
    listener = _listen(settings.host, settings.port)
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    app = create_app(settings, used_store)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10)
    location = used_store.describe()["location"]
    location = location if "://" in location else Path(location).absolute()
    announcement = f"X-Ray listens on {address}\nData lies in {location}\nKeeps {policy}"
    server = _Server(config, announcement, app.state.service, settings.drain_s)
    # What is there by now stays; and batches are many small objects without cycles, not worth a look each time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    server.run(sockets=[listener])
    return 0 if server.started else 1


async def _try(store: Store, settings: ServerSettings) -> Policy:
    """Open and close the store before anything listens: one that cannot be used is a clear error then, and no log."""
    await store.open()
    try:
        return await policy_of(settings, store)
    finally:
        await store.close()


class _Server(uvicorn.Server):
    """A server that says where it listens once it does, and that it is about to end before it does."""

    def __init__(self, config: uvicorn.Config, announcement: str, service: Service, drain_s: float) -> None:
        super().__init__(config)
        self._announcement = announcement
        self._service = service
        self._drain_s = drain_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._announcement, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_draining = True
        until = time.monotonic() + self._drain_s
        while time.monotonic() < until and not self.force_exit:  # noqa: ASYNC110 - uvicorn has no event to wait for
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise XRayError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            code="cannot_listen",
            hint="Name another port with --port, or 0 for a free one.",
        ) from None
    listener.set_inheritable(True)
    return listener
