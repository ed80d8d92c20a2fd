"""Metrics of a stage, read off its own row: SQL functions that unpack the column ``rest``.

The index over metrics leads from values to stages. Where many stages fit, it is faster to go through stages in the
order that is asked for and look at each: a stage's metrics are in its document.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from xray_server.stores.encoding import is_number
from xray_server.stores.sqlite.dictionaries import Decompressor
from xray_server.stores.sqlite.rows import METRIC_NULL, METRIC_OTHER, METRIC_TABLE

VALUE = "xray_metric"
"""SQL function of ``rest``, a metric's name and a key in it or NULL: what ``stage_metrics`` has as its value."""

NUMBER = "xray_number"
"""The same, but NULL for what is no number."""


class TooManyLooksError(Exception):
    """More stages were looked at than were allowed."""


class _Document(msgspec.Struct):
    metrics: dict[str, Any] | None = None


_metrics_of = msgspec.json.Decoder(_Document).decode


class Probe:
    """The functions of one connection; for its thread alone.

    Args:
        connection: The connection; it has the functions from now on.
        decompressor: Of the same file.
    """

    def __init__(self, connection: sqlite3.Connection, decompressor: Decompressor) -> None:
        self._decompressor = decompressor
        self._rest: str | bytes | None = None
        self._metrics: dict[str, Any] = {}
        self.looks_left: int | None = None
        """How many stages may still be looked at; None is any number."""
        self.exceeded = False
        """Whether a statement was ended because there were no looks left."""
        connection.create_function(VALUE, 3, self._value, deterministic=True)
        connection.create_function(NUMBER, 3, self._number, deterministic=True)

    def allow(self, looks: int | None) -> None:
        """Allow a number of looks from now on."""
        self.looks_left = looks
        self.exceeded = False

    def _value(self, rest: str | bytes | None, name: str, key: str | None) -> int | float | str | None:
        metrics = self._metrics if rest == self._rest else self._look(rest)
        if name not in metrics:
            return None
        value = metrics[name]
        if key is not None:
            number = value.get(key) if type(value) is dict else None
            return number if is_number(number) else None
        if value is None:
            return METRIC_NULL
        if type(value) is dict:
            return METRIC_TABLE if all(map(is_number, value.values())) else METRIC_OTHER
        return value if is_number(value) else METRIC_OTHER

    def _number(self, rest: str | bytes | None, name: str, key: str | None) -> int | float | None:
        value = (self._metrics if rest == self._rest else self._look(rest)).get(name)
        if key is not None:
            value = value.get(key) if type(value) is dict else None
        return value if is_number(value) else None

    def _look(self, rest: str | bytes | None) -> dict[str, Any]:
        if self.looks_left is not None:
            self.looks_left -= 1
            if self.looks_left < 0:
                self.exceeded = True
                raise TooManyLooksError
        if rest is None:
            metrics = None
        else:
            metrics = _metrics_of(self._decompressor.decompress(rest) if isinstance(rest, bytes) else rest).metrics
        self._rest, self._metrics = rest, metrics or {}
        return self._metrics
