"""What passes, passes byte for byte (docs/proxy_cases.md, 1, 2, 5, 12, 13, 16, 18)."""

from __future__ import annotations

import gzip
import json

import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.http.running_gateway import OTHER_QUESTION, Gateway, chat, running_gateway
from tests.http.wire import fetch

ODD_BODIES = [
    b'{"z":1,"model":"m","unknown":{"b":1e-7,"a":1.0},"messages":[{"role":"user","content":"\\u00e9 \\/"}]}',
    b'{"model":"m", "model":"n",\n "messages" : [ {"content":"hi","role":"user"} ] }',
    '{"model":"m","messages":[{"role":"user","content":"日本 😀 \u2028"}]}'.encode(),
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"seed":123456789012345678901234567890}',
    b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
]


ASKED = json.dumps(OTHER_QUESTION).encode()
ODD_REQUESTS = [
    *(("/v1/chat/completions", body) for body in ODD_BODIES),
    ("/v1/responses", b'{"z":1e-7, "model":"m","input":' + ASKED + b',"unknown":{"b":1.0},"model":"n"}'),
    ("/v1/responses", b'{"model":"m","input":[{"role":"user","content":"\\u00e9 \\/"}],"store":true}\n'),
    ("/v1/responses", b'{"model":"m","input":[{"role":"user","content":"\\ud800"}],"stream":false}'),
    ("/v1/messages", b'{"max_tokens" : 5,"model":"m","messages":[{"content":' + ASKED + b',"role":"user"}]}'),
    ("/v1/messages", b'{"max_tokens":5e0,"model":"m","messages":[{"role":"user","content":"\\ud800"}]}'),
    (
        "/v1/messages",
        b'{"max_tokens":5,"messages":[{"role":"user","content":"x"}],"top_k":99999999999999999999}',
    ),
]
ENDPOINTS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]


@pytest.mark.parametrize(("target", "body"), ODD_REQUESTS)
async def test_body_and_reply_are_the_same_bytes(passing: Gateway, target: str, body: bytes) -> None:
    response = await passing.post(body, target=target)
    assert passing.upstream.requests[0].body == body
    assert passing.upstream.requests[0].target == target
    assert response.body == body
    assert response.status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b'"text"', b"[1]"])
