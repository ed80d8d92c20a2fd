"""The channels that the service brings: its own log, and an HTTP POST to an address of the operator's."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import urllib3

from xray.exceptions import XRayError

log = logging.getLogger("xray.alerts")

TIMEOUT_S = 3.0
"""Of connecting and of the answer's head together."""


def to_log(alert: Mapping[str, Any], _options: Mapping[str, Any]) -> None:
    """Write the alert to the service's log: a warning when it fires, a notice when it ends."""
    level = logging.WARNING if alert["state"] == "firing" else logging.INFO
    log.log(level, "Alert '%s': %s", alert["rule"], alert["text"])


def to_webhook(alert: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """POST the alert as JSON to ``options["url"]``, with ``options["headers"]``.

    Nothing of an alert or of what was recorded takes part in the address, and no redirect is followed: requests go
    where the operator's file says, and nowhere else.

    Raises:
        XRayError: The answer is not of the 200s.
        urllib3.exceptions.HTTPError: There is no answer.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "xray-alerts"} | dict(options.get("headers") or {})
    with urllib3.PoolManager(retries=False) as pool:
        answer = pool.request(
            "POST", options["url"], body=json.dumps(alert).encode(), headers=headers, redirect=False,
            timeout=urllib3.Timeout(total=TIMEOUT_S), preload_content=False,
        )  # fmt: skip
        status = answer.status
        answer.release_conn()
    if not 200 <= status < 300:
        raise XRayError(f"The webhook answered {status}.", code="webhook_refused")
