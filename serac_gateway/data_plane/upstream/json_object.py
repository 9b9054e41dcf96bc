"""Keeps a model's text to one JSON object, whatever it writes: for JSON mode on a best effort. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator

from serac_gateway.models.language_models.base import Piece, TokenLogprob

_WHITE_SPACE = frozenset(" \t\n\r")
_SCALAR = frozenset("+-.0123456789eEaflnrstu")
"""Characters of numbers, true, false and null."""
_ESCAPED = frozenset('"\\/bfnrtu')
_HEX = frozenset("0123456789abcdefABCDEF")
_MAX_DEPTH = 64
"""Readers of JSON have limits of their own."""


class JsonObjectText:
    """Fed with text as it is generated; gives back what of a JSON object can be released.

    Text that may have to be taken back (a comma, a number, an escape) is held until its end is there. What is
    no JSON ends the object: `closing` is then what is missing of it, as it is where the text just stops.
    """

    def __init__(self) -> None:
        self.is_done = False
        """Whether the object is whole, or the text no JSON any more; what follows is not released."""
        self._closers: list[str] = []
        self._expected = "object"
        """object, first key, key, colon, value, first item, next (a comma or an end), or text of a string."""
        self._is_key = False
        self._held = ""
        """A comma and white space after it, or an escape in a string."""
        self._scalar = ""

    def feed(self, text: str) -> str:
        """The part of the held text and `text` that can be released now."""
        released = ""
        for character in text:
            if self.is_done:
                break
            released += (
                self._string_character(character) if self._expected == "text" else self._next(character)
            )
        return released

    def closing(self) -> str:
        """What makes the text so far a JSON object; "" if it is one. To be called once."""
        self.is_done = True
        released = "{}" if self._expected == "object" else ""
        if self._expected == "text":
            released += '"'  # an escape that is not whole is dropped
            self._expected = "colon" if self._is_key else "next"
        elif self._scalar:
            released += self._held + (self._scalar if _is_json(self._scalar) else "null")
        elif self._expected == "value" and not self._held:
            released += "null"
        if self._expected == "colon":
            released += ": null"
        while self._closers:
            released += self._closers.pop()
        return released

    def _string_character(self, character: str) -> str:
        escape = self._held
        if escape:
            self._held += character
            allowed = _ESCAPED if len(escape) == 1 else _HEX
            if character not in allowed:
                return self._end()
            is_whole = len(self._held) == 6 if self._held[1] == "u" else True
            return self._release() if is_whole else ""
        if character == "\\":
            self._held = character
            return ""
        if character == '"':
            self._expected = "colon" if self._is_key else "next"
        elif character < " ":
            return self._end()
        return character

    def _next(self, character: str) -> str:
        """The next character outside strings."""
        if self._scalar:
            if character in _SCALAR:
                self._scalar += character
                return ""
            if not _is_json(self._scalar):
                return self._end()
            released = self._release() + self._scalar
            self._scalar, self._expected = "", "next"
            return released + self._next(character)
        if character in _WHITE_SPACE:
            if self._held:
                self._held += character
                return ""
            return character
        return self._structure(character)

    def _structure(self, character: str) -> str:
        expected = self._expected
        if character == "{" and expected in ("object", "value", "first item"):
            return self._opened(character, "}", "first key")
        if character == "[" and expected in ("value", "first item"):
            return self._opened(character, "]", "first item")
        if character == '"' and expected in ("first key", "key", "value", "first item"):
            self._is_key = expected in ("first key", "key")
            self._expected = "text"
            return self._release() + character
        if character == ":" and expected == "colon":
            self._expected = "value"
            return character
        if character == "," and expected == "next":
            self._held = character
            self._expected = "key" if self._closers[-1] == "}" else "value"
            return ""
        empty = {"first key": "}", "first item": "]"}.get(expected)
        if character == empty or (expected == "next" and character == self._closers[-1]):
            self._closers.pop()
            self._expected = "next"
            self.is_done = not self._closers
            return character
        if character in _SCALAR and expected in ("value", "first item"):
            self._scalar = character
            return ""
        return self._end()

    def _opened(self, opener: str, closer: str, expected: str) -> str:
        if len(self._closers) == _MAX_DEPTH:
            return self._end()
        self._closers.append(closer)
        self._expected = expected
        return self._release() + opener

    def _release(self) -> str:
        released, self._held = self._held, ""
        return released

    def _end(self) -> str:
        self.is_done = True
        return ""


def json_object_pieces(pieces: Iterator[Piece], *, beginning: str) -> Iterator[Piece]:
    """`pieces` that continue the object whose text begins with `beginning`, kept to it and made whole."""
    text = JsonObjectText()
    released, tokens = text.feed(beginning), 0
    logprobs: tuple[TokenLogprob, ...] = ()
    for piece in pieces:
        released += text.feed(piece.text)
        tokens += piece.tokens
        logprobs += piece.logprobs
        if text.is_done or piece.finish_reason is not None:
            finish_reason = "stop" if text.is_done else piece.finish_reason
            yield Piece(
                text=released + text.closing(),
                tokens=tokens,
                finish_reason=finish_reason,
                stop_text=piece.stop_text,
                logprobs=logprobs,
            )
            return
        if released:
            yield Piece(text=released, tokens=tokens, logprobs=logprobs)
            released, tokens, logprobs = "", 0, ()


def _is_json(scalar: str) -> bool:
    try:
        json.loads(scalar)
    except ValueError:
        return False
    return True
