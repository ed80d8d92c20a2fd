"""Improve the titles of a seller's listings with a language model, behind guardrails.

The pipeline ``listing_optimisation`` decides whether a listing gets a new title, and which:

1. ``facts`` (raw) collects what may be said of the product.
2. ``write_titles`` (generation) asks a language model for title variants (a stand-in here: a few patterns). The model,
   its tokens and its cost are recorded with ``xray.llm``, what it was asked with ``xray.note``.
3. ``guardrails`` (filtering) returns the survivors only. Why a variant is rejected is said where it is decided, with
   ``xray.reject``: ``too_long`` (over 60 characters), ``forbidden_word``, ``unproven_claim`` (a number or a material
   that the facts do not have), ``unchanged``.
4. ``predict_clicks`` (scoring) returns one number per variant: the share of searched words that the title has, less
   0.01 for each character over 40.
5. ``pick`` (selection) takes the best variant; where none is left, the old title stays.

What to look at: the question ``{"stage": {"name": "guardrails", "$failRatio": 1}}`` finds the listings that kept their
title because every variant was rejected, and ``label_counts`` says for what. ``llm.cost`` of ``write_titles`` was paid
for them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import xray
from xray import Candidates


@dataclass(frozen=True)
class Listing:
    """A listing as the seller wrote it."""

    id: str
    title: str
    kind: str
    material: str
    size: str
    searched: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """A title that the model came up with."""

    id: str
    text: str
    reason: str


@dataclass(frozen=True)
class Predicted:
    """A variant and how well it would be clicked."""

    variant: Variant
    clicks: float


MAX_CHARS, GOOD_CHARS = 60, 40
FORBIDDEN = frozenset({"best", "cheapest", "guaranteed", "miracle"})
MATERIALS = frozenset({"oak", "steel", "wool", "cotton", "glass", "leather", "linen"})


@xray.pipeline("listing_optimisation", id="listing.id", version="1.0")
def optimise(listing: Listing) -> str:
    """The title that the listing should have."""
    variants = guardrails(write_titles(listing, facts(listing)), listing)
    chosen = pick(list(map(Predicted, variants, predict_clicks(variants, listing))))
    return listing.title if chosen is None else chosen.variant.text


@xray.raw_stage("facts")
def facts(listing: Listing) -> dict[str, str]:
    """What may be said of the product."""
    return {"kind": listing.kind, "material": listing.material, "size": listing.size}


@xray.generation_stage("write_titles", id="id", text="text", reason="reason")
def write_titles(listing: Listing, known: dict[str, str]) -> list[Variant]:
    """Title variants by the model."""
    prompt = f"Titles for {known['kind']} of {known['material']}, {known['size']}. Searched: {listing.searched}"
    xray.note(f"prompt: {prompt}")
    texts = ask_model(listing, known)
    tokens_in, tokens_out = len(prompt.split()), sum(len(text.split()) for text, _ in texts)
    cost = round(tokens_in * 2e-6 + tokens_out * 8e-6, 9)
    xray.llm(model="stand-in", input_tokens=tokens_in, output_tokens=tokens_out, temperature=0.0, cost=cost)
    return [Variant(f"{listing.id}-{number}", *text) for number, text in enumerate(texts, 1)]


@xray.filtering_stage("guardrails", id="id", labels={"too_long", "forbidden_word", "unproven_claim", "unchanged"})
def guardrails(variants: Annotated[list[Variant], Candidates("variants")], listing: Listing) -> list[Variant]:
    """The variants that may be published."""
    kept = []
    for variant in variants:
        said = {word.strip(",").lower() for word in variant.text.split()}
        proven = {word.strip(",").lower() for word in f"{listing.title} {listing.material} {listing.size}".split()}
        claims = {word for word in said if word in MATERIALS or word[0].isdigit()} - proven
        if len(variant.text) > MAX_CHARS:
            xray.reject(variant, "too_long", f"{len(variant.text)} > {MAX_CHARS} characters")
        elif said & FORBIDDEN:
            xray.reject(variant, "forbidden_word", ", ".join(sorted(said & FORBIDDEN)))
        elif claims:
            xray.reject(variant, "unproven_claim", ", ".join(sorted(claims)))
        elif variant.text == listing.title:
            xray.reject(variant, "unchanged")
        else:
            kept.append(variant)
    return kept


@xray.scoring_stage("predict_clicks", id="id")
def predict_clicks(variants: Annotated[list[Variant], Candidates("variants")], listing: Listing) -> list[float]:
    """One number per variant: how well it would be clicked."""

    def predicted(text: str) -> float:
        said = set(text.lower().replace(",", "").split())
        found = sum(1 for word in listing.searched if word in said) / len(listing.searched)
        return round(found - 0.01 * max(len(text) - GOOD_CHARS, 0), 4)

    return [predicted(variant.text) for variant in variants]


@xray.selection_stage("pick", id="variant.id", score="clicks")
def pick(predicted: Annotated[list[Predicted], Candidates("variants")]) -> Predicted | None:
    """The variant with the best prediction, the first one where two are equal."""
    return max(predicted, key=lambda each: each.clicks, default=None)


# --- the stand-in for a language model ----------------------------------------------------------------------------


def ask_model(listing: Listing, known: dict[str, str]) -> list[tuple[str, str]]:
    """Titles with the reason for each, as a language model would give them: good ones and careless ones."""
    kind, material, size = known["kind"], known["material"], known["size"]
    searched = " ".join(listing.searched)
    texts = [
        (f"{material.title()} {kind}, {size}", "the facts alone"),
        (f"{searched.title()} {kind}, {size}", "the words that people search for"),
        (f"{material.title()} {kind} for {searched}, {size}, handmade with great care", "everything at once"),
    ]
    if len(listing.title) < 20:
        texts.append((f"The best {kind} of {material}", "short titles want a claim"))
    if material == "oak":
        texts.append((f"{kind.title()} of oak and steel, {size}", "oak is often sold with steel"))
    if listing.title == f"{material.title()} {kind}, {size}":
        texts = [texts[0], *texts[2:]]
    return texts


LISTINGS = (
    Listing("L1", "Shelf", "wall shelf", "oak", "80 cm", ("floating", "kitchen")),
    Listing("L2", "Very nice warm blanket for the sofa", "blanket", "wool", "130 cm", ("sofa", "throw", "warm")),
    Listing("L3", "Glass teapot, 1 l", "teapot", "glass", "1 l", ("tea", "infuser")),
    Listing("L4", "Belt", "belt", "leather", "95 cm", ("mens", "casual")),
    Listing("L5", "Steel bottle, 750 ml", "bottle", "steel", "750 ml", ("insulated", "sports", "vacuum", "drinking")),
    Listing("L6", "Shirt for summer days", "shirt", "cotton", "size 40", ("linen", "cotton", "shirt")),
)
"""Six listings. L3 and L5 have the title already that the facts alone would give."""


def run_all() -> dict[str, str]:
    """Optimise every listing; the title that each should have, by the listing's id."""
    return {listing.id: optimise(listing) for listing in LISTINGS}


if __name__ == "__main__":
    for listing in LISTINGS:
        print(listing.id, listing.title, "→", optimise(listing))
