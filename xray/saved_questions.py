"""The client's calls that save questions under a name and ask them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from xray.results import Results

Json = dict[str, Any]


class SavedQuestionCalls:
    """Saving questions, and asking them by their names; the client has these methods."""

    def questions(self) -> Json:
        """Every saved question, by name, under ``rows``."""
        return self.get("/v1/questions")

    def question(self, name: str) -> Json:
        """A saved question: ``question`` or ``aggregate``, ``parameters``, ``description`` and its times.

        Args:
            name: Its name.
        """
        return self.get(_path(name))

    def save_question(
        self,
        name: str,
        question: Mapping[str, Any] | None = None,
        *,
        aggregate: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        description: str | None = None,
    ) -> Json:
        """Save a question under a name, in place of what had it before.

        Args:
            name: Its name.
            question: What :meth:`Client.query` takes, with ``{"$param": "threshold"}`` (or ``q.param("threshold")``)
                where the value of a parameter belongs.
            aggregate: In its place, what :meth:`Client.aggregate` takes.
            parameters: Name → ``{"type": "number", "default": 0.9, "description": "…"}``; of the three only the type
                is needed: ``string``, ``number``, ``integer``, ``boolean``, ``time``, ``strings`` or ``numbers``.
            description: What it is for.

        Returns:
            What was saved.
        """
        given = {"question": question, "aggregate": aggregate, "parameters": parameters, "description": description}
        return self.put(_path(name), {key: value for key, value in given.items() if value is not None})

    def run_question(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        explain: bool = False,
    ) -> Results:
        """Ask a saved question.

        Args:
            name: Its name.
            parameters: The values of those that have others than their defaults.
            limit: How many rows a page has, in place of the question's own.
            explain: Ask how it is read and run, in place of rows.

        Returns:
            What :meth:`Client.query` or :meth:`Client.aggregate` returns, with ``all()`` and ``to_pandas()``, and the
            question as it was asked under ``question`` or ``aggregate``.
        """
        body = {"parameters": dict(parameters or {}), "limit": limit, "explain": explain}
        found = self.post(f"{_path(name)}/run", body)
        asked = found.get("question")
        if asked is None:
            # Figures come whole; there is never a page after the first.
            return Results({"return": "groups"}, found, lambda _: found)
        return Results(asked, found, lambda more: self.post("/v1/query", dict(more)))

    def delete_question(self, name: str) -> None:
        """Delete a saved question.

        Args:
            name: Its name.
        """
        self.delete(_path(name))

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Json:
        """Read a path of the API; what these calls are mixed into has it."""
        raise NotImplementedError

    def put(self, path: str, body: Any) -> Json:
        """Put JSON at a path of the API; likewise."""
        raise NotImplementedError

    def post(self, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None) -> Json:
        """Send JSON to a path of the API; likewise."""
        raise NotImplementedError

    def delete(self, path: str) -> Json:
        """Delete what is at a path of the API; likewise."""
        raise NotImplementedError


def _path(name: str) -> str:
    return f"/v1/questions/{quote(name, safe='')}"
