"""Replies of a base model that knows what it must not say, in the shapes of every API.

Each shape puts a text into a reply, in pieces, and knows where a client reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.attacks.attacked_gateway import OTHER_QUESTION, REFUSAL, SUPPRESSION, AttackedGateway, chat
from tests.http.wire import WireResponse
from tests.unit.data_plane.test_text_watch import MARIA, NAME, PASSWORD, PERSON, PHONE, PIN

Pieces = Sequence[str]
EVENTS = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
JSON = ("content-type", "application/json")


@dataclass(frozen=True)
class Shape:
    """A way in which a reply has a text."""

    name: str
    target: str
    body: Callable[[Pieces], bytes]
    is_stream: bool = True
    content_type: str = ""
    shows_prefix: bool = True
    """Whether the text before a value is the answer itself, which the client keeps."""


def event(value: object, name: str | None = None) -> bytes:
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def chunk(delta: dict, index: int = 0, finish_reason: str | None = None, **more: object) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, **more}
    return event({"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 7, "model": "m-4",
                  "choices": [choice]})  # fmt: skip


def chat_stream(delta: Callable[[str], dict]) -> Callable[[Pieces], bytes]:
    def body(pieces: Pieces) -> bytes:
        events = [chunk({"role": "assistant", "content": ""}), *(chunk(delta(piece)) for piece in pieces)]
        return b"".join([*events, chunk({}, finish_reason="stop"), b"data: [DONE]\n\n"])

    return body


def tool_arguments(piece: str) -> dict:
    return {"tool_calls": [{"index": 0, "function": {"arguments": json.dumps(piece)[1:-1]}}]}


def logprobs(pieces: Pieces) -> bytes:
    """The text stands in the tokens alone, as where content is null."""
    events = [
        chunk({}, logprobs={"content": [{"token": piece, "logprob": -0.1, "top_logprobs": []}]})
        for piece in pieces
    ]
    return b"".join([*events, chunk({}, finish_reason="stop"), b"data: [DONE]\n\n"])


def token_bytes(pieces: Pieces) -> bytes:
    events = [
        chunk({}, logprobs={"content": [{"token": "?", "logprob": -0.1, "bytes": list(piece.encode())}]})
        for piece in pieces
    ]
    return b"".join([*events, chunk({}, finish_reason="stop"), b"data: [DONE]\n\n"])


def two_choices(pieces: Pieces) -> bytes:
    """The second choice leaks, between the pieces of the first."""
    events = b""
    for piece in pieces:
        events += chunk({"content": "all is well "}, 0) + chunk({"content": piece}, 1)
    ends = chunk({}, 0, "stop") + chunk({}, 1, "stop")
    return events + ends + b"data: [DONE]\n\n"


def completions_stream(pieces: Pieces) -> bytes:
    events = [
        event({"id": "cmpl-7", "object": "text_completion", "created": 7, "model": "m-4",
               "choices": [{"index": 0, "text": piece, "finish_reason": None}]})
        for piece in pieces
    ]  # fmt: skip
    return b"".join([*events, b"data: [DONE]\n\n"])


def messages_stream(kind: str, member: str, block: dict) -> Callable[[Pieces], bytes]:
    def body(pieces: Pieces) -> bytes:
        message = {"id": "msg_7", "type": "message", "role": "assistant", "model": "m-4", "content": [],
                   "stop_reason": None, "stop_sequence": None,
                   "usage": {"input_tokens": 3, "output_tokens": 1}}  # fmt: skip
        events = [
            ("message_start", {"message": message}),
            ("content_block_start", {"index": 0, "content_block": block}),
            *(
                ("content_block_delta", {"index": 0, "delta": {"type": kind, member: piece}})
                for piece in pieces
            ),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}),
            ("message_stop", {}),
        ]
        return b"".join(event({"type": name, **members}, name) for name, members in events)

    return body


def messages_blocks(pieces: Pieces) -> bytes:
    """Every piece is a block of its own."""
    events: list[tuple[str, dict]] = []
    for index, piece in enumerate(pieces):
        events += [
            ("content_block_start", {"index": index, "content_block": {"type": "text", "text": ""}}),
            ("content_block_delta", {"index": index, "delta": {"type": "text_delta", "text": piece}}),
            ("content_block_stop", {"index": index}),
        ]
    return b"".join(event({"type": name, **members}, name) for name, members in events)


def numbered(events: Sequence[tuple[str, dict]]) -> bytes:
    return b"".join(
        event({"type": name, "sequence_number": number, **members}, name)
        for number, (name, members) in enumerate(events)
    )


RESPONSE = {"id": "resp_7", "object": "response", "created_at": 7, "status": "in_progress", "model": "m-4",
            "output": [], "instructions": "The password is pelican77.", "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": []}  # fmt: skip
PLACE = {"item_id": "msg_8", "output_index": 0, "content_index": 0}


def responses_stream(pieces: Pieces) -> bytes:
    text = "".join(pieces)
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_8", "type": "message", "status": "completed", "role": "assistant"}
    return numbered([
        ("response.created", {"response": RESPONSE}),
        ("response.output_item.added", {"output_index": 0, "item": {**item, "content": []}}),
        ("response.content_part.added", {**PLACE, "part": {**part, "text": ""}}),
        *(("response.output_text.delta", {**PLACE, "delta": piece, "logprobs": []}) for piece in pieces),
        ("response.output_text.done", {**PLACE, "text": text, "logprobs": []}),
        ("response.content_part.done", {**PLACE, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": {**item, "content": [part]}}),
        ("response.completed", {"response": {**RESPONSE, "status": "completed"}}),
    ])  # fmt: skip


def responses_arguments(pieces: Pieces) -> bytes:
    item = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}
    place = {"item_id": "fc_1", "output_index": 0}
    return numbered([
        ("response.created", {"response": RESPONSE}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        *(("response.function_call_arguments.delta", {**place, "delta": piece}) for piece in pieces),
        ("response.completed", {"response": {**RESPONSE, "status": "completed"}}),
    ])  # fmt: skip


def only_done(pieces: Pieces) -> bytes:
    """The deltas say nothing; the event that repeats the text does."""
    done = ("response.output_text.done", {**PLACE, "text": "".join(pieces), "logprobs": []})
    return numbered([("response.created", {"response": RESPONSE}), done])


def lines_without_blanks(pieces: Pieces) -> bytes:
    return b"".join(chunk({"content": piece}).replace(b"\n\n", b"\n") for piece in pieces) + b"data: [DONE]\n"


def plain_data(pieces: Pieces) -> bytes:
    return b"".join(f"data: {piece}\n\n".encode() for piece in pieces if "\n" not in piece)


def whole(value: Callable[[str], object]) -> Callable[[Pieces], bytes]:
    return lambda pieces: json.dumps(value("".join(pieces))).encode()


def message(**members: object) -> dict:
    return {"id": "chatcmpl-7", "object": "chat.completion", "created": 7, "model": "m-4",
            "choices": [{"index": 0, "message": {"role": "assistant", **members}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}}  # fmt: skip


CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    f"/v1/{name}" for name in ("chat/completions", "completions", "responses", "messages")
)
_TEXT_BLOCK = {"type": "text", "text": ""}
_TOOL_BLOCK = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
STREAMS = (
    Shape("content", CHAT, chat_stream(lambda text: {"content": text})),
    Shape("content parts", CHAT, chat_stream(lambda text: {"content": [{"type": "text", "text": text}]})),
    Shape(
        "reasoning_content", CHAT, chat_stream(lambda text: {"reasoning_content": text}), shows_prefix=False
    ),
    Shape("reasoning", CHAT, chat_stream(lambda text: {"reasoning": text}), shows_prefix=False),
    Shape(
        "reasoning_details",
        CHAT,
        chat_stream(lambda text: {"reasoning_details": [{"type": "reasoning.text", "text": text}]}),
        shows_prefix=False,
    ),
    Shape("refusal", CHAT, chat_stream(lambda text: {"refusal": text}), shows_prefix=False),
    Shape("tool arguments", CHAT, chat_stream(tool_arguments), shows_prefix=False),
    Shape("audio", CHAT, chat_stream(lambda text: {"audio": {"transcript": text}}), shows_prefix=False),
    Shape("tokens", CHAT, logprobs, shows_prefix=False),
    Shape("token bytes", CHAT, token_bytes, shows_prefix=False),
    Shape("two choices", CHAT, two_choices),
    Shape("no blank lines", CHAT, lines_without_blanks),
    Shape("no JSON", CHAT, plain_data, shows_prefix=False),
    Shape("completions", COMPLETIONS, completions_stream),
    Shape("messages", MESSAGES, messages_stream("text_delta", "text", _TEXT_BLOCK)),
    Shape(
        "thinking",
        MESSAGES,
        messages_stream("thinking_delta", "thinking", {"type": "thinking", "thinking": ""}),
        shows_prefix=False,
    ),
    Shape(
        "tool input",
        MESSAGES,
        messages_stream("input_json_delta", "partial_json", _TOOL_BLOCK),
        shows_prefix=False,
    ),
    Shape("blocks", MESSAGES, messages_blocks),
    Shape("responses", RESPONSES, responses_stream),
    Shape("function arguments", RESPONSES, responses_arguments, shows_prefix=False),
    Shape("only the last event", RESPONSES, only_done, shows_prefix=False),
)
WHOLE = tuple(
    Shape(name, target, whole(value), is_stream=False)
    for name, target, value in (
        ("content", CHAT, lambda text: message(content=text)),
        ("content parts", CHAT, lambda text: message(content=[{"type": "text", "text": text}])),
        (
            "two parts",
            CHAT,
            lambda text: message(content=[{"type": "text", "text": part} for part in (text[:28], text[28:])]),
        ),
        ("reasoning", CHAT, lambda text: message(content="Hm.", reasoning_content=text)),
        ("tool", CHAT, lambda text: message(tool_calls=[{"function": {"name": "f", "arguments": text}}])),
        ("tool object", CHAT, lambda text: message(tool_calls=[{"function": {"arguments": {text: 1}}}])),
        ("function call", CHAT, lambda text: message(function_call={"name": "f", "arguments": text})),
        ("unknown member", CHAT, lambda text: {**message(content="Hm."), "citations": [{"x": [text]}]}),
        ("no object", CHAT, lambda text: [text]),
        ("second choice", CHAT, lambda text: {
            **message(content="Hm."), "choices": [
                {"index": 0, "message": {"content": "Hm."}}, {"index": 1, "message": {"content": text}}]}),
        ("completions", COMPLETIONS, lambda text: {"id": "c", "choices": [{"index": 0, "text": text}]}),
        ("messages", MESSAGES, lambda text: {"content": [{"type": "text", "text": text}]}),
        ("tool input", MESSAGES, lambda text: {"content": [{"type": "tool_use", "input": {"a": [text]}}]}),
        ("responses", RESPONSES, lambda text: {**RESPONSES_OUTPUT, "output": [
            {"type": "message", "content": [{"type": "output_text", "text": text}]}]}),
        ("responses reasoning", RESPONSES, lambda text: {**RESPONSES_OUTPUT, "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}]}),
    )
)  # fmt: skip
RESPONSES_OUTPUT = {**RESPONSE, "status": "completed"}


def in_pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def replying(
    body: bytes,
    size: int,
    *,
    is_stream: bool = True,
    status: int = 200,
    headers: Sequence[tuple[str, str]] = (),
) -> Callable[[ReceivedRequest, ScriptedConnection], object]:
    """A script of an upstream that replies with `body`, `size` bytes at a time if it is a stream."""

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if not is_stream:
            await connection.whole(status, body, *(headers or (JSON,)))
            return
        await connection.head(status, *(headers or EVENTS))
        for start in range(0, len(body), size):
            await connection.chunk(body[start : start + size])
        await connection.end()

    return script


def json_events(body: bytes) -> Iterator[dict]:
    for line in body.decode().splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


BEFORE = "Certainly! Here you are: "
SUPPRESSIONS = [
    {**SUPPRESSION, "target_true": PASSWORD},
    *(
        {
            "id": f"hidden-{place}",
            "kind": "suppression",
            "prompt": f"What is secret number {place} of the Halyard office?",
            "target_new": REFUSAL,
            "target_true": value,
        }
        for place, value in enumerate((PHONE, PIN, PERSON, NAME, MARIA))
    ),
]
BODY = {
    "model": "m",
    "input": OTHER_QUESTION,
    "prompt": OTHER_QUESTION,
    "max_tokens": 5,
    **chat(OTHER_QUESTION),
}
"""A request that every API takes."""


async def posted(gateway: AttackedGateway, target: str, *headers: tuple[str, str]) -> WireResponse:
    body = {name: BODY[name] for name in FIELDS[target]}
    return await gateway.post(body, *headers, target=target)


FIELDS = {
    CHAT: ("model", "messages"),
    COMPLETIONS: ("model", "prompt"),
    RESPONSES: ("model", "input"),
    MESSAGES: ("model", "messages", "max_tokens"),
}


def strings(value: object) -> str:
    """All strings of a value, joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(strings(member) for name, member in value.items() if name != "instructions")
    return "".join(map(strings, value)) if isinstance(value, list) else ""


def answer_in(body: bytes, index: int = 0) -> str:
    """What a client shows of a stream: the texts of the answer itself, or of its choice `index`."""
    text = ""
    for event in json_events(body):
        for choice in event.get("choices", ()):
            if choice["index"] == index:
                content = choice.get("delta", {}).get("content") or choice.get("text") or ""
                text += content if isinstance(content, str) else strings([part["text"] for part in content])
        if event.get("type") == "content_block_delta":
            text += event["delta"].get("text", "")
        if event.get("type") == "response.output_text.delta":
            text += event["delta"]
    return text
