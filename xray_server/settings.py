"""The service's settings; each may come from the environment as ``XRAY_SERVER_`` and its name in capitals."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self
from urllib.parse import unquote

from xray.exceptions import ConfigurationError, did_you_mean

PREFIX = "XRAY_SERVER_"
_SDK_VARIABLES = frozenset({"XRAY_SERVER_URL"})
"""Settings of the SDK that have the same beginning."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What can be set of a service.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        store: Where the data lies: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, or
            ``mongodb://[user:password@]host[:port]/database``.
        max_body_bytes: The longest body that ``/v1/ingest`` takes, as it travels.
        max_decompressed_bytes: The longest body that it takes, decompressed.
        max_events_per_batch: The most events that it takes at once.
        max_question_bytes: The longest body that ``/v1/query`` takes.
        max_pending_bytes: What the bodies may weigh together that are being received, wait or are worked on; beyond
            that senders are asked to come again (429).
        max_enqueued_bytes: What the bodies may weigh that were answered before they were written (``?ack=enqueued``).
        drain_s: How many seconds the service goes on answering after it was told to stop, while ``/ready`` says no:
            so long a load balancer has to notice.
        ingest_processes: How many processes prepare large batches beside the service's own; 0 is none.
            ``xray serve`` takes one for each processor where nothing is said.
        keep_candidates: How long candidates are kept after their run's start: ``30d``, or ``forever``. Their stages
            keep their metrics and say that the candidates are gone.
        keep_runs: How long runs are kept, with all that is theirs: ``365d``, or ``forever``.
        max_disk: What the data may take, logs and indexes included: ``20GB``, or ``unlimited``; ``auto`` is half of
            the data's and the free disk together for the embedded store, and no limit for others.
    """

    host: str = "127.0.0.1"
    port: int = 7350
    store: str = "sqlite:///.xray/xray.sqlite3"
    max_body_bytes: int = 16 * 1024 * 1024
    max_decompressed_bytes: int = 64 * 1024 * 1024
    max_events_per_batch: int = 10_000
    max_question_bytes: int = 1024 * 1024
    max_pending_bytes: int = 64 * 1024 * 1024
    max_enqueued_bytes: int = 32 * 1024 * 1024
    drain_s: int = 0
    ingest_processes: int = 0
    keep_candidates: str = "30d"
    keep_runs: str = "365d"
    max_disk: str = "auto"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings that the environment gives.

        Args:
            environment: ``os.environ`` by default.

        Raises:
            ConfigurationError: A variable has a value that it cannot have, or names no setting.
        """
        variables = os.environ if environment is None else environment
        known = {PREFIX + field.name.upper(): field for field in fields(cls)}
        values: dict[str, str | int] = {}
        for variable, text in variables.items():
            if not variable.startswith(PREFIX) or variable in _SDK_VARIABLES:
                continue
            field = known.get(variable)
            if field is None:
                raise ConfigurationError(
                    f"There is no setting {variable}.", path=variable, hint=did_you_mean(variable, known)
                )
            if field.type == "str":
                values[field.name] = text
                continue
            if not text.strip().isdecimal():
                raise ConfigurationError(f"{variable} is a whole number, 0 or more.", path=variable)
            values[field.name] = int(text)
        return cls(**values)  # type: ignore[arg-type]  # each value is of its field's type, as checked above


def sqlite_path(url: str) -> str:
    """The file that a store's URL names.

    Args:
        url: ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

    Raises:
        ConfigurationError: It is of no store that there is.
    """
    scheme, separator, path = url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise ConfigurationError(
            f"There is no store for '{re.sub('//[^/@]*@', '//…@', url)}'.",  # a password is not for logs
            code="bad_store",
            path=f"{PREFIX}STORE",
            hint="Write sqlite:///FILE, or sqlite:////FILE for an absolute path, or mongodb://HOST:PORT/DATABASE.",
        )
    return unquote(path)
