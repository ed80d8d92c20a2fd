"""How the tests are spread over several processes, where ``pytest -n`` asks for that.

A process is given a unit after the other: the tests that share what is costly to set up. Mostly that is a file. What
takes long is given out first, so that no process works alone at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

LONG = (
    "tests/server/query/test_query_mutants.py",
    "tests/end_to_end/test_mongo_crashes.py",
    "tests/browser/",
    "tests/end_to_end/",
    "tests/docs/",
    "tests/cli/",
    "tests/server/query/test_query_differential.py",
    "tests/server/stores/test_mongo.py",
)
"""Files, or folders of them, that take long: given out before all others, in this order."""

ONE_BY_ONE = (
    "tests/server/query/test_query_mutants.py",
    "tests/end_to_end/test_mongo_crashes.py",
    "tests/end_to_end/test_delivery_",
    "tests/end_to_end/test_full_disks.py",
    "tests/docs/",
    "tests/cli/test_upkeep.py",
    "tests/server/query/test_query_differential.py",
)
"""Files whose tests share nothing that is costly, and are long enough to be given out one by one."""

KINDS = ("[sqlite", "[mongodb")


def unit_of(test: str) -> str:
    """The unit that a test belongs to.

    Args:
        test: The test's id, as pytest has it.
    """
    file = test.partition("::")[0]
    if file.startswith("tests/browser/"):
        # All of them share a service on either store, and the browser.
        return f"tests/browser/ {next((kind for kind in KINDS if kind in test), '')}"
    return test if file.startswith(ONE_BY_ONE) else file


class Spread(LoadScopeScheduling):
    """Gives out units of tests, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: object | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def long_ones_first(tests: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order in which their units are to be given out."""

    def place(item: pytest.Item) -> int:
        return next((number for number, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG))

    return sorted(tests, key=place)
