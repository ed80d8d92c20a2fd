"""Looking at the rules again and again, and telling the channels what began and what ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from xray.exceptions import XRayError
from xray.ids import now_ms
from xray.plugins import Plugins
from xray_server.alerts.rules import Alerts, Rule
from xray_server.api.answers import iso_time
from xray_server.daemons.daemon import Daemon

log = logging.getLogger("xray.server")

INTERVAL_S = 60.0
GIVE_UP_AFTER_MS = 3_600_000
"""How long an alert that cannot be delivered is tried again."""

Aggregate = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Works out an aggregation of the query language, as ``POST /v1/aggregate`` does."""


@dataclass(slots=True)
class Outcome:
    """What a rule said when it was last looked at.

    Args:
        state: ``ok``, ``firing``, ``too few`` stages, or ``unknown`` where it could not be looked at.
        value: The figure, or None where there is none.
        stages: How many stages it is of.
        at: When, in milliseconds since 1970.
        error: Why it could not be looked at.
    """

    state: str = "unknown"
    value: float | None = None
    stages: int = 0
    at: int | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As the API and the command line show it."""
        shown = {"state": self.state, "value": self.value, "stages": self.stages, "error": self.error}
        return shown | {"at": iso_time(self.at)}


async def look_at(rule: Rule, aggregate: Aggregate, at: int) -> Outcome:
    """Work out a rule's figure over the stages that started in its stretch of time.

    Args:
        rule: The rule.
        aggregate: Works out aggregations.
        at: The end of the stretch, in milliseconds since 1970.
    """
    recent = {"started_at": {"$gte": iso_time(at - rule.over_ms), "$lt": iso_time(at)}}
    asked: dict[str, Any] = dict(rule.where)
    asked["stage"] = {"$and": [asked["stage"], recent]} if "stage" in asked else recent
    asked["values"] = {"value": rule.value, "stages": {"$count": {}}}
    try:
        rows = (await aggregate(asked))["rows"]
    except XRayError as error:
        return Outcome(at=at, error=str(error))
    value, stages = (rows[0]["values"]["value"], rows[0]["values"]["stages"]) if rows else (None, 0)
    if stages < rule.at_least or value is None:
        return Outcome("too few", value, stages, at)
    passed = (rule.above is not None and value > rule.above) or (rule.below is not None and value < rule.below)
    return Outcome("firing" if passed else "ok", value, stages, at)


def alert_of(rule: Rule, outcome: Outcome) -> dict[str, Any]:
    """What channels are given of a rule that began or ceased to fire."""
    limits = " or ".join(f"{name} {limit:g}" for name, limit in rule.limit().items())
    figure = "nothing" if outcome.value is None else f"{outcome.value:g}"
    is_firing = outcome.state == "firing"
    verb = "is" if is_firing else "is no longer"
    text = f"{figure} {verb} {limits}, over the last {rule.over} ({outcome.stages} stages)"
    return {
        "rule": rule.name, "state": "firing" if is_firing else "ended", "text": text, "value": outcome.value,
        "stages": outcome.stages, "limit": rule.limit(), "over": rule.over, "where": dict(rule.where),
        "figure": dict(rule.value), "at": iso_time(outcome.at),
    }  # fmt: skip


@dataclass(slots=True)
class _Undelivered:
    alert: Mapping[str, Any]
    since: int = field(default_factory=now_ms)


class AlertWatch(Daemon):
    """Looks at each rule every minute and tells its channels when it begins and when it ceases to fire.

    What was firing is kept in memory: a service that starts anew tells of it once more. A rule that cannot be looked
    at, or has too few stages, keeps the state that it was in.

    Args:
        alerts: The rules and channels.
        plugins: They bring the channels.
        aggregate: Works out aggregations.
    """

    name: ClassVar[str] = "alerts"

    def __init__(self, alerts: Alerts, plugins: Plugins, aggregate: Aggregate) -> None:
        super().__init__()
        self._alerts = alerts
        self._plugins = plugins
        self._aggregate = aggregate
        self._firing: set[str] = set()
        self._outcomes: dict[str, Outcome] = {}
        self._waiting: dict[tuple[str, str], _Undelivered] = {}
        self._delivered = self._given_up = 0

    async def tick(self) -> float:
        """Look at every rule once, then deliver what is to be told."""
        for rule in self._alerts.rules:
            outcome = await look_at(rule, self._aggregate, now_ms())
            before = self._outcomes.get(rule.name)
            if outcome.error is not None and (before is None or before.error != outcome.error):
                log.warning("The alert rule '%s' cannot be looked at: %s", rule.name, outcome.error)
            self._outcomes[rule.name] = outcome
            if outcome.state == "firing" and rule.name not in self._firing:
                self._firing.add(rule.name)
            elif outcome.state == "ok" and rule.name in self._firing:
                self._firing.remove(rule.name)
            else:
                continue
            for channel in rule.channels:
                # What it says now takes the place of what could not be told before.
                self._waiting[rule.name, channel] = _Undelivered(alert_of(rule, outcome))
        await self._deliver()
        return INTERVAL_S

    async def _deliver(self) -> None:
        for (rule, channel), waiting in list(self._waiting.items()):
            problem = await deliver(self._alerts, self._plugins, channel, waiting.alert)
            if problem is None:
                self._delivered += 1
            elif now_ms() - waiting.since < GIVE_UP_AFTER_MS:
                continue
            else:
                self._given_up += 1
                log.error("The alert '%s' was given up: the channel '%s' failed: %s", rule, channel, problem)
            del self._waiting[rule, channel]

    def state(self) -> dict[str, Any]:
        """How it is doing, and how each rule stands."""
        rules = {rule.name: self._outcomes.get(rule.name, Outcome()).as_dict() for rule in self._alerts.rules}
        counts = {"delivered": self._delivered, "waiting": len(self._waiting), "given_up": self._given_up}
        return {**super().state(), **counts, "firing": sorted(self._firing), "rules": rules}


async def deliver(alerts: Alerts, plugins: Plugins, channel: str, alert: Mapping[str, Any]) -> str | None:
    """Give an alert to a channel; what went wrong, or None.

    Args:
        alerts: They say what the channel is.
        plugins: They bring its kind.
        channel: The channel's name.
        alert: What :func:`alert_of` gave.
    """
    known = alerts.channels[channel]
    found = plugins.named("xray_alert_channels", known.kind)
    if found is None:
        return f"no plugin brings the kind '{known.kind}' any more"
    function, guard = found
    try:
        await asyncio.to_thread(guard.call_within, function, dict(alert), dict(known.options))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:500]
    return None
