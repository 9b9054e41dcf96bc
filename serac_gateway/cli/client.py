"""A client of the gateway's HTTP API, for the commands."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from serac_gateway.auth.api_keys import KEY_PREFIX, presented_key
from serac_gateway.cli.terminal import GatewayRefusedError, GatewayUnreachableError, stderr
from serac_gateway.config.model import API_KEY_VARIABLE

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 300.0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A complete response of status 2xx."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    raw: bytes

    def json(self) -> Any:  # noqa: ANN401 - decoded JSON
        """The body, decoded."""
        return msgspec.json.decode(self.raw)


class GatewayClient:
    """Calls one gateway, with the API key of SERAC_API_KEY if it is set. An async context manager."""

    def __init__(self, url: str, *, namespace: str, with_key: bool = True) -> None:
        """An empty `namespace` stands for the API key's own. Without `with_key` no API key is sent."""
        self.url = url
        self._headers = {"x-serac-namespace": namespace} if namespace else {}
        key = os.environ.get(API_KEY_VARIABLE, "").strip() if with_key else ""
        if key and presented_key(key.encode("utf-8", "surrogateescape")) is None:
            raise GatewayRefusedError(
                f"{API_KEY_VARIABLE} holds no API key; a key is {KEY_PREFIX!r}, 12 letters and digits, '-',"
                " and 43 more"
            )
        if key:
            self._headers["x-serac-api-key"] = key

    async def __aenter__(self) -> GatewayClient:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_READ_TIMEOUT_S
            ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request, and read the whole response.

        Raises:
            GatewayUnreachableError: No gateway answers.
            GatewayRefusedError: The status is not 2xx.
        """
        content = None if body is None else msgspec.json.encode(body)
        async with self.stream(method, path, content=content, query=query, headers=headers) as response:
            _warn_unless_applied(response.headers.get("x-serac-applied"))
            return Reply(status=response.status, headers=response.headers, raw=await response.read())

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterator[bytes] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and yield the response while its body arrives. Raises as `call` does."""
        sent = {"content-type": "application/json", **(headers or {})}
        try:
            async with self._session.request(
                method, self.url + path, data=content, params=query, headers=sent
            ) as response:
                if not response.ok:
                    raise GatewayRefusedError(_error_message(response, await response.read()))
                yield response
        except aiohttp.InvalidURL as exc:
            raise GatewayUnreachableError(f"{self.url!r} is no URL; write it as http://host:port") from exc
        except aiohttp.ClientConnectorError as exc:
            raise GatewayUnreachableError(
                f"no gateway answers at {self.url}; start one with `serac serve`"
            ) from exc
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise GatewayUnreachableError(
                f"the gateway at {self.url} broke off ({type(exc).__name__}); its log says why"
            ) from exc


def _warn_unless_applied(header: str | None) -> None:
    """Warn unless `header` says that a change is in force in all live gateways, if it is there at all."""
    applied, _, live = (header or "").partition("/")
    if applied != live:
        of_all = f"in {applied} of {live} gateways" if live else "nobody knows where: the store failed"
        stderr().print(f"[yellow]stored, in force {of_all}[/]; see `serac replicas`", soft_wrap=True)


def _error_message(response: aiohttp.ClientResponse, body: bytes) -> str:
    """The message of an error response: a problem's detail, OpenAI's message, else its status."""
    try:
        error = msgspec.json.decode(body)
        message = error["error"]["message"] if "error" in error else error["detail"]
    except (ValueError, KeyError, TypeError):
        message = f"{response.method} {response.url} answered {response.status}, not as a gateway does"
    request_id = response.headers.get("x-serac-request-id")
    return f"{message} ({response.status}, request {request_id})" if request_id else str(message)
