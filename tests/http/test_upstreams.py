"""Several upstreams behind one gateway, over real sockets: by model, with a key each, through a proxy.

Case 14 of docs/proxy_cases.md, keys swapped or passed on. No decision is made here: upstreams alone.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from litestar import Litestar

from serac_gateway.config.loading import load_config
from serac_gateway.config.model import (
    ForwardedStyle,
    GatewayConfig,
    KeyHeader,
    NamedUpstreamConfig,
    ServerConfig,
    UpstreamConfig,
)
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest
from serac_gateway.data_plane.upstream.forwarding import forwarding_headers
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import ConfigError, InvalidRequestError, TooLongToReadError, UpstreamError
from serac_gateway.server.listener import uvicorn_config
from serac_gateway.server.resources import SharedResources
from serac_gateway.server.upstreams import open_upstream
from serac_gateway.testing import ReceivedRequest, Script, ScriptedConnection, ScriptedUpstream
from tests.http.modes import Mode
from tests.http.running_gateway import OTHER_QUESTION, chat, running_gateway

JSON = ((b"content-type", b"application/json"), (b"authorization", b"Bearer client"))


@asynccontextmanager
async def opened(config: GatewayConfig) -> AsyncIterator[Upstream]:
    lease = SharedResources().lease()
    try:
        yield (await open_upstream(config, lease)).upstream
    finally:
        await lease.close()


def between(default: ScriptedUpstream, other: ScriptedUpstream, **options: object) -> GatewayConfig:
    return GatewayConfig(
        upstream=UpstreamConfig(url=default.url),
        upstreams={"big-one": NamedUpstreamConfig(url=other.url, models=("gpt-*", "o3"), **options)},
    )


async def ask(
    upstream: Upstream,
    body: bytes | AsyncIterator[bytes],
    target: bytes = b"/chat/completions",
    *,
    headers: Headers = JSON,
) -> bytes:
    request = UpstreamRequest(method="POST", target=target, headers=headers, body=body)
    async with upstream.send(request) as response:
        return b"".join([chunk async for chunk in response.body])


async def in_parts(body: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize(
    ("body", "goes_to_other"),
    [
        (b'{"messages": [], "model": "gpt-4.1"}', True),
        (b'{"model":"o3","x":1e-7,"x":2}', True),
        (b'{"model":"o3-mini"}', False),
        (b'{"model":"my-gpt-4"}', False),
        (b'{"model":7}', False),
        (b'{"messages": [{"model": "gpt-4"}]}', False),
        (b'{"model":"m","messages":[],"model":"gpt-4"}', True),
        (b'{"model":null,"model":"gpt-4"}', True),
        (b"not json", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("arriving", [False, True])
async def test_a_request_goes_to_the_upstream_of_its_model_byte_for_byte(
    body: bytes, goes_to_other: bool, arriving: bool
) -> None:
    async with (
        ScriptedUpstream() as default,
        ScriptedUpstream() as other,
        opened(between(default, other)) as upstream,
    ):
        assert await ask(upstream, in_parts(body) if arriving else body) == body
        assert (len(default.requests), len(other.requests)) == ((0, 1) if goes_to_other else (1, 0))


FORM = b"multipart/form-data; boundary=b"
TRANSCRIPTION = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n'
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-transcribe\r\n--b--\r\n'
)
GZIPPED = gzip.compress(b'{"model":"gpt-4"}', mtime=0)


@pytest.mark.parametrize(
    ("target", "body", "headers", "goes_to_other"),
    [
        (b"/audio/transcriptions", TRANSCRIPTION, [(b"content-type", FORM)], True),
        (b"/files", TRANSCRIPTION, [(b"content-type", FORM)], False),
        (b"/deployments/gpt-4o/audio/transcriptions", b"x", [(b"content-type", FORM)], True),
        (b"/deployments/m/chat/completions", b'{"model":"gpt-4"}', JSON, False),
        (b"/chat/completions", GZIPPED, [*JSON, (b"content-encoding", b"gzip")], True),
        (b"/chat/completions", zlib.compress(b'{"model":"o3"}'), [(b"content-encoding", b"deflate")], True),
        (b"/chat/completions", b"no gzip", [*JSON, (b"content-encoding", b"gzip")], False),
        (b"/chat/completions", b'\xef\xbb\xbf{"model":"gpt-4"}', JSON, True),
        (b"/chat/completions", b'{"x":"\\ud800","y":NaN,"model":"gpt-4"}', JSON, True),
        (b"/models/gpt-4", b"", (), True),
        (b"/models/gpt%2D4", b"", (), True),
        (b"/models/other", b"", (), False),
    ],
)
@pytest.mark.parametrize("arriving", [False, True])
async def test_the_model_is_found_wherever_a_client_writes_it(
    target: bytes, body: bytes, headers: Headers, goes_to_other: bool, arriving: bool
) -> None:
    async with (
        ScriptedUpstream() as default,
        ScriptedUpstream() as other,
        opened(between(default, other)) as upstream,
    ):
        sent = in_parts(body) if arriving else body
        assert await ask(upstream, sent, target, headers=headers) == body
        assert (len(default.requests), len(other.requests)) == ((0, 1) if goes_to_other else (1, 0))


@pytest.mark.parametrize("arriving", [False, True])
async def test_of_several_models_the_last_counts_or_the_request_is_refused(arriving: bool) -> None:
    """What is whole goes where a lenient reader's model is; what is under way to another upstream ends."""
    body = b'{"model":"gpt-4","x":"' + b"y" * 3_000_000 + b'","model":"secret-model"}'
    async with (
        ScriptedUpstream() as default,
        ScriptedUpstream() as other,
        opened(between(default, other)) as upstream,
    ):
        if not arriving:
            assert await ask(upstream, body) == body
            assert (len(default.requests), len(other.requests)) == (1, 0)
            return
        with pytest.raises(InvalidRequestError, match="two models of different upstreams"):
            await ask(upstream, in_parts(body, 65_536))
        assert not default.requests


