"""The guards of replies: which values they look for, and the patterns made of them, by namespace."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import msgspec

from serac_gateway.config.model import FailurePolicy, RoutingConfig, SuppressionConfig
from serac_gateway.data_plane.engine import Engine, NeedsDecision
from serac_gateway.data_plane.guard.patterns import Patterns, patterns_of
from serac_gateway.errors import GatewayError
from serac_gateway.routing.guarded_values import GuardedValue, GuardedValues

log = logging.getLogger(__name__)


class ReplyGuard(msgspec.Struct, frozen=True, kw_only=True):
    """What the reply to one request is watched for: the suppressions in force when it was sent."""

    values: tuple[GuardedValue, ...]
    patterns: Patterns


class ReplyGuards:
    """Belongs to one event loop."""

    def __init__(self, engine: Engine, config: SuppressionConfig, routing: RoutingConfig) -> None:
        self._engine = engine
        self._config = config
        self._routing = routing
        self._built: dict[str, tuple[GuardedValues, ReplyGuard]] = {}
        self._building = asyncio.Lock()

    async def of(self, namespace: str, caller: str) -> ReplyGuard | None:
        """The guard of a request of `caller` that is sent now; None: nothing is watched for.

        Raises:
            ModelUnavailableError: What is suppressed is not known, and the policy is to refuse.
        """
        if self._engine.needs_decision(namespace) is not NeedsDecision.SUPPRESSIONS:
            return None
        if not self._config.guards_replies_of(namespace):
            return None
        try:
            guard = await self._current(namespace)
        except GatewayError as error:
            if self._routing.on_failure_of(namespace, suppressions=True) is FailurePolicy.CLOSED:
                raise
            log.warning("the reply of a request passes unguarded: %s", error.message)
            return None
        now = datetime.now(UTC)
        ignored = frozenset(
            place for place, value in enumerate(guard.values) if not value.applies(now, caller)
        )
        if len(ignored) == len(guard.values):
            return None
        if ignored:
            return msgspec.structs.replace(guard, patterns=guard.patterns.without(ignored))
        return guard

    async def _current(self, namespace: str) -> ReplyGuard:
        known = self._built.get(namespace)
        values = await self._engine.guarded_values(namespace, known[0] if known else None)
        if known is not None and values is known[0]:
            return known[1]
        async with self._building:
            known = self._built.get(namespace)
            if known is not None and known[0].version == values.version:
                return known[1]
            texts = [value.value for value in values.values]
            patterns = await asyncio.to_thread(patterns_of, texts)
            guard = ReplyGuard(values=values.values, patterns=patterns)
            self._built[namespace] = (values, guard)
        return guard
