"""The panel of a stage: figures of its type, and of what stages of every type may have."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xray.exceptions import PluginError
from xray.figures import Figure, declared
from xray.guarded_types import GuardedStageType
from xray.metrics import CRITERIA_METRICS, Metric
from xray.plugins import Plugins

log = logging.getLogger("xray.server")


@dataclass(frozen=True, slots=True)
class Panel:
    """The figures of a stage.

    Args:
        figures: As Plotly takes them: ``{"data": […], "layout": {…}}``.
        problem: Why the figures of the stage's type are missing, where they should be there.
    """

    figures: list[Figure] = field(default_factory=list)
    problem: str | None = None


def panel_of(stage: Mapping[str, Any], plugins: Plugins, declarations: Mapping[str, Sequence[Metric]]) -> Panel:
    """Make the panel of a stage. A plugin's code may run, for as long as its guard lets it.

    Args:
        stage: The stage's document.
        plugins: The stage types that the service has.
        declarations: Stage type → its metrics, for types that the service has no plugin for.
    """
    values = stage.get("metrics") or {}
    of_all = declared(CRITERIA_METRICS, values)
    name = stage.get("type") or ""
    try:
        stage_type = plugins.stage_type(name)
    except PluginError:
        known = {metric.name for metric in CRITERIA_METRICS}
        own = [metric for metric in declarations.get(name, ()) if metric.name not in known]
        return Panel(declared(own, values) + of_all)
    if isinstance(stage_type, GuardedStageType):
        figures, problem = stage_type.figures(stage)
        return Panel(figures + of_all, problem)
    try:
        return Panel(stage_type.panel(stage) + of_all)
    except Exception as error:  # metrics are the sender's: they need not be what the type computes
        log.debug("The panel of the stage %s failed", stage.get("id"), exc_info=error)
        return Panel(of_all, "The stage's metrics are not those that its type computes.")
