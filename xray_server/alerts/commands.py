"""What ``xray alerts`` does; the command line asks here, and prints."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from xray.exceptions import ConfigurationError
from xray.ids import now_ms
from xray.plugins import installed
from xray_server.alerts.rules import Alerts, read_alerts
from xray_server.alerts.watch import alert_of, deliver, look_at
from xray_server.api.answers import Service
from xray_server.built_in import with_built_in
from xray_server.settings import PREFIX, ServerSettings
from xray_server.stores.opening import open_store


def rules(file: str | None) -> dict[str, Any]:
    """The rules and channels of a file, checked.

    Args:
        file: The file; None for that of the setting.

    Raises:
        ConfigurationError: There is no file, or something in it is wrong.
    """
    alerts = _read(file, ServerSettings.from_environment())
    shown = [
        {"name": rule.name, "value": rule.value, **rule.limit(), "over": rule.over, "at_least": rule.at_least,
         "where": rule.where, "channels": list(rule.channels)}
        for rule in alerts.rules
    ]  # fmt: skip
    # Without the options: headers hold secrets.
    channels = [{"name": channel.name, "type": channel.kind} for channel in alerts.channels.values()]
    return {"rules": shown, "channels": channels}


def check(file: str | None, store: str | None, *, send: bool) -> dict[str, Any]:
    """Look at every rule now.

    Args:
        file: The file; None for that of the setting.
        store: The store's URL; None for that of the setting.
        send: Whether the channels are told of the rules that fire.

    Returns:
        ``rules``: a row each, with its state and, where something was sent, what became of it.

    Raises:
        XRayError: Something in the file is wrong, or the store cannot be opened.
    """
    settings = ServerSettings.from_environment()
    settings = dataclasses.replace(settings, store=store or settings.store, ingest_processes=0)
    plugins = with_built_in(installed())
    alerts = _read(file, settings)

    async def run() -> list[dict[str, Any]]:
        opened = open_store(settings.store, plugins)
        await opened.open()
        try:
            service = Service(opened, plugins, settings)
            rows = []
            for rule in alerts.rules:
                outcome = await look_at(rule, service.aggregate, now_ms())
                row = {"name": rule.name, **rule.limit(), "over": rule.over, **outcome.as_dict()}
                if send and outcome.state == "firing":
                    told = {
                        each: await deliver(alerts, plugins, each, alert_of(rule, outcome)) for each in rule.channels
                    }
                    row["sent"] = {channel: problem or "delivered" for channel, problem in told.items()}
                rows.append(row)
            return rows
        finally:
            await opened.close()

    return {"rules": asyncio.run(run())}


def _read(file: str | None, settings: ServerSettings) -> Alerts:
    path = file or settings.alerts
    if not path:
        raise ConfigurationError(
            "No file of alert rules is named.", code="no_alerts", path=f"{PREFIX}ALERTS", hint="Name one with --file."
        )
    return read_alerts(path, with_built_in(installed()))
