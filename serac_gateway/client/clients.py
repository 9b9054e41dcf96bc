"""The two clients, over httpx. Redirects are not followed, and no proxy of the environment is used."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from serac_gateway.client.calls import Call, ResultT
from serac_gateway.client.errors import ApiError, UnreachableError, api_error
from serac_gateway.client.replies import Reply

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 300.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_REFUSED_UNSENT = (429,)
"""Statuses after which nothing was done, so that any call may be sent again."""
_BUSY = (429, 502, 503, 504)
SILENT = (httpx.ConnectError, httpx.ConnectTimeout)
"""The request did not leave."""


class _Settings:
    """What both clients are made with, and when they send again."""

    def __init__(
        self, url: str, *, namespace: str = "", api_key: str | None = None, attempts: int = 3
    ) -> None:
        """`url` as http://host:port. An empty `namespace` stands for the API key's own.

        `attempts`: how often a call is sent at most, where repeating it does no harm, while the gateway
        cannot be reached or says that it is busy.

        Raises:
            ValueError: `attempts` is less than 1.
        """
        if attempts < 1:
            raise ValueError(f"attempts {attempts!r} is not allowed; give 1 or more")
        self.url = url.rstrip("/")
        self._attempts = attempts
        headers = {"x-serac-namespace": namespace} if namespace else {}
        if api_key is not None:
            headers["x-serac-api-key"] = api_key
        self._options: dict[str, Any] = {
            "headers": headers,
            "timeout": httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            "trust_env": False,
        }

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        headers = dict(call.headers) | ({} if call.body is None else {"content-type": "application/json"})
        return {
            "method": call.method,
            "url": self.url + call.path,
            "params": dict(call.query) or None,
            "headers": headers,
            "content": call.body,
        }

    def _pause_s(self, call: Call[Any], error: UnreachableError | ApiError, attempt: int) -> float:
        """How long to wait before the next attempt.

        Raises:
            UnreachableError, ApiError: There is none.
        """
        if attempt >= self._attempts or not _may_repeat(call, error):
            raise error
        wait_s: float = (
            _FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(1, 2)
        )  # so that not all come at once
        if isinstance(error, ApiError) and error.retry_after_s is not None:
            wait_s = max(wait_s, error.retry_after_s)
        if wait_s > _LONGEST_PAUSE_S:
            raise error
        return wait_s


def _may_repeat(call: Call[Any], error: UnreachableError | ApiError) -> bool:
    if isinstance(error, UnreachableError):
        return call.repeatable or isinstance(error.__cause__, SILENT)
    return error.status in (_BUSY if call.repeatable else _REFUSED_UNSENT)


class GatewayClient(_Settings):
    """Sends calls and waits for their replies. A context manager; not for several threads at a time."""

    def __enter__(self) -> Self:
        self._http = httpx.Client(**self._options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def send(self, call: Call[ResultT]) -> ResultT:
        """Send it, again if need be, and read the reply.

        Raises:
            UnreachableError: No gateway answers.
            ApiError: The gateway refused, or what answers is none.
        """
        attempt = 1
        while True:
            try:
                return _result(call, self._reply(call))
            except (UnreachableError, ApiError) as error:
                time.sleep(self._pause_s(call, error, attempt))
            attempt += 1

    def _reply(self, call: Call[Any]) -> Reply:
        try:
            response = self._http.request(**self._request(call))
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _unreachable(self.url, exc) from exc
        return _checked(response, response.content)


class AsyncGatewayClient(_Settings):
    """Sends calls without blocking the event loop. An async context manager, for any number of tasks."""

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(**self._options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def send(self, call: Call[ResultT]) -> ResultT:
        """As `GatewayClient.send`."""
        attempt = 1
        while True:
            try:
                async with self._opened(**self._request(call)) as response:
                    return _result(call, _checked(response, await response.aread()))
            except (UnreachableError, ApiError) as error:
                await asyncio.sleep(self._pause_s(call, error, attempt))
            attempt += 1

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterator[bytes] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[StreamedReply]:
        """Send a request of any kind, once, and yield the response while its body arrives.

        Raises:
            UnreachableError: No gateway answers, or it breaks off.
            ApiError: The status is not 2xx.
        """
        sent = {"content-type": "application/json", **(headers or {})}
        async with self._opened(
            method=method, url=self.url + path, content=content, params=query or None, headers=sent
        ) as response:
            if not response.is_success:
                _checked(response, await response.aread())
            yield StreamedReply(response)

    @asynccontextmanager
    async def _opened(self, **request: Any) -> AsyncIterator[httpx.Response]:  # noqa: ANN401 - httpx checks them
        try:
            async with self._http.stream(**request) as response:
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _unreachable(self.url, exc) from exc


class StreamedReply:
    """A response of status 2xx whose body is still arriving; read once, in one of three ways."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """2xx."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Looked up without regard to case; names are lower case when iterated."""
        return self._response.headers

    async def read(self) -> bytes:
        """The whole body."""
        return await self._response.aread()

    def chunks(self) -> AsyncIterator[bytes]:
        """As they arrive."""
        return self._response.aiter_bytes()

    async def lines(self) -> AsyncIterator[bytes]:
        """Of any length, without their ends; the last perhaps unfinished. Only LF ends one."""
        pieces: list[bytes] = []
        async for chunk in self._response.aiter_bytes():
            first, *others = chunk.split(b"\n")
            pieces.append(first)
            for other in others:
                yield b"".join(pieces)
                pieces = [other]
        if rest := b"".join(pieces):
            yield rest


def _result(call: Call[ResultT], reply: Reply) -> ResultT:
    try:
        return call.read(reply)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as exc:
        raise ApiError(
            f"{call.method} {call.path} answered {reply.status}, not as a gateway does: {exc}",
            status=reply.status,
            request_id=reply.headers.get("x-serac-request-id"),
        ) from exc


def _checked(response: httpx.Response, content: bytes) -> Reply:
    """The complete response. Raises ApiError where its status is not 2xx."""
    reply = Reply(status=response.status_code, headers=response.headers, raw=content)
    if not response.is_success:
        raise api_error(reply, request=f"{response.request.method} {response.url}")
    return reply


def _unreachable(url: str, exc: Exception) -> UnreachableError:
    if isinstance(exc, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return UnreachableError(f"{url!r} is no URL; write it as http://host:port")
    if isinstance(exc, SILENT):
        return UnreachableError(f"no gateway answers at {url}; start one with `serac serve`")
    return UnreachableError(f"the gateway at {url} broke off ({type(exc).__name__}); its log says why")
