"""The upstream behind a URL: any OpenAI-compatible HTTP server."""

from __future__ import annotations

import io
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType
from urllib.parse import parse_qsl, urlencode

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

from serac_gateway.config.model import KeyHeader, UpstreamConfig
from serac_gateway.config.upstream_url import parse_upstream_url
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.data_plane.upstream.forwarding import forwarding_headers
from serac_gateway.data_plane.upstream.header_bytes import ExactRequest, header_text
from serac_gateway.data_plane.upstream.headers import end_to_end, redirecting_here
from serac_gateway.errors import ConfigError, UpstreamError, UpstreamTimeoutError

log = logging.getLogger(__name__)

_MAX_HEADER_BYTES = 65_536
_MAX_HEADERS = 1_000
_LARGE_BODY_BYTES = 2**20
"""aiohttp writes a larger bytes object in one blocking piece and warns; a BytesIO it writes in parts."""
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""aiohttp would add these where the client sent none."""
_CREDENTIALS = frozenset({b"authorization", b"api-key", b"x-api-key"})
_NO_HEADERS = frozenset[bytes]()
_NOT_SENT = frozenset({b"host", b"expect"})
"""Our host header names the upstream; 100-continue is settled with the client."""

_is_new: ContextVar[bool] = ContextVar("is_new")
"""Whether the request of this task got a new connection."""


class _NotingConnector(aiohttp.BaseConnector):
    """Sets `_is_new` where it makes a connection. aiohttp's traces would take a tenth of our time."""

    @override
    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        _is_new.set(True)
        return await super()._create_connection(req, traces, timeout)


class _TcpConnector(_NotingConnector, aiohttp.TCPConnector):
    pass


class _UnixConnector(_NotingConnector, aiohttp.UnixConnector):
    pass


