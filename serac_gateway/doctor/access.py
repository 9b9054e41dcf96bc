"""Who gets in and for which audience: the identity provider, labels from headers, and labels of API keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from serac_gateway.auth.api_keys import ApiKey
from serac_gateway.auth.audience_labels import AudienceLabels, believed_from_anybody
from serac_gateway.auth.identity_provider import IdentityProvider
from serac_gateway.config.model import GatewayConfig, OidcConfig
from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.errors import IdentityProviderError

_LISTED = 5


async def provider_findings(config: OidcConfig) -> list[Finding]:
    """Whether the identity provider answers as its tokens and logins need it; nothing without one."""
    if config.issuer is None:
        return []
    provider = IdentityProvider(config)
    try:
        document = await provider.document()
    except IdentityProviderError as error:
        remedy = "correct oidc.issuer, oidc.jwks_url, oidc.algorithms or oidc.ca_file, or start the provider"
        return [failure("identity provider", error.message, remedy)]
    finally:
        await provider.close()
    findings = [
        fine("identity provider", f"{config.issuer} answers, with keys for {', '.join(config.algorithms)}")
    ]
    if config.login_client_id is not None and None in (
        document.authorization_endpoint,
        document.token_endpoint,
    ):
        findings.append(
            failure(
                "identity provider",
                f"{config.issuer} names no addresses for logins to the console",
                "leave oidc.login_client_id out, or use a provider with the code flow",
            )
        )
    return findings


def header_findings(config: GatewayConfig) -> Iterator[Finding]:
    """Which labels of audiences anybody could claim."""
    for risk in believed_from_anybody(config):
        yield warning(
            "audiences",
            risk,
            "list the values, and have a proxy in front replace the header; name it in"
            " server.trusted_proxies",
        )


def label_findings(config: GatewayConfig, keys: Sequence[ApiKey], *, now: datetime) -> Iterator[Finding]:
    """Which API keys have labels that no request gets."""
    labels = AudienceLabels(config.routing.audience_from)
    idle = [
        f"{key.name} ({key.id}): {', '.join(without)}"
        for key in keys
        if key.is_active(now) and (without := labels.idle_of_key(key.labels))
    ]
    if idle:
        yield warning(
            "audiences",
            f"{len(idle)} API keys have labels that count for nothing: {'; '.join(idle[:_LISTED])}",
            "add key = true and the value to routing.audience_from, or make these keys anew",
        )
