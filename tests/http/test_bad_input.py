"""What no honest client sends: each costs a bounded time, gets a clear status, and the gateway lives on.

tests/e2e/test_bad_input_costs.py measures the memory.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest

from serac_gateway.config.model import GatewayConfig, ServerConfig
from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.control_plane import ControlPlane
from tests.http.running_gateway import (
    EDITED_QUESTION,
    EVENTS,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)
from tests.http.wire import WireResponse, connected, fetch, read_body, read_head, request_bytes

DEBUG = ("x-serac-debug", "true")
CHAT = "/v1/chat/completions"
WITHIN_S = 30
"""A second would do; a busy machine takes longer, and what is not bounded takes for ever."""
QUICK = GatewayConfig(server=ServerConfig(head_timeout_s=0.3, body_gap_timeout_s=0.3))


@pytest.fixture
async def quick() -> AsyncIterator[Gateway]:
    """A gateway that waits for nobody."""
    async with running_gateway(config=QUICK) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        yield gateway


async def sent(url: str, data: bytes) -> WireResponse:
    """The reply to `data` as it is; a status of 0 where the connection ends without one."""
    async with connected(url) as (reader, writer):
        writer.write(data)
        try:
            response = await asyncio.wait_for(read_head(reader), WITHIN_S)
        except (asyncio.IncompleteReadError, ConnectionError):
            return WireResponse(status=0, headers=[])
        await read_body(reader, response)
        return response


async def assert_alive(gateway: Gateway) -> None:
    reply = await gateway.post(chat(EDITED_QUESTION))
    assert reply.one("x-serac-route") == "counterfactual"


def head(*lines: str, path: str = CHAT) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: localhost", *lines, "", ""]).encode()


BOMBS = {
    "lists": b"[" * 100_000,
    "closed lists": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "in the messages": b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "in the content": b'{"model":"m","messages":[{"role":"user","content":'
    + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    "a number of a million digits": b'{"model":"m","seed":' + b"9" * 1_000_000 + b',"messages":[]}',
    "a million messages": b'{"model":"m","messages":[' + b"{}," * 1_000_000 + b"{}]}",
    "a million parts": b'{"model":"m","messages":[{"role":"user","content":[' + b"1," * 1_000_000 + b"1]}]}",
    "a megabyte of escapes": b'{"model":"m","messages":[{"role":"user","content":"'
    + b"\\u0041" * 200_000 + b'"}]}',
}  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("name", BOMBS)
async def test_a_json_bomb_passes_unread_or_undecided_and_quickly(
    editing: Gateway, path: str, name: str
) -> None:
    body = BOMBS[name].replace(b'"messages"', b'"input"') if path == "/v1/responses" else BOMBS[name]
    async with asyncio.timeout(WITHIN_S):
        reply = await editing.post(body, target=path)
    assert reply.status == 200
    assert editing.upstream.requests[0].body == body
    await assert_alive(editing)


def test_a_json_bomb_on_the_control_plane_is_a_400(control_plane: ControlPlane) -> None:
    for body in (b"[" * 100_000, b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        reply = control_plane.client.post(
            "/edits", content=body, headers={"content-type": "application/json"}
        )
        assert reply.status_code == 400
        assert reply.json()["type"] == "urn:serac:problem:invalid-request"


@pytest.mark.parametrize(
    "long",
    [
        pytest.param(b"x-long: " + b"a" * 65_536 + b"\r\n", id="one value"),
        pytest.param(b"x" * 65_536 + b": a\r\n", id="one name"),
        pytest.param(b"x-many: 1234567890\r\n" * 4_000, id="many headers"),
    ],
)
async def test_64_kb_of_headers_are_a_431(editing: Gateway, long: bytes) -> None:
    whole = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n".encode() + long + b"\r\n{}"
    reply = await sent(editing.url, whole)
    assert reply.status == 431
    assert "65,536" in reply.json["error"]["message"]
    assert reply.json["error"]["code"] == "request_headers_too_long"
    assert reply.one("connection") == "close"
    assert editing.upstream.requests == []
    await assert_alive(editing)


async def test_a_long_url_is_a_431_and_a_head_just_below_the_limit_passes(editing: Gateway) -> None:
    assert (await sent(editing.url, head(path=f"{CHAT}?{'a' * 65_536}"))).status == 431
    reply = await editing.post(chat(OTHER_QUESTION), ("x-long", "a" * 60_000))
    assert reply.status == 200
    assert len(editing.upstream.requests[0].header("x-long")) == 60_000


async def test_a_head_without_end_is_refused_before_it_fills_the_memory(editing: Gateway) -> None:
    written = 0

    async def write_on(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while written < 50_000_000:
            writer.write(b"a" * 65_536)
            await writer.drain()
            written += 65_536
            await asyncio.sleep(0)

    async with connected(editing.url) as (_, writer):
        writer.write(f"POST {CHAT} HTTP/1.1\r\nx-endless: ".encode())
        with pytest.raises(ConnectionError):  # the gateway closes while we still write
            await write_on(writer)
    assert written < 10_000_000
    await assert_alive(editing)


async def test_a_head_that_drips_in_is_a_408(quick: Gateway) -> None:
    async with connected(quick.url) as (reader, writer):
        reading = asyncio.create_task(read_head(reader))
        whole, written = head("content-length: 2", "x: " + "a" * 1_000), 0  # it would take 50 s
        while not reading.done():
            writer.write(whole[written : written + 1])
            written += 1
            await asyncio.sleep(0.05)
        reply = await reading
        assert reply.status == 408
        assert written < len(whole) / 2
        await read_body(reader, reply)
        assert "head" in reply.json["error"]["message"]
    await assert_alive(quick)


async def test_a_body_that_stops_is_a_408(quick: Gateway) -> None:
    reply = await sent(quick.url, head("content-length: 100") + b'{"model":')
    assert reply.status == 408
    assert "body" in reply.json["error"]["message"]
    assert quick.upstream.requests == []
    assert quick.counts.in_flight == 0
    await assert_alive(quick)


async def test_a_body_that_goes_on_slowly_is_read_to_its_end(quick: Gateway) -> None:
    body = json.dumps(chat(EDITED_QUESTION)).encode()
    async with connected(quick.url) as (reader, writer):
        writer.write(request_bytes(quick.url, "POST", CHAT, [("content-length", str(len(body)))], b""))
        for part in (body[:20], body[20:40], body[40:]):
            await asyncio.sleep(0.2)
            writer.write(part)
        reply = await read_head(reader)
    assert (reply.status, reply.one("x-serac-route")) == (200, "counterfactual")


async def test_a_connection_that_says_nothing_is_closed(quick: Gateway) -> None:
    async with connected(quick.url) as (reader, _):
        assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""


async def test_hundreds_of_slow_connections_do_not_keep_others_out(quick: Gateway) -> None:
    writers = []
    for _ in range(300):
        _, writer = await asyncio.open_connection("127.0.0.1", int(quick.url.rsplit(":", 1)[1]))
        writer.write(b"POST /v1/chat")
        writers.append(writer)
    await assert_alive(quick)
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(head("content-length: 2", "content-length: 3") + b"{}x", id="two lengths"),
        pytest.param(head("content-length: 2", "content-length: 2") + b"{}", id="one length twice"),
        pytest.param(head("content-length: 2", "transfer-encoding: chunked") + b"0\r\n\r\n", id="both"),
        pytest.param(head("content-length: -1"), id="negative length"),
        pytest.param(head("content-length: 1e3"), id="length in words"),
        pytest.param(head("transfer-encoding: chunked") + b"zz\r\n", id="bad chunk"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="no HTTP"),
        pytest.param(b"POST /v1/x HTTP/9.9\r\n\r\n", id="no such version"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(head(" folded: yes"), id="folded header"),
        pytest.param(head("x: a\x00b"), id="null in a header"),
    ],
)
async def test_malformed_http_is_a_400_in_openais_shape(editing: Gateway, request_: bytes) -> None:
    reply = await sent(editing.url, request_)
    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert reply.one("connection") == "close"
    assert editing.upstream.requests == []
    await assert_alive(editing)


async def test_a_request_that_is_half_sent_and_left_reaches_nobody(editing: Gateway) -> None:
    for data in (b"POST", head("content-length: 50"), head("content-length: 50") + b'{"mod'):
        async with connected(editing.url) as (_, writer):
            writer.write(data)
            await writer.drain()
    await assert_alive(editing)
    assert editing.upstream.requests == []
    assert editing.counts.in_flight == 0


GARBAGE = {
    "no HTTP": b"\x00garbage\r\n\r\n",
    "a bad header": head("x: a\x00b"),
    "a bad body": head("transfer-encoding: chunked") + b"zz\r\n",
    "a long head": head("x-long: " + "a" * 70_000),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("question", [EDITED_QUESTION, OTHER_QUESTION])
async def test_garbage_after_requests_is_refused_when_those_are_answered(
    editing: Gateway, question: str, garbage: str
) -> None:
    whole = request_bytes(editing.url, "POST", CHAT, [], json.dumps(chat(question)).encode())
    async with connected(editing.url) as (reader, writer):
        writer.write(whole + whole + GARBAGE[garbage] + whole)
        statuses = []
        for _ in range(3):
            reply = await asyncio.wait_for(read_head(reader), WITHIN_S)
            await read_body(reader, reply)
            statuses.append(reply.status)
        assert statuses == [200, 200, 431 if garbage == "a long head" else 400]
        assert reply.one("connection") == "close"
        assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""
    assert len(editing.upstream.requests) == (2 if question == OTHER_QUESTION else 0)
    await assert_alive(editing)


async def test_a_head_that_stops_leaves_the_stream_before_it_whole(quick: Gateway) -> None:
    async def slow(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await asyncio.sleep(0.6)  # the time for a head is half of it
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end()

    quick.upstream.script = slow
    whole = request_bytes(quick.url, "POST", CHAT, [], json.dumps(chat(OTHER_QUESTION, stream=True)).encode())
    async with connected(quick.url) as (reader, writer):
        writer.write(whole + b"POST /v1/ch")
        reply = await asyncio.wait_for(read_head(reader), WITHIN_S)
        await asyncio.wait_for(read_body(reader, reply), WITHIN_S)
        assert (reply.status, reply.body, reply.complete) == (200, b"data: [DONE]\n\n", True)
        assert (await asyncio.wait_for(read_head(reader), WITHIN_S)).status == 408


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        ("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nHost: evil.example\r\n", 400, "2 Host headers"),
        ("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nHost: localhost\r\n", 400, "2 Host headers"),
        ("GET /v1/models HTTP/1.1\r\n", 400, "0 Host headers"),
        ("GET /v1/models\r\n", 505, "HTTP/0.9"),
        ("GET /v1/models HTTP/0.9\r\n", 505, "HTTP/0.9"),
        ("GET /v1/models HTTP/2.0\r\nhost: localhost\r\n", 505, "HTTP/2.0"),
        ("GET /v1/models HTTP/1.0\r\n", 200, None),
    ],
)
async def test_a_request_has_one_host_and_a_version(
    editing: Gateway, lines: str, status: int, said: str | None
) -> None:
    reply = await sent(editing.url, f"{lines}\r\n".encode())
    assert reply.status == status
    assert said is None or said in reply.json["error"]["message"]
    assert len(editing.upstream.requests) == (status == 200)
    await assert_alive(editing)


async def test_a_compressed_body_is_read_and_passes_as_it_is(editing: Gateway) -> None:
    bomb = gzip.compress(b"0" * 20_000_000)
    other = gzip.compress(json.dumps(chat(OTHER_QUESTION)).encode())
    for body, reason in ((other, "no candidate"), (bomb, "body too long"), (b"{", "compressed body")):
        reply = await editing.post(body, DEBUG, ("content-encoding", "gzip"))
        assert (reply.status, reply.one("x-serac-reason")) == (200, reason)
        assert editing.upstream.requests[-1].body == body
        assert editing.upstream.requests[-1].header("content-encoding") == "gzip"
    edited = gzip.compress(json.dumps(chat(EDITED_QUESTION)).encode())
    reply = await editing.post(edited, ("content-encoding", "gzip"))
    assert reply.one("x-serac-route") == "counterfactual"


async def test_a_request_that_comes_back_to_its_gateway_is_a_508() -> None:
    async with running_gateway() as inner, running_gateway(upstream_url=f"{inner.url}/v1") as outer:

        async def back(request: object, connection: object) -> None:
            again = await fetch(
                outer.url, CHAT, request.body, ("x-serac-hops", request.header("x-serac-hops"))
            )
            await connection.whole(again.status, again.body, ("content-type", "application/json"))

        inner.upstream.script = back
        async with asyncio.timeout(WITHIN_S):
            reply = await outer.post(chat(OTHER_QUESTION))
        assert (reply.status, reply.json["error"]["code"]) == (508, "loop_detected")
        assert "upstream.url" in reply.json["error"]["message"]
        assert len(inner.upstream.requests) == 1


async def test_a_loop_through_replicas_ends_after_a_few_hops(editing: Gateway) -> None:
    hops = ",".join(f"replica{number}" for number in range(8))
    assert (await editing.post(chat(OTHER_QUESTION), ("x-serac-hops", hops))).status == 508
    two = await editing.post(chat(OTHER_QUESTION), ("x-serac-hops", "a"), ("x-serac-hops", "b"))
    assert two.status == 200
    assert editing.upstream.requests[0].header("x-serac-hops").startswith("a,b,")
    assert len(editing.upstream.requests) == 1


JAVA = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")]


@pytest.mark.parametrize("upgrade", [JAVA, [("connection", "upgrade"), ("upgrade", "websocket")]])
async def test_a_wish_for_another_protocol_is_ignored_and_costs_no_body(
    editing: Gateway, upgrade: list[tuple[str, str]]
) -> None:
    for question, route in ((EDITED_QUESTION, "counterfactual"), (OTHER_QUESTION, "base")):
        reply = await editing.post(chat(question), *upgrade)
        assert (reply.status, reply.one("x-serac-route")) == (200, route)
    assert json.loads(editing.upstream.requests[0].body) == chat(OTHER_QUESTION)
    assert editing.upstream.requests[0].header("upgrade") is None


@pytest.mark.parametrize("path", ["/v1/realtime?model=m", "/v1/responses"])
async def test_a_websocket_is_refused_in_words(editing: Gateway, path: str) -> None:
    upgrade = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    reply = await fetch(editing.url, path, None, *upgrade, ("sec-websocket-key", "x"), method="GET")
    assert (reply.status, reply.json["error"]["code"]) == (426, "websocket_not_served")
    assert reply.one("upgrade") == "HTTP/1.1"
    assert "POST /v1/responses" in reply.json["error"]["message"]
    assert editing.upstream.requests == []


@pytest.mark.parametrize("path", ["/chat/completions", "/models", "/responses?x=1", "/embeddings"])
async def test_a_base_url_without_v1_is_named(editing: Gateway, path: str) -> None:
    reply = await fetch(editing.url, path, b"{}", ("content-type", "application/json"))
    assert reply.status == 404
    assert "'/v1" + path.partition("?")[0] in reply.json["error"]["message"] == reply.json["detail"]
    other = await fetch(editing.url, "/chats", b"{}", ("content-type", "application/json"))
    assert "base URL" not in other.json["detail"]
    assert "error" not in other.json


async def test_after_a_wish_for_another_protocol_the_connection_goes_on(editing: Gateway) -> None:
    body = json.dumps(chat(EDITED_QUESTION)).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with connected(editing.url) as (reader, writer):
        for headers, sent_body in (
            (JAVA, body), ([*JAVA, ("transfer-encoding", "chunked")], chunked), ([], body), (JAVA, body)
        ):  # fmt: skip
            whole = request_bytes(editing.url, "POST", CHAT, headers, sent_body)
            for part in (whole[:-10], whole[-10:]):
                writer.write(part)
                await asyncio.sleep(0.02)
            reply = await asyncio.wait_for(read_head(reader), 5)
            await read_body(reader, reply)
            assert reply.json["choices"][0]["message"]["content"] == NEW_ANSWER
        writer.write(request_bytes(editing.url, "GET", "/health/live", JAVA, None))
        assert (await asyncio.wait_for(read_head(reader), 5)).status == 200


async def test_thousands_of_such_wishes_at_once_are_answered_in_order(editing: Gateway) -> None:
    wish = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    async with connected(editing.url) as (reader, writer):
        writer.write(wish * 2_000)
        for _ in range(2_000):
            reply = await asyncio.wait_for(read_head(reader), 10)
            await read_body(reader, reply)
            assert reply.status == 200
    await assert_alive(editing)
