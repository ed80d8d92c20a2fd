"""The ways in which candidates are taken, for the tests that are to hold in each of them.

A test module that is to says ``pytestmark = EVERY_WAY``.
"""

from __future__ import annotations

import pytest

from xray.capture import fields, live


@pytest.fixture(autouse=True)
def way_of_taking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """As usual; dicts by field however few they are; or without the compiled code."""
    way = getattr(request, "param", "as usual")
    if way == "by field":
        monkeypatch.setattr(live, "FIELDS_FROM", 1)
        monkeypatch.setattr(live, "PICKED_FROM", 1)
    elif way == "one by one":
        monkeypatch.setattr(fields, "take_compiled", None)
