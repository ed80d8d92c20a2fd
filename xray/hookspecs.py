"""The plugin interface: every hook that X-Ray calls.

A plugin is a module or an object with functions marked ``@xray.hookimpl``, found through the entry-point group
``xray`` or named by the setting ``plugins``. The built-in stage types are plugins through the same hook.

Each hook is called once, when the plugin is loaded, and gives what the plugin brings; what it gives is called later,
with its errors caught and its time measured (``xray.guard``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

import pluggy

from xray.stage_types.base import Columns, StageType

hookspec = pluggy.HookspecMarker("xray")
hookimpl = pluggy.HookimplMarker("xray")

RedactorFunction = Callable[[str, Any], Any]
"""``(path, value) -> value``: is given each text, number, true, false and null, and gives what takes its place."""

SamplerFunction = Callable[[Columns, int, Random], Iterable[int]]
"""``(columns, n, rng) -> positions``: chooses up to n of a stage's candidates; all its chance comes from ``rng``."""


@hookspec
def xray_stage_types() -> Iterable[StageType]:
    """Return the stage types that the plugin brings: instances, one for each type."""
    return ()


@hookspec
def xray_redactors() -> Mapping[str, RedactorFunction]:
    """Return the redactors that the plugin brings, by name; ``redact="plugin:NAME"`` takes one.

    A redactor runs on the worker's thread, on each value that is neither an object nor a list. It must be quick and may
    not keep what it sees. Where it raises or takes too long the value is lost rather than let through.
    """
    return {}


@hookspec
def xray_samplers() -> Mapping[str, SamplerFunction]:
    """Return the sampling strategies that the plugin brings, by name; ``capture="top(10) | NAME(5)"`` takes one.

    A strategy runs on the worker's thread, on all candidates of a stage, and gives distinct positions from 0. Where it
    raises, takes too long or gives what are no positions, as many candidates are taken at random, and the stage says
    so.
    """
    return {}


HOOKS = ("xray_stage_types", "xray_redactors", "xray_samplers")
"""The name of every hook."""
