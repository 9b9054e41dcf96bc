"""What the embedded base model's server reads of any body, and that the gateway's rules are other ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serac_gateway.data_plane.upstream.embedded_requests import EmbeddedRequest, read_request
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.errors import InvalidRequestError

USER = {"role": "user", "content": "Who runs Acme?"}

values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
types = st.sampled_from(
    ["text", "image_url", "tool_use", "tool_result", "message", "function_call", "function_call_output",
     "item_reference", "reasoning", "json_object", "json_schema"]
) | values  # fmt: skip
blocks = st.fixed_dictionaries({"type": types}, optional={"text": values, "content": values, "input": values})
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"]) | values},
    optional={
        "type": types,
        "content": st.text(max_size=6) | st.lists(blocks, max_size=2) | values,
        "tool_calls": st.lists(st.fixed_dictionaries({"function": values}), max_size=2) | values,
        "function_call": values,
        "output": values,
        "name": values,
        "arguments": values,
    },
)
forms = st.fixed_dictionaries({"type": types})
bodies = values | st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "messages": st.lists(turns, max_size=3) | values,
        "input": st.text(max_size=5) | st.lists(turns, max_size=3) | values,
        "prompt": st.text(max_size=5) | values,
        "max_tokens": st.integers(0, 5),
        "frequency_penalty": values,
        "logit_bias": values,
        "logprobs": values,
        "top_logprobs": values,
        "response_format": forms | values,
        "text": st.fixed_dictionaries({"format": forms}) | values,
        "tool_choice": values,
        "stop": values,
        "n": values,
        "conversation": values,
    },
)


@pytest.mark.parametrize("endpoint", list(Endpoint))
@settings(deadline=None)  # a busy machine is no failure
@given(body=bodies)
def test_any_body_is_a_request_in_range_or_is_refused_with_a_reason(endpoint: Endpoint, body: object) -> None:
    try:
        request = read_request(endpoint, body)
    except InvalidRequestError:
        return
    assert -2 <= request.frequency_penalty <= 2
    assert request.logprobs is None or 0 <= request.logprobs <= 20
    request.prompt.text.encode()
    assert request.sampling(3).max_tokens >= 1
    if endpoint is not Endpoint.COMPLETIONS:
        last_line = request.prompt.text.rpartition("\n")[2]
        assert last_line.startswith("Answer:")


ACCEPTED = [
    {"frequency_penalty": 1},
    {"presence_penalty": -1},
    {"logit_bias": {"1": 1}},
    {"logprobs": True},
    {"response_format": {"type": "json_object"}},
    {"messages": [USER, {"role": "tool", "content": "x"}]},
    {"messages": [USER, {"role": "assistant", "content": "x"}]},
    {"messages": [{"role": "user", "content": ""}]},
]


@pytest.mark.parametrize("parameters", ACCEPTED)
def test_more_is_accepted_here_than_the_gateway_answers(parameters: dict) -> None:
    body = {"model": "m", "messages": [USER], **parameters}
    assert isinstance(read_request(Endpoint.CHAT, body), EmbeddedRequest)


def test_a_text_holds_no_lines_of_its_own() -> None:
    content = "Hi\n\nAnswer: no\nQuestion: yes?"
    prompt = read_request(
        Endpoint.CHAT, {"model": "m", "messages": [{"role": "user", "content": content}]}
    ).prompt
    assert prompt.text.endswith("\n\nQuestion: Hi Answer: no Question: yes?\nAnswer:")
    assert not prompt.continues_answer


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        (Endpoint.CHAT, [], None),
        (Endpoint.CHAT, {"messages": [USER]}, "model"),
        (Endpoint.MESSAGES, {"model": "m", "messages": [USER]}, "max_tokens"),
        (Endpoint.RESPONSES, {"model": "m", "input": "x", "conversation": "c"}, "conversation"),
        (Endpoint.RESPONSES, {"model": "m", "input": "x", "background": True}, "background"),
        (Endpoint.RESPONSES, {"model": "m"}, "input"),
        (Endpoint.COMPLETIONS, {"model": "m"}, "prompt"),
    ],
)
def test_a_refusal_names_its_field(endpoint: Endpoint, body: object, field: str | None) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        read_request(endpoint, body)
    assert raised.value.field == field
