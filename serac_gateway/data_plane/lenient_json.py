"""JSON as the most lenient of the servers behind the gateway reads it. Pure.

What a server understands must be understood here too, or a request passes unread. So on top of strict JSON:
a byte order mark, bytes that are no UTF-8 (read as U+FFFD), NaN and Infinity, numbers of
any size, control characters and lone surrogates in strings, and text after the value. Of members with one
name the last counts, as in Python's json; those before it are kept apart, as other servers take the first.
"""

from __future__ import annotations

import json
import math
import re

import msgspec

from serac_gateway.errors import TooLongToReadError, UnreadableError, UnsupportedCharacterSetError

MAX_VALUES = 100_000
"""The most arrays and objects that are read: to build more of them holds the interpreter for too long."""
MAX_ELEMENTS = 200_000
"""The most values of all kinds: a text or number takes less than an array, but time and memory too."""
UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""The errors of decoding text that is no JSON, or not the JSON that is expected."""
_INT64 = -(2**63)
_STEP_BYTES = 4_194_304
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?+"?+', re.DOTALL)
"""A string, up to the end of the text if it has no end."""
_MAX_DIGITS = 4_000
"""A longer integer is read as infinite: its conversion takes quadratic time."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON text, read."""

    value: object
    overridden: tuple[object, ...] = ()
    """The values of members that another member of the same name follows."""


def read_json(data: bytes) -> Reading:
    """The JSON value at the beginning of `data`.

    Raises:
        UnreadableError: There is none.
        UnsupportedCharacterSetError: It is not in UTF-8.
        TooLongToReadError: See `check_size`.
    """
    check_size(data)
    overridden: list[object] = []

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        last = dict(pairs)
        if len(last) < len(pairs):
            left = dict.fromkeys(last, 0)
            for name, _ in pairs:
                left[name] += 1
            for name, value in pairs:
                left[name] -= 1
                if left[name]:
                    overridden.append(value)
        return last

    encoding = json.detect_encoding(data)
    decoder = json.JSONDecoder(object_pairs_hook=members, strict=False, parse_int=_integer)
    try:
        text = _text(data, encoding)
        value, _ = decoder.raw_decode(text, len(text) - len(text.lstrip(" \t\r\n")))
    except RecursionError as exc:
        raise _unreadable("it is nested too deeply") from exc
    except ValueError as exc:
        raise _unreadable(str(exc)) from exc
    if encoding not in ("utf-8", "utf-8-sig"):
        raise UnsupportedCharacterSetError(
            f"the body is in {encoding.upper()}; send JSON in UTF-8",
            details={"reason": "character set", "value": encoding},
        )
    return Reading(value=value, overridden=tuple(overridden))


def check_size(data: bytes) -> None:
    """Refuse to build a value of very many parts.

    Raises:
        TooLongToReadError: `data` has more than MAX_VALUES arrays and objects, or than MAX_ELEMENTS values.
    """
    opened = _count(data, b"[") + _count(data, b"{")
    if opened <= MAX_VALUES and opened + _count(data, b",") <= MAX_ELEMENTS:
        return
    opened, elements = _outside_strings(data)
    if opened > MAX_VALUES:
        raise _too_many("arrays and objects", opened, MAX_VALUES)
    if elements > MAX_ELEMENTS:
        raise _too_many("values", elements, MAX_ELEMENTS)


def may_have_many_members(data: bytes) -> bool:
    """Whether an object may have so many members that splitting it takes long: a quick test."""
    return _count(data, b":") > MAX_ELEMENTS


def _count(data: bytes, character: bytes) -> int:
    """How often a character stands in `data`, in steps, each of which holds the interpreter."""
    starts = range(0, len(data), _STEP_BYTES)
    return sum(data.count(character, start, start + _STEP_BYTES) for start in starts)


def _outside_strings(data: bytes) -> tuple[int, int]:
    """The opening brackets of `data` that stand in no string, and the values that it has at least.

    The count ends a little beyond a limit.
    """
    opened = commas = strings = position = 0
    while position < len(data) and opened <= MAX_VALUES and opened + commas <= MAX_ELEMENTS:
        strings += 1
        if strings > 2 * MAX_ELEMENTS + 2:  # each is a value or the name of one
            return opened, MAX_ELEMENTS + 1
        quote = data.find(b'"', position)
        end = quote if quote >= 0 else len(data)
        opened += data.count(b"[", position, end) + data.count(b"{", position, end)
        commas += data.count(b",", position, end)
        string = _STRING.match(data, end)
        position = len(data) if string is None else string.end()
    return opened, opened + commas


def _too_many(what: str, count: int, limit: int) -> TooLongToReadError:
    return TooLongToReadError(
        f"the body has {count:,} or more {what}, and at most {limit:,} are read; send less",
        details={"reason": "body too long", "value": count, "limit": limit},
    )


def as_strict_json(value: object) -> bytes:
    """`value` as JSON that every server reads: see `strict_value`."""
    return msgspec.json.encode(strict_value(value))


def strict_value(value: object) -> object:
    """`value` with null for numbers beyond 64 bits or not finite, and "?" for lone surrogates.

    Raises:
        RecursionError: It is nested too deeply.
    """
    match value:
        case float():
            return value if math.isfinite(value) else None
        case int():
            return value if _INT64 <= value < -2 * _INT64 else None
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {strict_value(name): strict_value(member) for name, member in value.items()}
        case list():
            return [strict_value(member) for member in value]
        case _:
            return value


def _text(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        return data.decode(encoding, "replace")


def _integer(digits: str) -> int | float:
    if len(digits) > _MAX_DIGITS:
        return -math.inf if digits[0] == "-" else math.inf
    return int(digits)


def _unreadable(why: str) -> UnreadableError:
    return UnreadableError(
        f"the body is not valid JSON: {why}; send one JSON object in UTF-8",
        details={"reason": "malformed request"},
    )
