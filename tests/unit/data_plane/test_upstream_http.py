"""The upstream behind a URL: its errors, its settings, its headers."""

from __future__ import annotations

import inspect

import aiohttp
import pytest

from serac_gateway.config.model import UpstreamConfig
from serac_gateway.data_plane.upstream.headers import end_to_end, redirecting_here
from serac_gateway.data_plane.upstream.http import HttpUpstream, upstream_error
from serac_gateway.errors import ConfigError, UpstreamError, UpstreamTimeoutError

CLIENT_ERRORS = [
    error
    for _, error in inspect.getmembers(aiohttp, inspect.isclass)
    if issubclass(error, aiohttp.ClientError) and error is not aiohttp.ClientError
]


@pytest.mark.parametrize("error", CLIENT_ERRORS)
def test_every_error_of_aiohttp_is_mapped(error: type[aiohttp.ClientError]) -> None:
    """A new class below ClientError alone would have no mapping, and fails here."""
    ours = upstream_error(error.__new__(error))
    assert isinstance(ours, UpstreamTimeoutError) == issubclass(error, TimeoutError)
    assert ours.message


def test_an_error_that_is_not_mapped_is_noticed() -> None:
    class NewError(aiohttp.ClientError):
        pass

    with pytest.raises(KeyError):
        upstream_error(NewError())


def test_a_timeout_of_the_socket_is_a_timeout() -> None:
    assert isinstance(upstream_error(aiohttp.SocketTimeoutError("secret")), UpstreamTimeoutError)
    assert type(upstream_error(OSError("secret"))) is UpstreamError
    assert "secret" not in upstream_error(OSError("secret")).message


@pytest.mark.parametrize("url", [None, "", "localhost:8000/v1", "ftp://host/v1", "/v1"])
async def test_a_url_that_cannot_be_used_is_named(url: str | None) -> None:
    with pytest.raises(ConfigError, match=r"upstream\.url"):
        HttpUpstream(UpstreamConfig(url=url))


def test_hop_by_hop_headers_and_those_that_connection_names_are_dropped() -> None:
    headers = [
        (b"connection", b"close, X-Mine"),
        (b"x-mine", b"1"),
        (b"a", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"a", b"2"),
        (b"host", b"h"),
        (b"upgrade", b"h2c"),
    ]
    assert end_to_end(headers, without=(b"host",)) == [(b"a", b"1"), (b"a", b"2")]


@pytest.mark.parametrize(
    ("target", "location", "expected"),
    [
        (b"/models/", b"http://model:8000/v1/models", b"../models"),
        (b"/chat/completions/", b"http://model:8000/v1/chat/completions", b"../../chat/completions"),
        (b"/old?path=/a/b", b"https://model:8000/v1/new?a=1", b"./new?a=1"),
        (b"/models/", b"/v1/models", b"/v1/models"),
        (b"/models/", b"http://model:8000/login", b"http://model:8000/login"),
        (b"/models/", b"http://model:8000.example.org/v1/models", b"http://model:8000.example.org/v1/models"),
        (b"/files/7/content", b"https://storage.example.org/7", b"https://storage.example.org/7"),
    ],
)
def test_a_redirect_below_the_base_url_leads_to_where_the_client_asked(
    target: bytes, location: bytes, expected: bytes
) -> None:
    headers = [(b"a", b"1"), (b"location", location)]
    rewritten = redirecting_here(headers, base_url="http://model:8000/v1", target=target)
    assert rewritten == [(b"a", b"1"), (b"location", expected)]
