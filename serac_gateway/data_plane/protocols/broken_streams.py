"""Ends a stream of the upstream's in the middle with a refusal, in the way of each API. Pure.

The end continues what the client has seen: ids and numbers are the upstream's, blocks and items that are open
are closed, and the finish reason says that the content was filtered.
"""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from serac_gateway.data_plane.protocols.base import stream_event
from serac_gateway.data_plane.protocols.openai import STREAM_END
from serac_gateway.domain.endpoints import Endpoint

_CHOICE = re.compile(r"\.choices\[(\d+)\](\.delta\.content|\.text)?")
_HEAD = ("id", "object", "created", "model", "system_fingerprint")
_MAX_KEPT_CHARS = 1_048_576
"""Of a text that the last events of /responses repeat."""
Event = Mapping[str, Any]


class BrokenStream(ABC):
    """What is known of a stream that may have to be ended. Used once."""

    @abstractmethod
    def see(self, event: Event) -> None:
        """Note an event that has arrived, whether or not it leaves."""

    @abstractmethod
    def sent(self, event: Event) -> None:
        """Note an event that has left."""

    @abstractmethod
    def end(self, refusal: str, place: str | None, prefix: str) -> bytes:
        """The last events: `prefix`, if it continues the answer, and the refusal.

        `place` is that of the text which `prefix` continues (see guard/reply_text.py).
        """


def broken_stream(endpoint: Endpoint) -> BrokenStream:
    """The one of an API."""
    match endpoint:
        case Endpoint.CHAT | Endpoint.COMPLETIONS:
            return _BrokenChoices(is_chat=endpoint is Endpoint.CHAT)
        case Endpoint.MESSAGES:
            return _BrokenMessage()
        case Endpoint.RESPONSES:
            return _BrokenResponse()


def _after(has_text: bool, prefix: str, refusal: str) -> str:
    """The refusal as a paragraph of its own, where there is a text before it."""
    return f"{prefix}\n\n{refusal}" if has_text or prefix.strip() else refusal


class _BrokenChoices(BrokenStream):
    def __init__(self, *, is_chat: bool) -> None:
        self._is_chat = is_chat
        self._head: dict[str, object] | None = None
        self._open: dict[int, bool] = {}
        """Choice -> whether a text of it has left."""
        self._finished: set[int] = set()

    def see(self, event: Event) -> None:
        if self._head is None:
            self._head = {name: event[name] for name in _HEAD if name in event}

    def sent(self, event: Event) -> None:
        for index, choice in _choices(event):
            delta = choice.get("delta")
            text = delta.get("content") if isinstance(delta, Mapping) else choice.get("text")
            self._open[index] = self._open.get(index, False) or bool(text)
            if choice.get("finish_reason") is not None:
                self._finished.add(index)

    def end(self, refusal: str, place: str | None, prefix: str) -> bytes:
        match = _CHOICE.match(place or "")
        cut = int(match[1]) if match else None
        continues = match is not None and match[2] is not None
        indices = (self._open.keys() | ({cut} if cut is not None else set())) - self._finished
        events = b""
        for index in sorted(indices) or [0]:
            own_prefix = prefix if continues and index == cut else ""
            text = _after(self._open.get(index, False), own_prefix, refusal)
            events += self._chunk(index, self._delta(text), None)
            events += self._chunk(index, self._delta(None), "content_filter")
        return events + STREAM_END

    def _delta(self, text: str | None) -> dict[str, object]:
        if not self._is_chat:
            return {"text": text or ""}
        return {"delta": {} if text is None else {"role": "assistant", "content": text}}

    def _chunk(self, index: int, delta: dict[str, object], finish_reason: str | None) -> bytes:
        choice = {"index": index, **delta, "logprobs": None, "finish_reason": finish_reason}
        default = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": int(time.time()),
            "model": "",
        }
        self._head = {**default, **(self._head or {})}
        return stream_event({**self._head, "choices": [choice]})


def _choices(event: Event) -> list[tuple[int, Mapping[str, Any]]]:
    choices = event.get("choices")
    if not isinstance(choices, list):
        return []
    return [
        (index if isinstance(index := choice.get("index"), int) else 0, choice)
        for choice in choices
        if isinstance(choice, Mapping)
    ]


