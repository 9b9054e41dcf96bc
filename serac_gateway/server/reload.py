"""Takes up a changed configuration, or changed weights, while the gateway serves: all of it, or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from serac_gateway.config.diff import Reloaded, ReloadOutcome, changed_keys, check_no_restart_needed
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import GatewayError, ReloadRefusedError
from serac_gateway.observability.logging import FIELDS
from serac_gateway.observability.metrics import Instruments
from serac_gateway.server.runtime import Generation, Generations

log = logging.getLogger(__name__)

ReadConfig = Callable[[], GatewayConfig]
"""Reads the configuration again from where it came from. Raises ConfigError."""
OpenGeneration = Callable[[int, GatewayConfig], Awaitable[Generation]]
"""Opens the generation of that number, whole or not at all. Raises GatewayError."""
OnReloaded = Callable[[Generation], None]
"""Told that a generation is in force; it must be quick and must not fail."""

Prepare = Callable[[Generation], Awaitable[Callable[[], None]]]
"""Makes what serves ready for a generation. Raises GatewayError: the reload is refused then."""


class Reloader:
    """Reloads, one reload at a time: a second one waits for the first. Belongs to one event loop."""

    def __init__(
        self,
        *,
        generations: Generations,
        read_config: ReadConfig,
        open_generation: OpenGeneration,
        instruments: Instruments,
        on_reloaded: Sequence[OnReloaded] = (),
    ) -> None:
        """`on_reloaded` are called in order, before any request begins in the new generation."""
        self._generations = generations
        self._read_config = read_config
        self._open_generation = open_generation
        self._instruments = instruments
        self._on_reloaded = on_reloaded
        self.prepare: Prepare = _prepare_nothing
        """Called with each generation before it is in force; what it gives is called once it is."""
        self._lock = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """Read the configuration and the files it names again, and put what changed in force.

        Raises:
            ReloadRefusedError: It cannot be read or used, or needs a restart; everything stays as it is.
        """
        async with self._lock:
            try:
                reloaded = await self._reload()
            except Exception as exc:
                self._instruments.add_reload(ReloadOutcome.REFUSED)
                raise self._refused(exc) from exc
            self._instruments.add_reload(reloaded.outcome)
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
        before = self._generations.current
        config = await asyncio.to_thread(self._read_config)
        changed = changed_keys(before.config, config)
        check_no_restart_needed(before.config, config)
        generation = await self._open_generation(before.number + 1, config)
        if not changed and not generation.opened:
            await generation.close()
            return Reloaded(outcome=ReloadOutcome.UNCHANGED, generation=before.number)
        try:
            take_over = await self.prepare(generation)
        except BaseException:
            await generation.close()
            raise
        self._generations.put_in_force(generation)
        take_over()
        for told in self._on_reloaded:
            told(generation)
        return Reloaded(
            outcome=ReloadOutcome.RELOADED,
            generation=generation.number,
            changed=changed,
            opened=generation.opened,
        )

    def _refused(self, exc: Exception) -> ReloadRefusedError:
        number = self._generations.current.number
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


async def _prepare_nothing(generation: Generation) -> Callable[[], None]:
    return lambda: None
