"""Imports on background threads, and forks: a child would wait for ever for an import that its parent began."""

from __future__ import annotations

import os
import threading

importing = threading.RLock()
"""Held by background threads while they import; a fork waits for that."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=importing.acquire, after_in_parent=importing.release, after_in_child=importing.release)
