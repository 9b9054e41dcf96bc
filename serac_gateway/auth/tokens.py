"""Bearer tokens (JWT) of the identity provider: what is read of them, and what is refused.

A token is believed when its signature is by a key of the provider and its claims say that it is from the
configured issuer, made for this gateway, about somebody, and valid now. The cheap part of that is looked at
before any key is, so that nonsense fetches nothing.
"""

from __future__ import annotations

import hashlib
import re
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jws import JWSRegistry

from serac_gateway.auth.identity_provider import IdentityProvider
from serac_gateway.config.model import OidcConfig
from serac_gateway.errors import GatewayError, InvalidTokenError

_TOKEN = re.compile(rb"ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Of other types are tokens for other purposes: logout tokens, tokens that prove a key."""
_MAX_KID_CHARS = 256
_MAX_KEYS_TRIED = 4
_MAX_KNOWN = 2_048
_REMEDY = "log in anew, or ask who runs the identity provider; an API key works too"

Claims = dict[str, Any]


class VerifiedToken(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token that was believed."""

    claims: Claims
    expires_at_s: float
    """In seconds since 1970, leeway included."""


class TokenVerifier:
    """Checks tokens. Belongs to one event loop."""

    def __init__(
        self, config: OidcConfig, provider: IdentityProvider, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives seconds since 1970."""
        self._config = config
        self._provider = provider
        self._clock = clock
        self._known: OrderedDict[bytes, VerifiedToken] = OrderedDict()
        self._known_generation = provider.generation

    async def verified(self, token: bytes) -> VerifiedToken:
        """The claims of an access token, as `verified_for` with the configured audience.

        A token that was verified before is not verified again, unless the provider's keys have changed.

        Raises:
            InvalidTokenError, IdentityProviderError: As for `verified_for`.
        """
        self._forget_after_new_keys()
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is not None and known.expires_at_s > self._clock():
            await self._provider.check_usable()
            return known
        verified = await self.verified_for(token, self._config.audience)
        self._forget_after_new_keys()
        self._known[digest] = verified
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return verified

    async def verified_for(self, token: bytes, audience: Sequence[str]) -> VerifiedToken:
        """The claims of a token that is made for one of `audience`.

        Raises:
            InvalidTokenError: The token is not believed; the message says why, and never repeats it.
            IdentityProviderError: The provider's keys are not there.
        """
        config = self._config
        if len(token) > config.max_token_bytes:
            raise invalid_token(
                f"it has {len(token):,} bytes, and the limit is {config.max_token_bytes:,}"
                " (oidc.max_token_bytes); have the identity provider put fewer groups or claims into it",
                remedy="",
            )
        header, claims = _parts(token)
        algorithm = self._checked_algorithm(header)
        self._check_claims(claims, audience)
        kid = header.get("kid")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= _MAX_KID_CHARS):
            raise invalid_token(f"its key id is no text of up to {_MAX_KID_CHARS} characters")
        keys = await self._provider.keys(kid, algorithm)
        if not keys:
            raise invalid_token(
                f"its key id is not among the keys of {config.issuer} for {algorithm}; if keys were just"
                f" changed, try again in {config.keys_cooldown_s:g} s"
            )
        if kid is None and len(keys) > 1:
            raise invalid_token(f"it has no key id, and {config.issuer} has several keys for {algorithm}")
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        registry.max_header_length = config.max_token_bytes
        for key in keys[:_MAX_KEYS_TRIED]:
            try:
                decoded = jwt.decode(token, key.key, algorithms=[algorithm], registry=registry)
            except (JoseError, ValueError, TypeError, RecursionError):
                continue
            self._check_claims(decoded.claims, audience)
            return VerifiedToken(claims=decoded.claims, expires_at_s=decoded.claims["exp"] + config.leeway_s)
        raise invalid_token(f"its signature is not by {config.issuer}'s key of that id")

    def _forget_after_new_keys(self) -> None:
        if self._known_generation != self._provider.generation:
            self._known.clear()
            self._known_generation = self._provider.generation

    def _checked_algorithm(self, header: Claims) -> str:
        algorithm, kind = header.get("alg"), header.get("typ")
        allowed = ", ".join(self._config.algorithms)
        if not isinstance(algorithm, str) or algorithm not in self._config.algorithms:
            quoted = repr(algorithm[:40]) if isinstance(algorithm, str) else "none that is a text"
            raise invalid_token(
                f"its algorithm is {quoted}, and only signatures by the provider's private key are believed:"
                f" {allowed} (oidc.algorithms)"
            )
        if "crit" in header:
            raise invalid_token("its header has critical extensions, none of which is known here")
        if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
            raise invalid_token("its type (typ) is not that of an access or ID token")
        return algorithm

    def _check_claims(self, claims: Claims, audience: Sequence[str]) -> None:
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=self._config.leeway_s,
            iss={"essential": True, "value": self._config.issuer or ""},
            aud={"essential": True, "values": [*audience]},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            registry.validate(claims)
        except MissingClaimError as exc:
            missing = [name for name in ("iss", "aud", "sub", "exp") if claims.get(name) is None]
            raise invalid_token(f"it has no claim {' and '.join(missing)}") from exc
        except ExpiredTokenError as exc:
            raise invalid_token("it has expired", remedy="log in anew") from exc
        except InvalidClaimError as exc:
            raise invalid_token(self._fault_of(claims, audience)) from exc
        subject = claims["sub"]
        if len(subject) > 255 or not subject.isprintable() or not subject.strip():
            raise invalid_token("its subject (sub) is no printable text of 1 to 255 characters")
        if "cnf" in claims:
            raise invalid_token(
                "it is bound to a key of the client's (cnf), whose proof is not checked here; have the"
                " identity provider issue plain bearer tokens for this gateway"
            )

    def _fault_of(self, claims: Claims, audience: Sequence[str]) -> str:
        """What is wrong with claims that the registry refuses; of the values only names are repeated."""
        issuer = claims.get("iss")
        if issuer != self._config.issuer:
            return (
                f"it is by another issuer ({_quoted(issuer)}), and {self._config.issuer!r} is believed"
                " (oidc.issuer)"
            )
        named = claims.get("aud")
        values = named if isinstance(named, list) else [named]
        if not all(isinstance(value, str) for value in values) or not set(values) & set(audience):
            wanted = " or ".join(map(repr, audience))
            return f"it is made for {_quoted(named)}, and not for {wanted} (oidc.audience)"
        now = self._clock()
        for name, meaning in (
            ("nbf", "it is not valid yet (nbf)"),
            ("iat", "it was issued in the future (iat)"),
        ):
            moment = claims.get(name)
            if isinstance(moment, int | float) and moment > int(now) + self._config.leeway_s:
                return (
                    f"{meaning}: the clocks of the gateway and the provider differ by more than oidc.leeway_s"
                )
        return "one of its claims iss, aud, sub, exp, nbf, iat, jti is of the wrong type"


def invalid_token(fault: str, *, remedy: str = _REMEDY) -> InvalidTokenError:
    """The refusal of a token: what is wrong with it, and what to do."""
    return InvalidTokenError(
        f"the bearer token is not accepted: {fault}" + (f"; {remedy}" if remedy else ""),
        field="authorization",
        details={"reason": "invalid token"},
    )


def is_token(value: bytes) -> bool:
    """Whether it has the shape of a signed token, or of one that claims to need no signature."""
    return value.startswith(b"ey") and _TOKEN.fullmatch(value) is not None


def is_for_us(token: bytes, config: OidcConfig) -> bool:
    """Whether a token says that it is by the configured issuer and for this gateway. It may be forged."""
    if config.issuer is None or not is_token(token):
        return False
    try:
        claims = _object(token.split(b".")[1])
    except GatewayError:
        return False
    named = claims.get("aud")
    values = named if isinstance(named, list) else [named]
    return claims.get("iss") == config.issuer and any(value in config.audience for value in values)


def claim(claims: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - decoded JSON
    """The claim of that name, or with dots of one within another; None if there is none."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _parts(token: bytes) -> tuple[Claims, Claims]:
    if not is_token(token):
        what = "it is encrypted" if token.count(b".") == 4 else "it is no signed JSON web token"
        raise invalid_token(what)
    header, payload, _ = token.split(b".")
    return _object(header), _object(payload)


def _object(segment: bytes) -> Claims:
    try:
        content = msgspec.json.decode(urlsafe_b64decode(segment + b"=" * (-len(segment) % 4)))
    except (ValueError, RecursionError) as exc:  # msgspec.DecodeError is a ValueError
        raise invalid_token("a part of it cannot be read") from exc
    if not isinstance(content, dict):
        raise invalid_token("a part of it is no JSON object")
    return content


def _quoted(value: object) -> str:
    return repr(value[:200]) if isinstance(value, str) else "several or none"
