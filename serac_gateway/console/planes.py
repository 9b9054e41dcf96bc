"""The two planes as the console calls them: in this process, with the requests and replies of any client.

So no rule of the API is repeated here: roles, namespaces, four eyes, validation and conflicts are the control
plane's, and the console has no way around them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any, cast
from urllib.parse import quote, urlencode

import msgspec
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from serac_gateway.auth.authenticator import acting_as
from serac_gateway.auth.principals import NAMESPACE_HEADER, Principal
from serac_gateway.config.model import GatewayConfig
from serac_gateway.control_plane.http.api import CONTROL_PREFIX
from serac_gateway.data_plane.upstream.base import Upstream

_MESSAGES_AHEAD = 16
"""Of a streamed reply, that wait for whom they are for."""
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Planes(msgspec.Struct, frozen=True, kw_only=True):
    """What serves the requests that the console makes, all of one runtime."""

    control: Asgi
    data: Asgi
    upstream: Upstream
    """The base model, without edits."""
    config: GatewayConfig
    hold: Callable[[], AbstractContextManager[object]] = nullcontext
    """Keeps what serves open, also after the request that it began with."""


_current: ContextVar[Planes] = ContextVar("console_planes")


@contextmanager
def serving_console_with(planes: Planes) -> Iterator[None]:
    """Give `planes` to the console for the request that the current task serves."""
    token = _current.set(planes)
    try:
        yield
    finally:
        _current.reset(token)


def current_planes() -> Planes:
    """Those of the request. Raises LookupError outside `serving_console_with`."""
    return _current.get()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of several of one name the last."""
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - decoded JSON
        """The body decoded; None if it is empty or no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None


class StreamedReply(msgspec.Struct, frozen=True, kw_only=True):
    """A reply whose body comes piece by piece."""

    status: int
    headers: Mapping[str, str]
    """As of `Reply`."""
    chunks: AsyncIterator[bytes]

    async def whole(self) -> Reply:
        """The same with all of the body that has not been read."""
        body = b"".join([chunk async for chunk in self.chunks])
        return Reply(status=self.status, headers=self.headers, body=body)


class RefusedError(Exception):
    """The API refused a call of the console.

    Attributes:
        status: The HTTP status.
        title: What kind of refusal it is, in English.
        detail: What is wrong and what to do, in English.
        field: The field of the request that is wrong; None: no single one.
    """

    def __init__(self, reply: Reply) -> None:
        problem = reply.json if isinstance(reply.json, dict) else {}
        error = problem.get("error")
        if isinstance(error, dict):  # the data plane answers in the shape of OpenAI's errors
            problem = {"detail": error.get("message"), **problem}
        self.status = reply.status
        self.title = str(problem.get("title") or "")
        self.detail = str(problem.get("detail") or reply.body[:300].decode("utf-8", "replace"))
        self.field: str | None = problem.get("field")
        super().__init__(self.detail)


class PlanesClient:
    """Calls the planes for one page request, on behalf of its principal and in its namespace."""

    def __init__(
        self, planes: Planes, scope: Scope, receive: Receive, principal: Principal, namespace: str | None
    ) -> None:
        """`scope` and `receive` are the page request's, whose body has been read."""
        self.planes = planes
        self._scope = cast("HTTPScope", scope)
        self._receive = receive
        self._principal = principal
        self._namespace = namespace

    async def control(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Call the control plane at `path` below /serac/v1; parts of `query` that are None are left out.

        Raises:
            RefusedError: The status is 400 or higher.
        """
        return await self._call(
            self.planes.control, method, CONTROL_PREFIX + path, query=query, body=body, headers=headers
        )

    async def root(self, path: str) -> Reply:
        """GET of a path outside /serac/v1, such as /health/ready, whatever its status."""
        return await self._call(self.planes.control, "GET", path, refuses=False)

    @asynccontextmanager
    async def chat(self, body: object, headers: Mapping[str, str]) -> AsyncIterator[StreamedReply]:
        """Send a chat request through the data plane, as any client would; leaving ends it."""
        content = msgspec.json.encode(body)
        messages: asyncio.Queue[Message] = asyncio.Queue(_MESSAGES_AHEAD)
        requests = iter([{"type": "http.request", "body": content, "more_body": False}])

        async def receive() -> Any:  # noqa: ANN401 - one of ASGI's messages
            if (message := next(requests, None)) is None:
                await asyncio.Event().wait()  # who leaves cancels the task
            return message

        async def serve() -> None:
            scope = self._scope_of("POST", "/v1/chat/completions", {}, headers, content)
            with acting_as(self._principal), self.planes.hold():
                await self.planes.data(scope, receive, messages.put)

        goes_on = True

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal goes_on
            while goes_on:
                message = await _next_of(messages, serving)
                goes_on = message.get("more_body", False)
                yield message.get("body", b"")

        serving = asyncio.ensure_future(serve())
        try:
            start: Any = await _next_of(messages, serving)
            yield StreamedReply(status=start["status"], headers=headers_of(start["headers"]), chunks=chunks())
        finally:
            if goes_on:
                serving.cancel()  # else it still counts and records what it has answered
            with suppress(asyncio.CancelledError):
                await serving

    async def models(self) -> Reply:
        """The base model's list of models. Raises RefusedError."""
        return await self._call(self.planes.data, "GET", "/v1/models")

    async def pass_on(
        self, path: str, send: Send, *, query: Mapping[str, str | None], headers: Mapping[bytes, bytes]
    ) -> None:
        """Answer the page request itself with the control plane's reply, streamed, and `headers` with it."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0] not in headers]
                message["headers"] = [*kept, *headers.items()]
            await send(message)

        scope = self._scope_of("GET", CONTROL_PREFIX + path, query, {}, b"")
        with acting_as(self._principal):
            await self.planes.control(scope, self._receive, send_with_headers)

    async def read_stream(
        self, path: str, take: Callable[[bytes], Awaitable[None]], *, query: Mapping[str, str | None]
    ) -> None:
        """Have `take` read the body of a streamed reply of the control plane, chunk by chunk."""
        ended = asyncio.Event()

        async def receive() -> Any:  # noqa: ANN401 - one of ASGI's messages
            # A stream of Litestar's waits for the end of the connection, which a server reports at once.
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                await take(message["body"])
                if not message["more_body"]:
                    ended.set()

        with acting_as(self._principal):
            scope = self._scope_of("GET", CONTROL_PREFIX + path, query, {}, b"")
            await self.planes.control(scope, receive, send)

    async def send_lines(
        self,
        path: str,
        chunks: Iterator[bytes],
        take: Callable[[bytes], Awaitable[None]],
        *,
        query: Mapping[str, str | None],
        headers: Mapping[str, str],
    ) -> None:
        """POST NDJSON in chunks, and have `take` read the reply, chunk by chunk, while it is sent.

        Raises:
            RefusedError: The status is 400 or higher.
        """
        ended = asyncio.Event()
        status, refusal = 500, b""

        async def receive() -> Any:  # noqa: ANN401 - one of ASGI's messages
            if (chunk := next(chunks, None)) is not None:
                return {"type": "http.request", "body": chunk, "more_body": True}
            if not ended.is_set():
                ended.set()
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.Event().wait()  # there is no client that could break off
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status, refusal
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and status >= 400:
                refusal += message["body"]
            elif message["type"] == "http.response.body":
                await take(message["body"])

        own = {"content-type": "application/x-ndjson", **headers}
        with acting_as(self._principal), self.planes.hold():
            scope = self._scope_of("POST", CONTROL_PREFIX + path, query, own, b"")
            await self.planes.control(scope, receive, send)
        if status >= 400:
            raise RefusedError(Reply(status=status, headers={}, body=refusal))

    async def _call(
        self,
        app: Asgi,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        refuses: bool = True,
    ) -> Reply:
        content = b"" if body is None else msgspec.json.encode(body)
        start: dict[str, Any] = {"status": 500, "headers": []}
        chunks: list[bytes] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(status=message["status"], headers=list(message["headers"]))
            elif message["type"] == "http.response.body":
                chunks.append(message["body"])

        scope = self._scope_of(method, path, query or {}, headers or {}, content)
        with acting_as(self._principal):
            await app(scope, self._receive_after(content), send)
        headers_got = headers_of(start["headers"])
        reply = Reply(status=start["status"], headers=headers_got, body=b"".join(chunks))
        if refuses and reply.status >= 400:
            raise RefusedError(reply)
        return reply

    def _receive_after(self, content: bytes) -> Receive:
        """The body, and then whatever the browser does: a page that is left ends what is computed for it."""
        is_sent = False

        async def receive() -> Any:  # noqa: ANN401 - one of ASGI's messages
            nonlocal is_sent
            if is_sent:
                return await self._receive()
            is_sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        return receive

    def _scope_of(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None],
        headers: Mapping[str, str],
        content: bytes,
    ) -> HTTPScope:
        given = {name: value for name, value in query.items() if value is not None}
        own = {"host": "console.internal", **headers}
        if content:
            own |= {"content-type": "application/json", "content-length": str(len(content))}
        if self._namespace is not None:
            own[NAMESPACE_HEADER.decode()] = self._namespace
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": self._scope["asgi"],
            "http_version": "1.1",
            "method": method,
            "scheme": self._scope["scheme"],
            "path": path,
            "raw_path": quote(path, safe="/:").encode(),
            "root_path": "",
            "query_string": urlencode(given).encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in own.items()],
            "client": self._scope["client"],
            "server": self._scope["server"],
            "extensions": {},
            "state": {},
        }
        return cast("HTTPScope", scope)


def headers_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as of `Reply`."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


async def _next_of(messages: asyncio.Queue[Message], serving: asyncio.Future[None]) -> Any:  # noqa: ANN401
    """The next of ASGI's messages. Raises what `serving` raised, where that sends no more."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(messages.get())
    try:
        await asyncio.wait((waiting, serving), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and messages.empty():
            serving.result()
            raise RuntimeError("the data plane ended in the middle of a reply")
        return await waiting
    finally:
        waiting.cancel()


async def together(*calls: Awaitable[Any]) -> list[Any]:
    """The results of all calls, those that were refused as their `RefusedError`.

    Raises:
        Exception: One of them failed in another way.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, RefusedError):
            raise result
    return results
