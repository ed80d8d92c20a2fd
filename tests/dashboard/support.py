"""What the tests of pages share: a service with data, and pages taken apart."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from html.parser import HTMLParser

from tests.server.helpers import in_service

RUN_ID = "01890000-0000-7000-8000-0000000000a1"
FILTER_ID = "01890000-0000-7000-8000-0000000000b1"
SCORE_ID = "01890000-0000-7000-8000-0000000000b2"
RANK_ID = "01890000-0000-7000-8000-0000000000b3"

RUN = {
    "id": RUN_ID, "key": "request 1", "label": "product_search", "version": "2026.11", "environment": "production",
    "started_at": "2026-11-01T00:00:00.000Z",
}  # fmt: skip


def products(count, seed=7):
    """Candidates with a price and a rating, the same for the same seed."""
    draw = random.Random(seed)
    return [
        {"id": f"sku-{n:04d}", "data": {"price": draw.randint(5, 200), "title": f"Lamp {n}"}} for n in range(count)
    ]  # fmt: skip


def judged(rows):
    """The same after a filter: dear ones fail, and every tenth one for another reason."""
    found = []
    for place, row in enumerate(rows):
        label = "price_too_high" if row["data"]["price"] > 100 else "out_of_stock" if place % 10 == 9 else None
        price = {"passed": row["data"]["price"] <= 100, "detail": f"{row['data']['price']} <= 100"}
        verdict = "failed" if label else "passed"
        found.append(row | {"verdict": verdict, "reason_label": label, "checks": {"price": price}})
    return found


def scored(rows, seed=9):
    """Those that passed, with a score."""
    draw = random.Random(seed)
    return [
        {"id": row["id"], "data": row["data"], "score": round(draw.random(), 4)}
        for row in rows if row["verdict"] == "passed"
    ]  # fmt: skip


def ranked(rows):
    """The same by score."""
    before = {row["id"]: place + 1 for place, row in enumerate(rows)}
    ordered = sorted(rows, key=lambda row: -row["score"])
    return [row | {"rank": place + 1, "rank_before": before[row["id"]]} for place, row in enumerate(ordered)]


def events(count=60, **run):
    """A run: a filter, a score and a rank."""
    filtered = judged(products(count))
    with_scores = scored(filtered)
    stages = [
        ("price_filter", "filtering", FILTER_ID, 4.0, filtered),
        ("relevance", "scoring", SCORE_ID, 20.0, with_scores),
        ("order", "ranking", RANK_ID, 2.0, ranked(with_scores)),
    ]
    of_run = RUN | run
    found = [{"type": "run.start", "run": of_run, "input": {"query": "lamp"}, "tags": ["nightly"]}]
    for place, (name, kind, stage_id, took, rows) in enumerate(stages):
        found.append({
            "type": "stage", "id": stage_id, "run": of_run, "name": name, "path": name, "stage_type": kind,
            "order": place, "started_at": f"2026-11-01T00:00:00.{place * 30:03d}Z", "duration_ms": took,
            "status": "success", "candidates": rows,
        })  # fmt: skip
    found.append(
        {"type": "run.end", "run": of_run, "duration_ms": 90.0, "status": "success", "stage_count": 3, "output": "done"}
    )
    return found


def browse(folder, use, *batches, **settings):
    """``await use(client)`` with a client of a service that has these events."""

    async def run(client):
        for batch in batches:
            response = await client.post("/v1/ingest", content=json.dumps({"events": batch}))
            assert response.status_code == 200, response.text[:2000]
        return await use(client)

    return in_service(folder, run, **settings)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text below, white space as one space."""
        return " ".join("".join(self._texts()).split())

    def _texts(self):
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._texts()

    def all(self, tag=None, **attributes):
        """Every element below with this tag and these attributes; ``class_`` is one of its classes."""
        found = []
        for child in self.children:
            if isinstance(child, str):
                continue
            classes = attributes.get("class_")
            others = {name: value for name, value in attributes.items() if name != "class_"}
            fits = tag in (None, child.tag) and all(child.attributes.get(n) == v for n, v in others.items())
            if fits and (classes is None or classes in child.attributes.get("class", "").split()):
                found.append(child)
            found += child.all(tag, **attributes)
        return found

    def one(self, tag=None, **attributes):
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} of {tag} {attributes}"
        return found[0]


_VOID = {"meta", "link", "input", "br", "img", "hr", "option"}


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        if tag in _VOID:
            return
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data):
        self._open[-1].children.append(data)


def parsed(html):
    """A page taken apart; every element is closed by the one that belongs to it."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader._open) == 1, f"not closed: {[element.tag for element in reader._open[1:]]}"
    return reader.root


async def page(client, address, status=200):
    """A page of the service, taken apart."""
    response = await client.get(address, headers={"Accept": "text/html"}, follow_redirects=True)
    assert response.status_code == status, f"{address}: {response.status_code} {response.text[-1500:]}"
    return parsed(response.text)


def table_rows(root, position=0):
    """The texts of a table's cells, row by row."""
    table = root.all("table")[position]
    return [[cell.text for cell in row.children if not isinstance(cell, str)] for row in table.one("tbody").all("tr")]


def figures(root):
    """Name → the figure's JSON, of every chart of a page."""
    found = {}
    for chart in root.all("figure", class_="chart"):
        found[chart.attributes["id"]] = json.loads("".join(chart.one("script").children))
    return found
