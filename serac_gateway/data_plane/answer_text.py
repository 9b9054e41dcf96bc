"""The text of a reply as it went out to the client, by the forms of the four APIs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

MAX_REPLY_BYTES = 65_536
"""Of a longer reply no text is read."""
MAX_ANSWER_CHARS = 4_000


def answer_text(reply: bytes, *, streams: bool) -> str | None:
    """What the model says in it, of several choices the first; None: nothing that can be read."""
    if len(reply) > MAX_REPLY_BYTES:
        return None
    if not streams:
        return "".join(_texts(_decoded(reply)))[:MAX_ANSWER_CHARS] or None
    lines = reply.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events = (_decoded(line.removeprefix(b"data:")) for line in lines if line.startswith(b"data:"))
    return "".join(text for event in events for text in _pieces(event))[:MAX_ANSWER_CHARS] or None


def _decoded(data: bytes) -> dict[str, object]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _texts(reply: dict[str, object]) -> Iterator[str]:
    """The texts of a whole reply."""
    for choice in _objects(reply.get("choices"))[:1]:
        message = choice.get("message")
        yield from _strings(message.get("content") if isinstance(message, dict) else choice.get("text"))
    for item in _objects(reply.get("output")):
        for part in _objects(item.get("content")):
            yield from _strings(part.get("text"))
    for part in _objects(reply.get("content")):
        yield from _strings(part.get("text"))


def _pieces(event: dict[str, object]) -> Iterator[str]:
    """The texts of an event of a stream."""
    for choice in _objects(event.get("choices")):
        if choice.get("index", 0) == 0:
            delta = choice.get("delta")
            yield from _strings(delta.get("content") if isinstance(delta, dict) else choice.get("text"))
    delta = event.get("delta")
    if event.get("type") == "response.output_text.delta":
        yield from _strings(delta)
    elif event.get("type") == "content_block_delta" and isinstance(delta, dict):
        yield from _strings(delta.get("text"))


def _objects(value: object) -> list[dict[str, object]]:
    return [member for member in value if isinstance(member, dict)] if isinstance(value, list) else []


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