@pytest.mark.parametrize("target", ENDPOINTS)
async def test_a_malformed_body_is_for_the_upstream_to_judge(
    passing: Gateway, target: str, body: bytes
) -> None:
    async def refuse(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(400, b'{"error":{"message":"no JSON"}}', ("content-type", "application/json"))

    passing.upstream.script = refuse
    response = await passing.post(body, target=target)
    assert (response.status, response.body) == (400, b'{"error":{"message":"no JSON"}}')
    assert passing.upstream.requests[0].body == body


STREAM = (
    ': ping\n\nevent: x\ndata: {"choices":[{"delta":{"content":"日本 😀"}}]}\r\n\r\n'
    'data: {"a":\ndata: 1}\n\ndata: {"choices":[]}\n\ndata: [DONE]\n\n'
).encode()
NAMED_STREAM = (
    'event: ping\ndata: {"type": "ping"}\n\nevent: content_block_delta\r\ndata: {"delta":"日本 😀"}\r\n\r\n'
    'event: response.completed\ndata: {"sequence_number":3}\n\nevent: message_stop\ndata: {}\n\n'
).encode()


@pytest.mark.parametrize(
    ("target", "whole"),
    [(ENDPOINTS[0], STREAM), ("/v1/responses", NAMED_STREAM), ("/v1/messages", NAMED_STREAM)],
)
async def test_a_stream_cut_at_any_byte_arrives_the_same(passing: Gateway, target: str, whole: bytes) -> None:
    cut = 0
    asked = {"input": OTHER_QUESTION, "max_tokens": 5, **chat(OTHER_QUESTION, stream=True)}

    async def stream(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        for piece in (whole[:cut], whole[cut : cut + 1], whole[cut + 1 :]):
            if piece:
                await connection.chunk(piece)
        await connection.end()

    passing.upstream.script = stream
    for cut in range(len(whole)):  # noqa: B007 - the script reads it
        response = await passing.post(asked, target=target)
        assert response.complete
        assert response.body == whole


async def test_an_event_stream_without_a_last_blank_line_arrives_whole(passing: Gateway) -> None:
    async def stream(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        await connection.chunk(b"data: 1\n\ndata: 2")
        await connection.end()

    passing.upstream.script = stream
    response = await passing.post(chat(OTHER_QUESTION, stream=True))
    assert (response.body, response.complete) == (b"data: 1\n\ndata: 2", True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 503])
async def test_an_error_before_the_stream_keeps_status_body_and_headers(
    passing: Gateway, status: int
) -> None:
    error = b'{"error":{"message":"m","type":"t","param":null,"code":"c"}}'
    sent = [
        ("content-type", "application/json"),
        ("retry-after", "7"),
        ("retry-after-ms", "7000"),
        ("x-should-retry", "false"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-request-id", "req_upstream"),
        ("openai-processing-ms", "12"),
    ]

    async def fail(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(status, error, *sent)

    passing.upstream.script = fail
    response = await passing.post(chat(OTHER_QUESTION, stream=True))
    assert (response.status, response.body) == (status, error)
    for name, value in sent:
        assert response.all(name) == [value]


PACKED = {
    "gzip": gzip.compress(b"hello"),
    "br": b"\x0b\x02\x80hello\x03",
    "zstd": b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello",
    "gzip, br": b"whatever that would be",
}
"""The text hello in each encoding; the last is only passed on."""


@pytest.mark.parametrize("accept", ["gzip, br, zstd", "identity", None])
@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("chunked", [False, True])
async def test_compressed_replies_stay_compressed(
    passing: Gateway, accept: str | None, encoding: str, chunked: bool
) -> None:
    packed = PACKED[encoding]
    told = [("content-encoding", encoding), ("vary", "accept-encoding")]

    async def compressed(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if chunked:
            await connection.head(200, *told, ("transfer-encoding", "chunked"))
            await connection.chunk(packed)
            await connection.end()
        else:
            await connection.whole(200, packed, *told)

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
        ("X-Twice", "a"),
        ("X-Twice", "b"),
        ("X-Latin", "caf\u00e9"),
    )
    received = passing.upstream.requests[0]
    names = [name.lower() for name, _ in received.headers]
    assert not {"connection", "x-mine", "te", "x-serac-debug", "x-serac-namespace"} & set(names)
    assert not {"user-agent", "accept", "accept-encoding"} & set(names)
    assert [value for name, value in received.headers if name.lower() == "x-twice"] == ["a", "b"]
    assert received.header("authorization") == "Bearer client"
    assert received.header("host") == passing.upstream.url.removeprefix("http://").removesuffix("/v1")


async def test_response_headers_keep_order_and_duplicates_less_the_hop_by_hop_ones(passing: Gateway) -> None:
    async def many(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(
            200, b"{}", ("Date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("Server", "theirs"),
            ("Set-Cookie", "a=1"), ("X-A", "1"), ("Set-Cookie", "b=2"), ("Connection", "keep-alive, x-hop"),
            ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("x-serac-route", "theirs"),
        )  # fmt: skip

    passing.upstream.script = many
    response = await passing.post(chat(OTHER_QUESTION))
    assert response.all("set-cookie") == ["a=1", "b=2"]
    assert response.one("date") == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert response.one("server") == "theirs"
    assert response.one("x-serac-route") == "base"
    assert not response.all("x-hop")
    assert not response.all("keep-alive")


async def test_a_reply_of_our_own_has_one_date_and_one_server(passing: Gateway) -> None:
    async def bare(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"{}")

    passing.upstream.script = bare
    response = await passing.post(chat(OTHER_QUESTION))
    assert len(response.all("date")) == len(response.all("server")) == 1


async def test_every_other_path_and_method_passes(passing: Gateway) -> None:
    cases = [
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/org%2Fname?limit=2&after=a%20b&x=%C3%A9", None),
        ("DELETE", "/v1/files/file-1", None),
        ("POST", "/v1/embeddings", b'{"input":"x"}'),
        ("POST", "/v1/chat/completions/", b"{}"),
        ("PUT", "/v1/a//b/;p=1", b"x" * 10),
        ("PATCH", "/v1/x", b"1"),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/chat/completions?api-version=1", json.dumps(chat(OTHER_QUESTION)).encode()),
        ("OPTIONS", "/v1/models", None),
    ]
    for method, target, body in cases:
        response = await fetch(passing.url, target, body, method=method)
        received = passing.upstream.requests[-1]
        assert (received.method, received.target, received.body) == (method, target, body or b"")
        assert response.status == 200
        assert response.one("x-serac-route") in ("bypass", "base")


@pytest.mark.parametrize("status", [404, 405])
async def test_the_upstreams_own_404_and_405_come_back(passing: Gateway, status: int) -> None:
    async def refuse(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(status, b"theirs", ("allow", "GET"))

    passing.upstream.script = refuse
    response = await fetch(passing.url, "/v1/none", method="GET")
    assert (response.status, response.body, response.one("allow")) == (status, b"theirs", "GET")


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


async def test_a_multipart_upload_of_30_mb_streams_through(passing: Gateway) -> None:
    body = b"--b\r\n\r\n" + bytes(range(256)) * 120_000 + b"\r\n--b--"
    response = await fetch(
        passing.url, "/v1/files", body, ("content-type", "multipart/form-data; boundary=b")
    )
    received = passing.upstream.requests[0]
    assert received.body == body == response.body
    assert received.header("content-length") == str(len(body))


async def test_a_chunked_upload_arrives_whole(passing: Gateway) -> None:
    parts = [b"x" * 700_000, b"y" * 700_000]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    await fetch(passing.url, "/v1/files", chunked, ("transfer-encoding", "chunked"))
    assert passing.upstream.requests[0].body == b"".join(parts)


async def test_a_20_mb_data_url_passes_unchanged(passing: Gateway) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20_000_000}}
    content = [{"type": "text", "text": OTHER_QUESTION}, image]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    response = await passing.post(body)
    assert response.status == 200
    assert passing.upstream.requests[0].body == body


@pytest.mark.parametrize("target", ["/v1/../admin", "/v1/%2e%2E/admin", "/v1/models/.", "/v1/a/../../b"])
async def test_a_path_that_could_leave_the_base_path_is_refused(passing: Gateway, target: str) -> None:
    response = await fetch(passing.url, target, method="GET")
    assert response.status == 400
    assert response.json["error"]["type"] == "invalid_request_error"
    assert passing.upstream.requests == []


async def test_a_namespace_that_is_none_is_refused_in_openais_shape(passing: Gateway) -> None:
    response = await passing.post(chat("x"), ("x-serac-namespace", "Not OK"))
    assert response.status == 400
    assert response.json["error"]["param"] == "x-serac-namespace"
    assert "'Not OK'" in response.json["error"]["message"]
    assert response.one("x-serac-route") == "bypass"
    assert passing.upstream.requests == []


async def test_with_a_key_of_the_gateways_the_clients_credentials_stay_behind() -> None:
    async with running_gateway(api_key="gateway-secret") as gateway:
        await gateway.post(
            chat("x"), ("authorization", "Bearer client"), ("x-api-key", "k"), ("api-key", "k")
        )
        received = gateway.upstream.requests[0]
        keys = [
            (n.lower(), v)
            for n, v in received.headers
            if n.lower() in ("authorization", "x-api-key", "api-key")
        ]
        assert keys == [("authorization", "Bearer gateway-secret")]


async def test_the_request_id_is_the_clients_or_a_new_one(passing: Gateway) -> None:
    given = await passing.post(chat("x"), ("x-request-id", "mine-1"))
    made = await passing.post(chat("x"))
    insane = await passing.post(chat("x"), ("x-request-id", "a b" * 200))
    assert given.one("x-request-id") == "mine-1"
    assert made.one("x-request-id") != insane.one("x-request-id")
    assert insane.one("x-request-id").startswith("req_")
