"""From a ``mongodb://`` URL to a client, with what is set on purpose, and errors that say what to do."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from bson.errors import BSONError
from pymongo import AsyncMongoClient
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.errors import ConfigurationError as MongoConfigurationError
from pymongo.monitoring import (
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
)

from xray.exceptions import ConfigurationError, StoreError
from xray_server.stores.mongo.forms import Raw

DEFAULT_DATABASE = "xray"

OPEN_TIMEOUT_S = 5
"""How long opening waits for a server that answers: whoever starts a service wants to hear of a wrong address soon."""

LONG_TIMEOUT_S = 3600
"""The deadline of what reads or changes very much, such as building an index."""

CONNECTING_TIMEOUT_S = 1
"""How long closing a client waits for what it is connecting to: a server that is there, or is not, says so sooner."""

OPTIONS: dict[str, Any] = {
    # A batch is acknowledged when most members of a replica set have it in their journal: it survives the loss of a
    # machine, and no failover takes it back. A stand-alone server is a majority by itself.
    "w": "majority",
    "journal": True,
    # For one operation with its retries, in the driver and in the server, which gives up work nobody waits for.
    "timeoutMS": 20_000,
    "connectTimeoutMS": 5_000,
    "appname": "xray",
}
"""What is set unless the URL says otherwise."""


class Connecting(ServerHeartbeatListener):
    """Which servers a client is connecting to at the moment, to see whether they are there."""

    def __init__(self) -> None:
        self._servers: set[tuple[str, int | None]] = set()
        self.none = asyncio.Event()
        """Set while there are none."""
        self.none.set()

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """A look at a server begins; one that is awaited goes over a connection that is there."""
        if not event.awaited:
            self._servers.add(event.connection_id)
            self.none.clear()

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """The server is there."""
        self._ended(event.connection_id)

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """The server is not there."""
        self._ended(event.connection_id)

    def _ended(self, server: tuple[str, int | None]) -> None:
        self._servers.discard(server)
        if not self._servers:
            self.none.set()


class Client(AsyncMongoClient[Raw]):
    """A client that is closed between two attempts to connect.

    Closing cancels an attempt that is under way, and PyMongo 4.20 then forgets the socket without closing it.

    Args:
        url: As the driver takes it.
        options: The driver's.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._connecting = Connecting()
        super().__init__(url, event_listeners=[self._connecting], **options)

    async def close(self) -> None:
        """Disconnect for good."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECTING_TIMEOUT_S):
                await self._connecting.none.wait()
        await super().close()


class Address:
    """What a URL says.

    Args:
        url: ``mongodb://[user:password@]host[:port][,…]/[database][?options]``, or ``mongodb+srv://…``.

    Raises:
        ConfigurationError: It is no such URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        name = unquote(parts.path.removeprefix("/"))
        if parts.scheme not in ("mongodb", "mongodb+srv") or not hosts or set(name) & set('/\\. "$*<>:|?\0'):
            raise ConfigurationError(
                "This is no URL of a MongoDB database.",
                code="bad_store",
                hint="Write mongodb://HOST:PORT/DATABASE.",
            )
        self.database = name or DEFAULT_DATABASE
        self.location = f"{parts.scheme}://{hosts}/{self.database}"
        """Where the data lies, without what is secret: credentials, and options, which may hold some."""
        self._url = url
        self._given = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        # What must not be shown, should a message of the driver quote it.
        secrets = {*credentials.split(":"), unquote(credentials.partition(":")[2]), credentials}
        self._secrets = sorted((secret for secret in secrets if len(secret) > 1), key=len, reverse=True)

    def client(self) -> Client:
        """A client, not connected yet.

        Raises:
            ConfigurationError: The URL has an option that there is not, or a value that it cannot have.
        """
        options = {name: value for name, value in OPTIONS.items() if name.lower() not in self._given}
        try:
            with warnings.catch_warnings():
                # Of an option that it does not know or cannot take, the driver only warns.
                warnings.simplefilter("error", UserWarning)
                return Client(self._url, **options)
        except (MongoConfigurationError, InvalidURI, ValueError, TypeError, UserWarning) as error:
            raise ConfigurationError(
                f"The URL of the MongoDB database cannot be used: {self._clean(error)}.",
                code="bad_store",
                hint="Write mongodb://HOST:PORT/DATABASE; special characters in a password as %XX.",
            ) from None

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turn the driver's errors into ours.

        Args:
            doing: What MongoDB was asked to do: ``read`` or ``write``.

        Raises:
            StoreError: In place of an error of the driver.
        """
        try:
            yield
        except ServerSelectionTimeoutError:
            raise StoreError(
                f"No MongoDB server answers at {self.location}.",
                code="store_unreachable",
                hint="See that it runs and that this machine may connect to it.",
            ) from None
        except (PyMongoError, BSONError, OverflowError, UnicodeError) as error:
            # The text of a driver's error may go on with all that the server said, values included.
            raise StoreError(
                f"MongoDB could not {doing}: {self._clean(error)}.", code=_code(error), hint=_hint(error)
            ) from error

    def _clean(self, error: Exception) -> str:
        text = str(error)
        if isinstance(error, BulkWriteError):
            problems = [*error.details.get("writeErrors", ()), *error.details.get("writeConcernErrors", ())]
            text = str(problems[0].get("errmsg", "")) if problems else text
        elif isinstance(error, OperationFailure) and error.details:
            text = str(error.details.get("errmsg") or error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text.partition(" (configured timeouts")[0][:300].rstrip(".")


def _code(error: Exception) -> str | None:
    return "store_unreachable" if isinstance(error, AutoReconnect) else None


def _hint(error: Exception) -> str | None:
    code = error.code if isinstance(error, OperationFailure) else None
    if code in (18, 8000):
        return "See that the user and the password in the URL are right; the user may belong to ?authSource=admin."
    if code == 13:
        return "The user needs the role readWrite on the database."
    return None
