"""Taking turns at the event loop's thread, on which questions are evaluated.

Each question works in short steps and lets others have the loop in between; but with fifty of them, fifty steps are due
at once, and what has nothing to do with questions would wait for all of them each time it needs the loop. So only one
question is at work at a time, and whatever else is due comes between two steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

STEP_S = 0.005
"""How long a question works before others have their turn."""

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Wait for this question's turn; what stands inside is one step of a few milliseconds, without awaiting."""
    # Without anybody waiting the lock is had at once, and the loop would never be let go.
    await asyncio.sleep(0)
    async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        yield


async def in_turns(holds: Callable[[T], bool], items: Sequence[T]) -> list[bool]:
    """Which of some items a condition holds for, in as many steps as that takes.

    Args:
        holds: The condition.
        items: What it is asked of.
    """
    found: list[bool] = []
    while len(found) < len(items):
        async with turn():
            until = time.monotonic() + STEP_S
            for item in items[len(found) :]:
                found.append(holds(item))
                if time.monotonic() >= until:
                    break
    return found
