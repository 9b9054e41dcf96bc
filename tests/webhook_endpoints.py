"""Webhooks for tests: endpoints on this machine, and a receiver that records what it is sent."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from serac_gateway.config.model import WebhookConfig
from serac_gateway.control_plane.webhooks.sending import Attempt, Endpoint, open_endpoints
from serac_gateway.stores.proposals import Proposal, ProposalState, new_proposal_id

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
LOOPBACK = ("127.0.0.1", 0)


def endpoint_at(url: str, *, name: str = "audit", secrets: str = SECRET, **fields: object) -> Endpoint:
    """An endpoint that may be on this machine."""
    config = msgspec.convert({"url": url, "allowed_networks": ["127.0.0.0/8"], **fields}, WebhookConfig)
    (endpoint,) = open_endpoints(
        {name: config}, {f"SERAC_WEBHOOK_SECRET_{name.upper().replace('-', '_')}": secrets}
    )
    return endpoint


@dataclass
class RecordingReceiver:
    """In the place of `sending.send`: answers with the scripted statuses, then with 200."""

    statuses: deque[int | None] = field(default_factory=deque)
    events: list[dict[str, Any]] = field(default_factory=list)
    """The bodies, in the order of the attempts."""
    ids: list[str] = field(default_factory=list)

    async def __call__(self, endpoint: Endpoint, event_id: str, body: str) -> Attempt:
        self.events.append(json.loads(body))
        self.ids.append(event_id)
        await asyncio.sleep(0)
        status = self.statuses.popleft() if self.statuses else 200
        return Attempt(status=status, problem=None if status == 200 else f"status {status}")

    def wait_for(self, event_type: str, *, within_s: float = 10.0) -> dict[str, Any]:
        """The first event of that type, for tests whose gateway runs on another thread."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            for event in list(self.events):
                if event["type"] == event_type:
                    return event
            time.sleep(0.01)
        raise AssertionError(f"no event {event_type!r} among {[event['type'] for event in self.events]}")

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


def proposal(**fields: object) -> Proposal:
    now = datetime.now(UTC)
    return msgspec.structs.replace(
        Proposal(
            id=new_proposal_id(),
            namespace="legal",
            revision=1,
            state=ProposalState.OPEN,
            action="add",
            edit_ids=("one",),
            author="Ann (key k1)",
            owner="ann",
            reason="The patient asked for it",
            created_at=now,
            expires_at=now + timedelta(days=1),
        ),
        **fields,
    )
