"""The tools over HTTP: each message acts under the API key that came with it, and the server has none."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serac_gateway.client import ApiError, AsyncGatewayClient, Call, UnreachableError
from serac_gateway.client.clients import StreamedReply
from serac_gateway.mcp_server.tools import edit_server

MCP_PATH = "/mcp"
MAX_MESSAGE_BYTES = 1_000_000
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_TAKEN_ON = ("authorization", "x-api-key", "api-key", "x-serac-api-key", "x-serac-namespace")
"""Of a caller's headers: the credentials that the gateway reads, and the namespace."""
_PROBLEM = "application/problem+json"
_METADATA_PREFIX = "/.well-known/oauth-protected-resource"
_CHECK: Call[None] = Call(method="GET", path="/serac/v1/namespaces", read=lambda reply: None)
"""What any key of role edit may do."""

ResultT = TypeVar("ResultT")


class CallerApi:
    """The edit API with the credentials of one HTTP request; it shares the connections of all."""

    def __init__(self, client: AsyncGatewayClient, request: Request) -> None:
        """`client` has no API key of its own."""
        self._client = client
        self._headers = {name: request.headers[name] for name in _TAKEN_ON if name in request.headers}

    async def send(self, call: Call[ResultT]) -> ResultT:
        """See `AsyncGatewayClient.send`."""
        headers = {**call.headers, **self._headers}
        return await self._client.send(msgspec.structs.replace(call, headers=headers))

    def stream(self, method: str, path: str) -> AbstractAsyncContextManager[StreamedReply]:
        """See `AsyncGatewayClient.stream`."""
        return self._client.stream(method, path, headers=self._headers)


class ProtectedResource(msgspec.Struct, frozen=True, kw_only=True):
    """By which tokens clients may come, as RFC 9728 has it published; the gateway judges the tokens."""

    url: str
    """Of `MCP_PATH` as clients call it: what tokens must be made for."""
    authorization_servers: tuple[str, ...]
    """Issuers of such tokens."""

    @property
    def metadata_path(self) -> str:
        """Where the document lies."""
        return f"{_METADATA_PREFIX}{urlsplit(self.url).path.rstrip('/')}"

    @property
    def metadata_url(self) -> str:
        """The same for clients."""
        return urlsplit(self.url)._replace(path=self.metadata_path, query="", fragment="").geturl()

    @property
    def host(self) -> str:
        """Without a port."""
        return urlsplit(self.url).hostname or ""

    def metadata(self) -> dict[str, object]:
        """The document."""
        return {
            "resource": self.url,
            "authorization_servers": [*self.authorization_servers],
            "bearer_methods_supported": ["header"],
        }


class Door:
    """Lets a request in if its host and origin are allowed, and the gateway takes its key for role edit."""

    def __init__(
        self,
        app: ASGIApp,
        client: AsyncGatewayClient,
        settings: TransportSecuritySettings,
        resource: ProtectedResource | None,
        *,
        demands_keys: bool,
    ) -> None:
        """`demands_keys`: refuse everybody while the gateway lets requests in that have no key."""
        self._app = app
        self._client = client
        self._demands_keys = demands_keys
        self._security = TransportSecurityMiddleware(settings)
        self._resource = resource

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        reply = (
            await self._security.validate_request(request)
            or self._metadata(request)
            or await self._refusal(request)
        )
        await (reply or self._app)(scope, receive, send)

    def _metadata(self, request: Request) -> Response | None:
        """Which authorization servers there are; None: that is not the question."""
        if self._resource is None or request.url.path not in (_METADATA_PREFIX, self._resource.metadata_path):
            return None
        return JSONResponse(self._resource.metadata())

    async def _refusal(self, request: Request) -> Response | None:
        """The reply to a request that the gateway would refuse, in its words; None: it would not."""
        for name in _TAKEN_ON:
            if len(request.headers.getlist(name)) > 1:
                return _problem(400, f"the header {name!r} is there twice; send it once")
        if self._demands_keys and await self._lets_anybody_in():
            return _problem(
                403,
                "the gateway behind this server demands no API keys, and this server is reached from other"
                " machines, whose callers the gateway would take for its own; have its operator set"
                " access.required to true there, or take --allowed-host away",
            )
        try:
            await CallerApi(self._client, request).send(_CHECK)
        except ApiError as error:
            headers = {"www-authenticate": self._challenge()} if error.status == 401 else {}
            if error.retry_after_s is not None:
                headers["retry-after"] = str(int(error.retry_after_s))
            return _problem(error.status if error.status >= 400 else 502, error.detail, headers)
        except UnreachableError as error:
            return _problem(503, str(error))
        return None

    def _challenge(self) -> str:
        return (
            "Bearer"
            if self._resource is None
            else f'Bearer resource_metadata="{self._resource.metadata_url}"'
        )

    async def _lets_anybody_in(self) -> bool:
        """Whether the gateway answers without a key, and so under what is none of its keys, too."""
        try:
            await self._client.send(_CHECK)
        except (ApiError, UnreachableError):
            return False
        return True


def http_app(
    client: AsyncGatewayClient,
    *,
    hosts: Iterable[str],
    origins: Iterable[str],
    resource: ProtectedResource | None = None,
) -> ASGIApp:
    """The ASGI application at `MCP_PATH`; `client` has no API key, and is open for as long as it serves.

    `hosts` are the names in the header Host, each with or without a port; `origins` those of web pages and of
    applications that embed a browser, as they are in the header Origin. Requests without Origin are let in.
    `resource` is published for clients that get tokens by OAuth; its host is one of the hosts.
    With a host beyond `LOOPBACK_HOSTS` nobody is let in while the gateway demands no keys.

    No session is kept: nothing of a request outlives it, so none can be continued under another key.
    """
    names = [*hosts, *([] if resource is None else [resource.host])]
    settings = TransportSecuritySettings(
        allowed_hosts=[*names, *(f"{name}:*" for name in names)], allowed_origins=list(origins)
    )
    server = edit_server(lambda context: CallerApi(client, _request_of(context.request_context.request)))
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        stateless_http=True,
        json_response=True,
        max_request_body_size=MAX_MESSAGE_BYTES,
        transport_security=settings,
    )
    demands_keys = not set(names) <= set(LOOPBACK_HOSTS)
    return Door(app, client, settings, resource, demands_keys=demands_keys)


def _request_of(request: Any) -> Request:  # noqa: ANN401 - the SDK's, which is whatever the transport has
    if not isinstance(request, Request):
        raise TypeError("a tool was called outside an HTTP request, so nobody knows under which key")
    return request


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    body = {"type": "about:blank", "status": status, "detail": detail}
    return cast("Response", JSONResponse(body, status, headers, media_type=_PROBLEM))
