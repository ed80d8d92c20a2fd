"""A plugin's stage type as X-Ray calls it: measured, its errors counted, and what it gives held to the interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from xray.capture.frames import is_frame
from xray.capture.snapshot import to_json
from xray.exceptions import PluginError
from xray.guard import CALL_BUDGET_S, DEADLINE_S, Guard
from xray.metrics import Metric, MetricValue
from xray.stage_types.base import CANDIDATE_COLUMNS, VERDICTS, Columns, StageType

if TYPE_CHECKING:
    from xray.capture.call import StageCall

_DECLARED = (
    "name", "meaning", "fields", "columns", "metrics", "takes_candidates", "reads_candidates", "reads_inputs",
    "unmeasured_fields",
)  # fmt: skip
_INT64 = 2**63

MAX_PANEL_BYTES = 4 << 20
"""What a stage's figures may weigh as JSON: a page holds them all."""

_BY_REFERENCE = frozenset({"data", "output", "returned"})


class GuardedStageType(StageType):
    """A plugin's stage type behind guards: one for each of its methods.

    - ``candidates_in`` runs on the caller's thread; where it fails, or is switched off, the result is looked at as
      :class:`StageType` does it.
    - ``extract`` and ``compute`` have a deadline. What they give is checked: what is no column, no verdict, no declared
      metric or no number is left out and counted, so that it costs nobody the stage.
    - ``panel`` gives no figures where it fails.

    Args:
        inner: The plugin's stage type, which keeps the interface's declarations.
        plugin: The plugin's name.
    """

    def __init__(self, inner: StageType, plugin: str) -> None:
        for name in _DECLARED:
            setattr(self, name, getattr(inner, name))
        self.inner = inner
        self.plugin = plugin
        self._kinds = {metric.name: metric for metric in self.all_metrics()}
        place = f"stage type {inner.name}"
        self._look = Guard(plugin, f"{place}: candidates_in", CALL_BUDGET_S)
        self._extract = Guard(plugin, f"{place}: extract", DEADLINE_S)
        self._compute = Guard(plugin, f"{place}: compute", DEADLINE_S)
        self._panel = Guard(plugin, f"{place}: panel", DEADLINE_S)
        self.guards = (self._look, self._extract, self._compute, self._panel)
        """What became of its calls."""

    def candidates_in(self, result: Any) -> Sequence[Sequence[Any]]:
        """See :meth:`StageType.candidates_in`."""
        try:
            found = self._look.call(self.inner.candidates_in, result)
        except Exception:  # counted by the guard
            return super().candidates_in(result)
        if isinstance(found, (list, tuple)):
            parts: Sequence[Sequence[Any]] = found
            if all(isinstance(part, (list, tuple)) or is_frame(part) for part in parts):
                return parts
        self._look.failed(PluginError("candidates_in gave what is no list of lists or data frames."))
        return super().candidates_in(result)

    def extract(self, call: StageCall) -> Columns:
        """See :meth:`StageType.extract`."""
        given = self._extract.call_within(self.inner.extract, call)
        try:
            return self._sound(given)
        except PluginError as error:
            self._extract.failed(error)
            raise

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :meth:`StageType.compute`."""
        given = self._compute.call_within(self.inner.compute, columns)
        if not isinstance(given, Mapping):
            error = PluginError(f"compute gave {type(given).__name__}, which is no dict of metrics.")
            self._compute.failed(error)
            raise error
        return self._kept(given.items(), self._metric, self._compute)

    def panel(self, stage: Mapping[str, Any]) -> list[dict[str, Any]]:
        """See :meth:`StageType.panel`."""
        return self.figures(stage)[0]

    def figures(self, stage: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        """The panel, and why there is none where it fails."""
        try:
            given = self._panel.call_within(self.inner.panel, stage)
        except Exception as error:  # counted by the guard
            return [], f"{type(error).__name__}: {error}"
        try:
            return _figures(given), None
        except PluginError as error:
            self._panel.failed(error)
            return [], str(error)

    # --- what it gives --------------------------------------------------------------------------------------------

    def _sound(self, given: Any) -> Columns:
        """What an extraction gave, as far as the service would take it."""
        if not isinstance(given, Columns):
            raise PluginError(f"extract gave {type(given).__name__}, which is no Columns.")
        ids, values, facts = given.candidate_id, given.values, given.facts
        if not isinstance(ids, list) or not all(type(candidate_id) is str for candidate_id in ids):
            raise PluginError("extract gave candidate ids that are no list of strings.")
        if not isinstance(values, dict):
            raise PluginError("extract gave values that are no dict of columns.")

        def column(name: Any, given: Any) -> Any:
            if name not in CANDIDATE_COLUMNS and name not in self.columns:
                raise PluginError(f"The column {name!r} is not declared.")
            if isinstance(given, (str, bytes)) or not hasattr(given, "__len__") or len(given) != len(ids):
                raise PluginError(f"The column '{name}' is no list of one value for each of {len(ids)} candidates.")
            if name in _BY_REFERENCE:
                return given
            check = _CELLS.get(name)
            if check is not None and not all(value is None or check(value) for value in given):
                self._extract.failed(PluginError(f"The column '{name}' has a value that it cannot have."))
                given = [value if value is not None and check(value) else None for value in given]
            return to_json(list(given))

        kept = self._kept(values.items(), column, self._extract)
        return Columns(ids, kept, to_json(dict(facts)) if isinstance(facts, dict) else {})

    def _metric(self, name: Any, value: Any) -> MetricValue:
        metric = self._kinds.get(name)
        if metric is None:
            raise PluginError(f"The metric {name!r} is not declared.")
        return None if value is None else _value_of(metric, value)

    @staticmethod
    def _kept(items: Any, check: Callable[[Any, Any], Any], guard: Guard) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in items:
            try:
                checked = check(name, value)
            except PluginError as error:
                guard.failed(error)
                continue
            if checked is not None:
                kept[name] = checked
        return kept


def _figures(given: Any) -> list[dict[str, Any]]:
    """What a panel gave, as far as a page can show it."""
    if not isinstance(given, list) or not all(isinstance(figure, dict) for figure in given):
        raise PluginError("panel gave what is no list of dicts.")
    try:
        encoded = msgspec.json.encode(given)
    except Exception:
        raise PluginError("panel gave what is no JSON.") from None
    if len(encoded) > MAX_PANEL_BYTES:
        raise PluginError(f"panel gave figures of {len(encoded)} bytes; {MAX_PANEL_BYTES} are the most.")
    figures: list[dict[str, Any]] = msgspec.json.decode(encoded)
    return figures


def _value_of(metric: Metric, value: Any) -> MetricValue:
    if metric.kind == "number":
        return _number(metric.name, value)
    if metric.kind == "table":
        if not isinstance(value, Mapping):
            raise PluginError(f"The metric '{metric.name}' is a table, not {type(value).__name__}.")
        return {str(key): _number(metric.name, number) for key, number in value.items() if number is not None}
    try:
        return to_json(msgspec.json.decode(msgspec.json.encode(value)))
    except Exception:
        raise PluginError(f"The metric '{metric.name}' is no JSON.") from None


def _number(name: str, value: Any) -> float:
    if hasattr(value, "item") and not isinstance(value, (int, float)):  # a number of NumPy
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PluginError(f"The metric '{name}' holds {type(value).__name__}, which is no number.")
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise PluginError(f"The metric '{name}' is no finite number of 64 bits.")


def _is_rank(value: Any) -> bool:
    return type(value) is int and 0 <= value < _INT64


_CELLS: dict[str, Callable[[Any], bool]] = {
    "verdict": lambda value: isinstance(value, str) and value in VERDICTS,
    "reason_label": lambda value: isinstance(value, str),
    "reason_text": lambda value: isinstance(value, str),
    "score": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "scores": lambda value: isinstance(value, dict),
    "checks": lambda value: isinstance(value, dict),
    "rank": _is_rank,
    "rank_before": _is_rank,
}
