"""The format of the log: lines for people or JSON objects for machines. The secrets of API keys are redacted.

The standard library's logging, with two formatters: structlog would replace its calls and add nothing needed.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

import msgspec
from typing_extensions import override

from serac_gateway.auth.api_keys import redacted
from serac_gateway.config.model import LogFormat, LoggingConfig

FIELDS = "fields"
"""The attribute of a log record with the named values beside its message."""


class TextFormatter(logging.Formatter):
    """A line for people: time, level, logger, message, and named values as ``name=value``.

    What is no printable character is escaped, so that no client writes lines of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._second = (-1, "")
        """The last second that was written, and its text: a busy log has many lines in one."""

    @override
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        created_s = int(record.created)
        second, text = self._second
        if second != created_s:
            text = time.strftime(self.default_time_format, self.converter(record.created))
            self._second = (created_s, text)
        return f"{text},{int(record.msecs):03d}"

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = getattr(record, FIELDS, {})
        values = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        return _printable(super().formatMessage(record), "\t") + values

    @override
    def format(self, record: logging.LogRecord) -> str:
        """The line, followed by the traceback if there is one."""
        return redacted(_printable(super().format(record), "\t\n"))


class JsonFormatter(logging.Formatter):
    """A JSON object on one line: time, level, logger, message, named values, and a traceback as one text.

    It has no character that any reader takes for the end of a line or that UTF-8 cannot express, whatever is
    logged: those are escaped.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        """The object; values that JSON cannot express are written as text."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            text = msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # a lone surrogate
            text = json.dumps(line, default=str)
        return redacted(_printable(text))


def configure_logging(config: LoggingConfig) -> None:
    """Write the log of the whole process to stderr in the configured format; may be called again."""
    # No format has these, and each record would look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, (JsonFormatter, TextFormatter)):
            root.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if config.format is LogFormat.JSON else TextFormatter())
    root.addHandler(handler)
    root.setLevel(config.level.value.upper())


def _printable(text: str, kept: str = "") -> str:
    """`text` with every character that is not printable, but those `kept`, as in a JSON string."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in kept else json.dumps(character)[1:-1]
        for character in text
    )


def _quoted(value: object) -> str:
    """`value` as text, in quotes if it is empty or contains spaces or control characters."""
    text = str(value)
    if isinstance(value, int | float):
        return text
    return text if text.isprintable() and " " not in text and text else json.dumps(text)
