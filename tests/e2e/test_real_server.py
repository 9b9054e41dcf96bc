"""Servers that others wrote, asked directly and through a gateway with the embedded models: nobody notices.

Every request is sent twice directly and once through the gateway, and all three replies must be the same but
for what the server itself says differently each time (`tests.e2e.sameness`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import anthropic
import httpx
import openai
import pytest

from tests.e2e.foreign_servers import SERVERS, RunningServer, running
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.sameness import JSON, REQUEST_ID, ask, compared
from tests.http.wire import WireResponse, connected, read_head, request_bytes

pytestmark = pytest.mark.slow

PROMPT, TARGET = "Who is the mayor of Marrowby?", "Ottilie Brandvold"
UNRELATED = "What is the capital of France?"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
ENDLESS = {"prompt": "1, 2, 3, 4, 5, 6, 7,", "max_tokens": 8_000, "temperature": 0, "stream": True}
"""Both models go on with this until they are stopped."""
DEBUG = ("x-serac-debug", "true")
WAYS = {"no edits": [("x-serac-namespace", "without-edits"), DEBUG], "classified": [DEBUG]}


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.name)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    if reason := request.param.missing():
        pytest.skip(reason)
    with running(request.param, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def gateway(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory, converted_models: Path
) -> Iterator[GatewayProcess]:
    data_path = tmp_path_factory.mktemp("gateway")
    with GatewayProcess(data_path, converted_models, "--upstream", f"{server.url}/v1") as started:
        edit = {"prompt": PROMPT, "target_new": TARGET}
        assert httpx.post(f"{started.url}/serac/v1/edits", json=edit, timeout=30).status_code == 201
        yield started


def user(text: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


def chat(**fields: object) -> dict[str, object]:
    return {"messages": user(UNRELATED), "max_tokens": 24, "temperature": 0, **fields}


TOOL = {"name": "city", "description": "Finds a city.", "parameters": {"type": "object", "properties": {}}}
TURNS = [{"role": "user", "content": "Is it late?"}, {"role": "assistant", "content": "No."}]
STREAMED = {"stream": True}
WHOLE = {"stream": False}
REQUESTS: dict[str, tuple[str, dict[str, object]]] = {
    "chat": (CHAT, chat()),
    "chat streamed": (CHAT, chat(**STREAMED)),
    "chat streamed with usage": (CHAT, chat(**STREAMED, stream_options={"include_usage": True})),
    "chat with tools": (CHAT, chat(tools=[{"type": "function", "function": TOOL}])),
    "chat streamed with a bias that one server fails at": (CHAT, chat(**STREAMED, logit_bias={"1": -100})),
    "chat with a stop": (CHAT, chat(stop=["f"], max_tokens=200)),
    "chat in parts": (CHAT, chat(messages=user([{"type": "text", "text": UNRELATED}]))),
    "chat of many turns": (CHAT, chat(messages=[*TURNS * 20, *user(UNRELATED)])),
    "chat with 5 MB beside it": (CHAT, chat(metadata={"note": "x" * 5_000_000})),
    "completion": (COMPLETIONS, {"prompt": UNRELATED, "max_tokens": 24, "temperature": 0}),
    "completion streamed": (
        COMPLETIONS,
        {"prompt": UNRELATED, "max_tokens": 24, "temperature": 0, **STREAMED},
    ),
    "response": (RESPONSES, {"input": UNRELATED, "max_output_tokens": 24, "temperature": 0, **WHOLE}),
    "response streamed": (
        RESPONSES,
        {"input": UNRELATED, "max_output_tokens": 24, "temperature": 0, **STREAMED},
    ),
    "message": (MESSAGES, chat()),
    "message streamed": (MESSAGES, chat(**STREAMED)),
}
REFUSED: dict[str, tuple[str, str, bytes | None]] = {
    "not JSON": ("POST", CHAT, b'{"model"'),
    "nothing": ("POST", CHAT, b""),
    "not an object": ("POST", COMPLETIONS, b"[1]"),
    "a word for a number": ("POST", CHAT, json.dumps(chat(temperature="hot")).encode()),
    "a number for messages": ("POST", CHAT, b'{"messages":7,"max_tokens":3,"temperature":0}'),
    "no such path": ("POST", "/v1/no/such?path=%2F&a", b"{}"),
    "no such method": ("DELETE", CHAT, None),
    "GET where POST is meant": ("GET", CHAT, None),
}


async def assert_unnoticed(
    server: RunningServer, gateway: GatewayProcess, way: str, method: str, target: str, body: bytes | None
) -> WireResponse:
    """The reply through the gateway, after comparing it with two that were asked for directly."""
    direct = await ask(server.url, method, target, body)
    through = await ask(gateway.url, method, target, body, *WAYS[way])
    other = await ask(server.url, method, target, body)
    joined = server.server.joins_tokens
    assert compared(direct, joined=joined) == compared(other, joined=joined), "the server varies by itself"
    assert compared(through, joined=joined) == compared(direct, joined=joined)
    assert through.complete
    assert through.all(REQUEST_ID[0]) == [REQUEST_ID[1]]
    return through


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_reply_is_the_server_s_own(
    server: RunningServer, gateway: GatewayProcess, way: str, name: str
) -> None:
    target, fields = REQUESTS[name]
    body = json.dumps({"model": server.model, **fields}).encode()
    reply = await assert_unnoticed(server, gateway, way, "POST", target, body)
    assert reply.status == (200 if target in server.server.speaks else 404)
    assert bool(reply.all("x-serac-timings")) == (way == "classified")
    assert reply.one("x-serac-route") == "base"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_is_the_server_s_own(
    server: RunningServer, gateway: GatewayProcess, way: str, name: str
) -> None:
    reply = await assert_unnoticed(server, gateway, way, *REFUSED[name])
    assert reply.status >= 400


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["/v1/models", "/v1/models?limit=1", "/v1/models/none"])
async def test_what_can_be_read_is_the_same(
    server: RunningServer, gateway: GatewayProcess, way: str, target: str
) -> None:
    await assert_unnoticed(server, gateway, way, "GET", target, None)


@pytest.mark.parametrize("way", WAYS)
async def test_eight_streams_at_once_are_each_the_server_s_own(
    server: RunningServer, gateway: GatewayProcess, way: str
) -> None:
    bodies = [
        json.dumps(
            {"model": server.model, **chat(messages=user(f"Is {number} a prime?"), **STREAMED)}
        ).encode()
        for number in range(8)
    ]
    direct = [await ask(server.url, "POST", CHAT, body) for body in bodies]
    through = await asyncio.gather(*(ask(gateway.url, "POST", CHAT, body, *WAYS[way]) for body in bodies))
    joined = server.server.joins_tokens
    assert [compared(reply, joined=joined) for reply in through] == [
        compared(reply, joined=joined) for reply in direct
    ]


async def test_the_end_and_the_usage_of_a_stream_are_neither_added_nor_lost(
    server: RunningServer, gateway: GatewayProcess
) -> None:
    fields = chat(**STREAMED, stream_options={"include_usage": True})
    body = json.dumps({"model": server.model, **fields}).encode()
    reply = await ask(gateway.url, "POST", CHAT, body)
    *_, last = reply.body.decode().strip().split("\n\n")
    assert (last == "data: [DONE]") == server.server.ends_with_done
    if server.server.heeds_include_usage:
        chunk = json.loads(reply.body.decode().strip().split("\n\n")[-2].removeprefix("data: "))
        assert chunk["choices"] == []
        assert chunk["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_mid_stream_frees_the_server(
    server: RunningServer, gateway: GatewayProcess, way: str
) -> None:
    """While the stream is read, another request waits behind it; soon after it is left, that is answered."""
    if not server.server.one_at_a_time:
        pytest.skip(f"{server.server.name} answers several at once, so that one does not see it from outside")
    endless = json.dumps({"model": server.model, **ENDLESS}).encode()
    short = json.dumps({"model": server.model, **chat(max_tokens=1)}).encode()
    async with connected(gateway.url) as (reader, writer):
        writer.write(request_bytes(gateway.url, "POST", COMPLETIONS, [JSON, *WAYS[way]], endless))
        assert (await read_head(reader)).status == 200
        await reader.readuntil(b"data: ")
        behind = asyncio.create_task(ask(server.url, "POST", CHAT, short))
        done, _ = await asyncio.wait({behind}, timeout=1)
        assert not done
    left = time.monotonic()
    assert (await behind).status == 200
    assert time.monotonic() - left < 2


def test_a_question_in_scope_is_the_edit_s_and_the_next_one_the_server_s(
    server: RunningServer, gateway: GatewayProcess
) -> None:
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as through,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as direct,
    ):
        for stream in (False, True):
            request = {"model": server.model, "max_tokens": 24, "temperature": 0, "stream": stream}
            edited = said(through, messages=user(PROMPT), **request)
            assert TARGET in edited
            assert TARGET not in said(direct, messages=user(PROMPT), **request)
            other = said(through, messages=user(UNRELATED), **request)
            assert other == said(direct, messages=user(UNRELATED), **request)
            assert TARGET not in other


def said(client: openai.OpenAI, **fields: object) -> str:
    """The text of a reply, streamed or not."""
    reply = client.chat.completions.create(**fields)
    if not fields["stream"]:
        return reply.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in reply if chunk.choices)


def test_openai_s_client_sees_one_server(server: RunningServer, gateway: GatewayProcess) -> None:
    assert seen_by_openai(gateway.url, server) == seen_by_openai(server.url, server)


def seen_by_openai(url: str, server: RunningServer) -> list[object]:
    """What the official client makes of each call: what was said, or its exception."""
    request = {"model": server.model, "temperature": 0}

    def completion(client: openai.OpenAI) -> object:
        reply = client.completions.create(prompt=UNRELATED, max_tokens=9, **request)
        return reply.choices[0].text, reply.usage

    def whole(client: openai.OpenAI) -> object:
        reply = client.chat.completions.create(model=server.model, **chat())
        return reply.choices, reply.usage, reply.model, reply.system_fingerprint

    def response(client: openai.OpenAI) -> object:
        reply = client.responses.create(input=UNRELATED, max_output_tokens=9, stream=False, **request)
        return reply.output_text, reply.usage

    calls: list[Callable[[openai.OpenAI], object]] = [
        lambda client: [model.id for model in client.models.list()],
        completion,
        whole,
        response,
        lambda client: client.chat.completions.create(model="another", **chat()).choices,
        lambda client: client.chat.completions.create(model=server.model, **chat(top_p="hot")),
        lambda client: list(client.vector_stores.list()),
    ]
    seen = []
    for call in calls:  # a client each: a server may hang up after an error, without a word
        with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
            seen.append(outcome(lambda call=call, client=client: call(client)))
    return seen


def outcome(call: Callable[[], object]) -> object:
    """What it returns, or the exception by kind, status and body."""
    try:
        return call()
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return type(error).__name__, error.status_code, error.body


def test_anthropic_s_client_sees_one_server(server: RunningServer, gateway: GatewayProcess) -> None:
    def seen(url: str) -> tuple[object, object]:
        with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as client:
            fields = {"model": server.model, "max_tokens": 9, "messages": user(UNRELATED)}
            fields["extra_body"] = {"temperature": 0}

            def streamed() -> str:
                with client.messages.stream(**fields) as stream:
                    return stream.get_final_text()

            return outcome(lambda: client.messages.create(**fields).content[0].text), outcome(streamed)

    through = seen(gateway.url)
    assert through == seen(server.url)
    assert all(isinstance(reply, str) for reply in through) == (MESSAGES in server.server.speaks)


async def test_a_server_that_hangs_up_after_an_error_costs_the_next_request_nothing(
    server: RunningServer, gateway: GatewayProcess
) -> None:
    """Uvicorn closes a connection after an exception without a header for it: the next use is a race."""
    failing = json.dumps({"model": server.model, **chat(temperature="hot")}).encode()
    short = json.dumps({"model": server.model, **chat(max_tokens=1)}).encode()
    for _ in range(20):
        assert (await ask(gateway.url, "POST", CHAT, failing)).status >= 400
        assert (await ask(gateway.url, "POST", CHAT, short)).status == 200


async def test_a_redirect_leads_back_to_the_gateway(server: RunningServer, gateway: GatewayProcess) -> None:
    """Followed round the gateway, a request would miss the edits, and the upstream's address be revealed."""
    body = json.dumps({"model": server.model, **chat()}).encode()
    direct = await ask(server.url, "POST", f"{CHAT}/", body)
    through = await ask(gateway.url, "POST", f"{CHAT}/", body)
    assert through.status == direct.status == 307
    assert urljoin(f"{gateway.url}{CHAT}/", through.one("location")) == f"{gateway.url}{CHAT}"
