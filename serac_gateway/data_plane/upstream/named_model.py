"""The model that a request names: in its path, or in its body.

Servers read the model more leniently than JSON's grammar allows, so the body is not parsed: a scanner follows
its strings and brackets to the top-level member "model", whatever else is odd. Of several the last counts, as
for the servers behind the gateway. Its work is linear, in steps of one chunk, and it holds nothing but the
beginning of a name.
"""

from __future__ import annotations

import codecs
import json
import re
from abc import ABC, abstractmethod
from urllib.parse import unquote_to_bytes

import msgspec
from typing_extensions import override

from serac_gateway.domain.headers import Headers

_MAX_NAME_BYTES = 1_024
_MAX_TOKENS = 1_000_000
"""Brackets and strings after which a body counts as one without a model."""
_STEP_BYTES = 65_536

_IN_PATH = re.compile(rb"(?:^|/)(?:deployments|engines|models)/(?P<model>[^/]+)", re.IGNORECASE)
_IN_STRING = re.compile(rb"[^\"\\]*(?:\\.[^\"\\]*)*", re.DOTALL)
_AT_TOP = re.compile(rb"[^\"\[\]{},]*")
_BELOW_TOP = re.compile(rb"[^\"\[\]{}]*")
_VALUE_START = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\Z")
_BOUNDARY = re.compile(rb";\s*boundary=(?:\"([^\"]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
_NAME = re.compile(rb"(?:^|;)\s*name=(?:\"([^\"]*)\"|([^\s;]*))", re.IGNORECASE)
_MAX_PART_HEAD_BYTES = 16_384


def model_in_path(target: bytes) -> str | None:
    """The model of /models/ID, /deployments/MODEL/… and /engines/MODEL/…, decoded."""
    match = _IN_PATH.search(target.partition(b"?")[0])
    return None if match is None else unquote_to_bytes(match["model"]).decode("utf-8", "replace")


class ModelScanner(ABC):
    """Reads a body chunk by chunk."""

    model: str | None = None
    """The last one so far; None also after a model that is no text."""
    is_known = False
    """Whether the body has named a model so far."""
    is_done = False
    """Whether the rest of the body can change nothing."""

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        for start in range(0, len(chunk), _STEP_BYTES):
            if self.is_done:
                return
            self._read(chunk[start : start + _STEP_BYTES])

    @abstractmethod
    def _read(self, chunk: bytes) -> None:
        """`feed` of a chunk of at most _STEP_BYTES bytes."""


def scanner_of(headers: Headers) -> ModelScanner:
    """A scanner for the body of a request with these headers: of a form, or else of JSON."""
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    if content_type.lower().startswith(b"multipart/") and (boundary := _BOUNDARY.search(content_type)):
        return FormModelScanner(boundary[1] or boundary[2])
    return JsonModelScanner()


class JsonModelScanner(ModelScanner):
    """Finds the top-level member "model" of a JSON object, also of one that a strict reader refuses."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._beginning: bytes | None = b""
        """Of the body, while its character set is not known."""
        self._left = b""
        self._depth = 0
        self._in_string = False
        self._text: bytearray | None = None
        """The text of the current string, if it may be a member's name or the model."""
        self._name: bytes | None = None
        """The last string at the top level."""
        self._between = b""
        """What follows it."""
        self._tokens = 0

    @override
    def _read(self, chunk: bytes) -> None:
        data = self._in_utf8(chunk)
        if data is None:
            return
        data = self._left + data
        position = 0
        while position < len(data) and not self.is_done:
            position = self._string(data, position) if self._in_string else self._next(data, position)
            if position < 0:
                return
        self._left = b""

    def _in_utf8(self, chunk: bytes) -> bytes | None:
        """The text in UTF-8; None as long as too few bytes are there to tell its character set."""
        if self._beginning is not None:
            self._beginning += chunk
            if len(self._beginning) < len(codecs.BOM_UTF32_LE):
                return None
            encoding = json.detect_encoding(self._beginning)
            if not encoding.startswith("utf-8"):
                self._decoder = codecs.getincrementaldecoder(encoding)("replace")
            chunk, self._beginning = self._beginning, None
        return chunk if self._decoder is None else self._decoder.decode(chunk).encode("utf-8", "replace")

    def _string(self, data: bytes, position: int) -> int:
        """Read on in a string; -1 if the chunk ends before it does."""
        match = _IN_STRING.match(data, position)
        assert match is not None
        end = match.end()
        if self._text is not None:
            self._text += data[position:end]
            if len(self._text) > _MAX_NAME_BYTES:
                self._text = None
        if end == len(data) or data[end : end + 1] == b"\\":
            self._left = data[end:]
            return -1
        self._in_string = False
        self._end_string()
        return end + 1

    def _end_string(self) -> None:
        text, self._text = self._text, None
        if self._depth != 1:
            return
        if self._name is not None and _VALUE_START.match(self._between):
            if _unescaped(self._name) == "model":
                self.model = None if text is None else _unescaped(bytes(text))
                self.is_known = True
            self._name = None
        else:
            self._name = None if text is None else bytes(text)
        self._between = b""

    def _next(self, data: bytes, position: int) -> int:
        """Read on to the next bracket, comma or string."""
        match = (_AT_TOP if self._depth <= 1 else _BELOW_TOP).match(data, position)
        assert match is not None
        end = match.end()
        if self._name is not None and len(self._between) < _MAX_NAME_BYTES:
            self._between += data[position:end]
        if end == len(data):
            return end
        self._tokens += 1
        character = data[end : end + 1]
        if character == b'"':
            self._in_string = True
            self._text = bytearray() if self._depth == 1 else None
            return end + 1
        self._end_member()
        if character in b"{[":
            self._depth += 1
            self.is_done = self._depth == 1 and character == b"["
        elif character in b"}]":
            self._depth -= 1
        self.is_done |= self._depth <= 0 or self._tokens > _MAX_TOKENS
        return end + 1

    def _end_member(self) -> None:
        """A bracket or a comma: the value of a member with a name that is still there is no string."""
        if self._name is not None and b":" in self._between and _unescaped(self._name) == "model":
            self.model, self.is_known = None, True
        self._name, self._between = None, b""


class FormModelScanner(ModelScanner):
    """Finds the field "model" of a multipart form; files on the way are passed over."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._data = b"\r\n"  # the first delimiter may begin the body
        self._in_head = False
        self._is_model = False
        self._text = b""

    @override
    def _read(self, chunk: bytes) -> None:
        self._data += chunk
        while not self.is_done and (self._read_head() if self._in_head else self._read_content()):
            pass

    def _read_content(self) -> bool:
        """Read on to the next delimiter; whether there is one."""
        end = self._data.find(self._delimiter)
        kept = len(self._delimiter) - 1
        content = self._data[:end] if end >= 0 else self._data[:-kept]
        if self._is_model:
            self._text = (self._text + content)[: _MAX_NAME_BYTES + 1]
        if end < 0:
            self._data = self._data[-kept:]
            return False
        if self._is_model:
            is_name = len(self._text) <= _MAX_NAME_BYTES
            self.model = self._text.decode("utf-8", "replace").strip() if is_name else None
            self.is_known, self._is_model = True, False
        self._data = self._data[end + len(self._delimiter) :]
        self._in_head = True
        return True

    def _read_head(self) -> bool:
        """Read the head of a part; whether all of it is there."""
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            self.is_done = self._data.startswith(b"--") or len(self._data) > _MAX_PART_HEAD_BYTES
            return False
        head, self._data = self._data[:end], self._data[end + 4 :]
        if head.startswith(b"--"):
            self.is_done = True
            return False
        self._in_head, self._is_model, self._text = False, _field_name(head) == b"model", b""
        return True


def _field_name(head: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition" and (match := _NAME.search(value)):
            return match[1] if match[1] is not None else match[2]
    return None


def _unescaped(text: bytes) -> str:
    """The text of a JSON string without its quotes."""
    try:
        return msgspec.json.decode(b'"' + text + b'"', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text.decode("utf-8", "replace")
