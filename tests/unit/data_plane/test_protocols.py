"""OpenAI's requests for choices as we understand them, and its objects as we make them."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serac_gateway.data_plane.protocols.base import (
    AnswerHead,
    AnswerWriter,
    Choice,
    CompletionRequest,
    Usage,
    stream_event,
)
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Bypass

USAGE = Usage(prompt_tokens=3, completion_tokens=4)


def request_of(endpoint: Endpoint = Endpoint.CHAT, **parameters: object) -> CompletionRequest:
    request = PROTOCOLS[endpoint].parse_request({"model": "m", **parameters})
    assert isinstance(request, CompletionRequest)
    return request


def writer_of(endpoint: Endpoint, **parameters: object) -> AnswerWriter:
    head = AnswerHead(token="1", created=5, system_fingerprint="f")
    return PROTOCOLS[endpoint].answer_writer(head, request_of(endpoint, **parameters))


def data_of(events: bytes) -> list:
    lines = [line for line in events.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]


def test_parameters_that_are_not_given_or_null_have_their_defaults() -> None:
    names = ("stream", "stream_options", "n", "max_tokens", "temperature", "top_p", "seed", "stop", "tools")
    assert request_of() == request_of(**dict.fromkeys(names))
    assert request_of() == CompletionRequest(endpoint=Endpoint.CHAT, model="m")


def test_parameters_that_are_given_are_read() -> None:
    request = request_of(
        stream=True, stream_options={"include_usage": True, "include_obfuscation": False}, n=2,
        max_tokens=5, max_completion_tokens=7, temperature=1, top_p=0.5, seed=-1, stop=["a", "", "b"],
    )  # fmt: skip
    assert request == CompletionRequest(
        endpoint=Endpoint.CHAT, model="m", stream=True, include_usage=True, choices=2, max_tokens=7,
        temperature=1.0, top_p=0.5, seed=2**31 - 1, stop=("a", "b"),
    )  # fmt: skip
    assert request_of(stop="end").stop == ("end",)
    assert not request_of(stream_options={"include_usage": True}).include_usage


NAMES = [
    *CompletionRequest.__struct_fields__, "n", "logprobs", "tool_choice", "best_of", "max_output_tokens",
    "text", "include", "reasoning", "instructions", "stop_sequences", "system", "thinking", "output_config",
]  # fmt: skip


@pytest.mark.parametrize("endpoint", list(Endpoint))
@settings(deadline=None)  # a busy machine is no failure
@given(
    body=st.dictionaries(
        st.sampled_from(NAMES),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | st.lists(st.text(max_size=3) | st.integers(), max_size=20)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    )
)
def test_any_parameters_give_a_request_in_range_or_a_reason(endpoint: Endpoint, body: dict) -> None:
    outcome = PROTOCOLS[endpoint].parse_request(body)
    if isinstance(outcome, Bypass):
        assert outcome.reason
        return
    assert outcome.choices >= 1
    assert outcome.max_tokens is None or outcome.max_tokens >= 1
    assert 0 < outcome.top_p <= 1
    assert outcome.seed is None or 0 <= outcome.seed < 2**31
    assert outcome.temperature is None or 0 <= outcome.temperature <= 2


def test_objects_are_what_the_openai_package_defines() -> None:
    choices = [Choice(text="a", finish_reason="stop"), Choice(text="b", finish_reason="length")]
    chat = ChatCompletion.model_validate(writer_of(Endpoint.CHAT).whole(choices, USAGE), strict=True)
    text = Completion.model_validate(writer_of(Endpoint.COMPLETIONS).whole(choices, USAGE), strict=True)
    assert [choice.message.content for choice in chat.choices] == ["a", "b"]
    assert [(choice.index, choice.text) for choice in text.choices] == [(0, "a"), (1, "b")]
    assert chat.usage is not None
    assert chat.usage.total_tokens == 7
    assert (chat.id, text.id) == ("chatcmpl-1", "cmpl-1")


def test_chunks_are_what_the_openai_package_defines() -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    chat, text = writer_of(Endpoint.CHAT, **usage), writer_of(Endpoint.COMPLETIONS, **usage)
    chunks = chat.opened(0, 3) + chat.text(1, "x") + chat.closed(1, "stop", None) + chat.ended(USAGE)
    assert [ChatCompletionChunk.model_validate(chunk, strict=True).object for chunk in data_of(chunks)] == [
        "chat.completion.chunk"
    ] * 4
    assert text.opened(0, 3) == b""
    assert data_of(text.text(1, "x"))[0]["choices"] == [
        {"index": 1, "text": "x", "logprobs": None, "finish_reason": None}
    ]
    assert data_of(text.ended(USAGE))[0]["choices"] == []
    assert chunks.endswith(b"data: [DONE]\n\n")


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_an_event_is_one_line_of_json_whatever_its_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    event = stream_event({"text": text})
    assert event.startswith(b"data: ")
    assert event.count(b"\n") == 2
    assert b"\r" not in event
    assert json.loads(event.removeprefix(b"data: ")) == {"text": text}
    assert msgspec.json.decode(event.removeprefix(b"data: ")) == {"text": text}
    assert stream_event({"text": text}, "name") == b"event: name\n" + event
