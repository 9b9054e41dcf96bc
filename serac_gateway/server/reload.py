"""Applies a changed configuration, or changed weights, while the gateway serves: all of it, or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from serac_gateway.config.diff import Reloaded, ReloadOutcome, changed_keys, check_no_restart_needed
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import GatewayError, ReloadRefusedError
from serac_gateway.observability.logging import FIELDS
from serac_gateway.observability.metrics import Instruments
from serac_gateway.server.runtime import Runtime, Runtimes

log = logging.getLogger(__name__)

ReadConfig = Callable[[], GatewayConfig]
"""Reads the configuration again from its sources. Raises ConfigError."""
OpenRuntime = Callable[[int, GatewayConfig], Awaitable[Runtime]]
"""Opens the runtime of that number completely, or leaves nothing open. Raises GatewayError."""
OnReloaded = Callable[[Runtime], None]
"""Called with the new current runtime. It must return at once and must not raise."""
OnOutcome = Callable[[Runtime, Reloaded | None], None]
"""Called after each reload with the runtime in force; None: it was refused. It must not raise."""
Prepare = Callable[[Runtime], Awaitable[Callable[[], None]]]
"""Prepares for a runtime that is not current yet, and returns a function that switches to it.

Raises GatewayError: then the reload is refused.
"""


class Reloader:
    """Reloads, one reload at a time: a second one waits for the first. Belongs to one event loop."""

    def __init__(
        self,
        *,
        runtimes: Runtimes,
        read_config: ReadConfig,
        open_runtime: OpenRuntime,
        instruments: Instruments,
        on_reloaded: Sequence[OnReloaded] = (),
        on_outcome: OnOutcome = lambda runtime, reloaded: None,
    ) -> None:
        """`on_reloaded` are called in order, before any request begins in the new runtime."""
        self._on_outcome = on_outcome
        self._runtimes = runtimes
        self._read_config = read_config
        self._open_runtime = open_runtime
        self._instruments = instruments
        self._on_reloaded = on_reloaded
        self.prepare: Prepare = _prepare_nothing
        """Called with each runtime before it is current; the function that it returns, once it is current."""
        self._lock = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """Read the configuration and the files it names again, and apply what changed.

        Raises:
            ReloadRefusedError: It cannot be read or used, or a change needs a restart; nothing changes.
        """
        async with self._lock:
            try:
                reloaded = await self._reload()
            except Exception as exc:
                self._instruments.add_reload(ReloadOutcome.REFUSED)
                self._on_outcome(self._runtimes.current, None)
                raise self._refused(exc) from exc
            self._instruments.add_reload(reloaded.outcome)
            self._on_outcome(self._runtimes.current, reloaded)
            log.info(
                "configuration %s",
                reloaded.outcome.value,
                extra={
                    FIELDS: {
                        "generation": reloaded.generation,
                        "changed": ",".join(reloaded.changed) or "nothing",
                        "opened": ",".join(reloaded.opened) or "nothing",
                    }
                },
            )
            return reloaded

    async def _reload(self) -> Reloaded:
        before = self._runtimes.current
        config = await asyncio.to_thread(self._read_config)
        changed = changed_keys(before.config, config)
        check_no_restart_needed(before.config, config)
        runtime = await self._open_runtime(before.number + 1, config)
        if not changed and not runtime.opened:
            await runtime.close()
            return Reloaded(outcome=ReloadOutcome.UNCHANGED, generation=before.number)
        try:
            switch_over = await self.prepare(runtime)
        except BaseException:
            await runtime.close()
            raise
        self._runtimes.replace(runtime)
        switch_over()
        for on_reloaded in self._on_reloaded:
            on_reloaded(runtime)
        return Reloaded(
            outcome=ReloadOutcome.RELOADED,
            generation=runtime.number,
            changed=changed,
            opened=runtime.opened,
        )

    def _refused(self, exc: Exception) -> ReloadRefusedError:
        number = self._runtimes.current.number
        if isinstance(exc, GatewayError):
            why, details = exc.message, exc.details
            log.error("configuration not reloaded, generation %d goes on: %s", number, why)
        else:
            why, details = f"it failed unexpectedly ({type(exc).__name__}); the log says how", {}
            log.error("configuration not reloaded, generation %d goes on", number, exc_info=exc)
        return ReloadRefusedError(
            f"nothing was reloaded, generation {number} goes on: {why}",
            details={**details, "generation": number},
        )


async def _prepare_nothing(runtime: Runtime) -> Callable[[], None]:
    return lambda: None
