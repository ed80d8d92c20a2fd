"""What is written: stages that judge products drawn from a large catalogue, as the SDK records and sends them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

import xray
from support.workload import Pool
from xray.capture.fields import with_rows
from xray.delivery.memory import MemoryTransport
from xray.delivery.transport import SendResult
from xray.testing import Recorder

PRODUCTS = 100_000
STAGES_PER_RUN = 5
STAGES_AT_ONCE = 250
EVENTS_PER_BODY = 500
BODY_BYTES = 4 << 20
"""How many records, and of what weight, the SDK puts into one request."""


def _words(text: str) -> list[str]:
    return text.split()


_MAKERS = _words(
    "Acme Boreal Corvus Delta Everest Fjord Granite Halcyon Ibex Juniper Kestrel Lumen Meridian Nimbus Orchid "
    "Pinnacle Quartz Ridgeline Solstice Tundra Umbra Vertex Willow Xenon Yarrow Zephyr"
)
_QUALITIES = _words(
    "Compact Wireless Folding Insulated Portable Heavy Slim Waterproof Rechargeable Adjustable Stainless Organic "
    "Ergonomic Magnetic Padded Silent Solar Vintage Ultralight Reinforced"
)
_MATERIALS = _words(
    "Steel Bamboo Cotton Leather Ceramic Glass Walnut Titanium Canvas Carbon Wool Silicone Copper Marble Linen Cork"
)
_THINGS = _words(
    "Bottle Backpack Lamp Kettle Headphones Jacket Keyboard Chair Blender Tent Knife Speaker Notebook Mug Watch "
    "Camera Router Skillet Pillow Charger Tripod Gloves Helmet Cooler Grinder Organizer Monitor Scale Mat Drill"
)
_VARIANTS = ("Black", "White", "Blue", "Red", "Green", "Grey", "Set of 2", "Set of 4", "Large", "Small", "Pro", "Mini")
_CATEGORIES = _words("kitchen outdoor office audio clothing lighting travel sports tools garden computers health")
_REASONS = {"price_too_high": 0.35, "rating_too_low": 0.15, "wrong_category": 0.1, "out_of_stock": 0.06}

Rows = list[tuple[str, str, str, float, float, str, str, str | None]]
"""Stage, id, title, price, rating, category, verdict and reason of each candidate."""

ROW_FIELDS = ("stage_id", "id", "title", "price", "rating", "category", "verdict", "reason")


@dataclass(slots=True)
class Bodies:
    """What the SDK would post, and what it comes to.

    Args:
        size: Candidates a stage.
        stages: How many stages there are.
        bodies: The msgpack bodies of ``POST /v1/ingest``, in order.
        rows: The same candidates as rows, as many lists as there are bodies.
    """

    size: int
    stages: int
    bodies: list[bytes] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)

    @property
    def candidates(self) -> int:
        """How many candidates there are."""
        return self.stages * self.size


def make_bodies(size: int, stages: int, seed: int = 1) -> Bodies:
    """Record stages with the SDK and encode them as it does.

    Args:
        size: Candidates a stage.
        stages: How many stages; a multiple of ``STAGES_PER_RUN``.
        seed: The same seed draws the same products and verdicts.
    """
    draw = random.Random(seed)
    catalogue = [product(draw, number) for number in range(PRODUCTS)]
    made = Bodies(size, stages)
    body = _Body()
    with _Sent(buffer_bytes=1 << 30, buffer_records=1_000_000) as recorder:
        for _ in range(0, stages, max(STAGES_PER_RUN, min(stages, STAGES_AT_ONCE))):
            for _ in range(min(stages, STAGES_AT_ONCE) // STAGES_PER_RUN):
                _SHOP.clear()
                _SHOP.extend(draw.sample(catalogue, size * STAGES_PER_RUN))
                _run(f"query {draw.randrange(1000)}", size)
            for event in recorder.events:
                body.add(event, made)
            recorder.clear()
    body.finish(made)
    return made


def product(draw: random.Random, number: int) -> dict[str, Any]:
    """A product of the catalogue, drawn at random."""
    words = [draw.choice(words) for words in (_MAKERS, _QUALITIES, _MATERIALS, _THINGS)]
    model = f"{draw.choice('ABCDEFGHKLMNPRSTX')}{draw.randrange(100, 9999)}"
    title = f"{' '.join(words)} {model} {draw.choice(_VARIANTS)} for home, office and travel"
    return {
        "id": f"sku-{number:06d}",
        "title": title[:40],
        # Prices have two decimals, as prices do: 17 digits would flatter every binary format next to JSON.
        "price": round(draw.lognormvariate(3.5, 0.9), 2),
        "rating": round(min(5.0, max(1.0, draw.gauss(4.0, 0.6))), 1),
        "category": draw.choice(_CATEGORIES),
    }


_SHOP: Pool = []
"""Where the run finds its products; what is handed to it would be recorded as its input."""

_VERDICTS = random.Random(2)


@xray.pipeline("competitor_discovery", version="2026.11")
def _run(query: str, size: int) -> str:
    for start in range(0, len(_SHOP), size):
        _judge(_SHOP[start : start + size])
    return query


@xray.filtering_stage("price_filter", id="id", passed="passed", reason_label="reason")
def _judge(pool: Pool) -> Pool:
    return [_judged(item, _VERDICTS.random()) for item in pool]


def _judged(item: dict[str, Any], drawn: float) -> dict[str, Any]:
    for reason, share in _REASONS.items():
        if drawn < share:
            return {**item, "passed": False, "reason": reason}
        drawn -= share
    return {**item, "passed": True, "reason": None}


class _Sent(Recorder):
    """What was recorded, as it travels: a recorder of tests gives candidates that are sent by field one by one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._transport = _AsSent()


class _AsSent(MemoryTransport):
    def send(self, events: Sequence[dict[str, Any]]) -> SendResult:
        self.events += msgspec.msgpack.decode(msgspec.msgpack.encode(list(events)))
        return SendResult("stored", {})


class _Body:
    """The body that is being filled."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._rows: Rows = []
        self._bytes = 0

    def add(self, event: dict[str, Any], made: Bodies) -> None:
        encoded = msgspec.msgpack.encode(event)
        if len(self._events) >= EVENTS_PER_BODY or (self._events and self._bytes + len(encoded) > BODY_BYTES):
            self.finish(made)
        self._events.append(encoded)
        self._bytes += len(encoded)
        self._rows += _rows(event)

    def finish(self, made: Bodies) -> None:
        if self._events:
            made.bodies.append(msgspec.msgpack.encode({"events": [msgspec.Raw(event) for event in self._events]}))
            made.rows.append(self._rows)
        self._events, self._rows, self._bytes = [], [], 0


def _rows(event: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    if event.get("columns") is None:
        return
    columns = with_rows(event["columns"])
    reasons = columns.get("reason_label") or [None] * len(columns["candidate_id"])
    for item, verdict, reason in zip(columns["data"], columns["verdict"], reasons, strict=True):
        yield (event["id"], *item.values(), verdict, reason)
