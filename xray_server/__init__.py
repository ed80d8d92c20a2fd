"""X-Ray's service: ingest, stores, the query language and the HTTP API."""
