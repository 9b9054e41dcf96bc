"""Runs all checks on one configuration, whether its gateway runs or not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from serac_gateway.auth.api_keys import checked_pepper
from serac_gateway.config.model import KEY_PEPPER_VARIABLE, GatewayConfig, upstream_api_key_variable
from serac_gateway.doctor.access import header_findings, label_findings, provider_findings
from serac_gateway.doctor.certificates import certificate_finding, tls_servers
from serac_gateway.doctor.clocks import clock_finding
from serac_gateway.doctor.configuration import config_findings
from serac_gateway.doctor.engine import engine_findings
from serac_gateway.doctor.findings import Finding, failure, fine
from serac_gateway.doctor.gateway import gateway_report, gateway_url
from serac_gateway.doctor.governance import approval_findings, key_findings, proposal_findings
from serac_gateway.doctor.machine import room_findings, room_of
from serac_gateway.doctor.models import ModelReport, model_report
from serac_gateway.doctor.packages import (
    constraint_lines,
    declared_requirements,
    index_findings,
    package_findings,
)
from serac_gateway.doctor.store import encoder_findings, store_findings
from serac_gateway.doctor.upstream import upstream_report
from serac_gateway.doctor.webhooks import delivery_findings, target_findings
from serac_gateway.errors import ConfigError, GatewayError
from serac_gateway.stores.redis.inspection import InspectedStore, inspected_store


def installation_findings() -> list[Finding]:
    """What can be said without a configuration."""
    return [*package_findings(declared_requirements(), constraint_lines()), *index_findings()]


async def diagnosis(
    config: GatewayConfig,
    *,
    file: Path | None,
    url: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[Finding]:
    """All findings, in the order in which a gateway needs what they speak of.

    `url` is the running gateway's, where it is not what the configuration says. With `engine.url` store and
    models are the engine's: run it there for them.
    """
    gateway = await gateway_report(url or gateway_url(config))
    if config.engine.url is not None:
        return [
            *config_findings(config, file=file, environment=environment),
            *installation_findings(),
            *await engine_findings(config, environment),
            *header_findings(config),
            *await _certificates(config),
            *await _upstreams(config, environment),
            *gateway.findings,
        ]
    models, upstreams = await asyncio.gather(
        asyncio.to_thread(model_report, config), _upstreams(config, environment)
    )
    return [
        *config_findings(config, file=file, environment=environment),
        *installation_findings(),
        *room_findings(config, room_of(config.data_path), running=gateway.running),
        *models.findings,
        *await _store(config, models, environment),
        *header_findings(config),
        *await provider_findings(config.oidc),
        *await _certificates(config),
        *upstreams,
        *await target_findings(config, environment),
        *gateway.findings,
    ]


async def _certificates(config: GatewayConfig) -> list[Finding]:
    findings = await asyncio.gather(*map(certificate_finding, tls_servers(config)))
    return [finding for finding in findings if finding is not None]


async def _store(config: GatewayConfig, models: ModelReport, environment: Mapping[str, str]) -> list[Finding]:
    try:
        async with inspected_store(config) as inspected:
            if inspected is None:
                return [fine("store", "the embedded one is made at the first start")]
            findings = store_findings(inspected.facts)
            findings.append(clock_finding("the store", inspected.facts.clock_ahead_s))
            if not inspected.facts.is_current:
                return findings  # what lies in it cannot be read before it is migrated
            return findings + await _contents(config, inspected, models, environment)
    except GatewayError as error:
        remedy = "do that, then run this again: keys, proposals and vectors could not be looked at"
        return [failure("store", error.message, remedy)]


async def _contents(
    config: GatewayConfig, inspected: InspectedStore, models: ModelReport, environment: Mapping[str, str]
) -> list[Finding]:
    now = datetime.now(UTC)
    stored = await inspected.store.api_keys().all()
    findings = []
    if models.fingerprint is not None:
        findings += await encoder_findings(inspected.store, models.fingerprint)
    try:
        pepper = checked_pepper(environment.get(KEY_PEPPER_VARIABLE))
    except ConfigError:  # it is a finding of the configuration
        pass
    else:
        findings += key_findings(config, stored, pepper=pepper, now=now)
    findings += label_findings(config, [key.key for key in stored], now=now)
    findings += approval_findings(config, [key.key for key in stored], now=now)
    findings += await proposal_findings(config, inspected.store.proposals(), now=now)
    return findings + await delivery_findings(config, inspected.store.webhooks())


async def _upstreams(config: GatewayConfig, environment: Mapping[str, str]) -> list[Finding]:
    calls = [
        (name, upstream, upstream.models) for name, upstream in config.upstreams.items()
    ]  # each with the models that are sent to it
    findings = []
    if config.upstream.url is None:
        findings.append(fine("upstream", "the embedded base model; its files are among the models"))
    reports = await asyncio.gather(
        *(
            upstream_report(
                name,
                upstream,
                api_key=environment.get(upstream_api_key_variable(name)) or None,
                models=models,
            )
            for name, upstream, models in [
                *([] if config.upstream.url is None else [(None, config.upstream, ("*",))]),
                *calls,
            ]
        )
    )
    for report in reports:
        findings += report.findings
        if report.clock_ahead_s is not None:
            findings.append(clock_finding("the upstream", report.clock_ahead_s))
    return findings
