"""What every part of the conformance suite needs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

from xray_server.stores.base import Store


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
            store = await self.make_store(place)
            await store.open()
            try:
                return await use(store)
            finally:
                await store.close()

        return asyncio.run(run())
