"""A service on each kind of store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from pymongo import MongoClient

from tests.server.helpers import in_service


@pytest.fixture(params=["sqlite", "mongodb"])
def serve(request, tmp_path):
    """``serve(use)``: use a service on an empty store, as often as a test likes."""
    if request.param == "sqlite":

        def on_sqlite(use):
            with tempfile.TemporaryDirectory() as folder:
                return in_service(Path(folder), use)

        return on_sqlite

    url = request.getfixturevalue("databases").url(tmp_path)

    def on_mongodb(use):
        # A new database has to build its indexes first, which takes longer than all the rest.
        with MongoClient(url) as client:
            database = client.get_default_database()
            for name in database.list_collection_names():
                database[name].delete_many({})
        return in_service(tmp_path, use, store=url)

    return on_mongodb
