"""Warns of handlers that block the event loop: which method, and where in it.

Rust looks after the loop (`serve_stall.rs`) and calls `StallWatch.look` on a thread of its own while the loop doesn't
come round. One call that is seen at work over the whole limit is a handler that blocks. Many short ones are load.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any

from meshwright.dataplane.grpc.context import Common

_LOG = logging.getLogger("meshwright.dataplane.grpc")
_QUIET_SECONDS = 60.0


class StallWatch:
    """The watch over the loop of the thread that makes it."""

    def __init__(self, limit: float, runners: frozenset[CodeType]) -> None:
        """`runners` are the functions that run handlers; each has the call's `context` and `method` as variables."""
        self._limit = limit
        self._runners = runners
        self._thread = threading.get_ident()
        self._seen: tuple[Common | None, float] = (None, 0.0)
        self._warned: dict[str, float] = {}

    def look(self, waited: float, held: float) -> None:
        """See what the loop is at; it hasn't come round for `waited` seconds, `held` of them for want of the GIL."""
        now = time.monotonic()
        stack = sys._current_frames().get(self._thread)
        found = self._handler(stack)
        if found is None:
            self._seen = (None, 0.0)
            return
        context, method = found
        last, since = self._seen
        if last is not context:
            since = now - held  # native code that holds the GIL blocks too, and can't be looked at before it ends
            self._seen = (context, since)
        # The looks are a quarter of the limit apart, and the first comes that late.
        if now - since >= self._limit * 0.75 and now - self._warned.get(method, -_QUIET_SECONDS) >= _QUIET_SECONDS:
            self._warned[method] = now
            extra: dict[str, Any] = {"method": method, "seconds": round(waited, 3), "at": _place(stack)}
            _LOG.warning("handler blocks the event loop", extra=extra)

    def _handler(self, frame: FrameType | None) -> tuple[Common, str] | None:
        while frame is not None:
            if frame.f_code in self._runners:
                context, method = frame.f_locals.get("context"), frame.f_locals.get("method")
                return None if context is None or method is None else (context, method.path)
            frame = frame.f_back
        return None


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
