"""What to do where another writer was faster: wait a little, try again, and give up at last."""

from __future__ import annotations

import asyncio
import random

from pymongo.errors import BulkWriteError

from xray.exceptions import StoreError

MAX_ATTEMPTS = 200
"""Rounds after which a writer that others keep overtaking gives up."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.002, 0.1
"""How long a writer that was overtaken waits at the most, before the second round and at the longest."""

_OVERTAKEN = frozenset({11000, 112})
"""The codes of a duplicate key and of a write conflict."""


def overtaken(error: BulkWriteError) -> list[int]:
    """The places of the operations that another writer was faster than.

    Raises:
        BulkWriteError: Anything else was wrong with one of them.
    """
    problems = error.details["writeErrors"]
    if error.details["writeConcernErrors"] or any(problem["code"] not in _OVERTAKEN for problem in problems):
        raise error
    return sorted(problem["index"] for problem in problems)


async def pause(attempt: int) -> None:
    """Wait before the next round, longer with each; a random time, which keeps writers apart."""
    longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 10))
    await asyncio.sleep(random.uniform(0, longest_s))  # noqa: S311 - nothing is kept secret by it


def contended(collection: str) -> StoreError:
    """The error of a writer that gives up."""
    return StoreError(
        f"Other writers kept changing the same documents of {collection}.",
        code="contended",
        hint="Send the batch again.",
    )
