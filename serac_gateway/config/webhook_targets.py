"""Where webhooks may send: what a URL may be, and which addresses.

A URL is judged when the configuration is read, the addresses of its host before every attempt: whoever can
change a name's addresses could otherwise make the gateway call what only the gateway can reach.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from serac_gateway.config.model import (
    EVERY_EVENT,
    WebhookConfig,
    WebhookEvent,
    webhook_secret_variable,
)
from serac_gateway.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?")
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")
"""What resolvers read as an IPv4 address in one of its old spellings: 127.1, 2130706433, 0x7f000001."""
_PORTS = "443, 80 or one from 1024 on"
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, some of which `is_global` counts as public
        "192.88.99.0/24",  # relays of 6to4
        "224.0.0.0/4",  # multicast
        "::/96",  # IPv4-compatible
        "64:ff9b::/96",  # NAT64: any IPv4 address, also a private one
        "64:ff9b:1::/48",
        "2001::/23",  # Teredo and other protocol assignments
        "2002::/16",  # 6to4: any IPv4 address
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)
"""Networks of which `ipaddress` says that they are global, at least in some version of Python."""


class WebhookTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A usable URL, split into what a request needs."""

    url: str
    host: str
    """Without brackets."""
    port: int
    is_encrypted: bool
    allowed_networks: tuple[Network, ...]

    @property
    def printable_url(self) -> str:
        """Scheme, host and port: paths of webhooks often hold a token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_encrypted else 'http'}://{host}:{self.port}"


def check_webhooks(webhooks: Mapping[str, WebhookConfig]) -> None:
    """Return if all of them can be used.

    Raises:
        ConfigError: A name, URL, event or network is not allowed, as the message says.
    """
    names_of: dict[str, str] = {}
    for name, webhook in webhooks.items():
        key = f"webhooks.{name}"
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"the webhook {name[:80]!r} has a name that is not allowed; use 1 to 32 of a-z, 0-9, _ and -,"
                " a letter first",
                field="webhooks",
            )
        other = names_of.setdefault(webhook_secret_variable(name), name)
        if other != name:
            raise ConfigError(
                f"the webhooks {other!r} and {name!r} would share the environment variable"
                f" {webhook_secret_variable(name)}; rename one of them",
                field=key,
            )
        known = [EVERY_EVENT, *WebhookEvent]
        for event in webhook.events:
            if event not in known:
                raise ConfigError(
                    f"{key}.events has {event!r}; allowed are {', '.join(known)}", field=f"{key}.events"
                )
        webhook_target(name, webhook)


def webhook_target(name: str, webhook: WebhookConfig) -> WebhookTarget:
    """Where the webhook of that name sends.

    Raises:
        ConfigError: Its URL or a network cannot be used; the message does not repeat the URL's path.
    """
    key = f"webhooks.{name}.url"
    networks = tuple(_network(name, text) for text in webhook.allowed_networks)
    try:
        parsed = urlsplit(webhook.url)
        host, port = (parsed.hostname or "").lower(), parsed.port
    except ValueError:
        parsed, host, port = urlsplit(""), "", None
    if parsed.scheme not in ("http", "https") or not host or not webhook.url.isascii() or parsed.fragment:
        raise ConfigError(
            f"{key} is not usable; give a URL such as https://hooks.example.org/serac, without a fragment, a"
            " host outside ASCII in its xn-- form",
            field=key,
        )
    if "@" in parsed.netloc:
        raise ConfigError(
            f"{key} has a user or password before the host {host!r}; the signature says who sends, see"
            f" {webhook_secret_variable(name)}",
            field=key,
        )
    if parsed.scheme == "http" and not networks:
        raise ConfigError(
            f"{key} is http:// to {host!r}, so anybody between could read and change events; use https://, or"
            f" list the receiver's network in webhooks.{name}.allowed_networks",
            field=key,
        )
    port = port if port is not None else (443 if parsed.scheme == "https" else 80)
    if port not in (80, 443) and port < 1024:
        raise ConfigError(f"{key} has port {port}, which is not allowed; use {_PORTS}", field=key)
    literal = _literal(host)
    if literal is None and (_ENDS_IN_NUMBER.fullmatch(host) or not _HOST.fullmatch(host)):
        raise ConfigError(
            f"{key} has the host {host[:80]!r}, which is neither a name nor an address as 192.0.2.7 or"
            " [2001:db8::7]; write it so",
            field=key,
        )
    target = WebhookTarget(
        url=webhook.url,
        host=host,
        port=port,
        is_encrypted=parsed.scheme == "https",
        allowed_networks=networks,
    )
    if literal is not None and (refusal := refused_address(literal, target)) is not None:
        raise ConfigError(f"{key} goes to {refusal}", field=key)
    return target


def refused_address(address: Address, target: WebhookTarget) -> str | None:
    """Why nothing is sent to `address`, with what to do; None: it may be."""
    address = _unwrapped(address)
    if any(address.version == network.version and address in network for network in target.allowed_networks):
        return None
    if not is_public(address):
        return (
            f"{address}, which is no public address; if that is meant, list its network in the webhook's"
            " allowed_networks"
        )
    if not target.is_encrypted:
        return f"{address} unencrypted; use https://, or list its network in the webhook's allowed_networks"
    return None


def is_public(address: Address) -> bool:
    """Whether it can be anybody's on the internet, and reaches no other address behind a translation."""
    address = _unwrapped(address)
    if any(address.version == network.version and address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


def _unwrapped(address: Address) -> Address:
    """The IPv4 address of ::ffff:192.0.2.7, which is what it reaches; without a zone."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(name: str, text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as exc:
        raise ConfigError(
            f"webhooks.{name}.allowed_networks has {text!r}, which is no network; give one as 10.1.0.0/16, or"
            " an address",
            field=f"webhooks.{name}.allowed_networks",
        ) from exc
