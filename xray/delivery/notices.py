"""What is said in the log about delivery: each thing once, and that the user's code is not affected."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("xray")


class Notices:
    """Says each thing once.

    Args:
        where: Where batches go.
        max_bytes: What may wait in memory.
        folder: The spool, or None.
    """

    def __init__(self, where: str, max_bytes: int, folder: Path | None) -> None:
        self._where = where
        self._folder = folder
        self._said: set[str] = set()
        self._in_memory = f"wait in memory, up to {max_bytes >> 20} MB"

    def failed(self, outcome: str, reason: str) -> None:
        """A batch could not be sent for now."""
        if self._folder is not None:
            waits = f"Recorded events wait in {self._folder} and are sent when it can, also by a later process."
        else:
            waits = (
                f"Recorded events {self._in_memory}, and are sent when it can; what does not fit, or is left when "
                "the process ends, is counted in xray.stats()."
            )
        about, what = "unreachable", "cannot be reached"
        if outcome == "denied":
            about, what = "denied", "does not let this process in"
        self._say(
            about, f"X-Ray: {self._where} {what} ({reason}). {waits} Your code is not affected. This is said once."
        )

    def answers_again(self) -> None:
        """A batch was sent after others could not be."""
        log.info("X-Ray: %s answers again", self._where)

    def rejected(self, reason: str, why: str) -> None:
        """An event is not taken, now or later."""
        kept = "" if self._folder is None else f" Such events are kept in {self._folder}."
        if reason == "rejected":
            self._say(reason, f"X-Ray: the service at {self._where} does not take an event: {why}{kept}")
        else:
            self._say(reason, f"X-Ray: {self._where} does not take what is recorded ({why}).{kept}")

    def no_spool(self, error: OSError) -> None:
        """The spool cannot be written."""
        problem = error.strerror or error
        self._say(
            "spool",
            f"X-Ray: the spool {self._folder} cannot be written ({problem}). Recorded events {self._in_memory}; what "
            "does not fit is counted in xray.stats(). This is said once.",
        )

    def _say(self, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            log.warning("%s", message)
