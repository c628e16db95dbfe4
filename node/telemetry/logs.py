"""Structured logs: one JSON line an event, ids and numbers only.

The caller must never pass anything to a logger that comes from a DICOM file, a path or a note. As
a second line of defence, values that are not of plain types are replaced by their type.
"""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

_PLAIN = (str, int, float, bool, type(None))


class _Unfailing:
    """Standard error, with write errors ignored.

    A closed terminal, a reader that has ended or a full disk must not end the node.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Libraries(logging.Handler):
    """Turns libraries' log records into lines with their source and place, without their text."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning(
            "library", library=record.name, level=record.levelname, place=record.funcName
        )


def configure_logs(level: str) -> None:
    """Send logs as JSON lines to standard error from now on, libraries' too."""
    use_level(level)
    logging.basicConfig(level=logging.ERROR, handlers=[_Libraries()], force=True)
    structlog.configure(
        processors=[
            _only_wanted,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_plain,
            _without_messages_of_errors,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )


class _Level:
    """The least level that is logged; loggers are kept, so it is not in them."""

    def __init__(self) -> None:
        self.least = logging.INFO


_level = _Level()
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def use_level(level: str) -> None:
    """Log what is of that level, and above, from now on."""
    _level.least = logging.getLevelNamesMapping()[level.upper()]


def _only_wanted(_: object, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _LEVELS.get(name, logging.ERROR) < _level.least:
        raise structlog.DropEvent
    return event


def _only_plain(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key != "exc_info" and not isinstance(value, _PLAIN):
            event[key] = f"<{type(value).__name__}>"
    return event


def _without_messages_of_errors(
    _: object, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Turn exception information into types and places: messages may quote what they met."""
    if event.pop("exc_info", None):
        places = _places(sys.exc_info()[1])
        if len(places) > 40:
            places[10:-30] = ["..."]
        event["trace"] = " ".join(places)
    return event


def _places(error: BaseException | None) -> list[str]:
    """Return the way to where an error began: through groups, by their first, and causes."""
    places: list[str] = []
    seen: set[int] = set()  # an error taken out of a group can have that group as its cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
            trace = trace.tb_next
        places.append(type(error).__name__)
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__
    return places
