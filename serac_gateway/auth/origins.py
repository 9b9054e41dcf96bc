"""Which web pages may call the gateway, and which headers allow them to read its replies. Pure.

Without API keys the gateway trusts whoever reaches it, and a browser on the same machine reaches it for any
page that it shows. So where no key is demanded, a request from another origin is refused unless the
configuration lists the origin, and on loopback also a request for another host: a page whose host name was
rebound to 127.0.0.1 counts as of the gateway's own origin. Where keys are demanded a page can do nothing
without one, since browsers add no key by themselves.
"""

from __future__ import annotations

import ipaddress
import re
from enum import Enum, auto
from functools import lru_cache

import msgspec

from serac_gateway.auth.authenticator import key_headers
from serac_gateway.config.model import EVERY_ORIGIN, GatewayConfig
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import ForeignHostError, ForeignOriginError

_PREFLIGHT_S = b"600"
_HOST = re.compile(rb"(\[[^\]]*\]|[^:]*)(?::\d*)?")
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
"""One or several header names or methods."""
_CACHED_HOSTS = 1_024
_CACHED_HOST_BYTES = 256
"""Of a longer Host header the judgement is not kept: clients choose what is kept here."""
_OWN_SITE = (b"same-origin", b"none")
"""Values of Sec-Fetch-Site: from a page of the gateway's own, and from the address bar or a bookmark."""
_NOT_EXPOSED = frozenset(
    {b"content-length", b"content-type", b"date", b"server", b"transfer-encoding", b"vary"}
)
"""Headers that pages read in any case, or have no use for."""


class Surface(Enum):
    """What a path belongs to, as far as pages are concerned."""

    DATA = auto()
    """/v1: pages of listed origins may use it, without a key too where none is demanded."""
    CONTROL = auto()
    """/serac/v1 and /metrics: pages of other origins need an API key in any case."""
    CONSOLE = auto()
    """/console: links to it may stand anywhere, and no page may read it; it refuses forms of other pages."""
    OPEN = auto()
    """/health and /serac/schema: they contain nothing about edits or traffic."""


class OriginPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The rules for requests that browsers send for pages."""

    origins: frozenset[bytes]
    """In lower case; `EVERY_ORIGIN` for every one."""
    hosts: tuple[str, ...] | None
    """Names for this gateway besides loopback's; None: any name will do."""
    keys_demanded: bool

    @classmethod
    def of(cls, config: GatewayConfig) -> OriginPolicy:
        """The policy of a configuration."""
        server = config.server
        trusts_network = config.is_loopback and not config.demands_keys
        return cls(
            origins=frozenset(origin.lower().encode() for origin in server.cors_origins),
            hosts=(server.host.lower(), *server.allowed_hosts)
            if trusts_network or server.allowed_hosts
            else None,
            keys_demanded=config.demands_keys,
        )

    @property
    def has_cors(self) -> bool:
        """Whether the gateway sends CORS headers, in place of the upstream's."""
        return bool(self.origins)

    def check(self, headers: Headers, surface: Surface) -> None:
        """Return if the request may go on, as far as its host and its page are concerned.

        Raises:
            ForeignHostError: It is for a host that is not this gateway.
            ForeignOriginError: It comes from a page of another origin, without a key, and none is demanded.
        """
        host = _first(headers, b"host")
        if (
            host
            and self.hosts is not None
            and surface is not Surface.OPEN
            and not _is_named(host, self.hosts)
        ):
            host_text = host[:200].decode("latin-1")
            raise ForeignHostError(
                f"host {host_text!r} is no name of this gateway, which demands no API keys; use localhost or"
                " 127.0.0.1, add the name to server.allowed_hosts, or demand keys (access.required)",
                field="host",
                details={"value": host_text, "reason": "foreign host"},
            )
        if (
            self.keys_demanded
            or surface in (Surface.OPEN, Surface.CONSOLE)
            or not is_from_other_origin(headers)
        ):
            return
        origin = _first(headers, b"origin")
        if key_headers(headers) or (surface is Surface.DATA and self.allows(origin, surface)):
            return
        page = (origin or b"unknown")[:200].decode("latin-1")
        remedy = (
            "add it to server.cors_origins, or demand keys (access.required)"
            if surface is Surface.DATA
            else "send an API key of this gateway"
        )
        raise ForeignOriginError(
            f"the request comes from a web page of another origin ({page}), and this gateway demands no"
            f" API keys; {remedy}",
            field="origin",
            details={"value": page, "reason": "foreign origin"},
        )

    def allows(self, origin: bytes | None, surface: Surface) -> bool:
        """Whether pages of `origin` may read replies. `EVERY_ORIGIN` counts for /v1 alone."""
        if origin is None or surface is Surface.CONSOLE:
            return False
        if surface is not Surface.CONTROL and EVERY_ORIGIN.encode() in self.origins:
            return True
        return origin.lower() in self.origins

    def reply_headers(self, request: Headers, reply: Headers, surface: Surface) -> Headers:
        """`reply`, with this policy's CORS headers in place of any others; as it is without `has_cors`."""
        if not self.has_cors:
            return reply
        headers = [header for header in reply if not header[0].startswith(b"access-control-")]
        names = dict.fromkeys(name for name, _ in headers if name not in _NOT_EXPOSED)
        headers.append((b"vary", b"Origin"))
        origin = _first(request, b"origin")
        if origin is not None and self.allows(origin, surface):
            headers.append((b"access-control-allow-origin", origin))
            headers.append((b"access-control-expose-headers", b", ".join(names)))
        return headers

    def preflight_headers(self, request: Headers, surface: Surface) -> Headers:
        """The headers of the reply to a preflight.

        Raises:
            ForeignOriginError: Pages of its origin may not read replies.
        """
        origin = _first(request, b"origin")
        if origin is None or not self.allows(origin, surface):
            page = (origin or b"")[:200].decode("latin-1")
            raise ForeignOriginError(
                f"pages of {page!r} may not call this gateway; add the origin to server.cors_origins",
                field="origin",
                details={"value": page, "reason": "foreign origin"},
            )
        headers = [
            (b"access-control-allow-origin", origin),
            (b"access-control-max-age", _PREFLIGHT_S),
            (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]
        for requested, allowed in (
            (b"access-control-request-method", b"access-control-allow-methods"),
            (b"access-control-request-headers", b"access-control-allow-headers"),
        ):
            value = _first(request, requested)
            if value is not None and _NAMES.fullmatch(value):
                headers.append((allowed, value))
        if _first(request, b"access-control-request-private-network") == b"true":
            headers.append((b"access-control-allow-private-network", b"true"))
        return headers


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks with this request whether a page may send another one."""
    return (
        method == "OPTIONS"
        and _first(headers, b"origin") is not None
        and _first(headers, b"access-control-request-method") is not None
    )


def is_from_other_origin(headers: Headers) -> bool:
    """Whether a browser sends the request for a page of another origin.

    Other clients send neither Origin nor Sec-Fetch-Site. Browsers before 2023 send Origin alone, with every
    request that could change anything.
    """
    site, origin = _first(headers, b"sec-fetch-site"), _first(headers, b"origin")
    if site is not None:
        return site not in _OWN_SITE
    if origin is None:
        return False
    _, separator, origin_host = origin.partition(b"://")
    return not separator or origin_host.lower() != (_first(headers, b"host") or b"").lower()


def _is_named(host_header: bytes, hosts: tuple[str, ...]) -> bool:
    """Whether a Host header names loopback, an address, or one of `hosts`.

    A name that ends with .localhost or .internal belongs to nobody who could point it at this machine, and an
    address cannot be pointed anywhere.
    """
    if len(host_header) <= _CACHED_HOST_BYTES:
        return _cached_is_named(host_header, hosts)
    return _names_one_of(host_header, hosts)


@lru_cache(maxsize=_CACHED_HOSTS)
def _cached_is_named(host_header: bytes, hosts: tuple[str, ...]) -> bool:
    return _names_one_of(host_header, hosts)


def _names_one_of(host_header: bytes, hosts: tuple[str, ...]) -> bool:
    match = _HOST.fullmatch(host_header)
    name = ("" if match is None else match[1].decode("latin-1")).lower().removesuffix(".")
    if name == "localhost" or name.endswith((".localhost", ".internal")):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return any(
            pattern == "*" or name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in map(str.lower, hosts)
        )
    return True


def _first(headers: Headers, name: bytes) -> bytes | None:
    for key, value in headers:  # not by a generator: every request comes through here
        if key == name:
            return value
    return None
