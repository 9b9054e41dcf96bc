"""Which headers pass, which belong to one connection, and who sees a key (cases 5, 12, 13 and 14).

More of case 14: test_access.py for the keys of the gateway's own clients, test_upstreams.py for upstreams
with a key each, test_otel.py for traces, test_request_log.py for the request log.
"""

from __future__ import annotations

import gzip
import json
import logging

import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.http.modes import Mode
from tests.http.running_gateway import EVENTS, OTHER_QUESTION, Gateway, chat
from tests.http.wire import fetch

# Case 5

ACTED_ON = [
    ("retry-after", "7"),
    ("retry-after-ms", "7000"),
    ("x-should-retry", "false"),
    ("x-ratelimit-limit-requests", "500"),
    ("x-ratelimit-remaining-requests", "0"),
    ("x-ratelimit-reset-tokens", "6m0s"),
    ("x-request-id", "req_upstream"),
    ("openai-processing-ms", "12"),
    ("openai-organization", "org"),
]


@pytest.mark.parametrize("status", [200, 400, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_headers_that_clients_act_on_pass_on_success_and_on_error(
    passing: Gateway, status: int, stream: bool
) -> None:
    async def reply(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if stream and status == 200:
            await connection.head(status, *EVENTS, *ACTED_ON)
            await connection.chunk(b"data: [DONE]\n\n")
            await connection.end()
        else:
            await connection.whole(status, b"{}", ("content-type", "application/json"), *ACTED_ON)

    passing.upstream.script = reply
    response = await passing.post(chat(OTHER_QUESTION, stream=stream))
    assert response.status == status
    assert [header for header in response.headers if header[0] in dict(ACTED_ON)] == ACTED_ON


async def test_the_request_id_is_the_clients_or_a_new_one(passing: Gateway) -> None:
    given = await passing.post(chat("x"), ("x-request-id", "mine-1"))
    made = await passing.post(chat("x"))
    insane = await passing.post(chat("x"), ("x-request-id", "a b" * 200))
    assert given.one("x-request-id") == "mine-1"
    assert made.one("x-request-id") != insane.one("x-request-id")
    assert insane.one("x-request-id").startswith("req_")
    for reply in (given, made, insane):
        assert reply.one("x-serac-request-id") == reply.one("x-request-id")


@pytest.mark.parametrize("status", [200, 429])
async def test_our_request_id_stays_visible_beside_the_upstreams(passing: Gateway, status: int) -> None:
    async def reply(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(status, b"{}", ("x-request-id", "up-1"), ("x-serac-request-id", "forged"))

    passing.upstream.script = reply
    response = await passing.post(chat(OTHER_QUESTION), ("x-request-id", "mine-1"))
    assert (response.one("x-request-id"), response.one("x-serac-request-id")) == ("up-1", "mine-1")


# Case 12

PACKED = {
    "gzip": gzip.compress(b"hello"),
    "br": b"\x0b\x02\x80hello\x03",
    "zstd": b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello",
    "gzip, br": b"whatever that would be",
}


@pytest.mark.parametrize("accept", ["gzip, br, zstd", "identity", None])
@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("chunked", [False, True])
async def test_compressed_replies_stay_compressed(
    passing: Gateway, accept: str | None, encoding: str, chunked: bool
) -> None:
    packed = PACKED[encoding]
    expected = [("content-encoding", encoding), ("vary", "accept-encoding")]

    async def compressed(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if chunked:
            await connection.head(200, *expected, ("transfer-encoding", "chunked"))
            await connection.chunk(packed)
            await connection.end()
        else:
            await connection.whole(200, packed, *expected)

    passing.upstream.script = compressed
    headers = [] if accept is None else [("accept-encoding", accept)]
    response = await passing.post(chat(OTHER_QUESTION), *headers)
    assert (response.body, response.complete) == (packed, True)
    assert response.one("content-encoding") == encoding
    assert response.all("content-length") == ([] if chunked else [str(len(packed))])
    assert response.all("transfer-encoding") == (["chunked"] if chunked else [])
    assert passing.upstream.requests[0].header("accept-encoding") == accept


@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_a_compressed_stream_that_breaks_off_gets_no_event_it_could_not_carry(
    passing: Gateway, encoding: str
) -> None:
    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(
            200,
            ("content-type", "text/event-stream"),
            ("content-encoding", encoding),
            ("transfer-encoding", "chunked"),
        )
        await connection.chunk(PACKED[encoding][:6])
        await connection.break_off()

    passing.upstream.script = die
    response = await passing.post(chat(OTHER_QUESTION, stream=True))
    assert (response.body, response.complete) == (PACKED[encoding][:6], False)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_no_body_where_there_is_none(passing: Gateway, method: str, status: int) -> None:
    async def empty(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        length = [] if status == 204 else [("content-length", "12")]
        await connection.head(status, *length, ("etag", '"1"'))

    passing.upstream.script = empty
    for _ in range(2):  # the connection is usable afterwards
        response = await fetch(passing.url, "/v1/models", method=method)
        assert (response.status, response.body, response.one("etag")) == (status, b"", '"1"')
        assert not response.all("transfer-encoding")


# Case 13


async def test_only_the_clients_own_headers_reach_the_upstream(passing: Gateway) -> None:
    await passing.post(
        chat(OTHER_QUESTION),
        ("Authorization", "Bearer client"),
        ("OpenAI-Organization", "org"),
        ("x-serac-debug", "true"),
        ("x-serac-namespace", "default"),
        ("Connection", "keep-alive, X-Mine"),
        ("X-Mine", "1"),
        ("TE", "trailers"),
        ("Trailer", "x-sum"),
        ("Keep-Alive", "timeout=9"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Twice", "a"),
        ("X-Twice", "b"),
        ("X-Latin", "caf\u00e9"),
    )
    received = passing.upstream.requests[0]
    names = [name.lower() for name, _ in received.headers]
    of_one_hop = {"connection", "x-mine", "te", "trailer", "keep-alive", "proxy-authorization"}
    assert not {*of_one_hop, "proxy-connection", "x-serac-debug", "x-serac-namespace"} & set(names)
    assert not {"user-agent", "accept", "accept-encoding"} & set(names)
    assert [value for name, value in received.headers if name.lower() == "x-twice"] == ["a", "b"]
    assert received.header("authorization") == "Bearer client"
    assert received.header("host") == passing.upstream.url.removeprefix("http://").removesuffix("/v1")


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_header_bytes_pass_unchanged(passing: Gateway, size: int) -> None:
    """Also those that are no UTF-8, on a connection that was used before, and with a long body."""
    body = json.dumps({**chat(OTHER_QUESTION), "x": "y" * size}).encode()
    sent = [("x-title", "caf\xe9"), ("x-title", "caf\xc3\xa9"), ("x-title", "plain"), ("x-b", "\x80\xff\xc3")]
    await passing.post(chat(OTHER_QUESTION))
    await passing.post(body, *sent)
    request = passing.upstream.requests[-1]
    assert [header for header in request.headers if header[0] in ("x-title", "x-b")] == sent
    assert request.body == body
    await passing.post(chat(OTHER_QUESTION))
    assert json.loads(passing.upstream.requests[-1].body) == chat(OTHER_QUESTION)


async def test_response_headers_keep_order_and_duplicates_less_the_hop_by_hop_ones(passing: Gateway) -> None:
    async def many(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(
            200, b"{}", ("Date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("Server", "theirs"),
            ("Set-Cookie", "a=1"), ("X-A", "1"), ("Set-Cookie", "b=2"), ("Connection", "keep-alive, x-hop"),
            ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("x-serac-route", "theirs"),
        )  # fmt: skip

    passing.upstream.script = many
    response = await passing.post(chat(OTHER_QUESTION))
    kept = [header for header in response.headers if header[0].lower() in ("set-cookie", "x-a")]
    assert [(name.lower(), value) for name, value in kept] == [
        ("set-cookie", "a=1"), ("x-a", "1"), ("set-cookie", "b=2")
    ]  # fmt: skip
    assert response.one("date") == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert response.one("server") == "theirs"
    assert response.one("x-serac-route") == "base"
    assert not response.all("x-hop")
    assert not response.all("keep-alive")


async def test_a_reply_without_date_and_server_gets_one_of_each(passing: Gateway) -> None:
    async def bare(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"{}")

    passing.upstream.script = bare
    response = await passing.post(chat(OTHER_QUESTION))
    assert len(response.all("date")) == len(response.all("server")) == 1


async def test_an_error_of_our_own_has_one_date_and_one_server(mode: Mode) -> None:
    async with mode.gateway(upstream_url="http://127.0.0.1:9/v1") as gateway:
        response = await gateway.post(chat(OTHER_QUESTION))
    assert response.status == 502
    assert len(response.all("date")) == len(response.all("server")) == 1


# Case 14


async def test_without_a_key_of_the_gateways_the_clients_credentials_pass(passing: Gateway) -> None:
    sent = [("authorization", "Bearer client"), ("x-api-key", "k1"), ("api-key", "k2")]
    await passing.post(chat(OTHER_QUESTION), *sent)
    assert [header for header in passing.upstream.requests[0].headers if header[0] in dict(sent)] == sent


async def test_with_a_key_of_the_gateways_the_clients_credentials_stay_behind(mode: Mode) -> None:
    async with mode.gateway(api_key="gateway-secret") as gateway:
        await gateway.post(
            chat(OTHER_QUESTION), ("authorization", "Bearer client"), ("x-api-key", "k"), ("api-key", "k")
        )
        (received,) = gateway.upstream.requests
    names = ("authorization", "x-api-key", "api-key")
    keys = [(name.lower(), value) for name, value in received.headers if name.lower() in names]
    assert keys == [("authorization", "Bearer gateway-secret")]


async def test_neither_key_appears_in_an_error_body_or_in_the_log(
    mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with mode.gateway(api_key="g4teway", upstream_url="http://127.0.0.1:9/v1") as gateway:
        response = await gateway.post(chat(OTHER_QUESTION), ("authorization", "Bearer s3cret"))
    assert response.status == 502
    visible = caplog.text + response.body.decode() + str(response.headers)
    assert "ClientConnectorError" in visible  # there was something to look through
    assert "g4teway" not in visible
    assert "s3cret" not in visible
