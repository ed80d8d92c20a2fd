"""Every error that X-Ray raises.

The tree::

    XRayError
    ├── ConfigurationError      a setting has a value that it cannot have
    ├── DecoratorError          a decorator was given something it does not accept (raised only in strict mode)
    ├── PluginError             a plugin could not be loaded or broke the plugin interface
    ├── SchemaError             an event, a document or a question is not of the published form
    │   └── QueryError          a question is not of the query language
    ├── ClientError             a call to the service did not give an answer
    │   ├── ServiceUnreachable  nothing answered at the address
    │   └── ServiceError        the service answered with an error
    └── StoreError              the store could not do what it was asked
        └── StoreClosed         the store was used before ``open`` or after ``close``

Nothing of this tree is ever raised into a decorated callable's caller, except ``DecoratorError`` at decoration
with ``strict=True`` or ``XRAY_STRICT=1``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XRayError(Exception):
    """Base of every error of X-Ray.

    Args:
        message: What is wrong, in one sentence.
        code: A short machine-readable name of the problem, in snake_case.
        path: Where in the input the problem is (``events[3].run.id``), or None.
        hint: What to do about it, or the nearest right word, or None.
    """

    default_code = "xray_error"

    def __init__(
        self, message: str, *, code: str | None = None, path: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        place = f" (at {self.path})" if self.path else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.message}{place}{hint}"

    def as_dict(self) -> dict[str, str | None]:
        """The body of the API's one error shape: ``code``, ``message``, ``path`` and ``hint``."""
        return {"code": self.code, "message": self.message, "path": self.path, "hint": self.hint}


class ConfigurationError(XRayError):
    """A setting has a value that it cannot have."""

    default_code = "bad_setting"


class DecoratorError(XRayError):
    """A decorator was given something that it does not accept."""

    default_code = "bad_decorator"


class PluginError(XRayError):
    """A plugin could not be loaded, or broke the plugin interface."""

    default_code = "bad_plugin"


class SchemaError(XRayError):
    """An event, a document or a question is not of the published form."""

    default_code = "bad_schema"


class QueryError(SchemaError):
    """A question is not of the query language; ``path`` names the place in the JSON object."""

    default_code = "bad_query"


class ClientError(XRayError):
    """A call to the service did not give an answer."""

    default_code = "client_error"


class ServiceUnreachable(ClientError):
    """Nothing answered at the service's address."""

    default_code = "service_unreachable"


class ServiceError(ClientError):
    """The service answered with an error.

    Args:
        status: The HTTP status code of the answer.
    """

    default_code = "service_error"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        path: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, path=path, hint=hint)
        self.status = status


class StoreError(XRayError):
    """The store could not do what it was asked."""

    default_code = "store_error"


class StoreClosed(StoreError):
    """The store was used before ``open`` or after ``close``."""

    default_code = "store_closed"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The hint that names the nearest known word, or None where nothing is near.

    Args:
        word: What was written.
        known: The words that would have been right.
    """
    near = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else None
