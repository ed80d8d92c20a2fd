"""Find the competitor of a seller's product, with a fault planted on purpose.

The pipeline ``competitor_discovery`` decides which product of a catalogue of 180 competes with one that somebody
sells:

1. ``keyword_gen`` (generation) asks a language model for search keywords (a stand-in here: a table of words).
2. ``catalogue_search`` (retrieval) fetches the products whose title contains a keyword; each one carries the keyword
   that found it first as its ``source``.
3. ``price_and_rating`` (filtering) rejects ``price_too_high`` (over twice the seller's price), ``price_too_low``
   (under half of it), ``rating_too_low`` (under 3.8) and ``too_few_reviews`` (under 100).
4. ``similarity`` (scoring): 0.4 * the share of title words in common + 0.3 * how near the price is + 0.3 * the
   reviews out of 3,000.
5. ``rank`` (ranking) sorts by that score; the first one is the match.

Two versions are recorded. 2026.10 is healthy. 2026.11 is the same pipeline after somebody had shortened the model's
prompt, so that it no longer says what category the product is of.

What to look at: in 2026.11 the laptop stand is matched with a phone case. Nothing failed, every stage did what it
was told, and the match has the best score of all. ``xray demo`` finds the cause by asking. The charger is searched for
with a wrong keyword too, and nobody notices, because its match is still right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

from xray import (
    Candidates,
    entrypoint,
    filtering_stage,
    generation_stage,
    pipeline,
    ranking_stage,
    retrieval_stage,
    scoring_stage,
)


@dataclass(frozen=True)
class Product:
    """One product of the catalogue."""

    id: str
    title: str
    category: str
    price: float
    rating: float
    reviews: int


@dataclass(frozen=True)
class Found(Product):
    """A product and the keyword that found it."""

    source: str


@dataclass(frozen=True)
class Keyword:
    """A search keyword and why the model came up with it."""

    text: str
    reason: str


@dataclass(frozen=True)
class Judged:
    """A product with the verdict of the filter."""

    product: Found
    passed: bool
    label: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Scored:
    """A product with its score."""

    product: Found
    score: float


class CompetitorDiscovery:
    """The pipeline's stages; the two versions differ in ``prompt_names_category`` alone."""

    prompt_names_category = True

    def __init__(self, request_id: str, catalogue: list[Product]) -> None:
        self.request_id = request_id
        self.catalogue = catalogue

    @entrypoint
    def find_match(self, product: Product) -> Found | None:
        """The product that competes most with the seller's, or None."""
        keywords = self.keyword_gen(product)
        found = self.catalogue_search(keywords)
        kept = [judged.product for judged in self.price_and_rating(found, product) if judged.passed]
        ranked = self.rank(self.similarity(kept, product))
        return ranked[0].product if ranked else None

    @generation_stage("keyword_gen", id="text", text="text", reason="reason")
    def keyword_gen(self, product: Product) -> list[Keyword]:
        """What to search the catalogue for."""
        return ask_model(product.title, product.category if self.prompt_names_category else None)

    @retrieval_stage("catalogue_search", id="id", source="source", requested="limit")
    def catalogue_search(self, keywords: list[Keyword], limit: int = 60) -> list[Found]:
        """Products in whose title a keyword occurs, in the keywords' order."""
        found: dict[str, Found] = {}
        for keyword in keywords:
            for product in self.catalogue:
                if keyword.text in product.title.lower() and product.id not in found:
                    found[product.id] = Found(**asdict(product), source=keyword.text)
        return list(found.values())[:limit]

    @filtering_stage(
        "price_and_rating",
        id="product.id",
        passed="passed",
        reason_label="label",
        reason_text="text",
        labels={"price_too_high", "price_too_low", "rating_too_low", "too_few_reviews"},
    )
    def price_and_rating(
        self, products: Annotated[list[Found], Candidates("products")], seller: Product
    ) -> list[Judged]:
        """Is it in the same market? Nobody asks whether it is the same kind of thing."""

        def judge(product: Found) -> Judged:
            if product.price > 2 * seller.price:
                return Judged(product, False, "price_too_high", f"{product.price} > 2 * {seller.price}")
            if product.price < seller.price / 2:
                return Judged(product, False, "price_too_low", f"{product.price} < {seller.price} / 2")
            if product.rating < 3.8:
                return Judged(product, False, "rating_too_low", f"{product.rating} < 3.8")
            if product.reviews < 100:
                return Judged(product, False, "too_few_reviews", f"{product.reviews} < 100")
            return Judged(product, True)

        return [judge(product) for product in products]

    @scoring_stage("similarity", id="product.id", score="score")
    def similarity(self, products: Annotated[list[Found], Candidates("products")], seller: Product) -> list[Scored]:
        """How much each product looks like the seller's, on the surface."""
        wanted = words(seller.title)

        def score(product: Found) -> float:
            given = words(product.title)
            in_common = len(wanted & given) / len(wanted | given)
            price_nearness = min(product.price, seller.price) / max(product.price, seller.price)
            return round(0.4 * in_common + 0.3 * price_nearness + 0.3 * min(product.reviews / 3000, 1), 4)

        return [Scored(product, score(product)) for product in products]

    @ranking_stage("rank", id="product.id", score="score")
    def rank(self, scored: Annotated[list[Scored], Candidates("products")]) -> list[Scored]:
        """The most similar product first."""
        return sorted(scored, key=lambda item: (-item.score, item.product.id))


