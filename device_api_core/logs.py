"""Structured logs, one event a line, as text for people or JSON for machines; set up once."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FRAME = frozenset({"ts", "level", "logger", "msg"})
"""What every JSON line has, besides its facts."""


def set_up(log_format: str, verbosity: int) -> None:
    """Send every logger to stderr. ``log_format`` is ``text`` or ``json``; ``verbosity`` 0 shows
    what changes, 1 and more also how."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
    # asyncio and grpc talk about their own plumbing at these levels.
    for noisy in ("asyncio", "grpc"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if verbosity > 1 else logging.WARNING)


def facts_of(record: logging.LogRecord) -> dict[str, object]:
    """What a log call added with ``extra``."""
    return {k: v for k, v in vars(record).items() if k not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    stamp = datetime.fromtimestamp(record.created, tz=UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, msg, the facts, and error with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        entry.update(facts_of(record))
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """``time LEVEL message key=value ...``; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        message = _one_line(record.getMessage())
        facts = "".join(f" {k}={_quoted(v)}" for k, v in facts_of(record).items())
        line = f"{_time(record)} {record.levelname:<7} {message}{facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and text.isprintable() and not any(c in ' "=' for c in text)
    return text if plain else json.dumps(text)


def _one_line(text: str) -> str:
    """The text with everything escaped that a terminal would obey: a provider's text may hold
    line breaks and control sequences."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pass_on(logger: logging.Logger, line: str, facts: dict[str, object]) -> dict[str, object]:
    """Log a line that another process wrote, with more facts. Returns its own facts, if it is one
    of :class:`JsonFormatter`; any other text is a message."""
    try:
        entry = json.loads(line)
        level = logging.getLevelNamesMapping()[entry["level"].upper()]
        message = str(entry["msg"])
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.info("%s", line, extra=facts)
        return {}
    own = {k: v for k, v in entry.items() if k not in _STANDARD and k not in _FRAME}
    logger.log(level, "%s", message, extra={**own, **facts})
    return own
