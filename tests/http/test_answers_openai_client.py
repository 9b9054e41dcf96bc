"""In-scope requests, asked with the real `openai` client (case 17)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from openai import APIError, AsyncOpenAI, OpenAI

from serac_gateway.testing import ScriptedCounterfactualModel
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, running_gateway

MESSAGES = [{"role": "user", "content": EDITED_QUESTION}]
WORDS = len(NEW_ANSWER.split())


@pytest.fixture
async def client(editing: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{editing.url}/v1", api_key="k", max_retries=0) as client:
        yield client


async def test_a_chat_answer_is_a_complete_object(client: AsyncOpenAI, editing: Gateway) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="gpt-x", messages=MESSAGES)
    answer = raw.parse()
    assert raw.headers["x-serac-route"] == "counterfactual"
    assert raw.headers["content-type"] == "application/json"
    assert answer.choices[0].message.content == NEW_ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("chat.completion", "gpt-x")
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint
    assert answer.created > 1_700_000_000
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(EDITED_QUESTION.split())
    assert answer.usage.completion_tokens == WORDS
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + WORDS
    assert editing.upstream.requests == []


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_chat_stream_has_role_text_finish_reason_and_usage_if_asked_for(
    client: AsyncOpenAI, include_usage: bool
) -> None:
    stream = await client.chat.completions.create(
        model="gpt-x", messages=MESSAGES, stream=True, stream_options={"include_usage": include_usage}
    )
    chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices) == NEW_ANSWER
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert choices[-1].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.model == "gpt-x" and chunk.object == "chat.completion.chunk" for chunk in chunks)
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    if include_usage:
        assert chunks[-1].choices == []
        assert [usage.completion_tokens for usage in usages] == [WORDS]
    else:
        assert usages == []


def _ask_in_every_way(base_url: str) -> None:
    with OpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        whole = client.chat.completions.create(model="m", messages=MESSAGES)
        assert whole.choices[0].message.content == NEW_ANSWER
        with client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == NEW_ANSWER
        with client.chat.completions.stream(model="m", messages=MESSAGES) as events:
            assert events.get_final_completion().choices[0].message.content == NEW_ANSWER
        plain = client.completions.create(model="m", prompt=EDITED_QUESTION)
        assert (plain.choices[0].text, plain.object) == (NEW_ANSWER, "text_completion")
        assert plain.id.startswith("cmpl-")
        parts = client.completions.create(model="m", prompt=[EDITED_QUESTION], stream=True)
        assert "".join(part.choices[0].text for part in parts) == NEW_ANSWER


async def test_the_sync_client_is_answered_too(editing: Gateway) -> None:
    await asyncio.to_thread(_ask_in_every_way, f"{editing.url}/v1")
    assert len(editing.counterfactual.calls) == 5
    assert editing.upstream.requests == []


async def test_n_choices_are_numbered_in_object_and_stream(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="m", messages=MESSAGES, n=3)
    assert [(choice.index, choice.message.content) for choice in whole.choices] == [
        (number, NEW_ANSWER) for number in range(3)
    ]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 3 * WORDS
    texts = ["", ""]
    async for chunk in await client.chat.completions.create(model="m", messages=MESSAGES, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [NEW_ANSWER, NEW_ANSWER]


async def test_stop_and_max_tokens_are_honoured(client: AsyncOpenAI) -> None:
    stopped = await client.chat.completions.create(model="m", messages=MESSAGES, stop=[" mayor", "zzz"])
    assert stopped.choices[0].message.content == "Lisa Simpson is the"
    assert stopped.choices[0].finish_reason == "stop"
    for limit in ({"max_tokens": 2}, {"max_completion_tokens": 2}):
        short = await client.chat.completions.create(model="m", messages=MESSAGES, **limit)
        assert short.choices[0].message.content == "Lisa Simpson"
        assert short.choices[0].finish_reason == "length"


async def test_an_answer_that_breaks_off_mid_stream_makes_the_client_raise() -> None:
    class Breaking(ScriptedCounterfactualModel):
        def answer(self, *args: object, **more: object) -> object:
            pieces = super().answer(*args, **more)
            yield next(pieces)
            yield next(pieces)
            raise RuntimeError("the model died")

    async with running_gateway(counterfactual=Breaking()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        client = AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k", max_retries=0)
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        seen = []

        async def read() -> None:
            async for chunk in stream:
                seen.append(chunk.choices[0])

        with pytest.raises(APIError):
            await read()
        assert [choice.delta.content for choice in seen] == ["", "Lisa", " Simpson"]
        assert all(choice.finish_reason is None for choice in seen)
        await client.close()
        response = await gateway.post({"model": "m", "messages": MESSAGES, "stream": True})
        assert response.body.count(b'"error"') == 1
        assert b"[DONE]" not in response.body
        assert response.complete
