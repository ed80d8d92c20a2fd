"""The plugin interface: every hook that X-Ray calls.

A plugin is a module or an object with functions marked ``@xray.hookimpl``, found through the entry-point group
``xray`` or named by the setting ``plugins``. The built-in stage types are plugins through the same hook.

Each hook is called once, when the plugin is loaded, and gives what the plugin brings; what it gives is called later,
with its errors caught and its time measured (``xray.guard``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

ExporterFunction = Callable[[Mapping[str, Any]], None]
"""``(batch) -> None``: is given ``{"project", "runs": [...], "stages": [...]}``, documents as the API shows them."""

AnalyzerFunction = Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], Mapping[str, Any] | None]
"""``(run, history) -> opinion``: is given the run and other runs of its pipeline, ``{"run": {...}, "stages": [...]}``.

It gives ``{"suspects": [{"path": ..., "evidence": [...]}], "reason": ...}``, the most suspicious first, or None where
it has no opinion.
"""

StoreFactory = Callable[[str], Any]
"""``(url) -> store``: an ``xray_server.stores.base.Store``, which this package cannot name."""

ChannelFunction = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""``(alert, options) -> None``: delivers an alert; ``options`` is what the operator wrote for the channel."""


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


@hookspec
def xray_exporters() -> Mapping[str, ExporterFunction]:
    """Return the exporters that the plugin brings, by name: they hand what the service stored on to other systems.

    The service's setting ``exporters`` names those that run; ``xray export --format NAME`` hands over what is stored
    already. An exporter runs in the service on a thread of its own, after the batch is durable, one batch at a time.
    Where it raises, takes too long or is slower than batches come, batches are lost to it, and counted.
    """
    return {}


@hookspec
def xray_analyzers() -> Mapping[str, AnalyzerFunction]:
    """Return the analyzers that the plugin brings, by name: each looks for the step of a run that is at fault.

    An analyzer runs in the service beside X-Ray's own statistics whenever a run is analyzed, on a thread of its own.
    Where it raises, takes too long or gives what is no answer, the analysis says so and is otherwise the same.
    """
    return {}


@hookspec
def xray_stores() -> Mapping[str, StoreFactory]:
    """Return the stores that the plugin brings, by the scheme of their URLs: ``sqlite``, ``mongodb``.

    A factory is given the whole URL and makes a store that is not open yet (``xray_server.stores.base.Store``). It may
    raise ``xray.ConfigurationError`` where the URL cannot be.
    """
    return {}


@hookspec
def xray_alert_channels() -> Mapping[str, ChannelFunction]:
    """Return the kinds of alert channels that the plugin brings, by name: each says somewhere that an alert fired.

    A channel runs in the service on a thread of its own, when an alert begins and when it ends. Where it raises or
    takes too long it is tried again every minute, for an hour.
    """
    return {}


HOOKS = (
    "xray_stage_types",
    "xray_redactors",
    "xray_samplers",
    "xray_exporters",
    "xray_analyzers",
    "xray_stores",
    "xray_alert_channels",
)
"""The name of every hook."""
