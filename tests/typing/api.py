"""Checked by the type checkers, not run: what a decorated callable looks like to them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, assert_type

import xray
from xray import Candidates, RawInput


@dataclass
class Product:
    id: str
    price: float


@xray.pipeline("shop", id="request_id", version="1")
class Shop:
    request_id: str = "r"

    @xray.entrypoint
    def find(self, product: Product, *, limit: int = 3) -> list[Product]:
        return self.keep([product])[:limit]

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


@xray.pipeline
def job(count: int) -> str:
    return str(count)


@xray.retrieval_stage("search", requested="limit")
def search(words: str, limit: int = 10) -> list[Product]:
    return []


assert_type(Shop(), Shop)
assert_type(Shop().find(Product("a", 1.0), limit=2), list[Product])
assert_type(Shop().keep([]), list[Product])
assert_type(Shop.rules(Product("a", 1.0)), int)
assert_type(job(3), str)
assert_type(search("red", limit=3), list[Product])
scored: Coroutine[Any, Any, dict[str, float]] = Shop().score([])
plain: Callable[[int], str] = job
