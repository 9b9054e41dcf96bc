"""Access by tokens of one configuration: the provider, the check of tokens, and what their holders may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serac_gateway.auth.identity_provider import IdentityProvider
from serac_gateway.auth.principals import Principal
from serac_gateway.auth.token_holders import principal_of, reachable
from serac_gateway.auth.tokens import TokenVerifier, invalid_token, is_for_us
from serac_gateway.config.model import GatewayConfig, OidcConfig


class TokenAccess:
    """Belongs to one event loop."""

    def __init__(self, config: OidcConfig, *, label_claims: Mapping[str, str]) -> None:
        """`config` has an issuer. `label_claims` names the claim of each label that has one."""
        self.config = config
        self.provider = IdentityProvider(config)
        self.verifier = TokenVerifier(config, self.provider)
        self.label_claims = dict(label_claims)

    async def principal(self, token: bytes, namespace: str | None) -> Principal:
        """On whose behalf a request with that token comes, which is for `namespace` (None: it names none).

        Raises:
            InvalidTokenError: The token is not accepted.
            PermissionDeniedError: Its holder may do nothing here.
            IdentityProviderError: It cannot be checked.
        """
        return self.principal_of((await self.verifier.verified(token)).claims, namespace)

    def principal_of(self, claims: Mapping[str, Any], namespace: str | None) -> Principal:
        """The principal of claims that were verified before, by the present configuration.

        Raises:
            InvalidTokenError: They are another issuer's, or one is of the wrong type.
            PermissionDeniedError: Their holder may do nothing here (any more).
        """
        if claims.get("iss") != self.config.issuer:
            raise invalid_token(f"it is by another issuer than {self.config.issuer!r} (oidc.issuer)")
        return principal_of(claims, self.config, label_claims=self.label_claims, namespace=namespace)

    def reachable(self, principal: Principal) -> tuple[str, ...]:
        """All namespaces that a token's holder may use in any role."""
        groups = () if principal.holder is None else principal.holder.groups
        return reachable([self.config.roles[group] for group in groups if group in self.config.roles])

    def is_for_us(self, token: bytes) -> bool:
        """Whether a token says that it is for this gateway. It may be forged."""
        return is_for_us(token, self.config)


def label_claims(config: GatewayConfig) -> dict[str, str]:
    """The labels of `routing.audience_from` that come from a claim, and which."""
    sources = config.routing.audience_from.items()
    return {label: source.claim for label, source in sources if source.claim is not None}
