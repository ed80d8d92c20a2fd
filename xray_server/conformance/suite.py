"""What every part of the conformance suite needs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from xray_server.stores.base import Store

T = TypeVar("T")


async def with_open(store: Store, use: Callable[[Store], Awaitable[T]]) -> T:
    """Open a store, use it, and close it.

    Args:
        store: The store, not open.
        use: What to do with it.

    Returns:
        What ``use`` returned.
    """
    await store.open()
    try:
        return await use(store)
    finally:
        await store.close()


class StoreSuite(ABC):
    """Makes stores for tests."""

    is_shared: ClassVar[bool] = True
    """Whether several stores, also of several processes, may use the same data at once."""

    @abstractmethod
    async def make_store(self, place: Path) -> Store:
        """A store that is not open yet.

        Args:
            place: A folder of the test's own; the same folder means the same data.
        """

    def with_store(self, place: Path, use: Callable[[Store], Awaitable[Any]]) -> Any:
        """Use an open store in an event loop of its own, and close it."""

        async def run() -> Any:
            return await with_open(await self.make_store(place), use)

        return asyncio.run(run())
