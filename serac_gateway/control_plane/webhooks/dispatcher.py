"""Sends events to the receivers of webhooks: bounded, retried, never in the way of what caused them.

`Webhooks.announce` puts an event into a short queue and returns. A task moves it to the outbox in the store,
from which a task for each webhook sends it, in this gateway or another one. An event is lost if the gateway
is killed before it is in the outbox, a moment after it happened, or if store or queue stay full; both are
counted. What is in the outbox is sent at least once, always under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from serac_gateway.control_plane.webhooks.events import Event, trial_event
from serac_gateway.control_plane.webhooks.sending import GONE, Attempt, Endpoint, send
from serac_gateway.errors import GatewayError, WebhookNotFoundError
from serac_gateway.stores.outbox import Added, Delivery, DeliveryState, WebhookOutbox

log = logging.getLogger(__name__)

PAUSES_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Between an attempt and the next: some three days in all, as Standard Webhooks suggests."""
MAX_UNSAVED = 1_000
"""Events, for one webhook each, that wait in memory for the store; further ones are dropped."""
_JITTER = 0.2
_AT_ONCE = 4
_LEASE_MARGIN_S = 30.0
_STORE_PAUSE_S = 1.0
_LAST_SAVE_S = 2.0


class WebhookOutcome(StrEnum):
    """What became of an event at an attempt, or before any."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    """An attempt failed, and another one will follow."""
    FAILED = "failed"
    """It was given up."""
    DROPPED = "dropped"
    """It was never sent: too many wait, the receiver wants no more, or the gateway ended first."""


SendEvent = Callable[[Endpoint, str, str], Awaitable[Attempt]]
"""Endpoint, event id and body; see `sending.send`."""


class WebhookState(msgspec.Struct, frozen=True, kw_only=True):
    """How a webhook stands in this gateway."""

    endpoint: Endpoint
    is_disabled: bool
    """The receiver answered 410; a reload sends to it again."""
    waiting: int
    """Events for it in the outbox."""
    unsaved: int
    """Events for it that this gateway has not put there yet."""


class Webhooks:
    """The webhooks of a gateway process. Belongs to one event loop."""

    def __init__(
        self,
        outbox: WebhookOutbox,
        *,
        on_outcome: Callable[[str, WebhookOutcome], None] = lambda name, outcome: None,
        on_waiting: Callable[[str, int], None] = lambda name, waiting: None,
        send: SendEvent = send,
        pauses_s: Sequence[float] = PAUSES_S,
        poll_s: float = 5.0,
    ) -> None:
        """`pauses_s` follow an attempt each, the last any further one.

        `poll_s`: how often to look for what another gateway left.
        """
        self._outbox = outbox
        self._on_outcome = on_outcome
        self._on_waiting = on_waiting
        self._send = send
        self._pauses_s = pauses_s
        self._poll_s = poll_s
        self._endpoints: dict[str, Endpoint] = {}
        self._disabled: set[str] = set()
        self._unsaved: deque[Delivery] = deque()
        self._saving: asyncio.Task[None] | None = None
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._wake: dict[str, asyncio.Event] = {}

    def announce(self, event: Event) -> None:
        """Send `event` to every webhook that wants it. Returns at once and never raises."""
        for endpoint in self._endpoints.values():
            if not endpoint.wants(event.type, event.namespace):
                continue
            if endpoint.name in self._disabled or len(self._unsaved) >= MAX_UNSAVED:
                self._drop(endpoint.name, event.type, "its receiver wants no more, or the store takes none")
                continue
            self._unsaved.append(
                Delivery(
                    event_id=event.id,
                    webhook=endpoint.name,
                    type=event.type,
                    namespace=event.namespace,
                    created_at=event.at,
                    body=event.body,
                )
            )
        if self._unsaved and (self._saving is None or self._saving.done()):
            self._saving = asyncio.ensure_future(self._save())

    def reconfigure(self, endpoints: Sequence[Endpoint]) -> None:
        """Send to these from now on, also to those whose receivers wanted no more."""
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._disabled.clear()
        for name in self._senders.keys() - self._endpoints.keys():
            self._senders.pop(name).cancel()
        for name in self._endpoints:
            self._wake.setdefault(name, asyncio.Event()).set()
            if name not in self._senders:
                self._senders[name] = asyncio.ensure_future(self._serve(name))

    def wants(self, event_type: str, namespace: str | None) -> bool:
        """Whether any webhook does whose receiver takes events."""
        return any(
            endpoint.wants(event_type, namespace)
            for name, endpoint in self._endpoints.items()
            if name not in self._disabled
        )

    async def states(self) -> list[WebhookState]:
        """All of them, by name.

        Raises:
            StoreUnavailableError: The store failed.
        """
        return [
            WebhookState(
                endpoint=endpoint,
                is_disabled=name in self._disabled,
                waiting=await self._outbox.waiting(name),
                unsaved=sum(delivery.webhook == name for delivery in self._unsaved),
            )
            for name, endpoint in sorted(self._endpoints.items())
        ]

    async def recent(self, name: str, *, limit: int) -> list[Delivery]:
        """Its latest events with what became of them, newest first.

        Raises:
            WebhookNotFoundError: There is no such webhook.
            StoreUnavailableError: The store failed.
        """
        return await self._outbox.recent(self._endpoint(name).name, limit=limit)

    async def test(self, name: str) -> tuple[Event, Attempt]:
        """Send it an event of its own, once and at once.

        Raises:
            WebhookNotFoundError: There is no such webhook.
        """
        event = trial_event(name)
        return event, await self._send(self._endpoint(name), event.id, event.body)

    async def close(self) -> None:
        """Stop sending; what is not in the store yet is put there, if that takes no more than moments."""
        for sender in self._senders.values():
            sender.cancel()
        await asyncio.gather(*self._senders.values(), return_exceptions=True)
        self._senders.clear()
        if self._saving is not None:
            await asyncio.wait([self._saving], timeout=_LAST_SAVE_S)
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
        for delivery in self._unsaved:
            self._drop(delivery.webhook, delivery.type, "the gateway ends, and the store did not answer")
        self._unsaved.clear()

    def _endpoint(self, name: str) -> Endpoint:
        if name not in self._endpoints:
            known = ", ".join(sorted(self._endpoints)) or "none"
            raise WebhookNotFoundError(
                f"there is no webhook {name[:80]!r}; configured are: {known}", field="name"
            )
        return self._endpoints[name]

    def _drop(self, name: str, event_type: str, why: str) -> None:
        self._on_outcome(name, WebhookOutcome.DROPPED)
        log.warning("webhook %s: an event %s is not sent: %s", name, event_type, why)

    async def _save(self) -> None:
        """Move what waits in memory to the outbox, in order."""
        while self._unsaved:
            delivery = self._unsaved[0]
            endpoint = self._endpoints.get(delivery.webhook)
            if endpoint is None:
                self._unsaved.popleft()
                self._drop(delivery.webhook, delivery.type, "it is not configured any more")
                continue
            limit = endpoint.config.max_waiting
            try:
                added = await self._outbox.add(delivery, max_waiting=limit)
            except GatewayError:
                await asyncio.sleep(_STORE_PAUSE_S)
                continue
            self._unsaved.popleft()
            if added is Added.FULL:
                self._drop(delivery.webhook, delivery.type, f"{limit:,} wait for its receiver already")
            elif added is Added.ADDED:
                self._wake[delivery.webhook].set()

    async def _serve(self, name: str) -> None:
        """Send what is due of one webhook, as long as it is configured."""
        wake = self._wake[name]
        while True:
            wake.clear()
            pause_s = self._poll_s
            if name not in self._disabled:
                try:
                    pause_s = await self._send_due(self._endpoints[name])
                except GatewayError as error:
                    log.warning("webhook %s: nothing is sent: %s", name, error.message)
                except Exception:  # the top of this task: a webhook that stops for good would go unnoticed
                    log.exception("webhook %s: sending failed", name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await wake.wait()

    async def _send_due(self, endpoint: Endpoint) -> float:
        """Send some of what is due, and return after how many seconds to look again."""
        lease_s = endpoint.config.timeout_s + _LEASE_MARGIN_S
        claimed = await self._outbox.claim(endpoint.name, limit=_AT_ONCE, lease_s=lease_s)
        self._on_waiting(endpoint.name, claimed.waiting)
        if not claimed.deliveries:
            next_s = self._poll_s if claimed.next_in_s is None else claimed.next_in_s
            return min(self._poll_s, max(0.01, next_s))
        await asyncio.gather(*(self._deliver(endpoint, delivery) for delivery in claimed.deliveries))
        return 0.0

    async def _deliver(self, endpoint: Endpoint, delivery: Delivery) -> None:
        attempt = await self._send(endpoint, delivery.event_id, delivery.body)
        tried = msgspec.structs.replace(
            delivery,
            attempts=delivery.attempts + 1,
            status=attempt.status,
            problem=attempt.problem,
            last_at=datetime.now(UTC),
        )
        try:
            await self._note(endpoint, tried)
        except GatewayError as error:
            # The lease ends, and some gateway sends it again under the same id.
            log.warning("webhook %s: the outcome was not kept: %s", endpoint.name, error.message)

    async def _note(self, endpoint: Endpoint, tried: Delivery) -> None:
        name, words = endpoint.name, (endpoint.name, tried.type, tried.event_id)
        if tried.problem is None:
            self._on_outcome(name, WebhookOutcome.DELIVERED)
            await self._outbox.end(msgspec.structs.replace(tried, state=DeliveryState.DELIVERED))
            return
        if tried.status == GONE:
            self._disabled.add(name)
        if tried.status == GONE or tried.attempts >= endpoint.config.max_attempts:
            self._on_outcome(name, WebhookOutcome.FAILED)
            log.error("webhook %s: event %s (%s) is given up: %s", *words, tried.problem)
            await self._outbox.end(msgspec.structs.replace(tried, state=DeliveryState.FAILED))
            return
        self._on_outcome(name, WebhookOutcome.RETRIED)
        pause_s = self._pauses_s[min(tried.attempts, len(self._pauses_s)) - 1]
        pause_s *= 1 + random.uniform(-_JITTER, _JITTER)  # so that events that failed together part
        log.warning("webhook %s: event %s (%s) is sent again in %.0f s: %s", *words, pause_s, tried.problem)
        await self._outbox.postpone(tried, pause_s=pause_s)