class _BrokenMessage(BrokenStream):
    def __init__(self) -> None:
        self._message: Mapping[str, Any] = {}
        self._is_begun = False
        self._is_ended = False
        self._open: tuple[int, str] | None = None
        """Index and type of the block that is open."""
        self._next = 0
        self._has_text = False
        self._deltas = 0

    def see(self, event: Event) -> None:
        message = event.get("message")
        if event.get("type") == "message_start" and isinstance(message, Mapping):
            self._message = message

    def sent(self, event: Event) -> None:
        index = event.get("index")
        match event.get("type"):
            case "message_start":
                self._is_begun = True
            case "content_block_start" if isinstance(index, int):
                block = event.get("content_block")
                kind = block.get("type") if isinstance(block, Mapping) else None
                self._open, self._next, self._has_text = (index, str(kind)), index + 1, False
            case "content_block_delta":
                self._deltas += 1
                self._has_text = True
            case "content_block_stop":
                self._open = None
            case "message_stop":
                self._is_ended = True

    def end(self, refusal: str, place: str | None, prefix: str) -> bytes:
        if self._is_ended:
            return b""
        events = b"" if self._is_begun else self._begin()
        continues = place == ".delta.text"
        if self._open is not None and self._open[1] == "text":
            index = self._open[0]
            text = _after(self._has_text, prefix if continues else "", refusal)
        else:
            if self._open is not None:
                events += _message_event("content_block_stop", index=self._open[0])
            index = self._next
            text = _after(False, prefix if continues else "", refusal)
            block = {"type": "text", "text": ""}
            events += _message_event("content_block_start", index=index, content_block=block)
        events += _message_event(
            "content_block_delta", index=index, delta={"type": "text_delta", "text": text}
        )
        events += _message_event("content_block_stop", index=index)
        stop = {"stop_reason": "refusal", "stop_sequence": None}
        events += _message_event("message_delta", delta=stop, usage={"output_tokens": self._deltas})
        return events + _message_event("message_stop")

    def _begin(self) -> bytes:
        default = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": "",
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return _message_event("message_start", message={**default, **self._message, "content": []})


def _message_event(kind: str, **members: object) -> bytes:
    return stream_event({"type": kind, **members}, kind)


class _BrokenResponse(BrokenStream):
    def __init__(self) -> None:
        self._response: Mapping[str, Any] = {}
        self._number = 0
        self._done: list[object] = []
        """The items that are complete."""
        self._message: tuple[int, int, str] | None = None
        """Output index, content index and item id of the text that is open."""
        self._next_output = 0
        self._text = ""
        self._has_begun = self._is_ended = False

    def see(self, event: Event) -> None:
        response = event.get("response")
        if not self._response and isinstance(response, Mapping):
            self._response = response

    def sent(self, event: Event) -> None:
        number, index = event.get("sequence_number"), event.get("output_index")
        self._number = number + 1 if isinstance(number, int) else self._number + 1
        if isinstance(index, int):
            self._next_output = max(self._next_output, index + 1)
        match event.get("type"):
            case "response.created":
                self._has_begun = True
            case "response.content_part.added" if _is_text(event.get("part")):
                self._message = (index or 0, event.get("content_index") or 0, str(event.get("item_id")))
                self._text = ""
            case "response.output_text.delta" if len(self._text) < _MAX_KEPT_CHARS:
                self._text += str(event.get("delta") or "")
            case "response.output_item.done":
                self._done.append(event.get("item"))
                self._message = None
            case "response.completed" | "response.incomplete" | "response.failed":
                self._is_ended = True

    def end(self, refusal: str, place: str | None, prefix: str) -> bytes:
        if self._is_ended:
            return b""
        prefix = prefix if place == "response.output_text.delta.delta" else ""
        events = b""
        if not self._has_begun:
            events += self._event("response.created", response=self._with("in_progress"))
        if self._message is None:
            item_id = f"msg_{secrets.token_hex(12)}"
            self._message, self._text = (self._next_output, 0, item_id), ""
            item = _item(item_id, "in_progress", None)
            events += self._event("response.output_item.added", output_index=self._next_output, item=item)
            events += self._event("response.content_part.added", **self._place(), part=_text_part(""))
        delta = _after(bool(self._text), prefix, refusal)
        text = self._text + delta
        item = _item(self._message[2], "incomplete", text)
        events += self._event("response.output_text.delta", **self._place(), delta=delta, logprobs=[])
        events += self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
        events += self._event("response.content_part.done", **self._place(), part=_text_part(text))
        events += self._event("response.output_item.done", output_index=self._message[0], item=item)
        self._done.append(item)
        return events + self._event("response.incomplete", response=self._with("incomplete"))

    def _with(self, status: str) -> dict[str, object]:
        default = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": "",
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        details = {"reason": "content_filter"} if status == "incomplete" else None
        ending = {"status": status, "incomplete_details": details, "output": list(self._done)}
        return {**default, **self._response, **ending}

    def _event(self, kind: str, **members: object) -> bytes:
        event = stream_event({"type": kind, "sequence_number": self._number, **members}, kind)
        self._number += 1
        return event

    def _place(self) -> dict[str, object]:
        assert self._message is not None
        output, content, item_id = self._message
        return {"item_id": item_id, "output_index": output, "content_index": content}


def _is_text(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "output_text"


def _text_part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(item_id: str, status: str, text: str | None) -> dict[str, object]:
    content = [] if text is None else [_text_part(text)]
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}
