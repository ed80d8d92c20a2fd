"""The store to grow on: MongoDB 6 or newer, or what speaks its protocol.

Nothing outside of this package imports PyMongo or Beanie, and this package is imported where a ``mongodb://`` store is
opened.
"""

from xray_server.stores.mongo.store import MongoStore

__all__ = ["MongoStore"]
