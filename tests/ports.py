"""Ports for tests that name one before something listens there."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

LOW, HIGH = 10_000, 32_000
"""Below those that systems give to outgoing connections, of which one could take the port in the meantime."""

_drawn = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """A port on which nothing listens, and that no other test of this process was given.

    Tests in other processes draw theirs too; that two draw the same one at the same time is improbable.
    """
    while True:
        port = _drawn.randrange(LOW, HIGH)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


@contextmanager
def nowhere() -> Iterator[str]:
    """An address where nothing listens, and nothing can begin to within the block."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
