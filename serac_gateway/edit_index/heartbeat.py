"""The heartbeat by which other gateways know that this one is live, and how far it has applied the logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.log_chain import LogHead
from serac_gateway.stores.ports import Replica, ReplicaRegistry

log = logging.getLogger(__name__)

_TTL_S = 3.0
_HEARTBEAT_S = 1.0
"""Between heartbeats without changes; two may be lost."""


class ReplicaHeartbeat:
    """Sends changed positions at once, several in one exchange if they change faster than that takes."""

    def __init__(self, registry: ReplicaRegistry, positions: Callable[[], Mapping[str, LogHead]]) -> None:
        """`positions` is where this gateway is now, in every namespace."""
        self._registry = registry
        self._positions = positions
        self.replica = Replica(
            id=secrets.token_hex(8),
            name=f"{socket.gethostname()}:{os.getpid()}",
            started_at=datetime.now(UTC),
        )
        self._sent: dict[str, LogHead] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Send the first heartbeat, and go on doing so."""
        await self._beat()
        self._task = asyncio.create_task(self._beat_regularly(), name="replica-heartbeat")

    def note_progress(self) -> None:
        """The positions have changed."""
        self._changed.set()

    async def close(self) -> None:
        """Stop, so that no call waits for this gateway. Idempotent."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        with contextlib.suppress(StoreUnavailableError):  # it then runs out by itself
            await self._registry.withdraw(self.replica.id)

    async def _beat_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _HEARTBEAT_S)
            self._changed.clear()
            await self._beat()

    async def _beat(self) -> None:
        positions = dict(self._positions())
        changed = {name: head for name, head in positions.items() if self._sent.get(name) != head}
        try:
            if (
                not await self._registry.announce(self.replica, changed, ttl_s=_TTL_S)
                and changed != positions
            ):
                await self._registry.announce(self.replica, positions, ttl_s=_TTL_S)
        except StoreUnavailableError as error:
            log.debug("the heartbeat failed: %s", error.message)  # the log follower warns
            self._sent = {}
            await asyncio.sleep(_HEARTBEAT_S / 4)
        else:
            self._sent = positions
