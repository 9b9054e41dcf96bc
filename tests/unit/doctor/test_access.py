"""Who gets in and for which audience, as the doctor sees it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serac_gateway.config.model import AudienceSource, GatewayConfig, RoutingConfig, ServerConfig
from serac_gateway.doctor.access import header_findings, label_findings, provider_findings
from serac_gateway.doctor.findings import Level
from tests.fake_identity_provider import running_identity_provider
from tests.made_keys import new_key

PUBLIC = ServerConfig(host="0.0.0.0", trusted_proxies=("10.0.0.0/8",))


async def test_a_provider_that_answers_is_fine_and_each_fault_is_named() -> None:
    assert await provider_findings(GatewayConfig().oidc) == []
    with running_identity_provider() as provider:
        (finding,) = await provider_findings(provider.config())
        assert finding.level is Level.OK
        assert provider.issuer in finding.detail
        provider.changes = {"token_endpoint": None}
        findings = await provider_findings(provider.login_config(80))
        assert [finding.level for finding in findings] == [Level.OK, Level.FAIL]
        assert "no addresses for logins" in findings[1].detail
        provider.changes = {"issuer": "https://other.example"}
        (finding,) = await provider_findings(provider.config())
        assert finding.level is Level.FAIL
        assert "names the issuer 'https://other.example'" in finding.detail
        provider.is_down = True
        (finding,) = await provider_findings(provider.config())
        assert "does not answer" in finding.detail


@pytest.mark.parametrize(
    ("source", "server", "risks"),
    [
        (AudienceSource(header="x-region", values=("eu",), required=True), PUBLIC, []),
        (AudienceSource(header="x-region", required=True), PUBLIC, ["takes any value"]),
        (AudienceSource(header="x-region"), ServerConfig(host="0.0.0.0"), ["no proxy that could set it"]),
        (AudienceSource(header="x-region"), ServerConfig(), []),
        (AudienceSource(key=True, required=True), ServerConfig(host="0.0.0.0"), []),
    ],
)
def test_labels_that_anybody_could_claim_are_named(
    source: AudienceSource, server: ServerConfig, risks: list[str]
) -> None:
    config = GatewayConfig(server=server, routing=RoutingConfig(audience_from={"region": source}))
    findings = list(header_findings(config))
    assert len(findings) == len(risks)
    for finding, risk in zip(findings, risks, strict=True):
        assert finding.level is Level.WARN
        assert risk in finding.detail


def test_keys_with_labels_that_count_for_nothing_are_named() -> None:
    sources = {
        "tenant": AudienceSource(key=True, values=("acme",)),
        "region": AudienceSource(header="x-region"),
    }
    config = GatewayConfig(routing=RoutingConfig(audience_from=sources))
    keys = [
        new_key(name="good", labels={"tenant": "acme"}).stored.key,
        new_key(name="bad", labels={"tenant": "other", "region": "eu", "plan": "gold"}).stored.key,
    ]
    (finding,) = label_findings(config, keys, now=datetime.now(UTC))
    assert "1 API keys" in finding.detail
    assert "plan=gold, region=eu, tenant=other" in finding.detail
    assert list(label_findings(config, keys[:1], now=datetime.now(UTC))) == []
