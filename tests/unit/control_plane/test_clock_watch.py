"""What the clock brings: a fault in one place keeps it from no other."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from serac_gateway.control_plane.clock_watch import look_once, watch_clock
from serac_gateway.control_plane.proposals import Proposals
from serac_gateway.control_plane.webhooks.dispatcher import Webhooks
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import DamagedRecordError
from serac_gateway.stores.memory.outbox import InMemoryWebhookOutbox
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.webhook_endpoints import endpoint_at


class LookedAt:
    """In the place of the proposals of three namespaces, of which some cannot be read."""

    governed_namespaces = ("a", "b", "c")

    def __init__(self, **faults: Exception) -> None:
        self.faults = faults
        self.namespaces: list[str] = []

    async def expire_due(self, namespace: str) -> int:
        self.namespaces.append(namespace)
        if (fault := self.faults.get(namespace)) is not None:
            raise fault
        return 0


class NothingDue:
    def due(self, namespace: str, today: object) -> list[object]:
        return []


def webhooks() -> Webhooks:
    made = Webhooks(InMemoryWebhookOutbox())
    made.reconfigure([endpoint_at("http://hooks.test", events=["proposal.expired", "review.due"])])
    return made


def looking(made: Webhooks, proposals: LookedAt) -> dict[str, Any]:
    return {
        "webhooks": made,
        "store": InMemoryEditStore(),
        "active_edits": cast("ActiveEdits", NothingDue()),
        "proposals": cast("Proposals", proposals),
    }


async def test_a_damaged_proposal_keeps_no_other_namespace_from_its_expiries() -> None:
    made, proposals = webhooks(), LookedAt(a=DamagedRecordError("the record of a proposal is damaged"))
    await look_once(**looking(made, proposals))
    assert proposals.namespaces == ["a", "b", "c"]
    await made.close()


async def test_it_goes_on_after_a_fault_that_nobody_foresaw() -> None:
    made, proposals = webhooks(), LookedAt(a=RuntimeError("a bug"))
    given = looking(made, proposals) | {"proposals": lambda: cast("Proposals", proposals)}
    watching = asyncio.ensure_future(watch_clock(**given, interval_s=0.01))
    async with asyncio.timeout(10):
        while len(proposals.namespaces) < 3:
            await asyncio.sleep(0.005)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await made.close()
