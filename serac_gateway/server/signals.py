"""SIGHUP to a process that serves: a wish of the operator's, or the end of the terminal it was started in."""

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


class Hangups:
    """Takes SIGHUP from when it is made to `answered`. Belongs to one event loop on the main thread."""

    def __init__(self) -> None:
        self._came = asyncio.Event()
        self._terminals = [one for one in _STANDARD_STREAMS if os.isatty(one)]

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within it SIGHUP ends nothing, and is remembered until it is answered.

        The kernel sends one, too, when the terminal closes: then it is SIGTERM, so that nobody is left with a
        process they no longer see.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._note)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    @asynccontextmanager
    async def answered(self, answer: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Within it SIGHUP calls `answer`; several that come while it runs call it once more."""

        async def answer_on() -> None:
            while True:
                await self._came.wait()
                self._came.clear()
                try:
                    await answer()
                except Exception:
                    log.exception("SIGHUP was not answered")

        answering = asyncio.ensure_future(answer_on())
        try:
            yield
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering

    def _note(self) -> None:
        if self._terminals and not any(os.isatty(one) for one in self._terminals):
            signal.raise_signal(signal.SIGTERM)
        else:
            self._came.set()
