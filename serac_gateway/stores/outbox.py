"""The outbox of webhooks: events that wait in the store for their receivers, and the last that ended.

Every gateway of the store may send what waits. Whoever claims an event has it alone for a while; if that
gateway ends meanwhile, another one sends it again, under the same id.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from serac_gateway.domain.edits import AwareDatetime

MAX_ENDED = 500
"""Ended deliveries that are kept of a webhook, the latest."""
MAX_REMEMBERED = 10_000
"""Events of a webhook that are known again when they are added a second time, the latest."""
KEPT_S = 7 * 86_400
"""How long after its last event what is kept of a webhook stays."""


class DeliveryState(StrEnum):
    """What has become of an event for one receiver."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up after its last attempt, or because the receiver wants no more."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way to one webhook."""

    event_id: str
    """The header webhook-id: the same for every attempt and every receiver."""
    webhook: str
    type: str
    namespace: str | None
    """None: it concerns no single one."""
    created_at: AwareDatetime
    body: str = ""
    """What is sent, and signed, byte for byte; "" once it has ended."""
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    """Those that have ended."""
    status: int | None = None
    """Of the last response; None: there was none."""
    problem: str | None = None
    """Why the last attempt failed."""
    last_at: AwareDatetime | None = None
    """When it was."""


class Added(StrEnum):
    """The outcome of adding a delivery."""

    ADDED = "added"
    KNOWN = "known"
    """The webhook was given an event of this id before."""
    FULL = "full"
    """As many wait as may."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway has to send now."""

    deliveries: Sequence[Delivery]
    """Oldest first."""
    waiting: int
    """How many of the webhook wait in all, these included."""
    next_in_s: float | None
    """When the next one is due, 0 or more; None: none waits."""


class WebhookOutbox(ABC):
    """The outboxes of all webhooks, by their names.

    Task-safe. Every method raises StoreUnavailableError when the server cannot be reached. Times are the
    server's, so gateways whose clocks differ agree on what is due.
    """

    @abstractmethod
    async def add(self, delivery: Delivery, *, max_waiting: int) -> Added:
        """Keep it, due at once, unless it is known or `max_waiting` wait. Adding it again does no harm."""

    @abstractmethod
    async def claim(self, webhook: str, *, limit: int, lease_s: float) -> Claimed:
        """At most `limit` that are due; none of them is due again for `lease_s`."""

    @abstractmethod
    async def postpone(self, delivery: Delivery, *, pause_s: float) -> None:
        """Put it in the place of the one of its id, due in `pause_s`; nothing if that has ended."""

    @abstractmethod
    async def end(self, delivery: Delivery) -> None:
        """Take it out, and list it among those that ended, without its body."""

    @abstractmethod
    async def recent(self, webhook: str, *, limit: int) -> list[Delivery]:
        """Those that wait and the latest that ended, newest first by their creation, at most `limit`."""

    @abstractmethod
    async def waiting(self, webhook: str) -> int:
        """How many wait."""


def newest_first(deliveries: Sequence[Delivery], limit: int) -> list[Delivery]:
    """Of each id the last state, newest first, without bodies."""
    last = {delivery.event_id: msgspec.structs.replace(delivery, body="") for delivery in deliveries}
    return sorted(last.values(), key=lambda delivery: (delivery.created_at, delivery.event_id), reverse=True)[
        :limit
    ]
