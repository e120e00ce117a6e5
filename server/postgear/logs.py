"""Structured logs: one line an event, as key=value text or as JSON.

Modules log through ``event`` on a logger named after them::

    log = logging.getLogger("postgear.daemon")
    event(log, logging.INFO, "ready", listen="127.0.0.1:4730", dsn="host=db")

    2026-11-21T10:46:15.123Z INFO daemon ready listen=127.0.0.1:4730 dsn="host=db"
    {"time": "2026-11-21T10:46:15.123Z", "level": "INFO", "logger": "postgear.daemon", "event": "ready", "listen": …}

Field names are ``_``-separated words with their unit at the end; ``time``, ``level``, ``logger`` and ``event`` are taken.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from typing import Final

from postgear.errors import ConfigError

NOTICE: Final = 25
LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "NOTICE": NOTICE,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
    "ALERT": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
}
"""What ``log_level`` may be: gearmand's names, which include Python's; from the most to the least said."""
NOWHERE: Final = "none"
REMIND_SECONDS: Final = 30.0
"""How often the log says what lasts, as that the database is still away."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.,:;/@+%*()[]<>|~!?#&$^")


def configure(level: str, form: str, file: str | None) -> None:
    """Send the log to *file* from here on.

    level: a key of LEVELS; libraries are heard from WARNING on, whatever it is. form: "text" or "json".
    file: None is standard error, "none" is nowhere. Raises ConfigError if the file cannot be opened.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    elif file == NOWHERE:
        handler = logging.NullHandler()
    else:
        try:
            handler = WatchedFileHandler(file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"log_file {file}: cannot be opened: {error.strerror}") from None
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logging.addLevelName(NOTICE, "NOTICE")
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("postgear").setLevel(LEVELS[level])


def reopen() -> None:
    """Open the log file anew if it was moved or deleted; for SIGHUP. Also done by itself before each line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, WatchedFileHandler):
            handler.reopenIfNeeded()


def event(logger: logging.Logger, level: int, name: str, /, *, exception: BaseException | None = None, **fields: object) -> None:
    """Log that *name* happened, with its values; *exception* adds its traceback, still on one line."""
    if logger.isEnabledFor(level):
        logger.log(level, name, exc_info=exception, extra={"fields": fields}, stacklevel=2)


def _values(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, object]:
    values: dict[str, object] = dict(getattr(record, "fields", {}))
    if record.exc_info:
        values["traceback"] = formatter.formatException(record.exc_info)
    return values


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record), record.levelname, record.name.removeprefix("postgear."), _one_line(record.getMessage())]
        words += [f"{key}={_quoted(value)}" for key, value in _values(record, self).items()]
        return " ".join(words)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname, "logger": record.name, "event": record.getMessage()}
        return json.dumps(line | _values(record, self), default=_as_text, ensure_ascii=False)


def _as_text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _quoted(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else _as_text(value)
    if text and _PLAIN.issuperset(text):
        return text
    return json.dumps(text, ensure_ascii=False)


class Reminder:
    """Logs what lasts: at once when it is something else than before, and then every REMIND_SECONDS."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._told = ""
        self._at = 0.0

    def remind(self, level: int, name: str, reason: str) -> None:
        """Log *name* and the reason, if it is time to."""
        if name != self._told or self._clock() >= self._at:
            event(self._log, level, name, reason=reason)
            self.told(name)

    def told(self, name: str) -> None:
        """Take it that *name* was logged just now."""
        self._told = name
        self._at = self._clock() + REMIND_SECONDS
