"""Put products into categories, or hand them to a person where no category is sure enough.

The pipeline ``product_categorisation`` decides which of 12 categories each of 10 products belongs to:

1. ``candidate_categories`` (retrieval) fetches the categories that share a word with the product; the ``source`` of
   each is where the word stands, ``title`` or ``description``.
2. ``match`` (scoring) gives each category three scores: ``title`` and ``description`` (the known words there, of
   which two are enough for 1) and ``price`` (1 within the category's prices, less the further away). The score is
   0.5 * title + 0.3 * description + 0.2 * price.
3. ``confident`` (filtering) holds each category against three checks and rejects it for the first that fails:
   ``not_in_title``, ``price_unlike`` (price under 0.5), ``low_score`` (under 0.6).
4. ``choose`` (selection) picks the category with the best score.

What to look at: a laptop is put among the laptop sleeves. Its title fits both; ``confident`` rejected ``laptops`` as
``price_unlike``, because the product has a wrong price. The metric ``check_fail_ratio`` says how often each check
fails, also where another one was named as the reason. For the last product nothing is picked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from xray import (
    Candidates,
    entrypoint,
    filtering_stage,
    pipeline,
    retrieval_stage,
    scoring_stage,
    selection_stage,
)


@dataclass(frozen=True)
class Product:
    """A product that has no category yet."""

    id: str
    title: str
    description: str
    price: float


@dataclass(frozen=True)
class Category:
    """A category: the words that speak for it, and what its products cost."""

    id: str
    words: tuple[str, ...]
    lowest: float
    highest: float


@dataclass(frozen=True)
class Found:
    """A category that may fit, and where its word was found."""

    id: str
    category: Category
    source: str


@dataclass(frozen=True)
class Match:
    """A category with its scores."""

    id: str
    scores: dict[str, float]
    score: float


@dataclass(frozen=True)
class Judged:
    """A category with its checks, each passed or not and why."""

    id: str
    score: float
    checks: dict[str, tuple[bool, str]]

    @property
    def reason(self) -> str | None:
        """The first check that failed."""
        return next((name for name, (passed, _) in self.checks.items() if not passed), None)


WEIGHTS = {"title": 0.5, "description": 0.3, "price": 0.2}
LEAST_PRICE, LEAST_SCORE = 0.5, 0.6


@pipeline("product_categorisation", id="product.id", version="1.0")
class Categorisation:
    """One product on its way to a category."""

    def __init__(self, product: Product) -> None:
        self.product = product

    @entrypoint
    def categorise(self) -> str | None:
        """The category's id, or None where a person has to decide."""
        judged = self.confident(self.match(self.candidate_categories()))
        chosen = self.choose([each for each in judged if each.reason is None])
        return None if chosen is None else chosen.id

    @retrieval_stage("candidate_categories", source="source")
    def candidate_categories(self) -> list[Found]:
        """The categories that share a word with the product."""
        places = {"title": words(self.product.title), "description": words(self.product.description)}
        found = []
        for category in CATEGORIES:
            source = next((place for place, known in places.items() if known & set(category.words)), None)
            if source is not None:
                found.append(Found(category.id, category, source))
        return found

    @scoring_stage("match", score="score", scores="scores")
    def match(self, found: Annotated[list[Found], Candidates("categories")]) -> list[Match]:
        """How well each category fits."""
        return [self._matched(each.category) for each in found]

    @filtering_stage(
        "confident",
        of=Judged,
        passed=lambda judged: judged.reason is None,
        reason_label="reason",
        checks="checks",
        labels={"not_in_title", "price_unlike", "low_score"},
    )
    def confident(self, matches: Annotated[list[Match], Candidates("categories")]) -> list[Judged]:
        """Each category held against every check, not only up to the first that fails."""
        return [
            Judged(
                match.id,
                match.score,
                {
                    "not_in_title": (match.scores["title"] > 0, f"title {match.scores['title']}"),
                    "price_unlike": (match.scores["price"] >= LEAST_PRICE, f"price {match.scores['price']}"),
                    "low_score": (match.score >= LEAST_SCORE, f"score {match.score}"),
                },
            )
            for match in matches
        ]

    @selection_stage("choose", score="score")
    def choose(self, judged: Annotated[list[Judged], Candidates("categories")]) -> Judged | None:
        """The best category."""
        return max(judged, key=lambda each: each.score, default=None)

    def _matched(self, category: Category) -> Match:
        product = self.product
        nearest = min(max(product.price, category.lowest), category.highest)
        scores = {
            "title": known_words(product.title, category),
            "description": known_words(product.description, category),
            "price": round(min(product.price, nearest) / max(product.price, nearest), 4),
        }
        return Match(category.id, scores, round(sum(WEIGHTS[name] * score for name, score in scores.items()), 4))


def known_words(text: str, category: Category) -> float:
    """The words of a text that speak for a category, of which two are enough for 1."""
    return min(len(words(text) & set(category.words)) / 2, 1.0)


def words(text: str) -> set[str]:
    """The words of a text in lower case."""
    return set(text.lower().replace(",", " ").replace(".", " ").split())


CATEGORIES = (
    Category("kitchen_knives", ("knife", "chef", "blade", "santoku"), 15, 220),
    Category("cutlery", ("fork", "spoon", "knife", "set"), 10, 120),
    Category("outdoor_knives", ("knife", "folding", "blade", "camping"), 12, 150),
    Category("tents", ("tent", "camping", "person", "poles"), 60, 700),
    Category("sleeping_bags", ("sleeping", "bag", "camping", "down"), 40, 450),
    Category("handbags", ("bag", "leather", "shoulder", "strap"), 30, 600),
    Category("backpacks", ("backpack", "straps", "laptop", "bag"), 25, 260),
    Category("laptops", ("laptop", "inch", "memory", "processor"), 300, 3500),
    Category("laptop_sleeves", ("sleeve", "laptop", "inch", "felt"), 10, 70),
    Category("desk_lamps", ("lamp", "desk", "light", "dimmable"), 15, 250),
    Category("bicycle_lights", ("bicycle", "light", "lumen", "handlebar"), 8, 160),
    Category("garden_tools", ("garden", "spade", "rake", "steel"), 8, 140),
)
"""Twelve categories."""

PRODUCTS = (
    Product("P01", "Santoku chef knife, 18 cm", "Forged blade of layered steel.", 89.0),
    Product("P02", "Folding knife, olive handle", "A blade for camping and picnics.", 34.0),
    Product("P03", "Laptop sleeve, 14 inch", "Grey felt, with a pocket.", 29.0),
    Product("P04", "Leather shoulder bag", "With an adjustable strap.", 180.0),
    Product("P05", "Camping tent, two person", "Light poles, packs into a bag.", 240.0),
    Product("P06", "Bicycle light, front", "700 lumen, for any handlebar.", 45.0),
    Product("P07", "Dimmable desk lamp", "Warm light for long evenings.", 59.0),
    Product("P08", "Sleeping bag, 650 g", "Filled with down, for camping in spring.", 310.0),
    Product("P09", "Laptop, 15 inch", "32 GB memory, a fast processor.", 49.0),
    Product("P10", "Ceramic gnome with lantern", "Looks after the garden by solar light.", 24.0),
)
"""Ten products. The laptop P09 has a wrong price; for P10 there is no category."""


def run_all() -> dict[str, str | None]:
    """Categorise every product; the category's id, or None, by the product's."""
    return {product.id: Categorisation(product).categorise() for product in PRODUCTS}


if __name__ == "__main__":
    for product_id, category in run_all().items():
        print(product_id, "→", category or "a person decides")
