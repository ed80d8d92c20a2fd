"""Recording into memory, for the tests of the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import xray
from xray.capture.call import with_output
from xray.delivery.memory import MemoryTransport
from xray.plugins import installed
from xray.stage_types.base import Columns

EVERY_WAY = pytest.mark.parametrize("way_of_taking", ["as usual", "by field", "one by one"], indirect=True)
"""For modules whose tests are to hold in each way in which candidates are taken, see the ``conftest.py`` beside."""


class Recorded:
    """What was recorded, once the block has ended."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    @property
    def events(self) -> list[dict[str, Any]]:
        return self._transport.events

    @property
    def stages(self) -> list[dict[str, Any]]:
        return sorted(self._transport.of_type("stage"), key=lambda stage: stage["order"])

    def stage(self, name: str) -> dict[str, Any]:
        (found,) = [stage for stage in self.stages if stage["name"] == name]
        return found

    def rows(self, name: str) -> dict[str, dict[str, Any]]:
        """Candidate id → its columns, of one stage."""
        return {row.pop("candidate_id"): row for row in columns_of(self.stage(name)).rows()}

    def metrics(self, name: str) -> dict[str, Any]:
        stage = self.stage(name)
        return installed().stage_type(stage["stage_type"]).compute(columns_of(stage))


def columns_of(stage: dict[str, Any]) -> Columns:
    columns = dict(stage.get("columns", {}))
    return with_output(Columns(columns.pop("candidate_id", []), columns, stage.get("facts", {})))


@contextmanager
def recording(**settings: Any) -> Iterator[Recorded]:
    transport = MemoryTransport()
    xray.configure(transport=transport, **settings)
    recorded = Recorded(transport)
    yield recorded
    assert xray.flush(timeout_s=20), xray.stats()
    assert xray.stats().failures == {}
