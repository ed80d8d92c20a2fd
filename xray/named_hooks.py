"""The hooks that give functions by name: all but stage types."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xray.guard import CALL_BUDGET_S, DEADLINE_S, SERVICE_DEADLINE_S

_WORD = re.compile(r"[a-z][a-z0-9_]*\Z")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")


@dataclass(frozen=True, slots=True)
class NamedHook:
    """A hook whose plugins give a dict of names to functions.

    Args:
        name: The hook's name.
        word: What one of them is called in messages.
        listed: Where ``PluginInfo`` lists their names.
        budget_s: How long a call of one may take.
        reserved: Names that only X-Ray's own may have.
        pattern: What a name looks like.
    """

    name: str
    word: str
    listed: str
    budget_s: float
    reserved: frozenset[str] = frozenset()
    pattern: re.Pattern[str] = _WORD


NAMED_HOOKS = (
    NamedHook("xray_redactors", "redactor", "redactors", CALL_BUDGET_S),
    NamedHook(
        "xray_samplers", "strategy", "samplers", DEADLINE_S,
        frozenset(
            {"top", "bottom", "random", "per", "per_label", "boundary", "adaptive", "full", "sampled", "summary"}
        ),
    ),
    NamedHook("xray_exporters", "exporter", "exporters", SERVICE_DEADLINE_S, frozenset({"jsonl", "parquet"})),
    NamedHook("xray_analyzers", "analyzer", "analyzers", SERVICE_DEADLINE_S, frozenset({"statistics", "model"})),
    NamedHook(
        "xray_stores", "store", "stores", SERVICE_DEADLINE_S, frozenset({"sqlite", "mongodb", "mongodb+srv"}), _SCHEME
    ),
    NamedHook(
        "xray_alert_channels", "alert channel", "alert_channels", SERVICE_DEADLINE_S, frozenset({"log", "webhook"})
    ),
)  # fmt: skip

BY_HOOK = {hook.name: hook for hook in NAMED_HOOKS}
