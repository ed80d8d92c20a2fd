"""The examples' pipelines on inputs drawn at random, healthy or with one fault planted.

The stages do what they do in ``examples/`` (their functions are called undecorated), on products, viewers and
questions that are drawn; retrieval has three shards, which the examples do not have. A fault changes what one stage
gives, as a bug or a model's mood would, and the stages behind it work on that. Nothing here is known to the analyzer.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xray
from examples import competitors, films, rag

Json = dict[str, Any]
SHARDS = ("shard-a", "shard-b", "shard-c")


class NotPlantedError(Exception):
    """The fault would change too little on this input to matter; another input is drawn."""


@dataclass
class Plant:
    """One fault, or none.

    Args:
        kind: Its name, or None for a healthy run.
        stage: The stage that has it.
        rng: Draws its strength.
    """

    kind: str | None
    stage: str | None
    rng: random.Random

    def at(self, kind: str, stage: str) -> bool:
        """Whether this is the fault and the place."""
        return self.kind == kind and self.stage == stage

    def generated(self, stage: str, words: list[str], wrong: Sequence[str]) -> list[str]:
        """What a generating stage gives."""
        if self.at("hallucinated keyword", stage):
            made_up = ["".join(self.rng.choices("abdegiklmnoprstuvz", k=self.rng.randint(5, 9))) for _ in range(2)]
            pool = [word for word in wrong if word not in words]
            extra = self.rng.sample(pool, self.rng.randint(1, 3)) if self.rng.random() < 0.7 else made_up
            kept = words if self.rng.random() < 0.5 else words[: self.rng.randint(0, len(words))]
            return self.rng.sample([*kept, *extra], len(kept) + len(extra))
        if self.at("empty generation", stage):
            return [] if self.rng.random() < 0.5 else [self.rng.choice(["", " "]) for _ in words]
        return words

    def found(self, stage: str, hits: list[Any], shard_of: Callable[[Any], str]) -> list[Any]:
        """What a retrieving stage gives."""
        if self.at("dropped source", stage):
            gone = self.rng.sample(SHARDS, self.rng.randint(1, 2))
            left = [hit for hit in hits if shard_of(hit) not in gone]
            self._matters(len(hits) - len(left) >= max(2, len(hits) / 5))
            return left
        if self.at("duplicate flood", stage):
            self._matters(len(hits) >= 4)
            copies = self.rng.choices(hits, k=math.ceil(len(hits) * self.rng.uniform(0.3, 3)))
            return self.rng.sample([*hits, *copies], len(hits) + len(copies))
        return hits

    def judged(self, stage: str, flags: list[bool]) -> set[int]:
        """The places of those that a filter rejects although it should not."""
        passed = [place for place, flag in enumerate(flags) if flag]
        if not self.at("over-strict filter", stage):
            return set()
        self._matters(len(passed) >= 4)
        return set(self.rng.sample(passed, math.ceil(len(passed) * self.rng.uniform(0.6, 1))))

    def scale(self, stage: str) -> Callable[[float], float]:
        """What becomes of a score."""
        if not self.at("score scale shift", stage):
            return lambda score: score
        factor = math.exp(self.rng.uniform(math.log(2), math.log(20))) ** self.rng.choice((-1, 1))
        offset = self.rng.choice((0.0, self.rng.uniform(0.5, 2)))
        return lambda score: score * factor + offset

    def ordered(self, stage: str, ranked: list[Any]) -> list[Any]:
        """The order that a ranking stage gives."""
        if not self.at("swapped rank order", stage):
            return ranked
        self._matters(len(ranked) >= 4)
        if self.rng.random() < 0.5:
            return ranked[::-1]
        middle = len(ranked) // 2
        return ranked[middle:] + ranked[:middle] if self.rng.random() < 0.5 else self.rng.sample(ranked, len(ranked))

    def timed(self, events: list[Json]) -> None:
        """Say how long each stage took: drawn, so that what else this machine does has no part in it.

        A stage has a usual time that grows with its candidates, a spread of about a quarter, and one time in fifty
        takes two to eight times as long for no reason. A latency spike makes it five to fifty times as long.
        """
        for event in events:
            if event["type"] == "stage":
                usual = 5 * 100 ** (sum(event["name"].encode()) % 97 / 97)
                size = (event.get("capture") or {}).get("seen") or 0
                took = usual * (0.5 + size / 50) * math.exp(self.rng.gauss(0, 0.25))
                if self.rng.random() < 0.02:
                    took *= self.rng.uniform(2, 8)
                if self.at("latency spike", event["name"]):
                    took *= math.exp(self.rng.uniform(math.log(5), math.log(50)))
                event["duration_ms"] = took

    def _matters(self, condition: bool) -> None:
        if not condition:
            raise NotPlantedError


@dataclass(frozen=True)
class Pipeline:
    """One pipeline: how it runs, and which of its stages can have which fault.

    Args:
        label: The pipeline's label.
        run: Draws an input and runs on it.
        stages: All stages.
        faults: Kind of fault → the stages that can have it.
    """

    label: str
    run: Callable[[random.Random, Plant], None]
    stages: tuple[str, ...]
    faults: dict[str, tuple[str, ...]]


# --- competitor_discovery -----------------------------------------------------------------------------------------

CATALOGUE = competitors.catalogue()
DISCOVERY = competitors.CompetitorDiscovery
WORDS = tuple({*competitors.CATEGORIES, *competitors.SYNONYMS.values()})


def discover(rng: random.Random, plant: Plant) -> None:
    """Find the competitor of a product that is drawn."""
    category = rng.choice(sorted(competitors.CATEGORIES))
    price, variants = competitors.CATEGORIES[category]
    title = f"Deskwell {category.title()}, {rng.choice(variants)}"
    product = competitors.Product(
        f"sold-{rng.randrange(10**6)}", title, category, round(price * rng.uniform(0.8, 1.25), 2),
        round(rng.uniform(3.9, 4.8), 1), rng.randrange(100, 1500),
    )  # fmt: skip
    steps = DISCOVERY(product.id, CATALOGUE)

    @xray.generation_stage("keyword_gen", id="text", text="text", reason="reason")
    def keyword_gen(sold: competitors.Product) -> list[competitors.Keyword]:
        asked = competitors.ask_model(sold.title, sold.category)
        reasons = {keyword.text: keyword.reason for keyword in asked}
        texts = plant.generated("keyword_gen", [keyword.text for keyword in asked], WORDS)
        return [competitors.Keyword(text, reasons.get(text, f"people search for {text} too")) for text in texts]

    @xray.retrieval_stage("catalogue_search", id="id", source="source", requested="limit")
    def search(keywords: list[competitors.Keyword], limit: int = 60) -> list[competitors.Found]:
        words = [keyword for keyword in keywords if keyword.text.strip()]
        found = [
            replace(hit, source=_shard(hit.id)) for hit in DISCOVERY.catalogue_search.__wrapped__(steps, words, limit)
        ]
        return plant.found("catalogue_search", found, lambda hit: hit.source)

    @xray.filtering_stage("price_and_rating", id="product.id", passed="passed", reason_label="label")
    def judge(products: list[competitors.Found]) -> list[competitors.Judged]:
        judged = DISCOVERY.price_and_rating.__wrapped__(steps, products, product)
        wrong = plant.judged("price_and_rating", [each.passed for each in judged])
        label = plant.rng.choice(("price_too_high", "price_too_low", "rating_too_low", "too_few_reviews"))
        return [
            replace(each, passed=False, label=label) if place in wrong else each for place, each in enumerate(judged)
        ]

    @xray.scoring_stage("similarity", id="product.id", score="score")
    def score(products: list[competitors.Found]) -> list[competitors.Scored]:
        scale = plant.scale("similarity")
        scored = DISCOVERY.similarity.__wrapped__(steps, products, product)
        return [replace(each, score=scale(each.score)) for each in scored]

    @xray.ranking_stage("rank", id="product.id", score="score")
    def rank(scored: list[competitors.Scored]) -> list[competitors.Scored]:
        return plant.ordered("rank", DISCOVERY.rank.__wrapped__(steps, scored))

    with xray.run("competitor_discovery", key=product.id, input={"product": vars(product)}):
        kept = [each.product for each in judge(search(keyword_gen(product))) if each.passed]
        rank(score(kept))


# --- film_recommendation ------------------------------------------------------------------------------------------

GENRES = ("Comedy", "Drama", "Documentary", "Sci-Fi", "Horror", "Romance", "Crime", "Action", "Thriller", "Animation")


def recommend(rng: random.Random, plant: Plant) -> None:
    """Recommend films to a viewer who is drawn."""
    viewer = films.Viewer(
        f"V{rng.randrange(10**6)}", rng.choice(GENRES), rng.choice((1980, 1990, 2000)), ("English",),
        rng.choice((100, 120, 150)), with_children=False, min_positive=rng.choice((50, 60, 75)),
    )  # fmt: skip

    @xray.retrieval_stage("by_genre_and_decade", id="id", score="reviews", source="shard", requested="limit")
    def retrieve(genre: str, decade: int, limit: int) -> list[Json]:
        found = films.by_genre_and_decade.__wrapped__(genre, decade, limit)
        found = [{**film, "shard": _shard(film["id"])} for film in found]
        return plant.found("by_genre_and_decade", found, lambda film: film["shard"])

    @xray.filtering_stage("suitable", id="id", passed="ok", reason_label="why")
    def suitable(pool: list[Json]) -> list[Json]:
        judged = films.suitable.__wrapped__(pool, viewer)
        wrong = plant.judged("suitable", [film["ok"] for film in judged])
        label = plant.rng.choice(("wrong_language", "too_long", "too_few_reviews"))
        return [{**film, "ok": False, "why": label} if place in wrong else film for place, film in enumerate(judged)]

    @xray.filtering_stage("critics_like")
    def critics_like(pool: list[Json]) -> list[Json]:
        kept = films.critics_like.__wrapped__(pool, viewer.min_positive)
        wrong = plant.judged("critics_like", [True] * len(kept))
        return [film for place, film in enumerate(kept) if place not in wrong]

    @xray.scoring_stage("appeal", id="id", score="appeal")
    def appeal(pool: list[Json]) -> list[Json]:
        scale = plant.scale("appeal")
        return [{**film, "appeal": scale(film["appeal"])} for film in films.appeal.__wrapped__(pool)]

    @xray.ranking_stage("shortlist", id="id", score="appeal")
    def shortlist(pool: list[Json]) -> list[Json]:
        return plant.ordered("shortlist", films.shortlist.__wrapped__(pool))

    with xray.run("film_recommendation", key=viewer.id, input={"genre": viewer.genre, "decade": viewer.decade}):
        kept = [film for film in suitable(retrieve(viewer.genre, viewer.decade, 120)) if film["ok"]]
        shortlist(appeal(critics_like(kept)))


# --- docs_rag -----------------------------------------------------------------------------------------------------


def answer(rng: random.Random, plant: Plant) -> None:
    """Answer a question that is drawn: the words of a sentence somewhere in the documentation, up to ten of them."""
    sentences = [
        sentence
        for section in rag.sections()
        for sentence in re.split(r"(?<=[.:])\s", section.text)
        if len(rag.words(sentence)) >= 5
    ]
    question = " ".join(rag.tokens(rng.choice(sentences))[:10])

    @xray.retrieval_stage("retrieve", id="section.id", source="shard", score="score", requested="limit")
    def retrieve(asked: str, limit: int) -> list[Json]:
        scale = plant.scale("retrieve")
        hits = [
            {"section": hit.section, "score": scale(hit.score), "shard": _shard(hit.section.id)}
            for hit in rag.retrieved(asked, rag.sections())[:limit]
        ]
        return plant.found("retrieve", hits, lambda hit: hit["shard"])

    @xray.ranking_stage("rerank", id="section.id", score="score")
    def rerank(hits: list[Json]) -> list[rag.Hit]:
        return plant.ordered("rerank", rag.reranked(question, [rag.Hit(hit["section"], hit["score"]) for hit in hits]))

    @xray.filtering_stage("fit_budget", id="section.id", passed="ok", reason_label="why")
    def fit_budget(hits: list[rag.Hit]) -> list[Json]:
        judged = rag.objections(question, hits)
        wrong = plant.judged("fit_budget", [objection is None for _, objection in judged])
        label = plant.rng.choice(("over_budget", "off_topic"))
        reasons = [label if n in wrong else why and why[0] for n, (_, why) in enumerate(judged)]
        return [
            {"section": hit.section, "hit": hit, "ok": why is None, "why": why}
            for (hit, _), why in zip(judged, reasons, strict=True)
        ]

    @xray.generation_stage("answer")
    def quote(hits: list[rag.Hit]) -> list[str]:
        return plant.generated("answer", rag.quoted(hits), ())

    with xray.run("docs_rag", key=question, input={"question": question}):
        kept = [row["hit"] for row in fit_budget(rerank(retrieve(question, 20))) if row["ok"]]
        if plant.at("empty generation", "answer") and not kept:
            raise NotPlantedError
        quote(kept)


def _shard(candidate_id: object) -> str:
    return SHARDS[sum(str(candidate_id).encode()) % len(SHARDS)]


PIPELINES = (
    Pipeline(
        "competitor_discovery", discover, ("keyword_gen", "catalogue_search", "price_and_rating", "similarity", "rank"),
        {
            "over-strict filter": ("price_and_rating",), "hallucinated keyword": ("keyword_gen",),
            "score scale shift": ("similarity",), "dropped source": ("catalogue_search",),
            "swapped rank order": ("rank",), "duplicate flood": ("catalogue_search",),
            "empty generation": ("keyword_gen",),
        },
    ),
    Pipeline(
        "film_recommendation", recommend, ("by_genre_and_decade", "suitable", "critics_like", "appeal", "shortlist"),
        {
            "over-strict filter": ("suitable", "critics_like"), "score scale shift": ("appeal",),
            "dropped source": ("by_genre_and_decade",), "swapped rank order": ("shortlist",),
            "duplicate flood": ("by_genre_and_decade",),
        },
    ),
    Pipeline(
        "docs_rag", answer, ("retrieve", "rerank", "fit_budget", "answer"),
        {
            "over-strict filter": ("fit_budget",), "score scale shift": ("retrieve",), "dropped source": ("retrieve",),
            "swapped rank order": ("rerank",), "duplicate flood": ("retrieve",), "empty generation": ("answer",),
        },
    ),
)  # fmt: skip

KINDS = (
    "over-strict filter", "hallucinated keyword", "score scale shift", "dropped source", "swapped rank order",
    "latency spike", "duplicate flood", "empty generation",
)  # fmt: skip
