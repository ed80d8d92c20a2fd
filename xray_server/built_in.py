"""What the service itself brings by the hooks that plugins have: its stores and its alert channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xray.exceptions import ConfigurationError
from xray.hookspecs import ChannelFunction, StoreFactory, hookimpl
from xray.plugins import Plugins
from xray_server.alerts.channels import to_log, to_webhook
from xray_server.settings import PREFIX, sqlite_path

if TYPE_CHECKING:
    from xray_server.stores.base import Store

NAME = "xray_server"


def with_built_in(plugins: Plugins) -> Plugins:
    """The plugins of a process, with what the service itself brings."""
    plugins.add_built_in(_BuiltIn(), NAME)
    return plugins


class _BuiltIn:
    @hookimpl
    def xray_stores(self) -> Mapping[str, StoreFactory]:
        return {"sqlite": _sqlite, "mongodb": _mongodb, "mongodb+srv": _mongodb}

    @hookimpl
    def xray_alert_channels(self) -> Mapping[str, ChannelFunction]:
        return {"log": to_log, "webhook": to_webhook}


def _sqlite(url: str) -> Store:
    from xray_server.stores.sqlite import SqliteStore

    return SqliteStore(sqlite_path(url))


def _mongodb(url: str) -> Store:
    try:
        from xray_server.stores.mongo import MongoStore
    except ImportError as error:
        raise ConfigurationError(
            f"MongoDB needs {error.name}, which is not installed.",
            code="bad_store",
            path=f"{PREFIX}STORE",
            hint="pip install 'xray-decisions[mongo]'",
        ) from None
    return MongoStore(url)
