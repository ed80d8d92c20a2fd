"""The MongoDB store: the contract of all stores, and what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mongodb import Databases
from xray_server.stores.base import Store
from xray_server.stores.mongo import MongoStore
from xray_server.testing import StoreContract


class TestMongoStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, databases: Databases) -> None:
        self._databases = databases

    async def make_store(self, place: Path) -> Store:
        return MongoStore(self._databases.url(place))
