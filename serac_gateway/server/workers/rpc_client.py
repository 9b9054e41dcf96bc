"""The connection to the model process, or to an engine: HTTP, messages in MessagePack."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

import aiohttp
import msgspec

from serac_gateway.data_plane.engine_access import TOKEN_HEADER
from serac_gateway.data_plane.plan import AnswerTask
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.server.workers.rpc_messages import (
    ANSWER_PATH,
    AnswerFrame,
    RemoteError,
    WorkerSettings,
    read_frames,
)

ReplyT = TypeVar("ReplyT")

CONNECTION_ERRORS = (
    aiohttp.ClientError,
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
    msgspec.DecodeError,
)
_LARGE_BYTES = 1_048_576


def worker_session(settings: WorkerSettings) -> aiohttp.ClientSession:
    """The connections of a worker to its model process. Call it in a running event loop."""
    return aiohttp.ClientSession(
        "http://model-process",
        connector=aiohttp.UnixConnector(settings.socket_path, limit=0, keepalive_timeout=30.0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={TOKEN_HEADER: settings.token},
    )


class RpcClient:
    """Calls the process that has the models."""

    def __init__(self, session: aiohttp.ClientSession, *, call_timeout_s: float = 30.0) -> None:
        """Opens no connection yet, and closes `session` at the end.

        `call_timeout_s` is for calls that name no limit: look-ups in memory, of a new API key in the store.
        """
        self._call_timeout_s = call_timeout_s
        self._session = session

    async def call(
        self,
        path: str,
        message: msgspec.Struct,
        kind: type[ReplyT],
        *,
        timeout_s: float | None = None,
    ) -> ReplyT:
        """Send `message` to `path`; returns the reply, decoded as `kind`.

        Raises:
            GatewayError: The error that the model process raised.
            ModelUnavailableError: The model process does not answer within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s or self._call_timeout_s):
                # PUT: aiohttp repeats it on another connection if an idle one has just been closed.
                async with self._session.put(path, data=_payload(message)) as response:
                    reply = await response.read()
                await self._check_reply(response)
            if response.status != 200:
                raise msgspec.msgpack.decode(reply, type=RemoteError).to_error()
            return msgspec.msgpack.decode(reply, type=kind)
        except CONNECTION_ERRORS as exc:
            raise self._unavailable(exc) from exc

    async def answer(
        self, task: AnswerTask, on_tokens: Callable[[int], None], *, timeout_s: float
    ) -> AsyncGenerator[ChoicePiece, None]:
        """See `Engine.answer`. Raises as `call` does; the whole answer may take `timeout_s` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session.put(ANSWER_PATH, data=_payload(task))
            async with response:
                await self._check_reply(response)
                frames = read_frames(response.content.readexactly)
                while True:
                    async with asyncio.timeout_at(deadline):
                        frame = await _next_frame(frames)
                    if frame is None:
                        return
                    if frame.error is not None:
                        raise frame.error.to_error()
                    if frame.piece is not None:
                        on_tokens(frame.piece.piece.tokens)
                        yield frame.piece
        except CONNECTION_ERRORS as exc:
            raise self._unavailable(exc) from exc

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self._session.close()

    async def _check_reply(self, response: aiohttp.ClientResponse) -> None:
        """Look at the head of a reply before it is decoded."""

    def _unavailable(self, exc: BaseException) -> ModelUnavailableError:
        return ModelUnavailableError(
            f"the model process does not answer: {type(exc).__name__}", details={"reason": "no model process"}
        )


async def _next_frame(frames: AsyncIterator[AnswerFrame]) -> AnswerFrame | None:
    try:
        return await anext(frames, None)
    except RuntimeError as exc:  # aiohttp's way to say that the connection was lost between two reads
        raise aiohttp.ServerDisconnectedError from exc


def _payload(message: msgspec.Struct) -> bytes | aiohttp.BytesIOPayload:
    """The encoded message; a large one as a file, as aiohttp writes `bytes` in one piece and warns."""
    data = msgspec.msgpack.encode(message)
    return data if len(data) < _LARGE_BYTES else aiohttp.BytesIOPayload(io.BytesIO(data))
