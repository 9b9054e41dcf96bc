"""Runtimes: the objects that serve requests under one configuration, and their change at a reload.

A request is served to its end by the runtime that was current when it began. A runtime is closed when it is
no longer current and its last request has ended. So no request sees a change of configuration.

Users meet a runtime as a generation: its number stands in the reply of a reload, in the log and in /metrics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from serac_gateway.auth.origins import OriginPolicy
from serac_gateway.config.model import GatewayConfig
from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.control_plane.webhooks.sending import Endpoint
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.models.memory import trim_malloc
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.server.browsers import BrowserGuard
from serac_gateway.server.memory import freeze_gc

log = logging.getLogger(__name__)


class Runtime:
    """The objects that were made for one configuration. `wiring.open_runtime` makes it."""

    def __init__(
        self,
        *,
        number: int,
        config: GatewayConfig,
        data_plane: DataPlane,
        control_plane: ControlPlaneContext,
        opened: tuple[str, ...],
        close: Callable[[], Awaitable[None]],
        webhooks: Sequence[Endpoint] = (),
        classifier_fingerprint: str = "",
        remembering: Sequence[Callable[[FinishedRequest], None]] = (),
    ) -> None:
        """`remembering` are those of the data plane's observers that keep what only the engine can keep."""
        self.number = number
        """The generation: 1 for the first of a process, one more with each reload."""
        self.config = config
        self.data_plane = data_plane
        self.control_plane = control_plane
        self.opened = opened
        """The names of the resources that were opened for it; the others it shares with earlier runtimes."""
        self.webhooks = webhooks
        """To which events are sent while it is the current one."""
        self.users = 0
        """How many leases of it there are: requests that it serves, and its workers."""
        self.close = close
        """Closes the resources that no other runtime uses. Idempotent."""
        self.browser_guard = BrowserGuard(OriginPolicy.of(config))
        self.classifier_fingerprint = classifier_fingerprint
        """Of the scope classifier in force."""
        self._remembering = tuple(remembering)

    def remember(self, request: FinishedRequest) -> None:
        """Keep a request that another gateway has finished, and counted and logged itself."""
        for observe in self._remembering:
            observe(request)


class Runtimes:
    """The current runtime, and earlier ones that still serve. Belongs to one event loop."""

    def __init__(self, first: Runtime) -> None:
        self.current = first
        """The runtime that serves requests which begin now."""
        self._earlier: list[Runtime] = []
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> list[Runtime]:
        """All that are not closed yet, the newest first."""
        return [self.current, *reversed(self._earlier)]

    def lease(self, runtime: Runtime | None = None) -> RuntimeLease:
        """Keep `runtime`, by default the current one, open until the context is left."""
        return RuntimeLease(self, self.current if runtime is None else runtime)

    def replace(self, runtime: Runtime) -> None:
        """Make `runtime` the current one."""
        before, self.current = self.current, runtime
        self._earlier.append(before)
        self.close_if_unused(before)

    async def close(self) -> None:
        """Close all of them, also those that still serve. Idempotent."""
        for runtime in self.live:
            self._start_closing(runtime)
        self._earlier.clear()
        while self._closing:
            await asyncio.wait(self._closing)

    def close_if_unused(self, runtime: Runtime) -> None:
        """Close `runtime` if it is no longer current and nobody leases it."""
        if runtime.users == 0 and runtime in self._earlier:
            self._earlier.remove(runtime)
            self._start_closing(runtime).add_done_callback(lambda task: freeze_gc())

    def _start_closing(self, runtime: Runtime) -> asyncio.Task[None]:
        # The task holds the number and `close` alone: a reference to the runtime would keep its models alive.
        task = asyncio.ensure_future(_close(runtime.number, runtime.close))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


class RuntimeLease:
    """A context in which a runtime stays open. Not a generator: every request is served in one."""

    __slots__ = ("_runtime", "_runtimes")

    def __init__(self, runtimes: Runtimes, runtime: Runtime) -> None:
        self._runtimes = runtimes
        self._runtime = runtime

    def __enter__(self) -> Runtime:
        self._runtime.users += 1
        return self._runtime

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runtime.users -= 1
        self._runtimes.close_if_unused(self._runtime)


async def _close(number: int, close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    except Exception:
        log.exception("generation %d could not be closed", number)
    await asyncio.to_thread(trim_malloc)
