"""The dates of servers' certificates, against a real TLS server."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from serac_gateway.config.model import GatewayConfig, StoreConfig, UpstreamConfig
from serac_gateway.doctor.certificates import TlsServer, certificate_finding, tls_servers
from serac_gateway.doctor.findings import Level
from tests.contracts.test_store_tls import Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def tls_server(certificates: Certificates) -> AsyncIterator[TlsServer]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificates.of("server"))
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield TlsServer(
            name="upstream",
            host="127.0.0.1",
            port=server.sockets[0].getsockname()[1],
            ca_file=str(certificates.authority),
        )


async def test_a_certificate_that_ends_soon_is_a_warning_and_a_foreign_one_a_failure(
    certificates: Certificates,
) -> None:
    """The test's own certificate is valid for two days: seen from a month before, it is fine."""
    async with tls_server(certificates) as server:
        soon = await certificate_finding(server)
        assert soon is not None
        assert (soon.level, "valid for 2 days" in soon.detail) == (Level.WARN, True)
        earlier = await certificate_finding(server, now_s=time.time() - 30 * 86_400)
        assert earlier is not None
        assert earlier.level is Level.OK
        foreign = msgspec.structs.replace(server, ca_file=str(certificates.other_authority))
        refused = await certificate_finding(foreign)
        assert refused is not None
        assert (refused.level, "not accepted" in refused.detail) == (Level.FAIL, True)
        nowhere = await certificate_finding(msgspec.structs.replace(server, ca_file="/nowhere.pem"))
        assert nowhere is not None
        assert (nowhere.level, "'/nowhere.pem'" in nowhere.detail) == (Level.FAIL, True)


async def test_a_server_without_tls_fails_the_handshake_and_none_at_all_is_left_to_other_checks() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        finding = await certificate_finding(TlsServer(name="upstream", host="127.0.0.1", port=port))
        assert finding is not None
        assert (finding.level, "handshake" in finding.detail) == (Level.FAIL, True)
    assert await certificate_finding(TlsServer(name="upstream", host="127.0.0.1", port=port)) is None


def test_servers_are_those_that_are_spoken_to_with_tls(tmp_path: Path) -> None:
    config = GatewayConfig(
        store=StoreConfig(url="rediss+cluster://u:p@a:7000,b/0", ca_file="ca.pem"),
        upstream=UpstreamConfig(url="https://api.example.org/v1"),
    )
    assert [(server.name, server.host, server.port) for server in tls_servers(config)] == [
        ("upstream", "api.example.org", 443),
        ("store", "a", 7000),
        ("store", "b", 6379),
    ]
    assert list(tls_servers(GatewayConfig(store=StoreConfig(url="redis://a/0")))) == []
