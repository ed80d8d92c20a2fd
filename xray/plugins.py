"""Finding plugins and what they bring.

One :class:`Plugins` serves a process (:func:`installed`). A plugin that cannot be loaded, or that brings something
broken, is named in :attr:`Plugins.problems` and left out; the rest stays.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import pluggy

from xray import hookspecs
from xray.exceptions import ConfigurationError, PluginError, did_you_mean
from xray.guard import Guard, Report
from xray.guarded_types import GuardedStageType
from xray.hookspecs import AnalyzerFunction, RedactorFunction, SamplerFunction
from xray.metrics import RESERVED_NAMES, Metric, folded
from xray.named_hooks import NAMED_HOOKS, NamedHook
from xray.plugin_info import PluginInfo
from xray.settings import load_settings
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

GROUP = "xray"
"""The entry-point group of plugins."""


class Plugins:
    """The plugins of a process and what they bring.

    Args:
        modules: Names of modules that are plugins.
        entry_points: Whether to load what installed packages register in the entry-point group ``xray``.
    """

    def __init__(self, modules: tuple[str, ...] = BUILT_IN, *, entry_points: bool = True) -> None:
        self._manager = pluggy.PluginManager("xray")
        self._manager.add_hookspecs(hookspecs)
        self._stage_types: dict[str, StageType] = {}
        self._named: dict[str, dict[str, tuple[Any, Guard]]] = {hook.name: {} for hook in NAMED_HOOKS}
        self._metrics: dict[str, tuple[Metric, str]] = {}
        self._owners: dict[tuple[str, str], str] = {}
        self._guards: list[Guard] = []
        self._infos: dict[str, PluginInfo] = {}
        self.add_modules(modules)
        if entry_points:
            self.add_entry_points()

    def add_modules(self, modules: Iterable[str], origin: str = "setting plugins") -> None:
        """Load modules that are plugins; one that is loaded already is passed over.

        Args:
            modules: Their names.
            origin: Where the names come from.
        """
        for name in modules:
            if name not in self._infos:
                where = "built-in" if name in BUILT_IN else origin
                self._load(PluginInfo(name, where), lambda name=name: importlib.import_module(name))  # type: ignore[misc]

    def add_entry_points(self) -> None:
        """Load what installed packages register in the entry-point group ``xray``, each on its own."""
        # pluggy stops at the first entry point that fails; here each one stands alone.
        from importlib.metadata import entry_points

        for entry_point in entry_points(group=GROUP):
            package = entry_point.dist
            origin = "package" if package is None else f"package {package.name}"
            name = entry_point.name
            if name in self._infos:
                if self._infos[name].origin == origin:  # one distribution, found at two places of the path
                    continue
                name = f"{name} ({origin.removeprefix('package ')})"
            info = PluginInfo(name, origin, None if package is None else package.version)
            self._load(info, entry_point.load)

    def register(self, plugin: Any, name: str) -> None:
        """Add a plugin and what it brings.

        Args:
            plugin: A module or an object with ``@xray.hookimpl`` functions.
            name: The name by which problems mention it.

        Raises:
            PluginError: Something that it brings breaks the interface or takes a name that is taken; the rest is there.
        """
        info = PluginInfo(name, "registered")
        self._load(info, lambda: plugin)
        if info.problems:
            raise PluginError(info.problems[0])

    def add_built_in(self, plugin: Any, name: str) -> None:
        """Add a part of X-Ray itself that is a plugin; one that is there already is passed over.

        Args:
            plugin: A module or an object with ``@xray.hookimpl`` functions.
            name: Its name.
        """
        if name not in self._infos:
            self._load(PluginInfo(name, "built-in"), lambda: plugin)

    @property
    def problems(self) -> dict[str, list[str]]:
        """Plugin name → why it, or parts of it, were left out."""
        return {name: list(info.problems) for name, info in self._infos.items() if info.problems}

    def infos(self) -> list[PluginInfo]:
        """What is known of each plugin, in the order in which they were loaded."""
        return list(self._infos.values())

    def reports(self) -> list[Report]:
        """What became of the calls of what plugins bring, as far as there were any."""
        return [report for report in (guard.report() for guard in list(self._guards)) if report.calls]

    # --- what they bring ------------------------------------------------------------------------------------------

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

    def redactor(self, name: str) -> tuple[RedactorFunction, Guard]:
        """The redactor of that name, and the guard to call it by.

        Raises:
            ConfigurationError: No plugin brings it.
        """
        found = self.named("xray_redactors", name)
        if found is None:
            raise ConfigurationError(
                f"No plugin brings a redactor '{name}'.",
                code="unknown_redactor",
                path="redact",
                hint=did_you_mean(name, self.names("xray_redactors")) or "'xray plugins' lists what there is.",
            )
        return found

    def sampler(self, name: str) -> tuple[SamplerFunction, Guard] | None:
        """The sampling strategy of that name and the guard to call it by, or None."""
        return self.named("xray_samplers", name)

    @property
    def samplers(self) -> tuple[str, ...]:
        """The names of the sampling strategies that plugins bring."""
        return self.names("xray_samplers")

    def named(self, hook: str, name: str) -> tuple[Any, Guard] | None:
        """What plugins bring under a name, and the guard to call it by, or None.

        Args:
            hook: The hook: ``xray_exporters``.
            name: The name.
        """
        return self._named[hook].get(name)

    def analyzer(self, name: str) -> tuple[AnalyzerFunction, Guard]:
        """The analyzer of that name, which is one of :meth:`names`, and the guard to call it by."""
        found: tuple[AnalyzerFunction, Guard] = self._named["xray_analyzers"][name]
        return found

    def names(self, hook: str) -> tuple[str, ...]:
        """The names of all that plugins bring by a hook."""
        return tuple(self._named[hook])

    # --- loading --------------------------------------------------------------------------------------------------

    def _load(self, info: PluginInfo, load: Callable[[], Any]) -> None:
        started = time.perf_counter()
        if info.name in self._infos:
            info.name = f"{info.name} (again)"
        self._infos[info.name] = info
        try:
            plugin = load()
            self._manager.register(plugin, info.name)
            self._take(plugin, info)
        except (Exception, SystemExit) as error:
            self._problem(info, error)
        info.load_ms = round((time.perf_counter() - started) * 1000, 3)

    def _take(self, plugin: Any, info: PluginInfo) -> None:
        takers: dict[str, Callable[[Any, PluginInfo], None]] = {"xray_stage_types": self._take_stage_types}
        takers |= {hook.name: functools.partial(self._take_named, hook) for hook in NAMED_HOOKS}
        for caller in self._manager.get_hookcallers(plugin) or ():
            take = takers.get(caller.name)
            if take is None:
                hint = did_you_mean(caller.name, takers)
                self._problem(info, PluginError(f"There is no hook '{caller.name}'.", hint=hint))
                continue
            info.hooks.append(caller.name)
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin:
                    try:
                        take(implementation.function(), info)
                    except (Exception, SystemExit) as error:
                        self._problem(info, error, f"{caller.name}: ")
        if not info.hooks and not info.problems:
            raise PluginError("It has no hook: no function of it is marked with @xray.hookimpl.")

    def _take_stage_types(self, given: Any, info: PluginInfo) -> None:
        if isinstance(given, StageType):
            raise PluginError("It gives one stage type; it must give a list of them.")
        for stage_type in given:
            try:
                self._take_stage_type(stage_type, info)
            except Exception as error:
                self._problem(info, error)

    def _take_stage_type(self, stage_type: Any, info: PluginInfo) -> None:
        if not isinstance(stage_type, StageType):
            raise PluginError(f"{stage_type!r} is no instance of xray.stage_types.base.StageType.")
        check_stage_type(stage_type)
        self._claim("Stage type", stage_type.name, info)
        metrics = self._checked_metrics(stage_type)
        if info.origin != "built-in":
            guarded = GuardedStageType(stage_type, info.name)
            self._guards += guarded.guards
            stage_type = guarded
        self._metrics |= metrics
        self._owners["Stage type", stage_type.name] = info.name
        self._stage_types[stage_type.name] = stage_type
        info.stage_types.append(stage_type.name)

    def _checked_metrics(self, stage_type: StageType) -> dict[str, tuple[Metric, str]]:
        """The metrics of a type by the names that questions have for them.

        Raises:
            PluginError: One has the name of an operator, or a name that for questions is another metric's.
        """
        found: dict[str, tuple[Metric, str]] = {}
        for metric in stage_type.all_metrics():
            name = folded(metric.name)
            if name in RESERVED_NAMES:
                raise PluginError(f"The metric '{metric.name}' of '{stage_type.name}' has the name of an operator.")
            other, owner = self._metrics.get(name, (metric, ""))
            if other.name != metric.name:
                raise PluginError(
                    f"The metrics '{metric.name}' of '{stage_type.name}' and '{other.name}' of '{owner}' have names "
                    "that are equal without '_'."
                )
            if other.kind != metric.kind:
                raise PluginError(
                    f"The metric '{metric.name}' of '{stage_type.name}' is of kind {metric.kind}; that of '{owner}' is "
                    f"of kind {other.kind}."
                )
            found[name] = self._metrics.get(name, (metric, stage_type.name))
        return found

    def _take_named(self, hook: NamedHook, given: Any, info: PluginInfo) -> None:
        for name, function in _functions(hook, given, info, self._problem):
            if name in hook.reserved and info.origin != "built-in":
                self._problem(info, PluginError(f"The {hook.word} '{name}' has the name of one of X-Ray's own."))
                continue
            try:
                self._claim(hook.word.capitalize(), name, info)
            except PluginError as error:
                self._problem(info, error)
                continue
            guard = Guard(info.name, f"{hook.word} {name}", hook.budget_s)
            self._guards.append(guard)
            self._named[hook.name][name] = function, guard
            self._owners[hook.word.capitalize(), name] = info.name
            getattr(info, hook.listed).append(name)

    def _claim(self, kind: str, name: str, info: PluginInfo) -> None:
        taken_by = self._owners.get((kind, name))
        if taken_by is not None:
            raise PluginError(f"{kind} '{name}' of {info.name} is already brought by {taken_by}.")

    def _problem(self, info: PluginInfo, error: BaseException, place: str = "") -> None:
        said = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        message = f"{place}{said}"[:1000]
        info.problems.append(message)
        log.warning("X-Ray left out the plugin %s or a part of it: %s", info.name, message)


def _functions(
    hook: NamedHook, given: Any, info: PluginInfo, problem: Callable[[PluginInfo, BaseException], None]
) -> Iterable[tuple[str, Any]]:
    if not isinstance(given, Mapping):
        raise PluginError(f"It gives {type(given).__name__}; it must give a dict of names to functions.")
    for name, function in given.items():
        if not isinstance(name, str) or not hook.pattern.match(name):
            form = hook.pattern.pattern.removesuffix(r"\Z")
            problem(info, PluginError(f"The name {name!r} is not of the form {form}."))
        elif not callable(function):
            problem(info, PluginError(f"What '{name}' names cannot be called."))
        else:
            yield name, function


# --- the process's plugins ------------------------------------------------------------------------------------------

_lock = threading.RLock()
_current: Plugins | None = None
_ready = False


def installed() -> Plugins:
    """The plugins of this process, loaded at the first call: built in, from the setting ``plugins``, from packages."""
    global _current, _ready  # noqa: PLW0603 - one for each process
    if _ready and _current is not None:
        return _current
    with _lock:
        if _current is None:
            # In place before third parties' code runs: a plugin may use decorators while it is loaded.
            _current = Plugins(entry_points=False)
            _current.add_modules(load_settings()[0].plugins)
            _current.add_entry_points()
            _ready = True
        return _current


def failures() -> dict[str, int]:
    """What plugins brought → how often it failed or took too long, in this process so far."""
    if not _ready or _current is None:
        return {}
    bad = ((report, report.failures + report.overruns) for report in _current.reports())
    return {f"plugin {report.plugin}: {report.what}": count for report, count in bad if count}
