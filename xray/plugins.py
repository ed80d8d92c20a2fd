"""Finding plugins and what they bring.

One :class:`Plugins` serves a process (:func:`installed`). A plugin that cannot be loaded, or that brings something
broken, is named in :attr:`Plugins.problems` and left out; the rest stays.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pluggy

from xray import hookspecs
from xray.exceptions import PluginError, did_you_mean
from xray.metrics import Metric
from xray.stage_types.base import StageType, check_stage_type

log = logging.getLogger("xray")

BUILT_IN = (
    "xray.stage_types.retrieval",
    "xray.stage_types.filtering",
    "xray.stage_types.scoring",
    "xray.stage_types.ranking",
    "xray.stage_types.generation",
    "xray.stage_types.selection",
    "xray.stage_types.raw",
)


class Plugins:
    """The plugins of a process and the stage types that they bring.

    Args:
        modules: Names of modules that are plugins.
        entry_points: Whether to load what installed packages register in the entry-point group ``xray``.
    """

    def __init__(self, modules: tuple[str, ...] = BUILT_IN, *, entry_points: bool = True) -> None:
        self._manager = pluggy.PluginManager("xray")
        self._manager.add_hookspecs(hookspecs)
        self._stage_types: dict[str, StageType] = {}
        self._origins: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        """Plugin name → why it, or a part of it, was left out."""
        for name in modules:
            try:
                self.register(importlib.import_module(name), name)
            except Exception as error:
                self._problem(name, error)
        if entry_points:
            self._load_entry_points()

    def _load_entry_points(self) -> None:
        # pluggy stops at the first entry point that fails; here each one stands alone.
        from importlib.metadata import entry_points

        for entry_point in entry_points(group="xray"):
            try:
                self.register(entry_point.load(), entry_point.name)
            except Exception as error:
                self._problem(entry_point.name, error)

    def register(self, plugin: Any, name: str) -> None:
        """Add a plugin and the stage types that it brings.

        Args:
            plugin: A module or an object with ``@xray.hookimpl`` functions.
            name: The name by which problems mention it.

        Raises:
            PluginError: A stage type breaks the interface or takes a name that is taken.
        """
        self._manager.register(plugin, name)
        hook = getattr(plugin, "xray_stage_types", None)
        for stage_type in hook() if hook else ():
            check_stage_type(stage_type)
            taken_by = self._origins.get(stage_type.name)
            if taken_by is not None:
                raise PluginError(f"Stage type '{stage_type.name}' of {name} is already brought by {taken_by}.")
            self._stage_types[stage_type.name] = stage_type
            self._origins[stage_type.name] = name

    def _problem(self, name: str, error: Exception) -> None:
        self.problems[name] = f"{type(error).__name__}: {error}"
        log.warning("X-Ray left out the plugin %s: %s", name, self.problems[name])

    @property
    def stage_types(self) -> Mapping[str, StageType]:
        """Name → stage type."""
        return MappingProxyType(self._stage_types)

    def stage_type(self, name: str) -> StageType:
        """The stage type of that name.

        Raises:
            PluginError: No plugin brings it; the hint names the nearest one.
        """
        try:
            return self._stage_types[name]
        except KeyError:
            raise PluginError(
                f"There is no stage type '{name}'.",
                code="unknown_stage_type",
                hint=did_you_mean(name, self._stage_types),
            ) from None

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Stage type name → every metric that its stages may have."""
        return {name: stage_type.all_metrics() for name, stage_type in self._stage_types.items()}


@functools.cache
def installed() -> Plugins:
    """The plugins of this process, loaded at the first call."""
    return Plugins()
