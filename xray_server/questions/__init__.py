"""Questions that are saved under a name, with parameters."""
