"""SIGHUP to a serving process: an operator's request to reload, or the end of the terminal it runs in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

log = logging.getLogger(__name__)

_STANDARD_STREAMS = (0, 1, 2)


class SighupHandler:
    """Catches SIGHUP, and calls a coroutine for it. Belongs to one event loop on the main thread."""

    def __init__(self) -> None:
        self._received = asyncio.Event()
        self._terminals = [stream for stream in _STANDARD_STREAMS if os.isatty(stream)]

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within it SIGHUP does not end the process, and is remembered until `handled_by` is entered.

        The kernel also sends SIGHUP when the terminal closes: then it becomes SIGTERM, so that no process
        goes on without its user knowing.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._on_signal)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    @asynccontextmanager
    async def handled_by(self, handle: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Within it SIGHUP calls `handle`; several signals during a call cause one more call.

        What `handle` raises is logged.
        """

        async def handle_each() -> None:
            while True:
                await self._received.wait()
                self._received.clear()
                try:
                    await handle()
                except Exception:
                    log.exception("SIGHUP was not handled")

        handling = asyncio.ensure_future(handle_each())
        try:
            yield
        finally:
            handling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await handling

    def _on_signal(self) -> None:
        if self._terminals and not any(os.isatty(stream) for stream in self._terminals):
            signal.raise_signal(signal.SIGTERM)
        else:
            self._received.set()
