"""Answer questions about X-Ray from its own documentation, with ``with`` blocks in place of decorators.

The pipeline ``docs_rag`` decides which sections of ``docs/`` an answer rests on:

1. ``retrieve`` (retrieval) fetches the 20 sections in which the question's words weigh most: a word's weight in a
   section is its number there over the number of sections that have it.
2. ``rerank`` (ranking) puts first what names the question's words in its heading.
3. ``fit_budget`` (filtering) takes sections from the top as long as the budget of words lasts and rejects the others as
   ``over_budget``, and those in which less than half of the question's words occur as ``off_topic``.
4. ``answer`` (generation) quotes the first sentence of each section that is left (a stand-in for a language model).

``answer_async`` does the same with ``async with``, with two retrievals at once and without the last stage; its filter
gives the kept and the rejected sections as a pair.

What to look at: ``mean_displacement`` of ``rerank`` says how far it moves the sections; what it moves down no longer
fits the budget. The last question is answered with nothing, because every section is ``off_topic``.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import xray

DOCS = Path(__file__).resolve().parents[1] / "docs"
FETCHED, BUDGET = 20, 220
COMMON = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "by", "do", "does", "for", "have", "how", "i", "in", "is", "it", "its"}
    | {"may", "of", "on", "or", "so", "that", "the", "to", "what", "which", "with"}
)


@dataclass(frozen=True)
class Section:
    """A section of a page."""

    id: str
    page: str
    heading: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A section with what it scored."""

    section: Section
    score: float


def answer(question: str) -> list[str]:
    """The sentences that answer a question."""
    with xray.run("docs_rag", key=question, input={"question": question}, version="1.0") as run:
        with run.stage("retrieve", "retrieval", id="section.id", source="section.page", requested=FETCHED) as stage:
            hits = retrieved(question, sections())
            stage.result(hits)
        with run.stage("rerank", "ranking", id="section.id", score="score") as stage:
            stage.candidates(hits)
            hits = reranked(question, hits)
            stage.result(hits)
        with run.stage("fit_budget", "filtering", id="section.id") as stage:
            stage.candidates(hits, budget=BUDGET)
            kept = []
            for hit, objection in objections(question, hits):
                if objection is None:
                    kept.append(hit)
                else:
                    stage.reject(hit, *objection)
            stage.result(kept)
        with run.stage("answer", "generation") as stage:
            sentences = quoted(kept)
            prompt_words = sum(len(hit.section.text.split()) for hit in kept)
            stage.llm(model="stand-in", input_tokens=prompt_words, output_tokens=len(" ".join(sentences).split()))
            stage.note(f"answers from {len(kept)} sections")
            stage.result(sentences)
        run.set_output(sentences)
    return sentences


async def answer_async(question: str) -> list[str]:
    """The same with two retrievals at once, over the texts and over the headings."""
    async with xray.run("docs_rag", key=question, input={"question": question}, version="1.0-async") as run:

        async def fetch(name: str, found: list[Section]) -> list[Hit]:
            async with run.stage(name, "retrieval", id="section.id", source="section.page") as stage:
                await asyncio.sleep(0)  # where a search service would be waited for
                hits = retrieved(question, found)
                stage.result(hits)
                return hits

        asked = words(question)
        headed = [section for section in sections() if asked & words(section.heading)]
        by_text, by_heading = await asyncio.gather(fetch("by_text", sections()), fetch("by_heading", headed))
        hits = list({hit.section.id: hit for hit in [*by_heading, *by_text]}.values())
        async with run.stage("rerank", "ranking", id="section.id", score="score") as stage:
            stage.candidates(hits)
            hits = reranked(question, hits)
            stage.result(hits)
        async with run.stage("fit_budget", "filtering", id="section.id") as stage:
            stage.candidates(hits, budget=BUDGET)
            judged = objections(question, hits)
            kept = [hit for hit, objection in judged if objection is None]
            stage.result((kept, [(hit, *objection) for hit, objection in judged if objection is not None]))
        run.set_output(quoted(kept))
    return quoted(kept)


# --- what the stages do, without X-Ray ----------------------------------------------------------------------------


def retrieved(question: str, found: list[Section]) -> list[Hit]:
    """The sections in which the question's words weigh most."""
    counts = {section.id: Counter(tokens(f"{section.heading} {section.text}")) for section in found}
    asked = sorted(words(question))
    having = {word: sum(1 for count in counts.values() if word in count) for word in asked}
    hits = []
    for section in found:
        score = sum(counts[section.id][word] / having[word] for word in asked if having[word])
        if score > 0:
            hits.append(Hit(section, round(score, 6)))
    return sorted(hits, key=lambda hit: (-hit.score, hit.section.id))[:FETCHED]


def reranked(question: str, hits: list[Hit]) -> list[Hit]:
    """The hits, those that name the question's words in their heading first."""
    asked = words(question)
    scored = [Hit(hit.section, round(len(asked & words(hit.section.heading)) + hit.score / 100, 6)) for hit in hits]
    return sorted(scored, key=lambda hit: (-hit.score, hit.section.id))


def objections(question: str, hits: list[Hit]) -> list[tuple[Hit, tuple[str, str] | None]]:
    """Each hit with why it may not be used, or None."""
    asked, left = words(question), BUDGET
    judged: list[tuple[Hit, tuple[str, str] | None]] = []
    for hit in hits:
        size = len(hit.section.text.split())
        found = asked & words(f"{hit.section.heading} {hit.section.text}")
        if 2 * len(found) < len(asked):
            judged.append((hit, ("off_topic", f"only {sorted(found)}")))
        elif size > left:
            judged.append((hit, ("over_budget", f"{size} words, {left} left")))
        else:
            left -= size
            judged.append((hit, None))
    return judged


def quoted(hits: list[Hit]) -> list[str]:
    """The first sentence of each section."""
    return [re.split(r"(?<=[.:])\s", hit.section.text, maxsplit=1)[0] for hit in hits]


@cache
def sections() -> list[Section]:
    """Every section of the documentation that has a text, tables and code left out."""
    found: list[Section] = []
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        prose = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
        parts = re.split(r"(?m)^#+ (.*)$", prose)[1:]
        for number, (heading, text) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
            lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("|")]
            if lines:
                found.append(Section(f"{name}#{number}", name, heading, " ".join(lines)))
    if not found:
        raise FileNotFoundError(f"This example reads the pages in {DOCS}: run it in a clone of the repository.")
    return found


def tokens(text: str) -> list[str]:
    """The words of a text in lower case, without the most common ones."""
    return [word for word in re.findall(r"[a-z_]+", text.lower()) if word not in COMMON]


def words(text: str) -> set[str]:
    """The different words of a text."""
    return set(tokens(text))


QUESTIONS = (
    "what may a filtering stage return",
    "how is the id of a candidate found",
    "which metrics does a ranking stage have",
    "how do I start the service",
    "which cheese goes with a pear",
)
"""Five questions; about the last one the documentation has nothing to say."""


def run_all() -> dict[str, list[str]]:
    """Answer every question; the sentences by the question."""
    return {question: answer(question) for question in QUESTIONS}


async def run_all_async() -> dict[str, list[str]]:
    """Answer every question with the async variant, all at once."""
    answers = await asyncio.gather(*map(answer_async, QUESTIONS))
    return dict(zip(QUESTIONS, answers, strict=True))


if __name__ == "__main__":
    for asked, sentences in run_all().items():
        print(f"{asked}?", *sentences, sep="\n  ")
