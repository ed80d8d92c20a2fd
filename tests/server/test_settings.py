"""The service's settings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from xray.exceptions import ConfigurationError
from xray_server.app import create_app
from xray_server.settings import ServerSettings, sqlite_path


def test_the_environment_sets():
    """Each setting can come from its variable; without one it has its default."""
    settings = ServerSettings.from_environment(
        {
            "XRAY_SERVER_PORT": "8000",
            "XRAY_SERVER_STORE": "sqlite:////data/x",
            "XRAY_SERVER_URL": "http://x",
            "PATH": "",
        }
    )
    assert (settings.host, settings.port, settings.store) == ("127.0.0.1", 8000, "sqlite:////data/x")


@pytest.mark.parametrize("variables", [{"XRAY_SERVER_PORT": "http"}, {"XRAY_SERVER_PROT": "1"}])
def test_a_wrong_variable_is_an_error(variables):
    """A value that a setting cannot have, and a variable of no setting, are errors that name the variable."""
    with pytest.raises(ConfigurationError) as caught:
        ServerSettings.from_environment(variables)
    assert caught.value.path in variables


def test_store_urls():
    """Three slashes lead to a relative path, four to an absolute one; other stores are refused."""
    assert sqlite_path("sqlite:///.xray/x.sqlite3") == ".xray/x.sqlite3"
    assert sqlite_path("sqlite:////var/x%20y") == "/var/x y"
    for url in ("mysql://localhost", "sqlite://x", "sqlite:///", "x.sqlite3"):
        with pytest.raises(ConfigurationError):
            create_app(ServerSettings(store=url))


def test_the_page_of_the_service_has_every_setting():
    """docs/service.md lists each setting, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
    table = page[page.index("## Settings") :]
    named = [name for row in re.findall(r"(?m)^\| (`.*?) \|", table) for name in re.findall(r"`(\w+)`", row)]
    assert named == [field.name for field in fields(ServerSettings)]
