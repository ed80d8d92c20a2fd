"""What is known of the plugins of a process, for ``xray plugins`` and ``GET /v1/plugins``."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xray.plugins import Plugins


@dataclass(slots=True)
class PluginInfo:
    """What is known of one plugin.

    Args:
        name: The entry point's name, else the module's, else what it was registered under.
        origin: ``built-in``, ``package xray-dedup``, ``setting plugins`` or ``registered``.
        version: The version of the package that it comes from, or None.
        hooks: The hooks that it has.
        stage_types: The names of the stage types that it brings.
        redactors: The names of the redactors that it brings.
        samplers: The names of the sampling strategies that it brings.
        exporters: The names of the exporters that it brings.
        analyzers: The names of the analyzers that it brings.
        stores: The schemes of the stores that it brings.
        alert_channels: The names of the kinds of alert channels that it brings.
        problems: What could not be loaded or was left out, and why.
        load_ms: How long it took to load.
    """

    name: str
    origin: str
    version: str | None = None
    hooks: list[str] = field(default_factory=list)
    stage_types: list[str] = field(default_factory=list)
    redactors: list[str] = field(default_factory=list)
    samplers: list[str] = field(default_factory=list)
    exporters: list[str] = field(default_factory=list)
    analyzers: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)
    alert_channels: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    load_ms: float = 0.0


def described(plugins: Plugins) -> dict[str, Any]:
    """Every plugin and what it brings, as JSON.

    Args:
        plugins: The plugins of a process.

    Returns:
        ``plugins``: a row each, with its stage types, their fields and metrics; ``calls``: what became of the calls of
        what plugins bring, as far as there were any in this process.
    """
    rows = []
    for info in plugins.infos():
        row = dataclasses.asdict(info)
        row["stage_types"] = [_stage_type(plugins, name) for name in info.stage_types]
        rows.append(row)
    return {"plugins": rows, "calls": [dataclasses.asdict(report) for report in plugins.reports()]}


def _stage_type(plugins: Plugins, name: str) -> dict[str, Any]:
    stage_type = plugins.stage_type(name)
    return {
        "name": name,
        "meaning": stage_type.meaning,
        "fields": [dataclasses.asdict(each) for each in stage_type.fields],
        "columns": list(stage_type.columns),
        "metrics": [metric.as_dict() for metric in stage_type.metrics],
    }


def try_out(plugins: Plugins) -> None:
    """Call everything that plugins bring on a few made-up stages; what became of it is in the calls' reports.

    Args:
        plugins: The plugins of a process.
    """
    from xray.capture.redact import Redactor
    from xray.sampling import choose, strategy
    from xray.stage_types.base import Columns
    from xray.testing import sample_calls

    columns = Columns([f"c{number}" for number in range(20)], {"score": [number / 20 for number in range(20)]})
    for info in plugins.infos():
        if info.origin == "built-in":
            continue
        for name in info.stage_types:
            stage_type = plugins.stage_type(name)
            stage_type.candidates_in([{"id": "a"}])
            for call in sample_calls():
                with contextlib.suppress(Exception):  # counted by the guard
                    stage_type.compute(stage_type.extract(call))
            stage_type.panel({"type": name, "metrics": {}})
        for name in info.redactors:
            Redactor(f"plugin:{name}").apply({"text": "a text", "number": 1.5, "flag": True, "nothing": None}, "data")
        for name in info.samplers:
            choose(strategy(name, 5), columns, 1)
