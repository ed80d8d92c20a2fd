"""The SDK's settings: one declarative row each.

A value is taken from ``xray.configure``, else from the environment, else it is the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xray.exceptions import ConfigurationError, did_you_mean

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("write 1 or 0")
    return word in _TRUE


def _positive_int(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError("write a whole number above 0")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError("write a number of seconds, 0 or more")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError("write a share from 0 to 1")
    return number


def _durability(text: str) -> str:
    word = text.strip().lower()
    if word not in ("memory", "spool-first"):
        raise ValueError("write memory or spool-first")
    return word


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("write an address that begins with http:// or https://")
    return text.rstrip("/")


def _modules(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is no name of a module")
    return names


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, environment variable, default, how its text is read, its unit and what it does."""

    name: str
    variable: str
    default: Any
    parse: Callable[[str], Any]
    unit: str
    help: str


SETTINGS = (
    Setting("enabled", "XRAY_ENABLED", True, _flag, "", "Whether anything is recorded at all."),
    Setting("strict", "XRAY_STRICT", False, _flag, "", "Whether a decorator problem raises instead of warning once."),
    Setting("server_url", "XRAY_SERVER_URL", "http://127.0.0.1:7350", _url, "", "Where the service listens."),
    Setting(
        "capture", "XRAY_CAPTURE", "full", str, "",
        "What is kept of stages: full, sampled, summary, or a strategy such as 'top(10) | random(20)'.",
    ),
    Setting("redact", "XRAY_REDACT", None, str, "", "Names of fields to make unreadable, with commas between."),
    Setting(
        "plugins", "XRAY_PLUGINS", (), _modules, "",
        "Modules that are plugins, with commas between, beside those of installed packages.",
    ),
    Setting("sample_rate", "XRAY_SAMPLE_RATE", 1.0, _share, "", "The share of runs that is recorded."),
    Setting("version", "XRAY_VERSION", None, str, "", "The version of runs whose pipeline names none."),
    Setting("environment", "XRAY_ENVIRONMENT", None, str, "", "The environment of runs: production, staging, …"),
    Setting("repository", "XRAY_REPOSITORY", None, str, "", "Where the pipelines' code lives."),
    Setting(
        "buffer_bytes", "XRAY_BUFFER_BYTES", 128 << 20, _positive_int, "bytes",
        "Snapshots that wait in memory to be sent; what comes beyond is dropped and counted.",
    ),
    Setting(
        "buffer_records", "XRAY_BUFFER_RECORDS", 50_000, _positive_int, "records",
        "Records that wait in memory to be sent; what comes beyond is dropped and counted.",
    ),
    Setting("batch_bytes", "XRAY_BATCH_BYTES", 4 << 20, _positive_int, "bytes", "Snapshots that go into one request."),
    Setting(
        "flush_interval_s", "XRAY_FLUSH_INTERVAL_S", 0.5, _seconds, "s", "How long a record waits for company at most.",
    ),
    Setting("connect_timeout_s", "XRAY_CONNECT_TIMEOUT_S", 2.0, _seconds, "s", "Deadline of connecting."),
    Setting("request_timeout_s", "XRAY_REQUEST_TIMEOUT_S", 30.0, _seconds, "s", "Deadline of one request."),
    Setting(
        "shutdown_timeout_s", "XRAY_SHUTDOWN_TIMEOUT_S", 5.0, _seconds, "s",
        "How long the interpreter's exit waits for what is still to be sent.",
    ),
    Setting(
        "spool_dir", "XRAY_SPOOL_DIR", ".xray_spool", str, "",
        "The folder where records wait on disk that cannot be sent; 'off' for none.",
    ),
    Setting(
        "spool_max_bytes", "XRAY_SPOOL_MAX_BYTES", 1 << 30, _positive_int, "bytes",
        "What the spool may take on disk, all processes together; beyond that the oldest goes and is counted.",
    ),
    Setting(
        "spool_max_age_s", "XRAY_SPOOL_MAX_AGE_S", 7 * 86_400.0, _seconds, "s",
        "How long records may wait in the spool; what is older goes and is counted.",
    ),
    Setting(
        "durability", "XRAY_DURABILITY", "memory", _durability, "",
        "memory, or spool-first: each record is on disk, redacted, before the call that recorded it returns.",
    ),
    Setting(
        "handle_sigterm", "XRAY_HANDLE_SIGTERM", True, _flag, "",
        "Whether SIGTERM, where it would end the process at once, first sends or spools what is left.",
    ),
    Setting(
        "hold_bytes", "XRAY_HOLD_BYTES", 8 << 20, _positive_int, "bytes",
        "What a run with keep_if= may weigh while it is held; beyond that it is kept.",
    ),
    Setting(
        "max_candidates", "XRAY_MAX_CANDIDATES", 100_000, _positive_int, "candidates",
        "Candidates of a stage that are kept; beyond that a sample is, with exact metrics and a marker.",
    ),
    Setting(
        "max_value_bytes", "XRAY_MAX_VALUE_BYTES", 1 << 20, _positive_int, "bytes",
        "What one candidate, input or output may weigh; beyond that it leaves a marker with its size.",
    ),
    Setting(
        "max_stage_bytes", "XRAY_MAX_STAGE_BYTES", 32 << 20, _positive_int, "bytes",
        "What the candidates of a stage may weigh together; beyond that some leave a marker.",
    ),
    Setting(
        "max_text_chars", "XRAY_MAX_TEXT_CHARS", 2000, _positive_int, "characters",
        "How long a reason text may be; beyond that it is cut, with a marker.",
    ),
    Setting(
        "large_value_items", "XRAY_LARGE_VALUE_ITEMS", 50, _positive_int, "items",
        "Arguments and pipeline results with more items than this leave a marker instead of a copy, unless RawInput.",
    ),
)  # fmt: skip
"""Every setting of the SDK."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force; see ``SETTINGS`` for what each means."""

    enabled: bool
    strict: bool
    server_url: str
    capture: Any
    redact: Any
    plugins: tuple[str, ...]
    sample_rate: float
    version: str | None
    environment: str | None
    repository: str | None
    buffer_bytes: int
    buffer_records: int
    batch_bytes: int
    flush_interval_s: float
    connect_timeout_s: float
    request_timeout_s: float
    shutdown_timeout_s: float
    spool_dir: str
    spool_max_bytes: int
    spool_max_age_s: float
    durability: str
    handle_sigterm: bool
    hold_bytes: int
    max_candidates: int
    max_value_bytes: int
    max_stage_bytes: int
    max_text_chars: int
    large_value_items: int


