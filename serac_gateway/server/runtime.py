"""What serves requests, one generation of the configuration after another.

A request is served whole by the generation that was in force when it began; that one is closed when it is in
force no more and its last request has ended. So no request sees the change from one to the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from litestar.types import Receive, Scope, Send

from serac_gateway.config.model import GatewayConfig
from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.server.memory import freeze_gc, trim_malloc

log = logging.getLogger(__name__)

_GENERATION = "serac_generation"


class Generation:
    """The parts that were made of one configuration. `generation_opening.py` makes it."""

    def __init__(
        self,
        *,
        number: int,
        config: GatewayConfig,
        data_plane: DataPlane,
        control_plane: ControlPlaneContext,
        opened: tuple[str, ...],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.number = number
        """1 for the first of a process."""
        self.config = config
        self.data_plane = data_plane
        self.control_plane = control_plane
        self.opened = opened
        """The names of the parts that were opened for it, not taken over from the generation before."""
        self.users = 0
        """Requests that are being served by it."""
        self.close = close
        """Closes what no other generation uses. Idempotent."""


class Generations:
    """The generation in force, and those before it that still serve. Belongs to one event loop."""

    def __init__(self, first: Generation) -> None:
        """`first` is in force."""
        self.current = first
        """The one in force."""
        self._before: list[Generation] = []
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> list[Generation]:
        """All that serve a request or will, the newest first."""
        return [self.current, *reversed(self._before)]

    @contextmanager
    def lease(self) -> Iterator[Generation]:
        """The generation in force, which is not closed before the context is left."""
        with self.lease_of(self.current) as generation:
            yield generation

    @contextmanager
    def lease_of(self, generation: Generation) -> Iterator[Generation]:
        """`generation`, likewise; it may be in force soon, or no more."""
        generation.users += 1
        try:
            yield generation
        finally:
            generation.users -= 1
            self._close_if_done(generation)

    @contextmanager
    def lease_to(self, scope: Scope) -> Iterator[None]:
        """Lease the generation in force to a request, whose `data_plane` call finds it in its scope."""
        generation = scope.setdefault("state", {})[_GENERATION] = self.current
        generation.users += 1
        try:  # not by `lease`: every request comes through here
            yield
        finally:
            generation.users -= 1
            self._close_if_done(generation)

    async def data_plane(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application for /v1: the data plane of the generation that the request is leased."""
        generation: Generation = scope["state"][_GENERATION]
        await generation.data_plane(scope, receive, send)

    def put_in_force(self, generation: Generation) -> None:
        """Serve all that begins from now on with `generation`."""
        before, self.current = self.current, generation
        self._before.append(before)
        self._close_if_done(before)

    async def close(self) -> None:
        """Close all of them, also those that serve. Idempotent."""
        for generation in self.live:
            self._begin_closing(generation)
        self._before.clear()
        while self._closing:
            await asyncio.wait(self._closing)

    def _close_if_done(self, generation: Generation) -> None:
        if generation.users == 0 and generation in self._before:
            self._before.remove(generation)
            self._begin_closing(generation).add_done_callback(lambda closed: freeze_gc())

    def _begin_closing(self, generation: Generation) -> asyncio.Task[None]:
        # Of the generation no more than this: nothing of it may outlive its end.
        task = asyncio.ensure_future(_closed(generation.number, generation.close))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


async def _closed(number: int, close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    except Exception:
        log.exception("generation %d could not be closed", number)
    await asyncio.to_thread(trim_malloc)