class HttpUpstream(Upstream):
    """Sends requests as they are, but for `host` and `expect`, over a pool of connections.

    With `api_key` every request carries it in `config.key_header` and the client's own credentials are
    dropped; without, the client's pass through. Redirects and cookies are the client's business. Construct it
    in a running event loop.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        api_key: str | None = None,
        socket_path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`config.url` must be set; with `socket_path` its server listens on that Unix socket.

        With `tls` that context decides which certificates are shown and accepted, not `config.ca_file`.

        Raises:
            ConfigError: The URL is not usable (see `parse_upstream_url`), or `ca_file` cannot be read.
        """
        url = parse_upstream_url(config.url)
        self._base_url = str(URL(url.base)).rstrip("/")
        self._base_query = parse_qsl(url.query, keep_blank_values=True)
        """Parameters of every request; the client's of the same name takes its place."""
        self._query = url.query
        self._key = None if api_key is None else _key_header(config.key_header, api_key)
        self._dropped = _NOT_SENT | (_NO_HEADERS if api_key is None else _CREDENTIALS)
        self._dropped_with_whole_body = self._dropped | {b"content-length"}
        self._chunk_timeout_s = config.chunk_timeout_s
        self._proxy = config.proxy
        self._forwarded = config.forwarded
        self._session = aiohttp.ClientSession(
            connector=_connector(config, socket_path, tls),
            request_class=ExactRequest,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=config.connect_timeout_s,
                sock_connect=config.connect_timeout_s,
                sock_read=config.response_timeout_s,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NOT_ADDED,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
        )

    @override
    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """See `Upstream.send`."""
        return _Sending(self, request)

    async def open(self, request: UpstreamRequest) -> aiohttp.ClientResponse:
        """Send, and wait for the response's headers; the caller closes the response.

        Raises:
            UpstreamError: No response came.
        """
        try:
            return await self._open(request)
        except _FOREIGN_ERRORS as exc:
            raise self._translated(exc) from exc

    def read(self, response: aiohttp.ClientResponse, target: bytes) -> UpstreamResponse:
        """The response to a request for `target`."""
        self._limit_gaps(response)
        headers = end_to_end([(name.lower(), value) for name, value in response.raw_headers])
        body = _Body(response.content, self._translated)
        return UpstreamResponse(
            status=response.status,
            headers=redirecting_here(headers, base_url=self._base_url, target=target),
            body=body,
            has_ended=body.has_ended,
        )

    async def close(self) -> None:
        """See `Upstream.close`."""
        await self._session.close()

    async def _open(self, request: UpstreamRequest) -> aiohttp.ClientResponse:
        url = URL(self._base_url + self._with_base_query(request.target.decode("latin-1")), encoded=True)
        headers = self._headers(request)
        while True:
            _is_new.set(False)
            try:
                return await self._session.request(
                    request.method,
                    url,
                    headers=headers,
                    data=_payload(request.body),
                    allow_redirects=False,
                    proxy=self._proxy,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as exc:
                # A server may close an idle connection at the moment we use it, and says nothing then. Only
                # that is repeated. It ends: a dead connection leaves the pool, and a new one is not repeated.
                if _is_new.get() or not _died_silently(exc) or not isinstance(request.body, bytes):
                    raise
                log.debug("the upstream had closed an idle connection; sending again on another")

    def _with_base_query(self, target: str) -> str:
        if not self._query:
            return target
        path, _, query = target.partition("?")
        if not query:
            return f"{path}?{self._query}"
        named = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
        added = urlencode([(name, value) for name, value in self._base_query if name not in named])
        return f"{path}?{query}&{added}" if added else target

    def _headers(self, request: UpstreamRequest) -> CIMultiDict[str]:
        dropped = self._dropped_with_whole_body if isinstance(request.body, bytes) else self._dropped
        headers = CIMultiDict(
            [
                (name.decode("latin-1"), header_text(value))
                for name, value in forwarding_headers(request, self._forwarded)
                if name not in dropped
            ]
        )
        if self._key is not None:
            headers.add(*self._key)
        return headers

    def _limit_gaps(self, response: aiohttp.ClientResponse) -> None:
        connection = response.connection
        if connection is not None and connection.protocol is not None:  # else the body is here already
            connection.protocol.read_timeout = self._chunk_timeout_s
            connection.protocol.start_timeout()

    def _translated(self, exc: BaseException) -> UpstreamError:
        log.warning("upstream %s: %s: %s", self._base_url, type(exc).__name__, exc)
        return upstream_error(exc)


class _Sending(AbstractAsyncContextManager[UpstreamResponse]):
    """A request of an `HttpUpstream`. Not a generator: every request comes through here."""

    __slots__ = ("_request", "_response", "_upstream")

    def __init__(self, upstream: HttpUpstream, request: UpstreamRequest) -> None:
        self._upstream = upstream
        self._request = request

    @override
    async def __aenter__(self) -> UpstreamResponse:
        self._response = await self._upstream.open(self._request)
        try:
            return self._upstream.read(self._response, self._request.target)
        except BaseException:
            self._response.close()
            raise

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._response.close()  # gives a connection back whose body is read, and closes any other


class _Body(AsyncIterator[bytes]):
    """The chunks of a response. Not a generator: every chunk comes through here."""

    __slots__ = ("_content", "_error", "_translated")

    def __init__(
        self, content: aiohttp.StreamReader, translated: Callable[[BaseException], UpstreamError]
    ) -> None:
        self._content = content
        self._translated = translated
        self._error: Exception | None = None
        """The break that is due once what came before it has passed."""

    @override
    async def __anext__(self) -> bytes:
        if self._error is not None:
            raise self._translated(self._error) from self._error
        try:
            chunk = await self._content.readany()
        except _FOREIGN_ERRORS as exc:
            left = self._content._read_nowait(-1)  # what came before the break, which aiohttp now withholds
            if not left:
                raise self._translated(exc) from exc
            self._error = exc
            return left
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def has_ended(self) -> bool:
        """See `UpstreamResponse.has_ended`."""
        return self._error is None and self._content.exception() is None and self._content.at_eof()


_FOREIGN_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""ValueError: a path or header that cannot be written as HTTP."""

_BROKE_OFF = "the upstream broke the connection off"
_NOT_HTTP = "the upstream's reply is not valid HTTP"
_NOT_SENDABLE = "the request cannot be sent to the upstream as it is"
_TOO_LATE = "the upstream did not connect, answer or go on in time"
_UNREACHABLE = "the upstream cannot be reached; it may be down or its URL wrong"

_NOT_TRUSTED = "the upstream's TLS certificate or handshake was not accepted"

_KINDS = {
    _BROKE_OFF: "broke off",
    _NOT_HTTP: "not HTTP",
    _NOT_SENDABLE: "not sendable",
    _TOO_LATE: "timeout",
    _UNREACHABLE: "unreachable",
    _NOT_TRUSTED: "TLS",
}
"""In two words, for metrics."""

_MESSAGES: dict[type[BaseException], str] = {
    aiohttp.ServerTimeoutError: _TOO_LATE,
    aiohttp.ClientConnectorError: _UNREACHABLE,
    aiohttp.ClientSSLError: _NOT_TRUSTED,
    aiohttp.ServerFingerprintMismatch: _NOT_TRUSTED,
    aiohttp.ServerConnectionError: _BROKE_OFF,
    aiohttp.ClientOSError: _BROKE_OFF,
    aiohttp.ClientConnectionError: _BROKE_OFF,
    aiohttp.ClientPayloadError: _BROKE_OFF,
    aiohttp.ClientResponseError: _NOT_HTTP,
    aiohttp.UploadAbortedError: _BROKE_OFF,
    aiohttp.InvalidURL: _NOT_SENDABLE,
    aiohttp.NonHttpUrlClientError: _NOT_SENDABLE,
    aiohttp.RedirectClientError: _NOT_SENDABLE,
    TimeoutError: _TOO_LATE,
    OSError: _BROKE_OFF,
    ValueError: _NOT_SENDABLE,
}


def upstream_error(exc: BaseException) -> UpstreamError:
    """The gateway's error for one of aiohttp's. Its message names no address: clients read it.

    Raises:
        KeyError: The class has no mapping.
    """
    message = next((_MESSAGES[base] for base in type(exc).__mro__ if base in _MESSAGES), None)
    if message is None:
        raise KeyError(type(exc))
    error = UpstreamTimeoutError if message is _TOO_LATE else UpstreamError
    return error(message, details={"kind": _KINDS[message]})


def _died_silently(exc: aiohttp.ClientConnectionError) -> bool:
    """Whether the connection ended without a byte of a reply; half a header comes as the message."""
    return not isinstance(exc, aiohttp.ServerDisconnectedError) or isinstance(exc.message, str)


def _payload(body: bytes | AsyncIterator[bytes]) -> bytes | io.BytesIO | AsyncIterator[bytes] | None:
    if isinstance(body, bytes):
        return io.BytesIO(body) if len(body) > _LARGE_BODY_BYTES else body or None
    return body


def _key_header(header: KeyHeader, api_key: str) -> tuple[str, str]:
    return header.value, f"Bearer {api_key}" if header is KeyHeader.AUTHORIZATION else api_key


def _connector(
    config: UpstreamConfig, socket_path: str | None, tls: ssl.SSLContext | None
) -> aiohttp.BaseConnector:
    if socket_path is not None:
        return _UnixConnector(socket_path, limit=config.max_connections)
    return _TcpConnector(limit=config.max_connections, ssl=tls or _trust(config.ca_file))


def _trust(ca_file: str | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(
            f"upstream.ca_file {ca_file!r} cannot be used: {exc.strerror or exc}; give a PEM file of"
            " certificates",
            field="upstream.ca_file",
        ) from exc
