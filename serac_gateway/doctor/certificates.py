"""Until when the TLS certificates of the servers that the gateway calls are valid."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from serac_gateway.config.model import GatewayConfig
from serac_gateway.doctor.findings import Finding, failure, fine, warning

_TIMEOUT_S = 10.0
_DAY_S = 86_400
_SOON_DAYS = 14
"""Automatic renewal happens earlier."""
_DEFAULT_PORTS = {"https": 443, "rediss": 6379, "rediss+cluster": 6379, "rediss+sentinel": 26379}


class TlsServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that is spoken to with TLS from the first byte on."""

    name: str
    host: str
    port: int
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


def tls_servers(config: GatewayConfig) -> Iterator[TlsServer]:
    """Those that the configuration names."""
    for name, upstream in (("upstream", config.upstream), *config.upstreams.items()):
        url = urlsplit(upstream.url or "")
        if url.scheme == "https" and upstream.proxy is None:
            yield TlsServer(
                name=name, host=url.hostname or "", port=url.port or 443, ca_file=upstream.ca_file
            )
    for provider_url in filter(None, (config.oidc.issuer, config.oidc.jwks_url)):
        parts = urlsplit(provider_url)
        if parts.scheme == "https" and config.oidc.proxy is None:
            yield TlsServer(
                name="identity provider",
                host=parts.hostname or "",
                port=parts.port or 443,
                ca_file=config.oidc.ca_file,
            )
    engine = config.engine
    if engine.url is not None and engine.url.startswith("tls:"):
        url = urlsplit(engine.url)
        yield TlsServer(
            name="engine",
            host=url.hostname or "",
            port=url.port or 0,
            ca_file=engine.ca_file,
            cert_file=engine.cert_file,
            key_file=engine.key_file,
        )
        return  # the store is the engine's
    store = config.store
    scheme, _, rest = (store.url or "").partition("://")
    hosts = rest.rpartition("@")[2].partition("?")[0].partition("/")[0]
    for address in hosts.split(",") if scheme.startswith("rediss") else ():
        url = urlsplit(f"//{address}")
        yield TlsServer(
            name="store",
            host=url.hostname or "",
            port=url.port or _DEFAULT_PORTS[scheme],
            ca_file=store.ca_file,
            cert_file=store.cert_file,
            key_file=store.key_file,
        )


async def certificate_finding(server: TlsServer, *, now_s: float | None = None) -> Finding | None:
    """One finding; None if the server cannot be reached at all, which another check says."""
    where = f"{server.name}'s certificate ({server.host}:{server.port})"
    try:
        trust = ssl.create_default_context(cafile=server.ca_file)
        if server.cert_file is not None:
            trust.load_cert_chain(server.cert_file, server.key_file)
        async with asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(server.host, server.port, ssl=trust)
    except ssl.SSLCertVerificationError as exc:
        return failure("TLS", f"{where} is not accepted: {exc.verify_message}", _REMEDY)
    except ssl.SSLError as exc:
        return failure("TLS", f"{where}: the handshake failed: {exc.reason or exc}", _REMEDY)
    except (OSError, TimeoutError) as exc:
        return None if server.ca_file is None or not isinstance(exc, FileNotFoundError) else failure(
            "TLS", f"{where}: there is no file {server.ca_file!r}", "name a PEM file"
        )  # fmt: skip
    try:
        certificate = writer.get_extra_info("peercert")
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                await writer.wait_closed()
    left_s = ssl.cert_time_to_seconds(certificate["notAfter"]) - (time.time() if now_s is None else now_s)
    detail = f"{where} is valid for {left_s / _DAY_S:.0f} days, until {certificate['notAfter']}"
    if left_s < _SOON_DAYS * _DAY_S:
        return warning("TLS", detail, "renew it now, and find out why that did not happen by itself")
    return fine("TLS", detail)


_REMEDY = "renew the certificate, or name the authority that signed it (ca_file)"
