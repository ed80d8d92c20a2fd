"""Taking data out of a store and into another one."""
