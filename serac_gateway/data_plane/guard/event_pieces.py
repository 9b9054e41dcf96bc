"""Divides a stream of events into pieces with their texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from serac_gateway.data_plane import sse
from serac_gateway.data_plane.guard.reply_text import ReplyText, decoded_json, reply_texts

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
NO_JSON = "raw"
"""The place of all that is no JSON."""


class EventPiece(msgspec.Struct, frozen=True):
    """An event, or a line that a client may act on by itself."""

    data: bytes
    value: object
    texts: tuple[ReplyText, ...]


class EventPieces:
    """Pieces joined are the chunks joined; only the beginning of an incomplete event is kept back."""

    def __init__(self) -> None:
        self._boundaries = sse.EventBoundaries()

    @property
    def boundaries(self) -> sse.EventBoundaries:
        """What is known of the stream's events so far."""
        return self._boundaries

    def feed(self, chunk: bytes) -> Iterator[EventPiece]:
        """The pieces that are complete now."""
        return _pieces(self._boundaries.feed(chunk))

    def close(self) -> Iterator[EventPiece]:
        """The rest, which is no whole event."""
        return _pieces(self._boundaries.held)


def _pieces(ready: bytes) -> Iterator[EventPiece]:
    piece: EventPiece | None = None
    lines: list[bytes] = []
    payload: list[bytes] = []
    for line in _LINE.findall(ready):
        if not line:
            continue
        content = line.rstrip(b"\r\n")
        if not content and not lines:
            if piece is not None:  # the blank line that ends its event
                piece = EventPiece(piece.data + line, piece.value, piece.texts)
                continue
            yield EventPiece(line, None, ())
            continue
        if piece is not None:
            yield piece
            piece = None
        lines.append(line)
        if content.startswith((b"data:", b"{")):
            payload.append(content.removeprefix(b"data:").strip(b" "))
        elif content and not content.startswith((b"event:", b"id:", b"retry:")):
            payload.append(content)
        if payload and (not content or _may_be_json(payload)):
            value, texts, is_json = _read(b"\n".join(payload))
            if is_json or not content:
                piece = EventPiece(b"".join(lines), value, texts)
                lines, payload = [], []
        elif not content:
            piece = EventPiece(b"".join(lines), None, ())
            lines = []
    if piece is not None:
        yield piece
    if lines:
        value, texts, _ = _read(b"\n".join(payload))
        yield EventPiece(b"".join(lines), value, texts)


def _may_be_json(payload: list[bytes]) -> bool:
    return payload[0].startswith(b"{") and payload[-1].endswith(b"}")


def _read(payload: bytes) -> tuple[object, tuple[ReplyText, ...], bool]:
    if payload.lstrip()[:1] in (b"{", b"["):
        try:
            value = decoded_json(payload)
        except ValueError:
            pass
        else:
            return value, tuple(reply_texts(value)), True
    text = payload.decode("utf-8", "replace")
    return None, ((NO_JSON, text + "\n"),) if text and text != "[DONE]" else (), False
