"""Which texts are near-duplicates of each other: word shingles, compared by Jaccard's index."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

SHINGLE_WORDS = 2
MAX_POSTINGS = 200
"""Shingles that more texts than this have in common say little and cost much: they find no pairs."""

_WORD = re.compile(r"\w+")


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The runs of :data:`SHINGLE_WORDS` words of a text, without case and punctuation; of a shorter text all of it."""
    words = _WORD.findall(text.casefold())
    if len(words) <= SHINGLE_WORDS:
        return frozenset({tuple(words)}) if words else frozenset()
    return frozenset(zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False))


def jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """The share of what either has that both have; 0 where neither has anything.

    Jaccard, "The Distribution of the Flora in the Alpine Zone", New Phytologist 11(2), 1912; over shingles: Broder, "On
    the Resemblance and Containment of Documents", Compression and Complexity of Sequences, 1997.
    """
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def clusters(texts: Sequence[str | None], threshold: float) -> list[int | None]:
    """Groups of texts: two are in one group where a chain of near-duplicates leads from one to the other.

    Only texts that share a shingle are compared, so that the cost goes with the pairs that may be near, and not with
    all pairs.

    Args:
        texts: The texts; None has no group.
        threshold: Jaccard's index from which two texts are near-duplicates, above 0.

    Returns:
        For each text the place of the first text of its group.
    """
    sets = [frozenset() if text is None else shingles(text) for text in texts]
    group = list(range(len(texts)))

    def root(place: int) -> int:
        while group[place] != place:
            group[place] = place = group[group[place]]
        return place

    earlier: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, own in enumerate(sets):
        shared: Counter[int] = Counter()
        for shingle in own:
            holders = earlier[shingle]
            if len(holders) <= MAX_POSTINGS:
                shared.update(holders)
                holders.append(place)
        for other in shared:
            first, second = sorted((root(place), root(other)))
            if first != second and jaccard(own, sets[other]) >= threshold:
                group[second] = first
    return [None if text is None else root(place) for place, text in enumerate(texts)]
