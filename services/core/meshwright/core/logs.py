"""Logs as JSON lines on stderr: constant event strings with fields, one line per change of state, trace ids added.

Libraries that use `logging` (uvicorn, nats, grpc) come out in the same form. One decision to know: writing a log line
never raises and never decides anything; when stderr is gone, lines are dropped.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from opentelemetry import trace

Event = MutableMapping[str, Any]
Sink = Callable[[Event], None]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_MAX_TEXT = 16 * 1024  # characters of one field; a message that quotes its input must not make a line without end
_sinks: list[Sink] = []  # of this process, as structlog's and logging's own configuration is
_QUIET = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "nats", "httpx", "httpcore")


def setup(part: str, level: str = "info", *, sink: Sink | None = None) -> None:
    """Configure structlog and `logging` for this process.

    `part` names the service in each line; `sink` sees each finished event and must not block; see also `forward`.
    """
    number = LEVELS[level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        _name(part),
    ]
    finish: list[Any] = [structlog.processors.format_exc_info, _bound]
    _sinks[:] = [sink] if sink else []
    finish.append(_feed)
    finish.append(structlog.processors.JSONRenderer(default=str, ensure_ascii=False))
    structlog.configure(
        processors=[*shared, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,  # loggers made at import follow a later `setup`
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _QUIET:  # their own lines at "info" tell of each connection and request
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def _name(part: str) -> Callable[[Any, str, Event], Event]:
    def add(_logger: Any, _method: str, event: Event) -> Event:
        event["service"] = part  # fields of ours say `part` for a part of the service
        return event

    return add


def _add_trace(_logger: Any, _method: str, event: Event) -> Event:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"], event["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return event


def _bound(_logger: Any, _method: str, event: Event) -> Event:
    for key, value in event.items():
        if isinstance(value, str | bytes) and len(value) > _MAX_TEXT:
            kept = value[:_MAX_TEXT]
            text = kept if isinstance(kept, str) else repr(kept)
            event[key] = f"{text}… ({len(value)} in all)"
    return event


def forward(sink: Sink) -> Callable[[], None]:
    """Show each finished event to `sink`, which must not block; return the function that ends it."""
    _sinks.append(sink)

    def end() -> None:
        if sink in _sinks:
            _sinks.remove(sink)

    return end


def _feed(_logger: Any, _method: str, event: Event) -> Event:
    for sink in _sinks:
        sink(event)
    return event


class _Lines:
    """structlog's innermost logger: one write for each line, to whatever stderr is at that moment."""

    def __init__(self, *_: Any) -> None: ...

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _Handler(logging.Handler):
    """The way of `logging` into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # a library's wrong arguments must not end the caller
            line = f'{{"event": "unformattable_log_record", "logger": "{record.name}"}}'
        _Lines().msg(line)
