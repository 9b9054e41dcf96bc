"""Events on their way: retried, bounded, never lost silently, never in the way."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from serac_gateway.control_plane.webhooks import dispatcher
from serac_gateway.control_plane.webhooks.dispatcher import WebhookOutcome, Webhooks
from serac_gateway.control_plane.webhooks.events import Event, reload_event, trial_event
from serac_gateway.control_plane.webhooks.sending import Attempt, Endpoint
from serac_gateway.errors import StoreUnavailableError, WebhookNotFoundError
from serac_gateway.stores.memory.outbox import InMemoryWebhookOutbox
from serac_gateway.stores.outbox import Added, Claimed, Delivery, DeliveryState
from tests.webhook_endpoints import RecordingReceiver, endpoint_at


class LosableOutbox(InMemoryWebhookOutbox):
    """Does not answer while it is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False

    @override
    async def add(self, delivery: Delivery, *, max_waiting: int) -> Added:
        self._check()
        return await super().add(delivery, max_waiting=max_waiting)

    @override
    async def claim(self, webhook: str, *, limit: int, lease_s: float) -> Claimed:
        self._check()
        return await super().claim(webhook, limit=limit, lease_s=lease_s)

    def _check(self) -> None:
        if self.lost:
            raise StoreUnavailableError("the store is lost")


class Sending:
    """The dispatcher under test, its receiver, and the outcomes that it counted."""

    def __init__(self, outbox: InMemoryWebhookOutbox, receiver: RecordingReceiver) -> None:
        self.outbox = outbox
        self.receiver = receiver
        self.outcomes: Counter[WebhookOutcome] = Counter()
        self.webhooks = Webhooks(
            outbox,
            on_outcome=lambda name, outcome: self.outcomes.update([outcome]),
            send=receiver,
            pauses_s=(0.01,),
            poll_s=0.05,
        )


@asynccontextmanager
async def sending(
    *endpoints: Endpoint, statuses: tuple[int | None, ...] = (), outbox: InMemoryWebhookOutbox | None = None
) -> AsyncIterator[Sending]:
    made = Sending(outbox or InMemoryWebhookOutbox(), RecordingReceiver(deque(statuses)))
    made.webhooks.reconfigure(endpoints or [endpoint_at("http://hooks.test")])
    yield made
    await made.webhooks.close()


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while True:
            outcome = condition()
            if outcome if isinstance(outcome, bool) else await outcome:
                return
            await asyncio.sleep(0.005)


def event(number: int = 0) -> Event:
    return reload_event(generation=number, gateway="here", changed=[])


async def test_an_event_is_sent_again_under_its_id_until_it_is_taken() -> None:
    async with sending(statuses=(500, None, 302)) as made:
        sent = event()
        made.webhooks.announce(sent)
        await until(lambda: made.outcomes[WebhookOutcome.DELIVERED] == 1)
        assert made.receiver.ids == [sent.id] * 4
        assert made.outcomes[WebhookOutcome.RETRIED] == 3
        (delivery,) = await made.webhooks.recent("audit", limit=10)
        assert (delivery.state, delivery.attempts, delivery.status) == (DeliveryState.DELIVERED, 4, 200)
        assert delivery.body == ""


async def test_after_its_last_attempt_it_is_given_up_and_counted() -> None:
    endpoint = endpoint_at("http://hooks.test", max_attempts=3)
    async with sending(endpoint, statuses=(500,) * 3) as made:
        made.webhooks.announce(event())
        await until(lambda: made.outcomes[WebhookOutcome.FAILED] == 1)
        assert len(made.receiver.ids) == 3
        (delivery,) = await made.webhooks.recent("audit", limit=10)
        assert (delivery.state, delivery.problem) == (DeliveryState.FAILED, "status 500")
        assert await made.outbox.waiting("audit") == 0


async def test_410_stops_a_webhook_until_a_reload_and_keeps_what_waits() -> None:
    async with sending(statuses=(410,)) as made:
        made.webhooks.announce(event())
        await until(lambda: made.outcomes[WebhookOutcome.FAILED] == 1)
        assert [state.is_disabled for state in await made.webhooks.states()] == [True]
        assert not made.webhooks.wants("review.due", "legal")  # or each look at the clock would drop one
        made.webhooks.announce(event())
        assert made.outcomes[WebhookOutcome.DROPPED] == 1
        waiting = Delivery(
            event_id="evt_w", webhook="audit", type="x", namespace=None, created_at=event().at, body="{}"
        )
        await made.outbox.add(waiting, max_waiting=9)
        await asyncio.sleep(0.2)
        assert len(made.receiver.ids) == 1
        made.webhooks.reconfigure([endpoint_at("http://hooks.test")])
        await until(lambda: made.outcomes[WebhookOutcome.DELIVERED] == 1)
        assert made.receiver.ids[-1] == "evt_w"


