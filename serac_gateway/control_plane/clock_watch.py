"""What happens by the clock alone: proposals expire, and edits come due for review.

Every gateway looks; the store makes one event of it. Nothing is looked at that no webhook wants to know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from serac_gateway.config.model import WebhookEvent
from serac_gateway.control_plane.proposals import Proposals
from serac_gateway.control_plane.webhooks.dispatcher import Webhooks
from serac_gateway.control_plane.webhooks.events import review_event
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import DamagedRecordError, GatewayError
from serac_gateway.stores.base import EditStore

log = logging.getLogger(__name__)

INTERVAL_S = 60.0


async def watch_clock(
    webhooks: Webhooks,
    *,
    store: EditStore,
    active_edits: ActiveEdits,
    proposals: Callable[[], Proposals],
    interval_s: float = INTERVAL_S,
) -> None:
    """Look every `interval_s`, until cancelled. `proposals` gives those of the runtime in force."""
    while True:
        try:
            await look_once(webhooks, store=store, active_edits=active_edits, proposals=proposals())
        except GatewayError as error:
            log.warning("expired proposals and due reviews were not looked for: %s", error.message)
        except Exception:  # the top of this task: one that ends for good would go unnoticed
            log.exception("expired proposals and due reviews were not looked for")
        await asyncio.sleep(interval_s)


async def look_once(
    webhooks: Webhooks, *, store: EditStore, active_edits: ActiveEdits, proposals: Proposals
) -> None:
    """Close proposals that have expired, and announce what is due.

    A namespace with a damaged proposal keeps no other from it.

    Raises:
        StoreUnavailableError: The store failed.
    """
    today = datetime.now(UTC).date()
    namespaces = {*await store.namespaces(), *proposals.governed_namespaces}
    for namespace in sorted(namespaces):
        if webhooks.wants(WebhookEvent.REVIEW_DUE, namespace):
            due = active_edits.due(namespace, today)
            if due:
                webhooks.announce(review_event(namespace, due, today))
        if webhooks.wants(WebhookEvent.PROPOSAL_EXPIRED, namespace):
            try:
                await proposals.expire_due(namespace)
            except DamagedRecordError as error:
                log.warning("namespace %s: expired proposals stay open: %s", namespace, error.message)
