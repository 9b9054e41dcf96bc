"""The text of a reply, whole and streamed, in the forms of the four APIs."""

from __future__ import annotations

import json

import pytest

from serac_gateway.data_plane.answer_text import MAX_ANSWER_CHARS, MAX_REPLY_BYTES, answer_text

WHOLE = {
    "chat": {"choices": [{"message": {"content": "Zoë."}}, {"message": {"content": "other"}}]},
    "completion": {"choices": [{"text": "Zoë."}]},
    "responses": {
        "output": [
            {"type": "reasoning", "content": None},
            {"type": "message", "content": [{"type": "output_text", "text": "Zoë."}]},
        ]
    },
    "messages": {
        "content": [{"type": "tool_use", "input": {"text": "no"}}, {"type": "text", "text": "Zoë."}]
    },
}
STREAMED = {
    "chat": [
        {"choices": [{"index": 0, "delta": {"content": "Z"}}, {"index": 1, "delta": {"content": "no"}}]},
        {"choices": [{"index": 0, "delta": {"content": "oë."}}]},
        {"choices": [], "usage": {}},
    ],
    "completion": [{"choices": [{"text": "Zo"}]}, {"choices": [{"text": "ë."}]}],
    "responses": [
        {"type": "response.output_text.delta", "delta": "Zo"},
        {"type": "response.output_text.delta", "delta": "ë."},
        {"type": "response.output_text.done", "text": "Zoë."},
    ],
    "messages": [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Zo"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "ë."}},
    ],
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_text_of_a_whole_reply(name: str) -> None:
    assert answer_text(json.dumps(WHOLE[name]).encode(), streams=False) == "Zoë."


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", STREAMED)
def test_the_text_of_a_stream(name: str, line_end: str) -> None:
    lines = [f"data: {json.dumps(event)}" for event in STREAMED[name]] + [": ping", "data: [DONE]"]
    body = "".join(f"event: x{line_end}{line}{line_end}{line_end}" for line in lines)
    assert answer_text(body.encode(), streams=True) == "Zoë."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"error": {"message": "no"}}',
        b'{"choices": 3}',
        b"[" * 9_999,
    ],
)
def test_what_has_no_text_gives_none(body: bytes) -> None:
    assert answer_text(body, streams=False) is None
    assert answer_text(b"data: " + body, streams=True) is None


def test_a_long_reply_is_not_read_and_a_long_answer_is_cut() -> None:
    long = json.dumps({"choices": [{"text": "x" * (MAX_ANSWER_CHARS + 5)}]}).encode()
    assert answer_text(long, streams=False) == "x" * MAX_ANSWER_CHARS
    assert answer_text(b" " * (MAX_REPLY_BYTES + 1), streams=False) is None