async def test_a_body_that_does_not_name_its_model_is_not_held_without_end() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"x":"'
        for _ in range(65):
            yield b"y" * 1_000_000

    async with (
        ScriptedUpstream() as default,
        ScriptedUpstream() as other,
        opened(between(default, other)) as upstream,
    ):
        with pytest.raises(TooLongToReadError, match="64,000,000"):
            await ask(upstream, endless())
        assert default.requests == other.requests == []


def listing(*names: str, **members: object) -> Script:
    body = json.dumps({"object": "list", "data": [{"id": name} for name in names], **members}).encode()

    async def reply(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, body, ("content-type", "application/json"))

    return reply


async def failing(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.whole(503, b'{"error":"down"}', ("x-why", "down"))


async def listed(upstream: Upstream) -> tuple[int, dict[str, object]]:
    headers = [(b"authorization", b"Bearer client"), (b"accept-encoding", b"gzip")]
    request = UpstreamRequest(method="GET", target=b"/models?limit=9", headers=headers, body=b"")
    async with upstream.send(request) as response:
        body = b"".join([chunk async for chunk in response.body])
        assert dict(response.headers)[b"content-length"] == str(len(body)).encode()
        return response.status, json.loads(body)


async def test_the_list_of_models_is_that_of_all_upstreams() -> None:
    async with (
        ScriptedUpstream(listing("mine", "gpt-4", "o3-mini", has_more=False, first_id="mine")) as default,
        ScriptedUpstream(listing("gpt-4", "gpt-5", "whisper-1", "o3", has_more=True)) as other,
        opened(between(default, other)) as upstream,
    ):
        status, models = await listed(upstream)
        assert status == 200
        assert models == {
            "object": "list",
            "data": [{"id": name} for name in ("mine", "o3-mini", "gpt-4", "gpt-5", "o3")],
            "has_more": True,
            "first_id": "mine",
        }
        assert default.requests[0].target == other.requests[0].target == "/v1/models?limit=9"
        assert default.requests[0].header("authorization") == "Bearer client"
        assert (
            other.requests[0].header("authorization") is None
        )  # another vendor's key is none of its business


async def test_an_upstream_without_a_list_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedUpstream(failing) as default, ScriptedUpstream(listing("gpt-5")) as other:
        async with opened(between(default, other)) as upstream:
            assert (await listed(upstream))[1]["data"] == [{"id": "gpt-5"}]
        assert "missing in the list: status 503" in caplog.text
        other.script = failing
        async with opened(between(default, other)) as upstream:
            assert await listed(upstream) == (503, {"error": "down"})
    async with ScriptedUpstream(listing("mine")) as default, ScriptedUpstream() as gone:
        config = between(default, gone)
    async with ScriptedUpstream(listing("mine")) as default:
        config = GatewayConfig(upstream=UpstreamConfig(url=default.url), upstreams=config.upstreams)
        async with opened(config) as upstream:
            assert (await listed(upstream))[1]["data"] == [{"id": "mine"}]
    async with opened(config) as upstream:
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await listed(upstream)


async def test_each_upstream_has_its_own_key_or_passes_the_clients_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERAC_UPSTREAM_API_KEY_BIG_ONE", "sk-big")
    async with (
        ScriptedUpstream() as default,
        ScriptedUpstream() as other,
        opened(between(default, other)) as upstream,
    ):
        await ask(upstream, b'{"model":"gpt-4"}')
        await ask(upstream, b'{"model":"m"}')
        assert other.requests[0].header("authorization") == "Bearer sk-big"
        assert default.requests[0].header("authorization") == "Bearer client"
    assert load_config(environment={"SERAC_UPSTREAM_API_KEY_BIG_ONE": "sk-big"}) == GatewayConfig()


@pytest.mark.parametrize(
    ("header", "sent"),
    [("authorization", "Bearer sk-own"), ("x-api-key", "sk-own"), ("api-key", "sk-own")],
)
async def test_a_key_of_ours_goes_where_the_upstream_wants_it_and_no_other_goes_with_it(
    monkeypatch: pytest.MonkeyPatch, header: str, sent: str
) -> None:
    monkeypatch.setenv("SERAC_UPSTREAM_API_KEY", "sk-own")
    async with ScriptedUpstream() as default:
        config = GatewayConfig(upstream=UpstreamConfig(url=default.url, key_header=KeyHeader(header)))
        async with opened(config) as upstream:
            await ask(upstream, b"{}")
        credentials = {
            name: default.requests[0].header(name) for name in ("authorization", "x-api-key", "api-key")
        }
    assert {name: value for name, value in credentials.items() if value} == {header: sent}


async def test_one_upstream_that_is_left_alone_does_not_keep_the_other_from_answering() -> None:
    async with ScriptedUpstream() as default, ScriptedUpstream() as gone:
        config = between(default, gone, breaker_failures=2)
    async with ScriptedUpstream() as default:
        config = GatewayConfig(upstream=UpstreamConfig(url=default.url), upstreams=config.upstreams)
        async with opened(config) as upstream:
            for _ in range(2):
                with pytest.raises(UpstreamError, match="cannot be reached"):
                    await ask(upstream, b'{"model":"gpt-4"}')
            with pytest.raises(UpstreamError, match="'big-one' gave no answer 2 times in a row"):
                await ask(upstream, b'{"model":"gpt-4"}')
            assert json.loads(await ask(upstream, b'{"model":"m"}')) == {"model": "m"}


async def test_requests_go_through_the_proxy_that_is_named() -> None:
    async with ScriptedUpstream() as proxy:
        config = UpstreamConfig(url="http://model.example:8000/v1", proxy=proxy.url.removesuffix("/v1"))
        async with opened(GatewayConfig(upstream=config)) as upstream:
            assert await ask(upstream, b"{}") == b"{}"
        assert proxy.requests[0].target == "http://model.example:8000/v1/chat/completions"


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_authorities_that_cannot_be_read_are_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    config = GatewayConfig(upstream=UpstreamConfig(url="https://model.example/v1", ca_file=str(path)))
    with pytest.raises(ConfigError, match=r"upstream\.ca_file '.*ca\.pem' cannot be used"):
        await open_upstream(config, SharedResources().lease())


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"/chat/completions", "/v1/m1/chat/completions?api-version=2024-10-21&k=a%20b"),
        (b"/models?limit=1", "/v1/m1/models?limit=1&api-version=2024-10-21&k=a+b"),
        (b"/models?api-version=2025-01-01", "/v1/m1/models?api-version=2025-01-01&k=a+b"),
        (b"/models?k=&api%2Dversion=1", "/v1/m1/models?k=&api%2Dversion=1"),
    ],
)
async def test_the_query_of_an_upstreams_url_goes_with_every_request(target: bytes, sent: str) -> None:
    async with ScriptedUpstream() as default:
        config = UpstreamConfig(url=f"{default.url}/m1/?api-version=2024-10-21&k=a%20b")
        async with opened(GatewayConfig(upstream=config)) as upstream:
            assert await ask(upstream, b"{}", target) == b"{}"
        assert default.requests[0].target == sent


