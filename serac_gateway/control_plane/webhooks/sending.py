"""One attempt to deliver an event: a POST to an address that was judged, and to no other.

The host is looked up once; each of its addresses must be allowed, and the connection goes to one of these. A
second look-up, which could give another answer, does not happen. No redirect is followed, no proxy of the
environment used, and of the response only the status is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from serac_gateway import __version__
from serac_gateway.config.model import EVERY_EVENT, WebhookConfig
from serac_gateway.config.webhook_targets import WebhookTarget, refused_address, webhook_target
from serac_gateway.control_plane.webhooks.signing import signed_headers, webhook_secrets
from serac_gateway.errors import ConfigError

GONE = 410
"""The receiver wants no more events."""
_MAX_HEADER_BYTES = 8_192

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses. Raises OSError."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook that can be sent to."""

    name: str
    config: WebhookConfig
    target: WebhookTarget
    secrets: tuple[bytes, ...]
    tls: ssl.SSLContext | None
    """None: without TLS."""

    def wants(self, event_type: str, namespace: str | None) -> bool:
        """Whether an event of the type is sent to it; `namespace` None: it concerns no single one."""
        types, namespaces = self.config.events, self.config.namespaces
        return (event_type in types or EVERY_EVENT in types) and (
            "*" in namespaces or (namespace is not None and namespace in namespaces)
        )


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    status: int | None
    """None: there was no response."""
    problem: str | None
    """Why it failed; None: the receiver has the event."""


def open_endpoints(webhooks: Mapping[str, WebhookConfig], environment: Mapping[str, str]) -> list[Endpoint]:
    """The configured webhooks with their secrets. It reads files: call it on a worker thread.

    Raises:
        ConfigError: One has no secret, or its `ca_file` cannot be read.
    """
    return [
        Endpoint(
            name=name,
            config=config,
            target=(target := webhook_target(name, config)),
            secrets=webhook_secrets(name, environment),
            tls=_tls(name, config) if target.is_encrypted else None,
        )
        for name, config in webhooks.items()
    ]


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """The addresses of a host as the system resolves it."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


async def allowed_addresses(target: WebhookTarget, resolve: Resolve) -> Sequence[str]:
    """The addresses of the target's host, in the resolver's order: at least one, each of them allowed.

    Raises:
        ConnectionRefusedError: One is not; the message says which and what to do.
        OSError: The host cannot be resolved.
    """
    addresses = await resolve(target.host, target.port)
    for text in addresses:
        if (refusal := refused_address(ipaddress.ip_address(text), target)) is not None:
            raise ConnectionRefusedError(f"{target.host} is {refusal}")
    if not addresses:
        raise OSError(f"{target.host} has no address")
    return addresses


async def send(
    endpoint: Endpoint, event_id: str, body: str, *, resolve: Resolve = system_addresses
) -> Attempt:
    """Send an event once. It never raises."""
    payload = body.encode()
    headers = {
        "content-type": "application/json",
        "user-agent": f"serac-gateway/{__version__}",
        **signed_headers(endpoint.secrets, event_id=event_id, at_s=int(time.time()), body=payload),
    }
    try:
        async with asyncio.timeout(endpoint.config.timeout_s):
            addresses = await allowed_addresses(endpoint.target, resolve)
            status = await _post(endpoint, payload, headers, addresses)
    except TimeoutError:
        return Attempt(status=None, problem=f"no response within {endpoint.config.timeout_s:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        return Attempt(status=None, problem=_words(exc))
    return Attempt(status=status, problem=_fault(status))


class _JudgedAddresses(AbstractResolver):
    """Gives the addresses that were allowed, whatever a second look-up would say."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    @override
    async def close(self) -> None:
        pass


async def _post(
    endpoint: Endpoint, payload: bytes, headers: Mapping[str, str], addresses: Sequence[str]
) -> int:
    connector = aiohttp.TCPConnector(
        resolver=_JudgedAddresses(addresses),
        use_dns_cache=False,
        force_close=True,
        ssl=endpoint.tls if endpoint.tls is not None else True,
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        ) as session,
        session.post(endpoint.target.url, data=payload, headers=headers, allow_redirects=False) as response,
    ):
        return response.status


def _fault(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"status {status}: redirects are not followed; give the URL that it leads to"
    if status == GONE:
        return f"status {GONE}: the receiver wants no more events"
    return f"status {status}"


def _words(exc: Exception) -> str:
    """A line about a failed attempt. It has no path of the URL, which may hold a token."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {exc.certificate_error}"[:300]
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"no connection: {exc.os_error.strerror or exc.os_error}"[:300]
    if isinstance(exc, aiohttp.InvalidURL):
        return "the URL cannot be used"
    if isinstance(exc, aiohttp.ClientResponseError):  # its text has the URL
        return f"the response is no HTTP that can be read: {exc.message}".splitlines()[0][:300]
    return (str(exc) or type(exc).__name__)[:300]


def _tls(name: str, config: WebhookConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"webhooks.{name}.ca_file {config.ca_file!r} cannot be used: {exc.strerror or exc}; name a PEM"
            " file",
            field=f"webhooks.{name}.ca_file",
        ) from exc
