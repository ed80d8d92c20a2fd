"""A transport that keeps the events in memory: for tests, and for looking at what would be sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from xray.capture.fields import with_rows
from xray.delivery.transport import SendResult, Transport


class MemoryTransport(Transport):
    """Keeps every event in :attr:`events`, in the order of arrival."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, events: Sequence[dict[str, Any]]) -> SendResult:
        """Keep the events as the other side would read them."""
        for event in msgspec.msgpack.decode(msgspec.msgpack.encode(list(events))):
            self.events.append(event | {"columns": with_rows(event["columns"])} if event.get("columns") else event)
        return SendResult("stored", {})

    def close(self) -> None:
        """Nothing to let go of."""

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        """The events of one type (``stage``), in the order of arrival."""
        return [event for event in self.events if event["type"] == event_type]
