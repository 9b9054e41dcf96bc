"""A TCP proxy in front of a store that can be cut, stalled, delayed, and made to lose replies."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

_CHUNK = 65_536


class FaultProxy:
    """Used as ``async with``. Passes everything on until a fault is set."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_cut = False
        self.delay_s = 0.0
        """How long each chunk is held, either way."""
        self.lose_reply_to: bytes | None = None
        """The next request with these bytes is passed on, and its connection cut before the reply."""

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._flowing.set()
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def cut(self) -> None:
        """Close all connections, and every new one at once."""
        self._is_cut = True
        for connection in self._connections:
            connection.close()

    def stall(self) -> None:
        """Pass nothing on; connections stay open."""
        self._flowing.clear()

    def mend(self) -> None:
        self._is_cut = False
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, server_writer}
        self._connections |= both
        losing = asyncio.Event()
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(
                self._pass_on(reader, server_writer, losing, is_request=True),
                self._pass_on(server_reader, writer, losing, is_request=False),
            )
        self._connections -= both

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        losing: asyncio.Event,
        *,
        is_request: bool,
    ) -> None:
        try:
            while chunk := await reader.read(_CHUNK):
                if is_request and self.lose_reply_to is not None and self.lose_reply_to in chunk:
                    self.lose_reply_to = None
                    losing.set()
                if not is_request and losing.is_set():
                    return
                await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
        finally:
            writer.close()