@pipeline("competitor_discovery", id="request_id", version="2026.10")
class HealthyDiscovery(CompetitorDiscovery):
    """The version of October."""


@pipeline("competitor_discovery", id="request_id", version="2026.11")
class FaultyDiscovery(CompetitorDiscovery):
    """The version of November, with the shorter prompt."""

    prompt_names_category = False


# --- the stand-in for a language model ----------------------------------------------------------------------------

SYNONYMS = {
    "laptop stand": "notebook riser",
    "headphone stand": "headset holder",
    "usb charger": "power adapter",
    "power bank": "portable battery",
    "monitor arm": "screen mount",
}
ASSOCIATIONS = (
    ({"aluminium", "stand"}, "phone case", "'aluminium' and 'stand' are typical of phone accessories"),
    ({"usb-c", "charger"}, "charging cable", "chargers are sold together with charging cables"),
)


def ask_model(title: str, category: str | None) -> list[Keyword]:
    """Search keywords for a product, as a language model would give them: guessed where it is not told the category.

    Args:
        title: The product's title.
        category: Its category, or None where the prompt does not name it.
    """
    known = category or next((kind for kind in CATEGORIES if words(kind) <= words(title)), None)
    keywords = []
    if known is not None:
        keywords.append(Keyword(known, f"the product is a {known}"))
        if known in SYNONYMS:
            keywords.append(Keyword(SYNONYMS[known], f"another word for {known}"))
    if category is None:
        keywords += [Keyword(text, reason) for cues, text, reason in ASSOCIATIONS if cues <= words(title)]
    return keywords


def words(text: str) -> set[str]:
    """The words of a text in lower case."""
    return set(text.lower().replace(",", " ").split())


# --- the catalogue ------------------------------------------------------------------------------------------------

