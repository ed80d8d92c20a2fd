"""From a URL to a store: the scheme says which, X-Ray's own as well as those that plugins bring."""

from __future__ import annotations

import re

from xray.exceptions import ConfigurationError, XRayError, did_you_mean
from xray.plugins import Plugins, installed
from xray_server.built_in import with_built_in
from xray_server.settings import PREFIX
from xray_server.stores.base import Store


def open_store(url: str, plugins: Plugins | None = None) -> Store:
    """The store that a URL names, not open yet.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, ``mongodb://host:port/database``,
            ``mongodb+srv://host/database``, or with the scheme of a plugin's store.
        plugins: What brings stores; by default the installed plugins.

    Raises:
        ConfigurationError: It is of no store that there is, or the store cannot be made of it.
    """
    plugins = with_built_in(plugins or installed())
    scheme, separator, _ = url.partition("://")
    found = plugins.named("xray_stores", scheme) if separator else None
    if found is None:
        raise ConfigurationError(
            f"There is no store for '{without_password(url)}'.",
            code="bad_store",
            path=f"{PREFIX}STORE",
            hint=(did_you_mean(scheme, plugins.names("xray_stores")) if separator else None)
            or "Write sqlite:///FILE, or sqlite:////FILE for an absolute path, or mongodb://HOST:PORT/DATABASE.",
        )
    factory, guard = found
    try:
        store = guard.call(factory, url, expected=(XRayError,))
    except XRayError:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if isinstance(store, Store):
            return store
        problem = f"it gave {type(store).__name__}, which is no store"
    raise ConfigurationError(
        f"The plugin {guard.plugin} could not make a store of '{without_password(url)}': {problem}.",
        code="bad_store",
        path=f"{PREFIX}STORE",
    )


def without_password(url: str) -> str:
    """A URL as it may stand in logs."""
    return re.sub("//[^/@]*@", "//…@", url)
