"""How a gateway and the engine of several gateways reach each other: address, TLS, and what the engine is.

Both sides show a certificate that the other's authorities have signed, over TLS 1.3.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from serac_gateway.config.model import ENGINE_SECRET_VARIABLE, EngineConfig
from serac_gateway.errors import ConfigError, ModelUnavailableError

SECRET_HEADER = "serac-engine-secret"
TOKEN_HEADER = "serac-worker-token"
"""Marks a call from one process of ours to another, and carries what allows it; no client's is relayed."""
POSITION_HEADER = "x-serac-engine-position"
"""With every reply: the version of the table of namespaces that was current when the reply was made, a "-",
and the process whose table that is."""
HELLO_PATH = "/hello"
HELLO_TOKEN = "hello"
AWAY = "engine away"
"""The reason of the failures that a missing or unusable engine causes, for logs and metrics."""

_MIN_SECRET_CHARACTERS = 16
_HELLO_BYTES = 65_536


class EngineHello(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself, as JSON: the first thing that a gateway reads of any version."""

    version: str
    protocol: str
    """Digest of the messages: other messages cannot be decoded."""
    process: str
    """A name of this process, another one after each start."""
    keys_required: bool
    encoder: str
    """The encoder's fingerprint: of the weights, and of every stored vector that is searched."""
    classifier: str
    sections: dict[str, str]
    """Digests of the sections of its configuration that a gateway has too, by name."""


class EngineAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine listens: a host and a port with TLS, or a Unix socket."""

    host: str = ""
    port: int = 0
    path: str | None = None
    """Of the Unix socket."""

    @property
    def base_url(self) -> str:
        """For HTTP clients."""
        if self.path is not None:
            return "http://engine"
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def connector(self, tls: ssl.SSLContext | None, *, limit: int) -> aiohttp.BaseConnector:
        """A pool of at most `limit` connections; 0: any number."""
        if self.path is not None:
            return aiohttp.UnixConnector(self.path, limit=limit, keepalive_timeout=30.0)
        assert tls is not None
        return aiohttp.TCPConnector(ssl=tls, limit=limit, keepalive_timeout=30.0)


def parse_engine_address(address: str, *, key: str) -> EngineAddress:
    """The parts of `address`, which the configuration has under `key`.

    Raises:
        ConfigError: It is neither tls://host:port nor unix:///path.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return EngineAddress(path=rest)
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(
            f"{key} {address!r} is not usable; give tls://host:port, such as tls://engine.internal:8443, or"
            " unix:///path",
            field=key,
        )
    return EngineAddress(host=host, port=int(port))


def engine_tls(config: EngineConfig, *, serves: bool) -> ssl.SSLContext:
    """The context of one side, which shows a certificate and demands one.

    Raises:
        ConfigError: A file is not named, missing or damaged.
    """
    files = {"ca_file": config.ca_file, "cert_file": config.cert_file, "key_file": config.key_file}
    for name, file in files.items():
        if file is None:
            raise ConfigError(
                f"engine.{name} is not set, and with tls:// both sides show a certificate; set ca_file,"
                " cert_file and key_file, or use unix:///path on one machine",
                field=f"engine.{name}",
            )
    purpose = ssl.Purpose.CLIENT_AUTH if serves else ssl.Purpose.SERVER_AUTH
    try:
        context = ssl.create_default_context(purpose, cafile=config.ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise _unusable("ca_file", config.ca_file, exc) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    load_own_certificate(context, config)
    return context


def load_own_certificate(context: ssl.SSLContext, config: EngineConfig) -> None:
    """Read this side's certificate, again after it was renewed: later connections show the new one.

    Raises:
        ConfigError: A file is missing or damaged, or they do not belong together.
    """
    assert config.cert_file is not None
    try:
        # First elsewhere: a context that has read one half of a pair that does not fit keeps neither the old.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.cert_file, config.key_file)
        context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as exc:
        raise _unusable("cert_file", config.cert_file, exc, f" with key_file {config.key_file!r}") from exc


def _unusable(name: str, file: str | None, exc: OSError, more: str = "") -> ConfigError:
    return ConfigError(
        f"engine.{name} {file!r} cannot be used{more}: {exc.strerror or exc}; give PEM files that fit"
        " together",
        field=f"engine.{name}",
    )


def engine_secret(environment: Mapping[str, str] = os.environ) -> str | None:
    """The secret that gateways show besides their certificate; None: there is none.

    Raises:
        ConfigError: It is too short, or cannot stand in a header.
    """
    secret = environment.get(ENGINE_SECRET_VARIABLE) or None
    if secret is not None and (
        len(secret) < _MIN_SECRET_CHARACTERS or not (secret.isascii() and secret.isprintable())
    ):
        raise ConfigError(
            f"{ENGINE_SECRET_VARIABLE} must have {_MIN_SECRET_CHARACTERS} or more printable ASCII characters;"
            " make one with: openssl rand -hex 32"
        )
    return secret


async def read_hello(session: aiohttp.ClientSession) -> EngineHello:
    """What the engine behind `session` says of itself.

    Raises:
        ModelUnavailableError: What answers there is no engine, or refuses this gateway.
        aiohttp.ClientError, OSError, TimeoutError: It does not answer; see `failure_text`.
    """
    try:
        async with session.get(HELLO_PATH, headers={TOKEN_HEADER: HELLO_TOKEN}) as response:
            data = await response.content.read(_HELLO_BYTES)
            status = response.status
    except (aiohttp.ServerDisconnectedError, ConnectionResetError) as exc:
        # With TLS 1.3 a server refuses a certificate after the client's handshake, and may just hang up.
        raise ModelUnavailableError(
            "it closes the connection before it answers; if it does not accept this gateway's certificate,"
            " have engine.cert_file signed by an authority in the engine's ca_file"
        ) from exc
    if status == 403:
        raise ModelUnavailableError(
            f"it refuses this gateway's secret; set {ENGINE_SECRET_VARIABLE} to the same value on both sides"
        )
    try:
        return msgspec.json.decode(data, type=EngineHello)
    except msgspec.DecodeError as exc:
        raise ModelUnavailableError(
            f"what answers there (with status {status}) is no engine of this gateway; engine.url must be the"
            " address that `serac engine serve` listens on (engine.listen)"
        ) from exc


def failure_text(exc: BaseException) -> str:
    """Why a connection or a call failed, and where it helps what to do."""
    causes = _causes(exc)
    for cause in causes:
        verified: str | None = getattr(cause, "verify_message", None)
        if verified is not None:
            return (
                f"its certificate is not accepted ({verified}); name the authority that signed it"
                " as engine.ca_file, and the host as the certificate does"
            )
    for cause in causes:
        text = str(cause).upper()
        if isinstance(cause, ssl.SSLError) and ("ALERT" in text or "CERTIFICATE" in text):
            return (
                f"it does not accept this gateway's certificate ({cause.reason or cause}); have"
                " engine.cert_file signed by an authority in the engine's ca_file"
            )
        if isinstance(cause, ssl.SSLError):
            return f"the TLS handshake failed ({cause.reason or cause}); is it an engine that listens there?"
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"its name is unknown ({cause.strerror})"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(cause, FileNotFoundError):
            return "there is no such socket"
    if isinstance(exc, TimeoutError):
        return "it does not answer in time"
    if isinstance(exc, asyncio.IncompleteReadError | aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "it has closed the connection"
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _causes(exc: BaseException | None) -> list[BaseException]:
    """`exc` and what it was raised from; aiohttp keeps some of it in attributes."""
    causes: list[BaseException] = []
    while exc is not None and exc not in causes:
        causes.append(exc)
        inner: Any = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", None)
        exc = inner if isinstance(inner, BaseException) and inner not in causes else exc.__cause__
    return causes