async def test_a_named_upstream_needs_a_url() -> None:
    config = GatewayConfig(
        upstream=UpstreamConfig(url="http://127.0.0.1:1/v1"),
        upstreams={"x": NamedUpstreamConfig(models=("m",))},
    )
    with pytest.raises(ConfigError, match=r"upstream\.url None is not usable"):
        await open_upstream(config, SharedResources().lease())


FROM_A_PROXY = (
    ("host", "chat.example.org"),
    ("x-forwarded-for", "203.0.113.9"),
    ("x-forwarded-proto", "https"),
)


@pytest.mark.parametrize(
    ("style", "seen"),
    [
        ("none", {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}),
        (
            "forwarded",
            {
                "forwarded": 'for=203.0.113.9;host="chat.example.org";proto=https',
                "x-forwarded-for": "203.0.113.9",
                "x-forwarded-proto": "https",
            },
        ),
        (
            "x-forwarded",
            {
                "x-forwarded-for": "203.0.113.9",
                "x-forwarded-proto": "https",
                "x-forwarded-host": "chat.example.org",
            },
        ),
    ],
)
async def test_forwarded_headers_name_the_client_where_they_are_configured(
    style: str, seen: dict[str, str], mode: Mode
) -> None:
    config = GatewayConfig(
        server=ServerConfig(allowed_hosts=("chat.example.org",)),
        upstream=UpstreamConfig(forwarded=ForwardedStyle(style)),
    )
    async with mode.gateway(config) as gateway:
        await gateway.post(chat(OTHER_QUESTION), *FROM_A_PROXY)
        (request,) = gateway.upstream.requests
    names = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
    assert {name: request.header(name) for name in names if request.header(name) is not None} == seen


