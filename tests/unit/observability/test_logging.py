"""How the log is written."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import pytest

from serac_gateway.auth.api_keys import ApiKeyDraft, new_api_key
from serac_gateway.auth.principals import Role
from serac_gateway.observability.logging import FIELDS, JsonFormatter, TextFormatter

FORMATTERS = [JsonFormatter(), TextFormatter()]


def record(message: str, *arguments: object, fields: dict[str, object] | None = None) -> logging.LogRecord:
    made = logging.LogRecord("serac_gateway.x", logging.ERROR, "x.py", 1, message, arguments, None)
    if fields is not None:
        setattr(made, FIELDS, fields)
    return made


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_no_line_and_no_traceback_holds_the_secret_of_a_key(formatter: logging.Formatter) -> None:
    key = new_api_key(
        ApiKeyDraft(name="CI", role=Role.EDIT), pepper=b"", created_by=None, now=datetime.now(UTC)
    )
    failed = record("got %r", {"authorization": f"Bearer {key.text}"}, fields={"sent": key.text})
    try:
        raise ValueError(f"cannot read {key.text}!")
    except ValueError:
        failed.exc_info = sys.exc_info()
    line = formatter.format(failed)
    assert key.text.rpartition("-")[2] not in line
    assert line.count(f"{key.stored.key.id}-***") >= 3
    assert "cannot read" in line


def test_a_json_line_is_one_object_with_time_level_message_and_named_values() -> None:
    line = JsonFormatter().format(record("two\nlines: %d", 3, fields={"route": "base", "total_ms": 1.25}))
    assert "\n" not in line
    fields = json.loads(line)
    assert datetime.fromisoformat(fields.pop("time")).tzinfo is not None
    assert fields == {
        "level": "error",
        "logger": "serac_gateway.x",
        "message": "two\nlines: 3",
        "route": "base",
        "total_ms": 1.25,
    }


def test_a_json_line_holds_the_traceback_and_what_is_no_json_as_text() -> None:
    failed = record("broke", fields={"error": KeyError("k")})
    try:
        raise KeyError("k")
    except KeyError:
        failed.exc_info = sys.exc_info()
    fields = json.loads(JsonFormatter().format(failed))
    assert fields["error"] == "'k'"
    assert fields["exception"].startswith("Traceback")


def test_a_text_line_quotes_what_would_break_it_into_several() -> None:
    line = TextFormatter().format(record("request", fields={"reason": "in scope", "path": "/a\nb", "n": 1}))
    assert line.endswith('ERROR serac_gateway.x: request reason="in scope" path="/a\\nb" n=1')


HOSTILE = [
    "a\nb", "a\r\nERROR forged", "a\u2028b", "a\u2029b", "a\x85b", "a\x0b\x0c\x1c\x1d\x1eb", "a\x00b",
    "a\ud800b", "\udfff",
    "a\x1b[2Jb", "a\u202eb", "a\u200bb", "\ue000", "\U000e0001", '"},{"', "\\",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("formatter", FORMATTERS)
def test_whatever_is_logged_is_one_line_of_printable_characters(
    formatter: logging.Formatter, text: str
) -> None:
    line = formatter.format(record("request %s", text, fields={"path": text, "request": text}))
    assert line.splitlines() == [line]
    assert line.encode().decode().isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_json_line_gives_back_what_was_logged(text: str) -> None:
    fields = json.loads(JsonFormatter().format(record("got %s", text, fields={"path": text})))
    assert (fields["path"], fields["message"]) == (text, f"got {text}")


def test_only_the_lines_of_a_traceback_begin_new_lines_for_people() -> None:
    failed = record("broke")
    try:
        raise ValueError("a\r\u2028\x1b[2Jb")
    except ValueError:
        failed.exc_info = sys.exc_info()
    first, *traceback = TextFormatter().format(failed).splitlines()
    assert first.endswith("broke")
    assert traceback[-1] == "ValueError: a\\r\\u2028\\u001b[2Jb"
