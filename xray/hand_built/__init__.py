"""Runs and stages that are built by hand and sent with ``Client.send``, for code that has the data only at the end.

Every value is copied and turned into JSON at the call that brings it, and what cannot be right is refused there and
then, not at the service.
"""

from xray.hand_built.run import Run
from xray.hand_built.stage import Stage

__all__ = ["Run", "Stage"]
