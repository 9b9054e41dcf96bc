"""Receivers of events: a secret for each, addresses that may be called, and events that arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from serac_gateway.config.model import GatewayConfig, webhook_secret_variable
from serac_gateway.config.webhook_targets import webhook_target
from serac_gateway.control_plane.webhooks.sending import Resolve, allowed_addresses, system_addresses
from serac_gateway.control_plane.webhooks.signing import webhook_secrets
from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.errors import ConfigError
from serac_gateway.stores.outbox import DeliveryState, WebhookOutbox

_TIMEOUT_S = 5.0
_LOOKED_AT = 50


async def target_findings(
    config: GatewayConfig, environment: Mapping[str, str], *, resolve: Resolve = system_addresses
) -> list[Finding]:
    """Whether each webhook has a secret and leads where events may go. Nothing is sent."""
    findings = []
    for name, webhook in config.webhooks.items():
        target = webhook_target(name, webhook)
        try:
            secrets = webhook_secrets(name, environment)
        except ConfigError as error:
            findings.append(
                failure(
                    "webhooks", error.message, f"set {webhook_secret_variable(name)}; no gateway starts so"
                )
            )
            continue
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await allowed_addresses(target, resolve)
        except ConnectionRefusedError as error:
            findings.append(
                failure("webhooks", f"{name!r} is never sent: {error}", "see [webhooks] in the docs")
            )
        except (OSError, TimeoutError) as error:
            findings.append(
                warning(
                    "webhooks",
                    f"the host of {name!r}, {target.host!r}, cannot be resolved: {error or 'no answer'}",
                    f"correct webhooks.{name}.url, or mend the name service",
                )
            )
        else:
            findings.append(
                fine("webhooks", f"{name!r} goes to {target.printable_url}, {len(secrets)} secret(s)")
            )
    return findings


async def delivery_findings(config: GatewayConfig, outbox: WebhookOutbox) -> list[Finding]:
    """Which webhooks' latest events did not arrive.

    Raises:
        StoreUnavailableError: The store failed.
    """
    findings = []
    for name in config.webhooks:
        tried = [delivery for delivery in await outbox.recent(name, limit=_LOOKED_AT) if delivery.attempts]
        latest = max(tried, key=lambda delivery: delivery.last_at or delivery.created_at, default=None)
        if latest is None or latest.state is DeliveryState.DELIVERED:
            continue
        waiting = await outbox.waiting(name)
        findings.append(
            warning(
                "webhooks",
                f"the last attempt for {name!r} failed ({latest.problem}), and {waiting:,} events wait",
                f"mend the receiver, then run `serac webhooks test {name}`",
            )
        )
    return findings
