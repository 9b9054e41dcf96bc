"""The values that must not pass to or from the base model, and the patterns made of them, by namespace."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import msgspec

from serac_gateway.config.model import FailurePolicy, RoutingConfig, SuppressionConfig
from serac_gateway.data_plane.engine import Engine, NeedsDecision
from serac_gateway.data_plane.guard.patterns import ExactValues, Patterns, exact_values, patterns_of
from serac_gateway.domain.audiences import Caller
from serac_gateway.errors import GatewayError
from serac_gateway.routing.guarded_values import GuardedValue, GuardedValues

log = logging.getLogger(__name__)


class ValueGuard(msgspec.Struct, frozen=True, kw_only=True):
    """What a request and its reply must not hold: the values of the suppressions in force when it is sent."""

    values: tuple[GuardedValue, ...]
    patterns: Patterns
    """Of all values but the exact ones."""
    exact: ExactValues
    """Of the others."""
    watches: bool = True
    """Whether the reply is watched for them."""
    redacts: bool = True
    """Whether they are taken out of the request."""


class ValueGuards:
    """Belongs to one event loop."""

    def __init__(self, engine: Engine, config: SuppressionConfig, routing: RoutingConfig) -> None:
        self._engine = engine
        self._config = config
        self._routing = routing
        self._built: dict[str, tuple[GuardedValues, ValueGuard]] = {}
        self._building = asyncio.Lock()

    async def of(self, namespace: str, caller: Caller) -> ValueGuard | None:
        """The guard of a request of `caller` that is sent now; None: nothing is kept back.

        Raises:
            ModelUnavailableError: What is suppressed is not known, and the policy is to refuse.
        """
        if self._engine.needs_decision(namespace) is not NeedsDecision.SUPPRESSIONS:
            return None
        watches = self._config.guards_replies_of(namespace)
        redacts = self._config.redacts_requests_of(namespace)
        if not (watches or redacts):
            return None
        try:
            guard = await self._current(namespace)
        except GatewayError as error:
            if self._routing.on_failure_of(namespace, suppressions=True) is FailurePolicy.CLOSED:
                raise
            log.warning("a request and its reply pass unguarded: %s", error.message)
            return None
        now = datetime.now(UTC)
        ignored = frozenset(
            place for place, value in enumerate(guard.values) if not value.applies(now, caller)
        )
        if len(ignored) == len(guard.values):
            return None
        return msgspec.structs.replace(
            guard,
            patterns=guard.patterns.without(ignored) if ignored else guard.patterns,
            exact=guard.exact.without(ignored) if ignored else guard.exact,
            watches=watches and not guard.values[0].is_exact,
            redacts=redacts,
        )

    async def _current(self, namespace: str) -> ValueGuard:
        known = self._built.get(namespace)
        values = await self._engine.guarded_values(namespace, known[0] if known else None)
        if known is not None and values is known[0]:
            return known[1]
        async with self._building:
            known = self._built.get(namespace)
            if known is not None and known[0].version == values.version:
                return known[1]
            texts = [value.value for value in values.values if not value.is_exact]
            patterns = await asyncio.to_thread(patterns_of, texts)
            exact = exact_values(
                (value.value, place) for place, value in enumerate(values.values) if value.is_exact
            )
            guard = ValueGuard(values=values.values, patterns=patterns, exact=exact)
            self._built[namespace] = (values, guard)
        return guard
