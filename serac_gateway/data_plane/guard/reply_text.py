"""The texts in a reply's JSON, each with the place that it belongs to, so that the pieces of one are joined.

The whole of an answer and the pieces of its stream are read alike: what a model may have said stands in some
string, whatever its name is. Names and numbers of the API itself are looked at one by one.
"""

from __future__ import annotations

import json

import msgspec

ReplyText = tuple[str | None, str]
"""The place of a text, and the text; None: it is joined with no other."""

_NAMES = frozenset({
    "id", "object", "model", "type", "role", "index", "status", "finish_reason", "native_finish_reason",
    "stop_reason", "system_fingerprint", "service_tier", "provider", "item_id", "call_id", "tool_call_id",
    "tool_use_id", "response_id", "previous_response_id", "obfuscation", "event_id", "event", "code", "param",
})  # fmt: skip
"""Members whose strings are whole: joined, they would keep each other waiting."""
_DATA = frozenset({"b64_json", "embedding", "encrypted_content", "signature", "thought_signature"})
_MAX_DATA_CHARS = 4_096
"""Of a longer one nothing is read: it is an image, a vector, or encrypted."""
_SAME_PLACE = {"content_block": "delta", "part": "delta"}
"""Where the first piece of a text may stand -> where the others do."""
_OF_THE_MODEL = frozenset({"input", "arguments", "parameters", "args", "output", "result"})
"""Members below which also numbers and names are the model's."""
_ECHOED = frozenset({
    "instructions", "metadata", "tools", "tool_choice", "prompt", "user", "safety_identifier",
    "prompt_cache_key",
})  # fmt: skip
"""Members of a response of /responses that the client itself has sent."""
_MAX_BYTE = 255
_MAX_DEPTH = 200


def decoded_json(data: bytes) -> object:
    """The value that `data` is; half a surrogate, which a piece of a stream may end with, is a character.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data.decode("utf-8", "replace"), strict=False)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def reply_texts(value: object) -> list[ReplyText]:
    """The texts in a decoded reply, or in the data of one event, in order."""
    kind = value.get("type") if isinstance(value, dict) else None
    place = kind if isinstance(kind, str) and kind.startswith("response.") else ""
    texts: list[ReplyText] = []
    _collect(value, place, "", texts, depth=0, is_own=False)
    return texts


def _collect(
    value: object, place: str, name: str, texts: list[ReplyText], *, depth: int, is_own: bool
) -> None:
    """Add the texts of `value`, the member `name`; `is_own`: it stands below a member of the model's own."""
    if isinstance(value, str):
        if name in _NAMES and not is_own:
            texts.append((None, value))
        elif name not in _DATA or len(value) <= _MAX_DATA_CHARS:
            texts.append((place, value))
    elif isinstance(value, dict | list) and depth > _MAX_DEPTH:
        texts.append((None, json.dumps(value)))
    elif isinstance(value, dict):
        _collect_members(value, place, name, texts, depth=depth + 1, is_own=is_own)
    elif isinstance(value, list):
        if name == "bytes" and _are_bytes(value):
            texts.append((place, bytes(value).decode("utf-8", "replace")))
        elif name not in _DATA:
            for member in value:
                _collect(member, place, name, texts, depth=depth + 1, is_own=is_own)
    elif is_own and isinstance(value, int | float):
        texts.append((None, str(value)))


def _collect_members(
    value: dict[str, object], place: str, name: str, texts: list[ReplyText], *, depth: int, is_own: bool
) -> None:
    if name == "choices" and isinstance(value.get("index"), int):
        place = f"{place}[{value['index']}]"
    is_response = value.get("object") == "response"
    for key, member in value.items():
        if name == "top_logprobs":
            texts.append((f"{place}:", key))
        elif is_own:
            texts.append((None, key))
        if member is None or (is_response and key in _ECHOED):
            continue
        inner = f"{place}.{_SAME_PLACE.get(key, key)}"
        _collect(member, inner, key, texts, depth=depth, is_own=is_own or key in _OF_THE_MODEL)


def _are_bytes(values: list[object]) -> bool:
    return all(isinstance(value, int) and 0 <= value <= _MAX_BYTE for value in values)
