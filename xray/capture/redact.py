r"""Redaction: making what must not leave the process unreadable, before it is sent or written anywhere.

Rules, in any mix::

    redact="email"                           # the value under a key of that name, at any depth
    redact=["user.email", "password"]        # a dotted name: only where the path ends so
    redact=r"re:\b\d{4}-\d{4}-\d{4}\b"       # or re.compile(...): what it matches in any text or key
    redact=lambda path, value: ...           # called with each text, number, true, false and null
    redact="plugin:card_numbers"             # a callable that a plugin brings under that name

Redaction fails closed: a value that a rule could not be applied to is not kept.
"""

from __future__ import annotations

import datetime as dt
import inspect
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import msgspec

from xray.capture.fields import FieldColumns
from xray.capture.snapshot import to_json
from xray.exceptions import ConfigurationError
from xray.stage_types.base import Columns

REDACTED = "[redacted]"
FAILED = "[redacted: the redactor failed]"

Rule = str | re.Pattern[str] | Callable[[str, Any], Any]
"""A name, ``re:`` and a pattern, ``plugin:`` and a name, a compiled pattern, or ``(path, value) -> value``."""

_STAY = frozenset({"verdict", "score", "rank", "rank_before"})
_SCALARS = (int, float, type(None), bytes, dt.datetime, dt.timedelta, msgspec.msgpack.Ext)
_UNREAD: frozenset[type] = frozenset({int, float, bool, type(None)})
_MAX_PLANS = 5_000
_MAX_PLAN_KEYS = 100
_decode = msgspec.msgpack.Decoder(strict=False).decode


