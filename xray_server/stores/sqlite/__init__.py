"""The embedded store: everything in one SQLite file."""

from xray_server.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
