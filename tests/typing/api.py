# pyright: strict
"""Checked by the type checkers, not run: what decorated callables, blocks and calls from inside look like to them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, assert_type

import xray
from xray import Candidates, RawInput, RunOutcome
from xray.sampling import Strategy, boundary, per, top


@dataclass
class Product:
    id: str
    price: float


@dataclass
class Judged:
    product: Product
    passed: bool
    reason: str | None
    checks: dict[str, bool]
    parts: dict[str, float]


# --- classes and methods ------------------------------------------------------------------------------------------


@xray.pipeline("shop", id="request_id", version="1", tags=["a"], sample_rate=0.5, keep_if="failure")
class Shop:
    request_id: str = "r"

    @xray.entrypoint
    def find(self, product: Product, *, limit: int = 3) -> list[Product]:
        return self.keep([product])[:limit]

    @xray.entrypoint
    async def find_async(self, product: Product) -> Product | None:
        return self.pick([product])

    @xray.filtering_stage("keep", id="id", passed=lambda product: True, labels={"price_too_high"})
    def keep(self, products: Annotated[list[Product], Candidates("products")]) -> list[Product]:
        return products

    @xray.scoring_stage
    async def score(self, products: list[Product]) -> dict[str, float]:
        return {product.id: product.price for product in products}

    @xray.raw_stage("rules")
    @staticmethod
    def rules(product: Annotated[Product, RawInput("product")]) -> int:
        return 1

    @xray.retrieval_stage("fetch", source="source", requested=10)
    @classmethod
    def fetch(cls, words: str) -> list[dict[str, str]]:
        return []

    @xray.selection_stage("pick", of=Product, score=lambda product: product.price, reason_text=lambda product: "why")
    def pick(self, products: list[Product]) -> Product | None:
        return products[0]

    @xray.ranking_stage("rank", score="price", scores=lambda product: {"price": 1.0})
    def rank(self, products: list[Product]) -> Iterator[Product]:
        yield from products


assert_type(Shop(), Shop)
assert_type(Shop().find(Product("a", 1.0), limit=2), list[Product])
assert_type(Shop().keep([]), list[Product])
assert_type(Shop.rules(Product("a", 1.0)), int)
assert_type(Shop.fetch("red"), list[dict[str, str]])
assert_type(Shop().pick([]), Product | None)
assert_type(Shop().rank([]), Iterator[Product])
scored: Coroutine[Any, Any, dict[str, float]] = Shop().score([])
found: Coroutine[Any, Any, Product | None] = Shop().find_async(Product("a", 1.0))


# --- functions ----------------------------------------------------------------------------------------------------


@xray.pipeline
def job(count: int) -> str:
    return str(count)


@xray.pipeline("job", id="count", capture=top(3) | boundary(2), redact=["email", re.compile("^x")], keep_if=bool)
async def job_async(count: int) -> str:
    return str(count)


@xray.retrieval_stage("search", requested="limit", score=1, capture="summary")
def search(words: str, limit: int = 10) -> list[Product]:
    return []


@xray.generation_stage("titles", of=str, text=lambda title: title.strip(), reason=lambda title: title.upper())
def titles(count: int) -> Generator[str, None, int]:
    yield "title"
    return count


@xray.filtering_stage("stream", capture=per("category", 2))
async def stream(products: list[Product]) -> AsyncIterator[Product]:
    for product in products:
        yield product


@xray.scoring_stage(of=Product, score=lambda product: product.price * 2)
async def stream_scores(products: list[Product]) -> AsyncGenerator[Product, None]:
    for product in products:
        yield product


@xray.filtering_stage
def bare(pool: list[int]) -> list[int]:
    return pool


@xray.ranking_stage
def bare_rank(pool: list[int]) -> list[int]:
    return pool


@xray.selection_stage
def bare_pick(pool: list[int]) -> int:
    return pool[0]


@xray.retrieval_stage
def bare_search() -> list[int]:
    return []


@xray.generation_stage
def bare_titles() -> str:
    return ""


@xray.raw_stage
async def bare_raw(*values: int, **named: str) -> dict[str, int]:
    return {}


@xray.filtering_stage(
    "judge",
    of=Judged,
    id=lambda judged: judged.product.id,
    passed=lambda judged: judged.passed,
    reason_label=lambda judged: judged.reason,
    reason_text="reason",
    checks=lambda judged: judged.checks,
    scores=lambda judged: judged.parts,
    labels=("a", "b"),
)
def judge(pool: list[Product], /, limit: float, *, strict: bool = False) -> list[Judged]:
    return []


assert_type(job(3), str)
assert_type(search("red", limit=3), list[Product])
assert_type(titles(1), Generator[str, None, int])
assert_type(stream([]), AsyncIterator[Product])
assert_type(stream_scores([]), AsyncGenerator[Product, None])
assert_type(bare([1]), list[int])
assert_type(bare_rank([1]), list[int])
assert_type(bare_pick([1]), int)
assert_type(bare_search(), list[int])
assert_type(bare_titles(), str)
assert_type(judge([], 1.0, strict=True), list[Judged])
plain: Callable[[int], str] = job
task: Coroutine[Any, Any, str] = job_async(3)
raw: Coroutine[Any, Any, dict[str, int]] = bare_raw(1, 2, a="b")
strategy: Strategy = top(3) | boundary(2)


# --- from inside --------------------------------------------------------------------------------------------------


def inside(products: list[Product]) -> None:
    for product in products:
        assert_type(xray.reject(product, "price_too_high", "120 > 100"), None)
        assert_type(xray.accept(product), None)
        assert_type(xray.score(product, 0.7, name="words"), None)
    assert_type(xray.note("why"), None)
    assert_type(xray.llm(model="m", input_tokens=1, output_tokens=2, temperature=0.0, cost=0.01), None)
    stage = xray.current_stage()
    stage.counts(seen=10, passed=3)
    stage.metric("cache_hits", 3)
    stage.set_reasoning("because")


def double(number: int) -> int:
    return 2 * number


assert_type(xray.propagate(double)(3), int)
with ThreadPoolExecutor() as pool:
    assert_type(list(pool.map(xray.propagate(double), [1, 2])), list[int])


# --- blocks -------------------------------------------------------------------------------------------------------


def kept(outcome: RunOutcome) -> bool:
    return outcome.status == "failure" or outcome.duration_ms > 1000


def by_hand(products: list[Product]) -> str | None:
    with xray.run("shop", key=1, input={"words": "red"}, metadata={"team": "a"}, keep_if=kept) as run:
        with run.stage("keep", "filtering", id="id", capture="sampled") as stage:
            stage.candidates(products, limit=3)
            stage.reject(products[0], "price_too_high")
            stage.result(products[1:])
        run.set_output(products)
        assert_type(run.id, str | None)
    return run.id


async def by_hand_async(products: list[Product]) -> None:
    async with xray.run("shop") as run, run.stage("search", "retrieval") as stage:
        stage.result(products)


assert_type(by_hand([]), str | None)
assert_type(xray.flush(timeout_s=3), bool)
xray.configure(server_url="http://localhost:7350", capture=top(10), redact=["email"])
