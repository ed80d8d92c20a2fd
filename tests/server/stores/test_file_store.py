"""A store of somebody else's, brought by a plugin: it is held to the contract by the suite that is shipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.test_snippets import ROOT
from tests.server.stores import file_store
from tests.service import all_rows, start_service
from xray.plugins import Plugins
from xray_server.stores.base import Store
from xray_server.stores.opening import open_store
from xray_server.testing import StoreContract

RECORD = """
import xray

xray.filtering_stage("kept")(lambda pool: pool[:1])([1, 2])
assert xray.flush(timeout_s=20)
"""


class TestFileStore(StoreContract):
    is_shared = False

    async def make_store(self, place: Path) -> Store:
        plugins = Plugins(entry_points=False)
        plugins.register(file_store, "file-store")
        return open_store(f"file://{place}/data", plugins)


def test_a_service_runs_on_it(tmp_path):
    """``xray serve --store file://…`` with the plugin named in the environment; its data outlives it."""
    store = f"file://{tmp_path}/data"
    environment = {"XRAY_PLUGINS": "tests.server.stores.file_store", "PYTHONPATH": str(ROOT)}
    for attempt in (1, 2):
        with start_service(tmp_path, store=store, **environment) as service:
            subprocess.run(
                [sys.executable, "-c", RECORD],
                env={**os.environ, "XRAY_SERVER_URL": service.url}, check=True, timeout=60,
            )  # fmt: skip
            rows = all_rows(service, candidate={"verdict": "failed"})
            assert [row["metrics"]["failed"] for row in rows] == [1] * attempt
