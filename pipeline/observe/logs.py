"""Structured logs to stderr: an event is a constant snake_case name plus fields, one JSON object a line.

Fields are places, counts and kinds; a recorded value or a key is never a field.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure(level: str, *, part: str) -> None:
    """Call once at a process's start. Library logs (uvicorn, faust, botocore) of warning and above come the same way."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(part=part)
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_Forward()], force=True)


class _Forward(logging.Handler):
    """Brings the standard library's records into the same stream. An exception comes as its type and place only."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        log.log(
            record.levelno, "library_message", logger=record.name, message=record.getMessage()[:2000], exception=kind
        )
