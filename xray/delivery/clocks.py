"""The clocks by which the spool goes: a place of their own, so that tests can make them jump."""

from __future__ import annotations

import time
from collections.abc import Callable

wall_s: Callable[[], float] = time.time
monotonic_s: Callable[[], float] = time.monotonic
