"""The operator's file of alert rules, read and checked.

::

    {"channels": {"ops": {"type": "webhook", "url": "https://hooks.example/x"}},
     "rules": [{"name": "nearly everything is rejected", "where": {"stage": {"name": "price_filter"}},
                "value": {"$avg": "$failRatio"}, "above": 0.9, "over": "1h", "at_least": 20,
                "channels": ["log", "ops"]}]}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xray.exceptions import ConfigurationError, did_you_mean
from xray.plugins import Plugins
from xray_server.quantities import parse_duration_ms

CONDITIONS = ("pipeline", "stage", "stages", "candidate")
MAX_RULES = 200
_RULE_KEYS = ("name", "where", "value", "above", "below", "over", "at_least", "channels")


@dataclass(frozen=True, slots=True)
class Channel:
    """Where alerts go.

    Args:
        name: What rules call it.
        kind: Which of the channels that plugins bring it is.
        options: What the operator wrote for it.
    """

    name: str
    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: a figure over recent stages, and the limit that it must not pass.

    Args:
        name: Names it in alerts.
        where: The conditions on stages, in the query language.
        value: The figure over them, as an aggregation has it: ``{"$avg": "$failRatio"}``.
        over: The stretch of time up to now, as it was written.
        over_ms: The same in milliseconds.
        above: It fires where the figure is greater; None where it has no such limit.
        below: It fires where the figure is less; None where it has no such limit.
        at_least: Of fewer stages it says nothing.
        channels: The names of the channels that are told.
    """

    name: str
    where: Mapping[str, Any]
    value: Mapping[str, Any]
    over: str
    over_ms: int
    above: float | None
    below: float | None
    at_least: int
    channels: tuple[str, ...]

    def limit(self) -> dict[str, float]:
        """The limits that it has."""
        return {name: limit for name, limit in (("above", self.above), ("below", self.below)) if limit is not None}


@dataclass(frozen=True, slots=True)
class Alerts:
    """What a file of rules says."""

    rules: tuple[Rule, ...] = ()
    channels: Mapping[str, Channel] = field(default_factory=dict)


def read_alerts(path: str | Path, plugins: Plugins) -> Alerts:
    """Read a file of rules.

    Args:
        path: A JSON file.
        plugins: They bring the kinds of channels.

    Raises:
        ConfigurationError: The file cannot be read, or something in it is wrong; ``path`` names the place.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"The alert rules {path} cannot be read: {error}.", str(path)) from None
    try:
        given = json.loads(text)
    except ValueError as error:
        raise _wrong(f"The alert rules {path} are not JSON: {error}.", str(path)) from None
    return parse_alerts(given, plugins)


def parse_alerts(given: Any, plugins: Plugins) -> Alerts:
    """Check what a file of rules holds.

    Args:
        given: The JSON, decoded.
        plugins: They bring the kinds of channels.

    Raises:
        ConfigurationError: Something is wrong; ``path`` names the place.
    """
    known = _object(given, "alerts", ("rules", "channels"))
    channels = {"log": Channel("log", "log", {})}
    for name, options in _object(known.get("channels", {}), "channels").items():
        channels[name] = _channel(name, options, plugins)
    rules = known.get("rules", [])
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        raise _wrong(f"'rules' is a list of at most {MAX_RULES} rules.", "rules")
    read = tuple(_rule(rule, f"rules[{place}]", channels) for place, rule in enumerate(rules))
    names = [rule.name for rule in read]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise _wrong(f"Two rules have the name '{name}'.", f"rules[{place}].name")
    return Alerts(read, channels)


def _channel(name: str, given: Any, plugins: Plugins) -> Channel:
    path = f"channels.{name}"
    options = _object(given, path)
    kind = options.get("type")
    kinds = plugins.names("xray_alert_channels")
    if kind not in kinds:
        hint = (did_you_mean(kind, kinds) if isinstance(kind, str) else None) or f"There are {', '.join(kinds)}."
        raise _wrong(f"There is no kind of alert channel {kind!r:.50}.", f"{path}.type", hint)
    if kind == "webhook":
        _check_webhook(options, path)
    return Channel(name, kind, {key: value for key, value in options.items() if key != "type"})


def _check_webhook(options: Mapping[str, Any], path: str) -> None:
    _object(options, path, ("type", "url", "headers"))
    url, headers = options.get("url"), options.get("headers", {})
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        is_address = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise _wrong("A webhook has an address that begins with http:// or https://.", f"{path}.url")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise _wrong("'headers' is an object of texts.", f"{path}.headers")


def _rule(given: Any, path: str, channels: Mapping[str, Channel]) -> Rule:
    rule = _object(given, path, _RULE_KEYS)
    name, over = rule.get("name"), rule.get("over", "1h")
    if not isinstance(name, str) or not name:
        raise _wrong("A rule has a name.", f"{path}.name")
    over_ms = parse_duration_ms(over, f"{path}.over") if isinstance(over, str) else None
    if not over_ms:
        raise _wrong("'over' is a stretch of time.", f"{path}.over", "For example 1h.")
    limits = {each: rule.get(each) for each in ("above", "below")}
    for each, limit in limits.items():
        if limit is not None and (not isinstance(limit, int | float) or isinstance(limit, bool)):
            raise _wrong(f"'{each}' is a number.", f"{path}.{each}")
    if limits["above"] is None and limits["below"] is None:
        raise _wrong("A rule has a limit.", path, 'Write "above": 0.9, or "below".')
    value = _object(rule.get("value", {"$count": {}}), f"{path}.value")
    # That there are none at all is something to say of a count, and of nothing else.
    at_least = rule.get("at_least", 0 if "$count" in value else 1)
    if not isinstance(at_least, int) or isinstance(at_least, bool) or at_least < 0:
        raise _wrong("'at_least' is a number of stages, 0 or more.", f"{path}.at_least")
    where = _object(rule.get("where", {}), f"{path}.where", CONDITIONS)
    told = rule.get("channels", ["log"])
    if not isinstance(told, list) or not told:
        raise _wrong("'channels' is a list of names.", f"{path}.channels")
    for place, each in enumerate(told):
        if each not in channels:
            hint = did_you_mean(str(each), channels) or f"There are {', '.join(channels)}."
            raise _wrong(f"There is no channel {each!r:.50}.", f"{path}.channels[{place}]", hint)
    return Rule(name, where, value, over, over_ms, limits["above"], limits["below"], at_least, tuple(told))


def _object(given: Any, path: str, keys: Collection[str] | None = None) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _wrong("This is an object.", path)
    for key in given:
        if keys is not None and key not in keys:
            raise _wrong(f"There is no '{key}' here.", f"{path}.{key}", did_you_mean(key, keys))
    return given


def _wrong(message: str, path: str, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(message, code="bad_alerts", path=path, hint=hint)
