"""What commands say where a part is missing that they need."""

from __future__ import annotations

import pytest

from xray.cli.needed import needed
from xray.exceptions import XRayError


def test_a_module_that_is_there_is_imported() -> None:
    assert needed("json.decoder", by="This").__name__ == "json.decoder"


def test_a_missing_package_is_named_with_the_extras_that_bring_it() -> None:
    with pytest.raises(XRayError, match="The demo needs nowhere_at_all, which is not installed") as caught:
        needed("nowhere_at_all.part", by="The demo", extras="server,examples")
    assert caught.value.hint == "pip install 'xray-decisions[server,examples]'"


@pytest.mark.parametrize("module", ["xray_server.nowhere", "xray_examples.nowhere", "xray.nowhere"])
def test_a_missing_part_of_our_own_is_no_question_of_extras(module: str) -> None:
    """The extras would be installed already, and installing them again would change nothing."""
    with pytest.raises(XRayError, match=f"{module}, which this installation of xray-decisions lacks") as caught:
        needed(module, by="The service")
    assert caught.value.hint == "pip install --force-reinstall 'xray-decisions[server]'"
