"""The outbox of webhooks in memory: what waits ends with the process."""

from __future__ import annotations

import time
from collections import defaultdict, deque

import msgspec
from typing_extensions import override

from serac_gateway.stores.outbox import (
    MAX_ENDED,
    MAX_REMEMBERED,
    Added,
    Claimed,
    Delivery,
    WebhookOutbox,
    newest_first,
)


class _Box:
    def __init__(self) -> None:
        self.waiting: dict[str, tuple[float, Delivery]] = {}
        """By event id, with the time at which it is due."""
        self.known: dict[str, None] = {}
        self.ended: deque[Delivery] = deque(maxlen=MAX_ENDED)


class InMemoryWebhookOutbox(WebhookOutbox):
    """Keeps deliveries until it is garbage collected."""

    def __init__(self) -> None:
        self._boxes: defaultdict[str, _Box] = defaultdict(_Box)

    @override
    async def add(self, delivery: Delivery, *, max_waiting: int) -> Added:
        box = self._boxes[delivery.webhook]
        if delivery.event_id in box.known:
            return Added.KNOWN
        if len(box.waiting) >= max_waiting:
            return Added.FULL
        box.known[delivery.event_id] = None
        if len(box.known) > MAX_REMEMBERED:
            del box.known[next(iter(box.known))]
        box.waiting[delivery.event_id] = time.time(), delivery
        return Added.ADDED

    @override
    async def claim(self, webhook: str, *, limit: int, lease_s: float) -> Claimed:
        waiting, now_s = self._boxes[webhook].waiting, time.time()
        due = sorted((due_s, event_id) for event_id, (due_s, _) in waiting.items() if due_s <= now_s)[:limit]
        claimed = [waiting[event_id][1] for _, event_id in due]
        for delivery in claimed:
            waiting[delivery.event_id] = now_s + lease_s, delivery
        first_s = min((due_s for due_s, _ in waiting.values()), default=None)
        return Claimed(
            deliveries=claimed,
            waiting=len(waiting),
            next_in_s=None if first_s is None else max(0.0, first_s - now_s),
        )

    @override
    async def postpone(self, delivery: Delivery, *, pause_s: float) -> None:
        waiting = self._boxes[delivery.webhook].waiting
        if delivery.event_id in waiting:
            waiting[delivery.event_id] = time.time() + pause_s, delivery

    @override
    async def end(self, delivery: Delivery) -> None:
        box = self._boxes[delivery.webhook]
        if box.waiting.pop(delivery.event_id, None) is not None:
            box.ended.append(msgspec.structs.replace(delivery, body=""))

    @override
    async def recent(self, webhook: str, *, limit: int) -> list[Delivery]:
        box = self._boxes[webhook]
        return newest_first([*box.ended, *(delivery for _, delivery in box.waiting.values())], limit)

    @override
    async def waiting(self, webhook: str) -> int:
        return len(self._boxes[webhook].waiting)