@pytest.mark.parametrize("style", ["forwarded", "x-forwarded"])
async def test_no_client_can_strip_what_the_gateway_adds(style: str, mode: Mode) -> None:
    config = GatewayConfig(upstream=UpstreamConfig(forwarded=ForwardedStyle(style)))
    named = (
        "x-forwarded-for, X-Forwarded-Proto, x-forwarded-host, forwarded, x-serac-hops, host, content-type"
    )
    async with mode.gateway(config) as gateway:
        await gateway.post(chat(OTHER_QUESTION), ("connection", f"close, {named}, x-mine"), ("x-mine", "1"))
        (request,) = gateway.upstream.requests
    added = ("forwarded",) if style == "forwarded" else ("x-forwarded-for", "x-forwarded-proto")
    for name in (*added, "x-serac-hops", "host", "content-type"):
        assert request.header(name) is not None, name
    assert request.header("x-mine") is None


async def test_who_is_no_trusted_proxy_is_not_believed() -> None:
    config = GatewayConfig(
        server=ServerConfig(trusted_proxies=("10.0.0.0/8",), allowed_hosts=("chat.example.org",)),
        upstream=UpstreamConfig(forwarded=ForwardedStyle.FORWARDED),
    )
    async with running_gateway(config=config) as gateway:
        await gateway.post(chat(OTHER_QUESTION), *FROM_A_PROXY)
        assert gateway.upstream.requests[0].header("forwarded") == (
            'for=127.0.0.1;host="chat.example.org";proto=http'
        )
    config = msgspec.structs.replace(config, upstream=UpstreamConfig(forwarded=ForwardedStyle.X_FORWARDED))
    async with running_gateway(config=config) as gateway:
        await gateway.post(chat(OTHER_QUESTION), *FROM_A_PROXY)
        assert gateway.upstream.requests[0].header("x-forwarded-for") == "203.0.113.9, 127.0.0.1"


def test_an_address_of_ipv6_and_a_host_that_cannot_be_quoted() -> None:
    request = UpstreamRequest(
        method="GET",
        target=b"/models",
        headers=[(b"host", b'a"b'), (b"forwarded", b"for=192.0.2.1")],
        body=b"",
        client="2001:db8::1",
    )
    assert forwarding_headers(request, ForwardedStyle.FORWARDED)[1:] == [
        (b"forwarded", b"for=192.0.2.1"),
        (b"forwarded", b'for="[2001:db8::1]";proto=http'),
    ]


@pytest.mark.parametrize("proxy", ["nginx", "10.0.0.1/8", "10.0.0.0/33", ""])
def test_a_proxy_that_is_no_address_is_refused_before_anything_starts(proxy: str) -> None:
    with pytest.raises(ConfigError, match="trusted_proxies holds"):
        uvicorn_config(Litestar([]), ServerConfig(trusted_proxies=(proxy,)))
