"""Receivers of events in a diagnosis: secrets, addresses, and the last attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from serac_gateway.config.model import GatewayConfig, WebhookConfig
from serac_gateway.doctor.findings import Level
from serac_gateway.doctor.webhooks import delivery_findings, target_findings
from serac_gateway.stores.memory.outbox import InMemoryWebhookOutbox
from serac_gateway.stores.outbox import Delivery, DeliveryState
from tests.webhook_endpoints import SECRET

CONFIG = GatewayConfig(webhooks={"audit": WebhookConfig(url="https://hooks.example.org/t0ken")})
WITH_SECRET = {"SERAC_WEBHOOK_SECRET_AUDIT": SECRET}


async def public(host: str, port: int) -> Sequence[str]:
    return ["93.184.216.34"]


async def private(host: str, port: int) -> Sequence[str]:
    return ["93.184.216.34", "10.0.0.7"]


async def nowhere(host: str, port: int) -> Sequence[str]:
    raise OSError("Name or service not known")


async def test_a_webhook_is_fine_with_a_secret_and_public_addresses() -> None:
    (finding,) = await target_findings(CONFIG, WITH_SECRET, resolve=public)
    assert finding.level is Level.OK
    assert "https://hooks.example.org:443" in finding.detail
    assert "t0ken" not in finding.detail
    assert await target_findings(GatewayConfig(), {}) == []


async def test_a_missing_secret_and_a_private_address_fail_and_an_unknown_host_warns() -> None:
    (no_secret,) = await target_findings(CONFIG, {}, resolve=public)
    (inside,) = await target_findings(CONFIG, WITH_SECRET, resolve=private)
    (unknown,) = await target_findings(CONFIG, WITH_SECRET, resolve=nowhere)
    assert [finding.level for finding in (no_secret, inside, unknown)] == [Level.FAIL, Level.FAIL, Level.WARN]
    assert "SERAC_WEBHOOK_SECRET_AUDIT" in str(no_secret.remedy)
    assert "10.0.0.7, which is no public address" in inside.detail
    assert "cannot be resolved" in unknown.detail


async def test_a_last_attempt_that_failed_warns_until_one_arrives() -> None:
    outbox, at = InMemoryWebhookOutbox(), datetime.now(UTC)
    made = Delivery(
        event_id="evt_1", webhook="audit", type="x", namespace=None, created_at=at, attempts=2, last_at=at,
        problem="status 500",
    )  # fmt: skip
    assert await delivery_findings(CONFIG, outbox) == []
    await outbox.add(made, max_waiting=9)
    (finding,) = await delivery_findings(CONFIG, outbox)
    assert finding.level is Level.WARN
    assert "status 500" in finding.detail
    assert "1 events wait" in finding.detail
    later = msgspec.structs.replace(made, event_id="evt_2", last_at=at + timedelta(seconds=1), problem=None)
    await outbox.add(later, max_waiting=9)
    await outbox.end(msgspec.structs.replace(later, state=DeliveryState.DELIVERED))
    assert await delivery_findings(CONFIG, outbox) == []
