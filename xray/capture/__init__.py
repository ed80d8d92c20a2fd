"""From a call to columns: accessors, snapshots, and what a stage type's extraction sees."""
