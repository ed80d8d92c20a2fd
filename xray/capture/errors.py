"""Exceptions of the user's code: how they are told apart, and what is kept of them."""

from __future__ import annotations

import logging
from typing import Any

from xray.capture.snapshot import plain

MAX_MESSAGE_CHARS = 10_000
MAX_CODE_CHARS = 200

log = logging.getLogger("xray")


def mark_of(error: BaseException) -> tuple[int, type, object, int]:
    """What tells an exception from others for as long as the run lasts, without holding it.

    The identity alone does not: an exception that was caught and freed leaves its place to the next one. So the line
    that raised it counts too.
    """
    origin = error.__traceback__
    while origin is not None and origin.tb_next is not None:
        origin = origin.tb_next
    code, line = (None, 0) if origin is None else (origin.tb_frame.f_code, origin.tb_lineno)
    return id(error), type(error), code, line


def describe_error(error: BaseException) -> dict[str, Any]:
    """An exception as ``{type, message, code}``; an exception whose text cannot be made is described without it."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}… [xray: text of {len(message)} characters]"
    described: dict[str, Any] = {"type": type(error).__qualname__, "message": plain(message)}
    try:
        code = getattr(error, "code", None)
        if isinstance(code, (str, int)) and not isinstance(code, bool):
            described["code"] = plain(str(code))[:MAX_CODE_CHARS]
    except Exception:
        log.debug("X-Ray: the code of an exception cannot be read", exc_info=True)
    return described
