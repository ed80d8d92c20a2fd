"""The HTTP API: a router per resource."""
