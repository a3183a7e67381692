"""One structured log: words on a terminal, JSON lines on request; facility, session, layer and spot bound to it."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(*, json_lines: bool, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up structlog, and what caproto and asyncio log through `logging`; always to stderr, or `stream`."""
    out = sys.stderr if stream is None else stream
    number = LEVELS.get(level, logging.INFO)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if json_lines:
        shared += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(sort_keys=True)]
    else:
        shared.append(structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=28))
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=out, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    # caproto reports every beacon that nobody hears, and every client that goes, as an error
    logging.getLogger("caproto.ctx").setLevel(logging.CRITICAL)
    logging.getLogger("caproto").setLevel(logging.ERROR)


def bind(**context: Any) -> None:
    """Put facility, session, layer, spot on every line logged from here on; None takes one away."""
    gone = [key for key, value in context.items() if value is None]
    if gone:
        structlog.contextvars.unbind_contextvars(*gone)
    structlog.contextvars.bind_contextvars(**{k: v for k, v in context.items() if v is not None})
