"""The embedded base model's server, with a scripted model, alone and behind the gateway."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from anthropic import Anthropic
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from serac_gateway.data_plane.upstream.embedded_server import PARALLEL_ANSWERS, EmbeddedServer
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.testing import ScriptedLanguageModel, serving
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, OTHER_QUESTION, chat, running_gateway
from tests.http.wire import fetch

ANSWER = "Boil it for eight minutes."


def script(prompt: str) -> str:
    return f" {ANSWER}\nQuestion: another?" if prompt.endswith("Answer:") else " and so on and on"


@pytest.fixture
def model() -> ScriptedLanguageModel:
    return ScriptedLanguageModel(script, context_tokens=500)


@pytest.fixture
def url(model: ScriptedLanguageModel) -> Iterator[str]:
    with ThreadPoolExecutor(PARALLEL_ANSWERS) as pool, serving(EmbeddedServer(model, pool)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_is_answered_up_to_the_end_of_the_line(client: OpenAI, model: ScriptedLanguageModel) -> None:
    messages = [
        {"role": "system", "content": "Be nice."},
        {"role": "user", "content": "Hi\nthere"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": OTHER_QUESTION},
    ]
    answer = client.chat.completions.create(model="m", messages=messages)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert model.prompts[0].endswith(
        f"Question: Hi there\nAnswer: Hello.\n\nQuestion: {OTHER_QUESTION}\nAnswer:"
    )


def test_a_stream_says_the_same_as_the_object(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="m", messages=chat("x")["messages"], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens >= 5


def test_a_text_completion_continues_the_prompt_as_it_is(
    client: OpenAI, model: ScriptedLanguageModel
) -> None:
    answer = client.completions.create(model="m", prompt="Once upon a time", max_tokens=2, n=2)
    assert [(choice.text, choice.finish_reason) for choice in answer.choices] == [(" and so", "length")] * 2
    assert model.prompts == ["Once upon a time"] * 2
    stopped = client.completions.create(model="m", prompt="Once", stop=" on")
    assert stopped.choices[0].text == " and so"


def test_it_lists_its_one_model(client: OpenAI) -> None:
    (listed,) = client.models.list().data
    assert client.models.retrieve(listed.id) == listed
    with pytest.raises(NotFoundError):
        client.models.retrieve("other")


async def test_what_it_cannot_do_is_refused_in_openais_shape(url: str) -> None:
    cases = [
        ("/v1/embeddings", b"{}", 404),
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b"[" * 100_000, 400),
        ("/v1/chat/completions", b'{"model":"m"}', 400),
        ("/v1/completions", b'{"model":"m","prompt":[1,2]}', 400),
        ("/v1/chat/completions", json.dumps(chat("long " * 1_000)).encode(), 400),
        ("/v1/chat/completions", json.dumps(chat("long " * 1_000, stream=True)).encode(), 400),
    ]
    for target, body, status in cases:
        response = await fetch(url, target, body)
        assert response.status == status, target
        assert response.json["error"]["type"] == "invalid_request_error"
    assert (await fetch(url, "/v1/chat/completions", method="GET")).status == 405


def test_a_context_that_is_too_long_has_its_own_code(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as raised:
        client.chat.completions.create(model="m", messages=chat("long " * 1_000)["messages"])
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(BadRequestError) as raised:
        client.completions.create(model="m", prompt="long " * 1_000)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_request_gives_the_same_bytes_also_through_the_gateway(url: str, stream: bool) -> None:
    body = json.dumps(chat(OTHER_QUESTION, stream=stream, temperature=1)).encode()
    direct = [await fetch(url, "/v1/chat/completions", body) for _ in range(2)]
    async with running_gateway(upstream_url=f"{url}/v1") as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        through = await gateway.post(body)
    assert direct[0].body == direct[1].body == through.body
    assert ANSWER.split()[0].encode() in through.body
    assert through.one("x-serac-route") == "base"
    other = await fetch(url, "/v1/chat/completions", body + b" ")
    assert other.body != through.body  # the id is of the body's bytes


@pytest.fixture
async def slow_url() -> AsyncIterator[str]:
    model = ScriptedLanguageModel("word " * 60, token_delay_s=0.05)
    with ThreadPoolExecutor(PARALLEL_ANSWERS) as pool, serving(EmbeddedServer(model, pool)) as url:
        yield url


async def test_several_requests_are_answered_at_once(slow_url: str) -> None:
    async with AsyncOpenAI(base_url=f"{slow_url}/v1", api_key="none", max_retries=0) as client:
        long = asyncio.create_task(client.completions.create(model="m", prompt="x", max_tokens=40))
        await asyncio.sleep(0.2)
        begun = time.perf_counter()
        await client.completions.create(model="m", prompt="x", max_tokens=2)
        assert time.perf_counter() - begun < 1
        assert not long.done()
        await long


async def test_generating_stops_when_the_client_leaves(slow_url: str) -> None:
    async with AsyncOpenAI(base_url=f"{slow_url}/v1", api_key="none", max_retries=0) as client:
        leaving = [
            asyncio.create_task(client.completions.create(model="m", prompt="x", max_tokens=60))
            for _ in range(PARALLEL_ANSWERS)
        ]
        await asyncio.sleep(0.3)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        begun = time.perf_counter()
        await client.completions.create(model="m", prompt="x", max_tokens=1)
        assert time.perf_counter() - begun < 1


async def test_a_model_that_fails_is_a_503_in_openais_shape() -> None:
    def fail(prompt: str) -> str:
        raise ModelUnavailableError("out of memory")

    with ThreadPoolExecutor(1) as pool, serving(EmbeddedServer(ScriptedLanguageModel(fail), pool)) as url:
        for stream in (True, False):
            response = await fetch(url, "/v1/chat/completions", json.dumps(chat("x", stream=stream)).encode())
            assert response.status == 503
            assert response.json["error"]["message"] == "out of memory"


def test_responses_and_messages_are_answered_too(url: str, client: OpenAI) -> None:
    response = client.responses.create(model="m", input=OTHER_QUESTION)
    assert (response.output_text, response.status) == (ANSWER, "completed")
    with pytest.raises(BadRequestError, match="stores no responses"):
        client.responses.create(model="m", input=OTHER_QUESTION, previous_response_id="resp_1")
    messages = [{"role": "user", "content": OTHER_QUESTION}]
    with Anthropic(base_url=url, api_key="none", max_retries=0) as anthropic:
        message = anthropic.messages.create(model="m", max_tokens=50, system="Be nice.", messages=messages)
        assert (message.content[0].text, message.stop_reason) == (ANSWER, "end_turn")
        with anthropic.messages.stream(model="m", max_tokens=50, messages=messages) as stream:
            assert stream.get_final_text() == ANSWER
