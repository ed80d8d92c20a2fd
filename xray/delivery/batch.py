"""Records on their way, as events; and how a heavy stage is cut into several."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from xray.delivery.stats import Record

if TYPE_CHECKING:
    from xray.delivery.spool_files import Chunk

log = logging.getLogger("xray")

MAX_EVENT_BYTES = 4 << 20


@dataclass(slots=True)
class Batch:
    """Records that are sent together.

    Args:
        count: How many records.
        events: Their events, or those that are not settled yet.
        owner: For each event, the place of its record.
        first: The number of the first record, in the order in which they were taken in.
        weight_bytes: What the records weigh in memory.
        records: The records, or nothing where they come from the spool.
        chunk: Where in the spool they come from.
        lost: Place of a record → why it is lost.
    """

    count: int
    events: list[dict[str, Any]]
    owner: list[int]
    first: int = 0
    weight_bytes: int = 0
    records: Sequence[Record] = ()
    chunk: Chunk | None = None
    lost: dict[int, str] = field(default_factory=dict)

    def fill(self) -> None:
        """Make the records into events; a record that cannot be is lost."""
        for place, record in enumerate(self.records):
            try:
                parts = events_of(record)
            except Exception:
                log.debug("X-Ray: a record could not be made into an event", exc_info=True)
                self.lost[place] = "not_serialisable"
                continue
            self.events += parts
            self.owner += [place] * len(parts)

    def keep(self, left: Sequence[int]) -> None:
        """Forget the events that are settled.

        Args:
            left: The places of those that are not.
        """
        self.events = [self.events[place] for place in left]
        self.owner = [self.owner[place] for place in left]

    def release(self) -> None:
        """Give back what the records hold."""
        for record in self.records:
            with contextlib.suppress(Exception):
                record.release()
        self.records, self.events, self.owner = (), [], []


def events_of(record: Record) -> list[dict[str, Any]]:
    """The events of a record: one, or several where it is heavy."""
    event = record.event()
    # A record weighs about what its event does; only a heavy one is worth measuring.
    return split_event(event, MAX_EVENT_BYTES) if record.size_bytes > MAX_EVENT_BYTES // 2 else [event]


def split_event(event: dict[str, Any], max_bytes: int) -> list[dict[str, Any]]:
    """Cut a stage event whose candidates weigh too much for one event into a stage and candidates events.

    Args:
        event: An event of the wire schema.
        max_bytes: What one event may weigh as msgpack.
    """
    columns = event.get("columns")
    if event["type"] != "stage" or not columns:
        return [event]
    columns = {name: _cuttable(values) for name, values in columns.items()}
    size = len(msgspec.msgpack.encode(columns))
    count = len(columns["candidate_id"])
    if size <= max_bytes or count < 2:
        return [event]
    step = max(1, count * max_bytes // (size + 1))
    parts = [{name: value for name, value in event.items() if name != "columns"}]
    indexed = (event.get("facts") or {}).get("indexed")
    same = {"type": "candidates", "id": event["id"], "run": event["run"]}
    if indexed:
        same["facts"] = {"indexed": indexed}
    for start in range(0, count, step):
        part = {name: _cut(values, slice(start, start + step)) for name, values in columns.items()}
        parts.append({**same, "from_seq": start, "columns": part})
    return parts


def _cuttable(values: Any) -> Any:
    """A column that is still msgpack as a list of pieces that are; of one by field each field's."""
    if isinstance(values, dict):
        return {name: _cuttable(field) for name, field in values.items()}
    if isinstance(values, msgspec.Raw):
        return msgspec.msgpack.decode(values, type=list[msgspec.Raw])
    return values


def _cut(values: Any, part: slice) -> Any:
    return {name: field[part] for name, field in values.items()} if isinstance(values, dict) else values[part]