class Redactor:
    """A set of redaction rules, applied in this order: names, patterns, callables.

    - A **name** matches a key at any depth, whatever its case, ``-`` and ``_`` (``user-email`` is ``userEmail``); the
      value under it becomes ``"[redacted]"`` as a whole. A **dotted name** matches only where the keys above match too,
      positions in lists left out: ``users.email`` matches ``users.3.email``. A dot within a key counts as a step.
    - A **pattern** is searched in texts and in keys; what it matches becomes ``"[redacted]"``, and bytes in which it
      matches do as a whole. Numbers and dates are no text. Patterns run without a time limit: one that backtracks
      without bound, such as ``(a+)+$``, stalls delivery, and to avoid that is up to its author.
    - A **callable** is given the path (``data.users.3.email``) and each value that is no object and no list, never a
      key, and gives what takes its place. What is not JSON in that is made so. Where it raises, the value is gone.
      ``plugin:`` and a name is the callable that a plugin brings; a name that no plugin brings is an error, so that
      nothing is let through because a package is missing.

    Instances may be shared by threads.

    Args:
        rules: A rule, a redactor, or an iterable of both. A text may hold several names with commas between them, and
            a pattern after the last; ``plugin:`` may stand before each. None has no rules.

    Raises:
        ConfigurationError: A rule is none of these, is an ``async`` function, a pattern cannot be compiled, or a name
            is empty or has ``*``, ``?`` or ``[`` in it, which would match nothing.
    """

    def __init__(self, rules: Rule | Redactor | Iterable[Rule | Redactor] | None = None) -> None:
        self.failures = 0
        """How many values are gone because a rule failed on them."""
        self.rules: list[Rule] = []
        """The rules, each once."""
        self._names: dict[str, list[tuple[str, ...]]] = {}
        self._patterns: list[re.Pattern[str]] = []
        self._callables: list[Callable[[str, Any], Any]] = []
        self._parts: list[Redactor] = []
        self._lock = threading.Lock()
        self._plans: dict[tuple[tuple[str, ...], tuple[Any, ...]], _Plan] = {}
        self._unchanged: frozenset[type] = frozenset()
        self._add_all(rules)
        if not self._callables:
            self._unchanged = _UNREAD if self._patterns else _UNREAD | {str}

    @classmethod
    def of(cls, *levels: Rule | Redactor | Iterable[Rule | Redactor] | None) -> Redactor:
        """One redactor with the rules of several levels: the process's, the pipeline's, the stage's.

        A failure counts on it and on each redactor among the levels.

        Args:
            levels: What :class:`Redactor` takes.

        Raises:
            ConfigurationError: A rule cannot be.
        """
        return cls([level if isinstance(level, Redactor) else Redactor(level) for level in levels])

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self.rules)

    def apply(self, value: Any, path: str = "") -> Any:
        """A redacted copy of a value.

        Args:
            value: Decoded JSON, or ``msgspec.Raw``, which is decoded; it is never changed.
            path: Where it comes from (``input``, ``data``); a name that matches this takes the value as a whole.
        """
        return REDACTED if self._takes(path) else self._apply_safely(value, path, _named(_steps(path)))

    def apply_columns(self, columns: Columns) -> Columns:
        """A redacted copy of a stage's candidates.

        Covered are ``data``, ``output``, ``returned``, ``reason_text``, ``reason_label``, ``scores``, ``checks`` and
        the columns that a type adds, each under its column's name as the path (``data.user.email``). Candidate ids,
        verdicts, scores and ranks stay as they are, because a run could not be read without them: an id that must not
        be seen has to be replaced by the pipeline itself (``id=`` takes a callable). Facts stay too.

        Args:
            columns: The candidates; they are not changed.
        """
        redacted: dict[str, Any] = {}
        for name, values in columns.values.items():
            if isinstance(values, FieldColumns) and not self._takes(name):
                redacted[name] = self._apply_to_fields(values, name)
            elif name in _STAY or (self._unchanged.issuperset(map(type, values)) and not self._takes(name)):
                redacted[name] = list(values)
            elif self._takes(name):
                redacted[name] = [None if value is None else REDACTED for value in values]
            else:
                redacted[name] = [
                    None if value is None else self._apply_safely(value, name, (name,)) for value in values
                ]
        # These columns have a form: a stage in which another stands could not be read.
        for name in ("reason_label", "reason_text"):
            if name in redacted:
                redacted[name] = [v if v is None or isinstance(v, str) else str(v) for v in redacted[name]]
        for name in ("scores", "checks"):
            if name in redacted:
                redacted[name] = [v if isinstance(v, dict) else None for v in redacted[name]]
        return Columns(columns.candidate_id, redacted, columns.facts)

    def count_failure(self) -> None:
        """Count a value that is gone because a rule failed on it, here and on the redactors that this is made of."""
        with self._lock:
            self.failures += 1
        for part in self._parts:
            part.count_failure()

    # --- rules ----------------------------------------------------------------------------------------------------

    def _add_all(self, rules: Rule | Redactor | Iterable[Rule | Redactor] | None) -> None:
        if rules is None:
            return
        if isinstance(rules, (str, re.Pattern, Redactor)) or callable(rules):
            self._add(rules)
        elif isinstance(rules, (bytes, Mapping)) or not isinstance(rules, Iterable):
            raise _wrong(f"A redaction rule is a name, a pattern or a callable, not {rules!r}.")
        else:
            for rule in rules:
                self._add(rule)

    def _add(self, rule: Any) -> None:
        if isinstance(rule, Redactor):
            self._parts.append(rule)
            for one in rule.rules:
                self._add(one)
            return
        if rule in self.rules:
            return
        if isinstance(rule, str):
            self._add_text(rule)
        elif isinstance(rule, re.Pattern):
            if not isinstance(rule.pattern, str):
                raise _wrong(f"The pattern {rule.pattern!r} is for bytes; write it as text.")
            self._patterns.append(rule)
        elif not callable(rule):
            raise _wrong(f"A redaction rule is a name, a pattern or a callable, not {rule!r}.")
        elif inspect.iscoroutinefunction(rule):
            raise _wrong(f"The rule {rule!r} is an async function, which nothing would await.")
        else:
            self._callables.append(rule)
        self.rules.append(rule)

    def _add_text(self, text: str) -> None:
        rest: str | None = text
        while rest is not None:
            if rest.lstrip().startswith("re:"):
                self._patterns.append(_compiled(rest.lstrip().removeprefix("re:")))
                return
            name, comma, after = rest.partition(",")
            rest = after if comma else None
            if name.strip().startswith("plugin:"):
                self._callables.append(_brought(name.strip().removeprefix("plugin:")))
                continue
            if any(character in name for character in "*?["):
                raise _wrong(f"The name {name!r} is no pattern.", "Write 're:' and a pattern, or a callable.")
            steps = tuple(map(_folded, name.split(".")))
            if not all(steps):
                raise _wrong(f"The name {name!r} is empty or has an empty part.")
            self._names.setdefault(steps[-1], []).append(_named(steps[:-1]))

    # --- applying -------------------------------------------------------------------------------------------------

    def _takes(self, path: str) -> bool:
        """Whether a name matches the path itself or one above it."""
        steps = _steps(path)
        return any(self._names_match(steps[:depth], key) for depth, key in enumerate(steps))

    def _names_match(self, above: Sequence[str], key: str) -> bool:
        *more, last = (_folded(step) for step in key.split("."))
        wanted = self._names.get(last)
        if not wanted:
            return False
        keys = _named([step for name in above for step in map(_folded, name.split("."))] + more)
        return any(keys[len(keys) - len(names) :] == names for names in wanted)

    def _apply_safely(self, value: Any, path: str, above: tuple[str, ...]) -> Any:
        try:
            return self._apply(value, path, above)
        except Exception:  # bytes that are no msgpack, or nested too deeply
            self.count_failure()
            return FAILED

    def _apply(self, value: Any, path: str, above: tuple[str, ...]) -> Any:
        """Redact a value under its full path, for callables, and the keys alone that lead to it, for names."""
        if type(value) is msgspec.Raw:
            value = _decode(value)
        # The exact kinds first: that spares asking an abstract class for each of thousands.
        if type(value) is dict:
            return self._apply_to_object(value, path, above)
        if isinstance(value, str):
            value = self._apply_to_text(value)
        elif isinstance(value, Mapping):
            return self._apply_to_object(value, path, above)
        elif isinstance(value, (list, tuple, AbstractSet)):
            if type(value) is list and self._unchanged.issuperset(map(type, value)):
                return value[:]
            return [self._apply(item, f"{path}.{place}", above) for place, item in enumerate(value)]
        elif isinstance(value, bytes):
            text = value.decode("utf-8", "replace")
            value = REDACTED if any(pattern.search(text) for pattern in self._patterns) else value
        elif not isinstance(value, _SCALARS):
            # Nothing that comes from a snapshot; what is inside cannot be known.
            self.count_failure()
            return FAILED
        for rule in self._callables:
            try:
                value = to_json(rule(path.removeprefix("."), value))
            except Exception:
                self.count_failure()
                return FAILED
        return value

    def _apply_to_text(self, text: str) -> str:
        for pattern in self._patterns:
            if pattern.search(text):
                text = pattern.sub(_blank, text)
        return text

    def _apply_to_object(self, value: Mapping[Any, Any], path: str, above: tuple[str, ...]) -> dict[Any, Any]:
        # Objects of the same keys come by the thousand: what names and patterns say of their keys is worked out once.
        keys = tuple(value)
        plan = self._plans.get((above, keys)) or self._plan(above, keys)
        result = dict(value)
        if not self._unchanged.issuperset(map(type, result.values())):
            for key, item in value.items():
                if type(item) is str and not self._callables:
                    result[key] = self._apply_to_text(item)
                elif type(item) not in self._unchanged and key not in plan.matched:
                    result[key] = self._apply(item, f"{path}.{key}", (*above, str(key)))
        for key in plan.matched:
            result[key] = REDACTED
        if plan.renamed:
            return {plan.renamed.get(key, key): item for key, item in result.items()}
        return result

    def _apply_to_fields(self, fields: FieldColumns, path: str) -> FieldColumns:
        """Redact candidates that are kept by field: a field that no rule concerns is not even decoded again."""
        above = _named((path,))
        plan = self._plan(above, tuple(fields.packed))
        packed: dict[str, bytes] = {}
        for key, given in fields.packed.items():
            shown = plan.renamed.get(key, key)
            if key in plan.matched:
                packed[shown] = msgspec.msgpack.encode([REDACTED] * len(fields))
                continue
            values = fields.column(key) or []
            if self._unchanged.issuperset(map(type, values)):
                packed[shown] = given
            else:
                under, keys = f"{path}.{key}", (*above, key)
                packed[shown] = msgspec.msgpack.encode([self._apply_safely(value, under, keys) for value in values])
        return FieldColumns(tuple(packed), tuple(packed.values()), len(fields))

    def _plan(self, above: tuple[str, ...], keys: tuple[Any, ...]) -> _Plan:
        renamed: dict[Any, str] = {}
        taken: set[Any] = set(keys)
        for key in keys:
            text = str(key)
            shown = unique = self._apply_to_text(text)
            number = len(taken)
            # Two keys may become the same; neither value may be lost for that.
            while shown != text and unique in taken:
                number += 1
                unique = f"{shown} ({number})"
            if shown != text:
                renamed[key] = unique
                taken.add(unique)
        plan = _Plan(frozenset(key for key in keys if self._names_match(above, str(key))), renamed)
        if len(self._plans) >= _MAX_PLANS:
            self._plans = {}
        if len(keys) <= _MAX_PLAN_KEYS:
            self._plans[above, keys] = plan
        return plan


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the rules say of the keys of an object: whose values go, and which are shown otherwise."""

    matched: frozenset[Any]
    renamed: dict[Any, str]


def _named(steps: Iterable[str]) -> tuple[str, ...]:
    """The steps of a path that are no positions in lists."""
    return tuple(step for step in steps if not step.isdigit())


def _steps(path: str) -> tuple[str, ...]:
    return tuple(step for step in path.split(".") if step)


def _blank(match: re.Match[str]) -> str:
    # ``.*`` also matches the empty rest of each text: there is nothing there to hide.
    return REDACTED if match.group() else ""


def _folded(name: str) -> str:
    return name.strip().casefold().replace("_", "").replace("-", "")


def _brought(name: str) -> Callable[[str, Any], Any]:
    """A plugin's redactor, behind its guard: where it fails or is switched off it raises, and the value is gone."""
    from xray.plugins import installed

    function, guard = installed().redactor(name)
    return lambda path, value: guard.call(function, path, value)


def _compiled(source: str) -> re.Pattern[str]:
    if not source:
        raise _wrong("A pattern is missing after 're:'.")
    try:
        return re.compile(source)
    except (re.error, RecursionError, OverflowError) as error:
        raise _wrong(f"The pattern {source!r} cannot be compiled: {error}.") from None


def _wrong(message: str, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(message, code="bad_redaction", path="redact", hint=hint)
