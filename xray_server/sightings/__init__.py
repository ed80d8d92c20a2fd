"""Where a candidate was seen: an index over candidate ids that is the same on every store."""
