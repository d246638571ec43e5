"""Logs: one event in plain words a line, data as keys; JSON where stderr is no terminal.

Whatever a peer made us log, a line stays one line, of bounded length, without control
characters and without secrets.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from ..domain.redaction import REDACTED, is_secret, printable, without_secrets

_MAX_CHARACTERS = 500  # of a value
_MAX_TRACEBACK = 20_000
_MAX_ITEMS = 50


def configure(level: str = "info") -> None:
    """Log to stderr from now on.  level: debug, info, warning or error."""
    on_terminal = sys.stderr.isatty()
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if on_terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Here, for the console's own tracebacks show the values of variables, secrets too.
            structlog.processors.format_exc_info,
            hide_and_cut,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # tests look at logs after others have configured them
    )
    # trio-websocket, paho and asyncio log by the standard library.
    logging.basicConfig(level=logging.WARNING, handlers=[_FromLibraries()], force=True)


def hide_and_cut(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog that hides, escapes and cuts what is to be logged."""
    for key, value in event.items():
        if key == "exception":
            event[key] = _traceback(value)
        elif key not in ("timestamp", "level"):
            event[key] = REDACTED if value is not None and is_secret(key) else _shown(value)
    return event


def _shown(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value)
    if depth < 3 and isinstance(value, Mapping):
        return {
            (name := _text(str(key))): REDACTED if is_secret(name) else _shown(item, depth + 1)
            for key, item in list(value.items())[:_MAX_ITEMS]
        }
    if depth < 3 and isinstance(value, list | tuple | set | frozenset):
        return [_shown(item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return _text(repr(value))


def _text(text: str) -> str:
    cleaned = printable(without_secrets(text[: 2 * _MAX_CHARACTERS]))
    return cleaned if len(cleaned) <= _MAX_CHARACTERS else cleaned[:_MAX_CHARACTERS] + "..."


def _traceback(text: str) -> str:
    """Its lines begin with blanks, so that none can pass for another event."""
    lines = without_secrets(str(text)[:_MAX_TRACEBACK]).split("\n")
    return "\n".join("    " + printable(line) for line in lines)


class _FromLibraries(logging.Handler):
    """Passes the warnings of libraries to our own log, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        write = log.error if record.levelno >= logging.ERROR else log.warning
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # the library's mistake: arguments that do not fit
            message = str(record.msg)
        why = repr(record.exc_info[1]) if record.exc_info else None
        write("a library complains", library=record.name, said=message, why=why)