CATEGORIES = {
    "laptop stand": (34.0, ("Steel, Fixed", "Bamboo, Slim", "Aluminium, Foldable", "Plastic, Adjustable")),
    "phone case": (22.0, ("Silicone, Matte", "Leather, Wallet", "Clear, Shockproof", "Wool, Slim")),
    "usb charger": (27.0, ("65 W, USB-C", "30 W, USB-C", "100 W, Two Ports", "20 W, Travel")),
    "charging cable": (12.0, ("USB-C, 1 m", "USB-C, Braided", "Magnetic, 2 m", "Right Angle, 1 m")),
    "power bank": (39.0, ("10000 mAh, Slim", "20000 mAh, USB-C", "5000 mAh, Magnetic", "26800 mAh, Solar")),
    "keyboard": (65.0, ("Mechanical, Compact", "Wireless, Slim", "Split, Wired", "Foldable, Travel")),
    "mouse": (31.0, ("Wireless, Silent", "Vertical, Wired", "Trackball, Wireless", "Travel, Slim")),
    "webcam": (58.0, ("1080p, Tripod", "4K, Autofocus", "720p, Clip", "1440p, Ring Light")),
    "monitor arm": (79.0, ("Gas Spring, Single", "Dual, Steel", "Wall, Fixed", "Pole, Adjustable")),
    "headphone stand": (25.0, ("Walnut, Weighted", "Acrylic, Clear", "Steel, Clamp", "Oak, Dual")),
    "usb hub": (36.0, ("Four Ports, Slim", "Seven Ports, Powered", "USB-C, HDMI", "Card Reader, Travel")),
    "screen protector": (11.0, ("Glass, Two Pack", "Matte, Film", "Privacy, Glass", "Clear, Film")),
}
"""Category → a middling price and the variants it is sold in."""

BRANDS = ("Nordkap", "Voltera", "Kiteline", "Brightdesk", "Omniform")

PLANTED = Product("phone-case-15", "Kiteline Phone Case, Aluminium, Foldable Stand", "phone case", 33.5, 4.8, 2960)
"""A fine phone case that looks like a laptop stand to whoever compares words, prices and popularity."""

SOLD = (
    Product("sold-laptop-stand", "Deskwell Laptop Stand, Aluminium, Foldable", "laptop stand", 34.0, 4.4, 512),
    Product("sold-usb-charger", "Deskwell USB Charger, 65 W, USB-C", "usb charger", 29.0, 4.2, 804),
    Product("sold-power-bank", "Deskwell Power Bank, 20000 mAh, Slim", "power bank", 41.0, 4.5, 377),
    Product("sold-keyboard", "Deskwell Keyboard, Wireless, Compact", "keyboard", 59.0, 4.1, 268),
    Product("sold-headphone-stand", "Deskwell Headphone Stand, Walnut, Dual", "headphone stand", 28.0, 4.6, 143),
    Product("sold-monitor-arm", "Deskwell Monitor Arm, Gas Spring, Dual", "monitor arm", 84.0, 4.3, 221),
)
"""What the seller sells."""


def catalogue() -> list[Product]:
    """The 180 products: fifteen of each category, the same in every run."""
    return list(_products())


def _products() -> Iterator[Product]:
    for place, (category, (price, variants)) in enumerate(CATEGORIES.items()):
        for number in range(1, 16):
            product_id = f"{category.replace(' ', '-')}-{number:02}"
            if product_id == PLANTED.id:
                yield PLANTED
                continue
            # Multiples of primes spread the values without a random number in sight.
            spread = (number * 7 + place * 3) % 15
            noun = SYNONYMS.get(category, category) if number % 5 == 0 else category
            yield Product(
                product_id,
                f"{BRANDS[number % 5]} {noun.title().replace('Usb', 'USB')}, {variants[number % 4]}",
                category,
                round(price * (0.35 + 0.13 * spread), 2),
                round(3.3 + (number * 11 + place) % 17 / 10, 1),
                20 + (number * 137 + place * 61) % 1400,
            )


def run_all(*, fault: bool) -> dict[str, Found | None]:
    """Find the competitor of every product that the seller sells; the results by that product's id.

    Args:
        fault: Whether to run the version with the planted fault, or the healthy one.
    """
    version = FaultyDiscovery if fault else HealthyDiscovery
    products = catalogue()
    return {product.id: version(product.id, products).find_match(product) for product in SOLD}


if __name__ == "__main__":
    for sold_id, match in run_all(fault=True).items():
        print(sold_id, "→", f"{match.title} ({match.category})" if match else "nothing")
