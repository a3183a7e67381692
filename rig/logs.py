"""One structured log: words on a terminal, JSON lines on request; facility, session, layer and spot bound to it."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Unbreakable:
    """Where lines go: stderr as it is when the line is written, or a given stream; a stream that fails loses the line.

    Whoever logs may be answering a command or taking the beam away: a closed terminal must not stop that.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def _now(self) -> TextIO:
        return sys.stderr if self._stream is None else self._stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._now().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._now().flush()

    def isatty(self) -> bool:
        try:
            return self._now().isatty()
        except (OSError, ValueError):
            return False


def configure_logs(*, json_lines: bool, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up structlog, and what caproto and asyncio log through `logging`; always to stderr, or `stream`."""
    out = _Unbreakable(stream)
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
        logger_factory=lambda *_: structlog.PrintLogger(out),  # type: ignore[arg-type]
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
