"""What questions find: pages of typed rows that fetch the next page by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from xray.exceptions import ClientError
from xray.html import Answer, answer

MAX_ROWS = 100_000
"""Rows that :meth:`Results.to_pandas` takes by default, at the most."""


class Results(Answer):
    """An answer: a plain dict with the first page (``rows``, ``cursor``, ``coverage``), which can get the others.

    Args:
        question: The question.
        first: The answer to it.
        ask: What asks a question.
    """

    def __init__(
        self,
        question: Mapping[str, Any],
        first: Mapping[str, Any],
        ask: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        self._question = dict(question)
        self._ask = ask
        super().__init__(answer(first, self._returns))

    @property
    def _returns(self) -> str:
        return str(self._question.get("return") or "stages")

    @property
    def rows(self) -> list[Any]:
        """The rows of the first page."""
        return list(self["rows"])

    def pages(self) -> Iterator[Answer]:
        """Every page, the first one without asking again."""
        page: Answer = self
        yield page
        while page.get("cursor"):
            page = answer(self._ask({**self._question, "cursor": page["cursor"]}), self._returns)
            yield page

    def all(self) -> Iterator[Any]:
        """Every row of every page, in order: ``RunView``, ``StageView`` or ``CandidateView``, which are dicts."""
        for page in self.pages():
            yield from page["rows"]

    def to_pandas(self, max_rows: int = MAX_ROWS) -> Any:
        """Every row as a ``pandas.DataFrame``; what lies within objects has its own columns (``metrics.fail_ratio``).

        Args:
            max_rows: How many rows to fetch at the most.

        Raises:
            ClientError: pandas is not installed.
        """
        try:
            frame = import_module("pandas").DataFrame
        except ImportError:
            raise ClientError("to_pandas needs pandas, which is not installed.", hint="pip install pandas") from None
        rows = [_flat(row) for row, _ in zip(self.all(), range(max_rows), strict=False)]
        return frame(rows)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict) and value:
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return flat
