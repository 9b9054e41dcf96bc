r"""Single characters written as escapes: ``%41``, ``&#65;``, ``\u0041``, ``=41``; a tag as nothing."""

from __future__ import annotations

import re
from enum import Enum, auto
from html.entities import html5
from typing import Final

OPENERS: Final = frozenset("%&\\=<")
"""The characters with which an escape begins."""
_MAX_TAG_CHARS: Final = 128
_MAX_ENTITY_CHARS: Final = 33
_LONGEST: Final = {"%": 12, "=": 12, "\\": 16, "&": _MAX_ENTITY_CHARS, "<": _MAX_TAG_CHARS}
_BYTES: Final = re.compile(r"(?:[%=]([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2}))")
_CODE: Final = re.compile(r"\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|\\u\{([0-9A-Fa-f]{1,6})\}")
_NUMERIC: Final = re.compile(r"&#(?:([0-9]{1,7})|[xX]([0-9A-Fa-f]{1,6}));")
_BEGINNING: Final = re.compile(
    r"(?:[%=][0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}){0,3}"
    r"(?:[%=][0-9A-Fa-f]?|\\(?:x[0-9A-Fa-f]?|u[0-9A-Fa-f]{0,3}|u\{[0-9A-Fa-f]{0,6}|U[0-9A-Fa-f]{0,7})?"
    r"|&(?:#(?:[0-9]{0,7}|[xX][0-9A-Fa-f]{0,6})?|[A-Za-z][A-Za-z0-9]{0,31})?|<(?:[A-Za-z/!][^<>]*)?)?"
)
"""What may yet become an escape."""
_CONTROLS: Final = frozenset("abfnrtv0\"'/\\`\r\n")
"""After a backslash: white space, or a sign as it is."""


class Escape(Enum):
    """What a text that begins with an opener is so far."""

    OPEN = auto()
    """The beginning of an escape."""
    NONE = auto()
    """No escape."""


def read_escape(text: str) -> str | Escape:
    """The characters that `text`, an opener and what follows it, stands for; "" if for none that is seen."""
    if len(text) < 2:
        return Escape.OPEN
    opener, last = text[0], text[-1]
    if opener == "<":
        return "" if last == ">" and len(text) > 2 else _if_open(text)
    if opener == "\\" and len(text) == 2 and last in _CONTROLS:
        return ""
    if opener == "&" and last == ";":
        return _entity(text)
    if code := _CODE.fullmatch(text):
        return _char(int(next(filter(None, code.groups())), 16))
    pairs = _BYTES.findall(text)
    if pairs and len(pairs) * (4 if opener == "\\" else 3) == len(text):
        return _utf8(bytes(int(plain or escaped, 16) for plain, escaped in pairs))
    return _if_open(text)


def _if_open(text: str) -> Escape:
    is_open = len(text) < _LONGEST[text[0]] and _BEGINNING.fullmatch(text) is not None
    return Escape.OPEN if is_open else Escape.NONE


def _entity(text: str) -> str | Escape:
    if number := _NUMERIC.fullmatch(text):
        return _char(int(number[1]) if number[1] else int(number[2], 16))
    return html5.get(text[1:], Escape.NONE)


def _utf8(data: bytes) -> str | Escape:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        return Escape.OPEN if exc.reason == "unexpected end of data" else Escape.NONE


def _char(code: int) -> str | Escape:
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else Escape.NONE
