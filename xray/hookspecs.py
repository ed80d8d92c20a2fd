"""The plugin interface: every hook that X-Ray calls.

A plugin is a module or an object with functions marked ``@xray.hookimpl``, found through the entry-point group
``xray``. The built-in stage types are plugins through the same hook.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from xray.stage_types.base import StageType

hookspec = pluggy.HookspecMarker("xray")
hookimpl = pluggy.HookimplMarker("xray")


@hookspec
def xray_stage_types() -> Iterable[StageType]:
    """Return the stage types that the plugin brings: instances, one for each type."""
    return ()
