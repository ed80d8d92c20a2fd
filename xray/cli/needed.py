"""Modules that only some commands need, and that an installation of the SDK alone does not have."""

from __future__ import annotations

import importlib
from types import ModuleType

from xray.exceptions import XRayError

OWN = {"xray", "xray_server", "xray_examples"}


def needed(module: str, *, by: str, extras: str = "server") -> ModuleType:
    """Import a module that a command needs.

    Args:
        module: Its name.
        by: What needs it, as an error begins: "The service".
        extras: The extras of the package that bring what it imports, with commas between.

    Returns:
        The module.

    Raises:
        XRayError: It, or something that it imports, is not installed; the hint says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or str(error)
        # More extras do not bring what the package itself should have brought.
        if missing.partition(".")[0] in OWN:
            raise XRayError(
                f"{by} needs {missing}, which this installation of xray-decisions lacks.",
                hint=f"pip install --force-reinstall 'xray-decisions[{extras}]'",
            ) from None
        raise XRayError(
            f"{by} needs {missing}, which is not installed.", hint=f"pip install 'xray-decisions[{extras}]'"
        ) from None