def load_settings(
    overrides: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Settings, list[ConfigurationError]]:
    """Work out the settings in force.

    Args:
        overrides: Values by name, as given to ``xray.configure``; they win over the environment.
        environment: The environment variables; those of the process by default.

    Returns:
        The settings, and a problem for each variable that could not be read (its default is in force).

    Raises:
        ConfigurationError: An override has an unknown name or a value that cannot be.
    """
    values: dict[str, Any] = {}
    problems: list[ConfigurationError] = []
    variables = os.environ if environment is None else environment
    for setting in SETTINGS:
        text = variables.get(setting.variable)
        values[setting.name] = setting.default
        if text is not None and text.strip():
            try:
                values[setting.name] = setting.parse(text)
            except ValueError as error:
                problems.append(
                    ConfigurationError(
                        f"{setting.variable}={text!r} cannot be read ({error}); {setting.default!r} is used.",
                        path=setting.variable,
                    )
                )
    for name, value in (overrides or {}).items():
        if name not in _BY_NAME:
            raise ConfigurationError(
                f"There is no setting '{name}'.", code="unknown_setting", path=name, hint=did_you_mean(name, _BY_NAME)
            )
        values[name] = _checked(_BY_NAME[name], value)
    return Settings(**values), problems


def _checked(setting: Setting, value: Any) -> Any:
    if value is None and setting.default is None:
        return None
    if setting.name in ("capture", "redact") and not isinstance(value, str):
        return value  # strategies, patterns and callables: looked at where they are used
    wanted = setting.parse
    if wanted is _modules and isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    try:
        if wanted is _flag and isinstance(value, bool):
            return value
        return wanted(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise ConfigurationError(f"{setting.name}={value!r} cannot be: {error}.", path=setting.name) from None