async def test_a_full_outbox_and_a_full_queue_drop_and_count_and_never_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = endpoint_at("http://hooks.test", max_waiting=2)
    async with sending(endpoint, statuses=(500,) * 1_000) as made:
        for number in range(5):
            made.webhooks.announce(event(number))
        await until(lambda: made.outcomes[WebhookOutcome.DROPPED] == 3)
    monkeypatch.setattr(dispatcher, "MAX_UNSAVED", 10)
    outbox = LosableOutbox()
    outbox.lost = True
    async with sending(outbox=outbox) as made:
        for number in range(15):
            made.webhooks.announce(event(number))
        assert made.outcomes[WebhookOutcome.DROPPED] == 5


async def test_while_the_store_is_lost_events_wait_and_then_arrive_in_order() -> None:
    outbox = LosableOutbox()
    outbox.lost = True
    async with sending(outbox=outbox) as made:
        for number in range(3):
            made.webhooks.announce(event(number))
        await asyncio.sleep(0.1)
        assert made.receiver.ids == []
        outbox.lost = False
        await until(lambda: made.outcomes[WebhookOutcome.DELIVERED] == 3)
        assert [sent["data"]["generation"] for sent in made.receiver.events] == [0, 1, 2]


async def test_what_the_store_never_took_is_counted_as_lost_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "_LAST_SAVE_S", 0.05)
    outbox = LosableOutbox()
    outbox.lost = True
    async with sending(outbox=outbox) as made:
        made.webhooks.announce(event())
    assert made.outcomes == {WebhookOutcome.DROPPED: 1}


async def test_an_ordinary_end_keeps_what_was_announced_a_moment_before() -> None:
    outbox = InMemoryWebhookOutbox()
    async with sending(outbox=outbox, statuses=(500,) * 100) as made:
        made.webhooks.announce(event())
    assert await outbox.waiting("audit") == 1
    async with sending(outbox=outbox) as after:  # the next start sends it
        await asyncio.sleep(0)
        await until(lambda: after.outcomes[WebhookOutcome.DELIVERED] == 1)
        assert after.receiver.ids == made.receiver.ids[:1] or made.receiver.ids == []


async def test_two_gateways_on_one_outbox_send_an_event_once() -> None:
    outbox = InMemoryWebhookOutbox()
    async with sending(outbox=outbox) as first, sending(outbox=outbox) as second:
        for number in range(50):
            first.webhooks.announce(event(number))
        same = event(50)
        first.webhooks.announce(same)
        second.webhooks.announce(same)  # both noticed it
        delivered = WebhookOutcome.DELIVERED
        await until(lambda: first.outcomes[delivered] + second.outcomes[delivered] == 51)
        await asyncio.sleep(0.2)
        assert Counter([*first.receiver.ids, *second.receiver.ids]).most_common(1)[0][1] == 1


async def test_a_slow_receiver_keeps_no_other_waiting() -> None:
    stalled = asyncio.Event()
    receiver = RecordingReceiver()

    async def stall_one(endpoint: Endpoint, event_id: str, body: str) -> Attempt:
        if endpoint.name == "slow":
            await stalled.wait()
        return await receiver(endpoint, event_id, body)

    webhooks = Webhooks(InMemoryWebhookOutbox(), send=stall_one, poll_s=0.05)
    webhooks.reconfigure(
        [endpoint_at("http://a.test", name="slow"), endpoint_at("http://b.test", name="quick")]
    )
    webhooks.announce(event())
    await until(lambda: len(receiver.ids) == 1)
    stalled.set()
    await until(lambda: len(receiver.ids) == 2)
    await webhooks.close()


async def test_only_what_a_webhook_wants_is_sent_to_it() -> None:
    endpoints = [
        endpoint_at("http://a.test", name="one", events=["config.reloaded"]),
        endpoint_at("http://b.test", name="two", events=["proposal.opened"]),
        endpoint_at("http://c.test", name="three", namespaces=["legal"]),
    ]
    async with sending(*endpoints) as made:
        made.webhooks.announce(event())  # of no single namespace
        await until(lambda: made.outcomes[WebhookOutcome.DELIVERED] == 1)
        await asyncio.sleep(0.05)
        assert [bool(await made.webhooks.recent(name, limit=1)) for name in ("one", "two", "three")] == [
            True,
            False,
            False,
        ]
        assert made.webhooks.wants("review.due", "legal")
        assert not made.webhooks.wants("review.due", "other")


async def test_a_trial_is_sent_at_once_and_a_name_that_is_none_is_refused() -> None:
    async with sending(statuses=(503,)) as made:
        sent, attempt = await made.webhooks.test("audit")
        assert (sent.type, attempt.problem) == ("webhook.test", "status 503")
        with pytest.raises(WebhookNotFoundError, match="configured are: audit"):
            await made.webhooks.test("other")


async def test_a_webhook_that_a_reload_removed_gets_nothing_more() -> None:
    async with sending(statuses=(500,) * 1_000) as made:
        made.webhooks.announce(event())
        await until(lambda: len(made.receiver.ids) > 0)
        made.webhooks.reconfigure([])
        made.webhooks.announce(trial_event("audit"))
        await asyncio.sleep(0.05)
        sent = len(made.receiver.ids)
        await asyncio.sleep(0.2)
        assert len(made.receiver.ids) == sent
