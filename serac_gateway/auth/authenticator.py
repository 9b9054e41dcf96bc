"""Authentication: takes key or token out of a request's headers, checks it, and counts it against its rate.

A key comes as ``Authorization: Bearer sk-serac-…``, in ``x-api-key`` (where Anthropic's clients have theirs),
in ``api-key`` (Azure's) or as ``x-serac-api-key``; with the last, the others are the upstream's and pass
untouched. A token of the identity provider comes as ``Authorization: Bearer ey…`` or in the last. Where
nothing is demanded, only a token that says that it is for this gateway is read as one; others are the
upstream's. No key or token of ours is ever sent on, logged or repeated in a reply.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from serac_gateway.auth.api_keys import KEY_PREFIX, ApiKey, PresentedKey, fits, pepper_id, presented_key
from serac_gateway.auth.key_cache import KeyCache
from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.auth.principals import (
    ANYONE,
    NAMESPACE_HEADER,
    Allowance,
    Principal,
    allowance,
    requested_namespace,
)
from serac_gateway.auth.token_access import TokenAccess, label_claims
from serac_gateway.auth.tokens import Claims, is_for_us, is_token
from serac_gateway.config.model import GatewayConfig, OidcConfig
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import AuthenticationError, ConfigError, GatewayError, RateLimitedError

log = logging.getLogger(__name__)

OWN_HEADER = b"x-serac-api-key"
_SHARED_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""Headers in which a key of ours or one of the upstream's comes."""

_BEARER = re.compile(rb"(?i:bearer)[ \t]+(.*)", re.DOTALL)
_BETWEEN_WORDS = re.compile(rb"[\s,;=\"]+")
_PREFIX = KEY_PREFIX.encode()
_USE_NOTED_EVERY_S = 60.0
_CREATE_KEY = (
    "`serac keys create --offline --role admin`, with the --config, --data-dir or --redis of this command"
)
_HOW = (
    f"send one of this gateway's keys as 'Authorization: Bearer {KEY_PREFIX}…', in x-api-key, in"
    f" api-key or in {OWN_HEADER.decode()}"
)


_acting: ContextVar[Principal | None] = ContextVar("acting_principal", default=None)


@contextmanager
def acting_as(principal: Principal) -> Iterator[None]:
    """Let the requests that the current task makes within this process be `principal`'s, without a key.

    For the console, whose sessions are checked by `Authenticator.authenticate_again`. No client can set it.
    """
    token = _acting.set(principal)
    try:
        yield
    finally:
        _acting.reset(token)


class Authenticator:
    """Checks keys against the store. Belongs to one event loop."""

    def __init__(
        self,
        store: ApiKeyStore,
        *,
        required: bool,
        pepper: bytes = b"",
        outage_grace_s: float = 300.0,
        tokens: TokenAccess | None = None,
    ) -> None:
        """Without `required`, a request without a key may do everything; a key that is sent is checked.

        `tokens` None: none are taken.
        """
        self.required = required
        self.pepper = pepper
        self.store = store
        self.tokens = tokens
        self._replaced_tokens: list[TokenAccess] = []
        self._known = KeyCache(store, outage_grace_s=outage_grace_s)
        self._allowances: dict[str, Allowance] = {}
        self._use_noted_at_s: dict[str, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def authenticate(self, headers: Headers) -> Principal:
        """On whose behalf the request with these headers comes.

        Raises:
            AuthenticationError: There is no key and one is required, or it is not valid (any more).
            RateLimitedError: The key's requests of this minute are spent.
            StoreUnavailableError: The store does not answer, and the key is not in the cache.
        """
        if (acting := _acting.get()) is not None:
            return acting
        value = _presented(headers)
        token = value if value is not None and is_token(value) else None
        if value is None and self.tokens is not None:
            token = _bearer_token(headers)
            if token is not None and not (self.required or self.tokens.is_for_us(token)):
                token = None
        if token is not None and self.tokens is not None:
            return self._admitted_holder(await self.tokens.principal(token, requested_namespace(headers)))
        if value is None:
            if self.required:
                raise AuthenticationError(
                    f"this gateway demands an API key{self._or_token}; {_HOW}", field="authorization"
                )
            return ANYONE
        presented = presented_key(value)
        if presented is None:
            raise AuthenticationError(
                f"what was sent as API key ({len(value)} bytes) is none; a key is {KEY_PREFIX!r}, 12 letters"
                f" and digits, '-', and 43 more; {_HOW}",
                field="authorization",
            )
        return self._admitted(await self._checked(presented))

    async def authenticate_again(self, key_id: str | None) -> Principal:
        """On whose behalf a session goes on that began with that key; None: it began without one.

        Raises:
            AuthenticationError: The key was revoked, has expired or is gone, or keys are demanded by now.
            RateLimitedError, StoreUnavailableError: As for `authenticate`.
        """
        if key_id is None:
            if self.required:
                raise AuthenticationError(
                    f"this gateway demands an API key{self._or_token}; {_HOW}", field="authorization"
                )
            return ANYONE
        stored = await self._known.get(key_id)
        if stored is None:
            raise AuthenticationError(f"the API key {key_id} is not known here any more; {_HOW}")
        return self._admitted(_active(stored.key))

    def authenticate_holder(self, claims: Claims, namespace: str | None) -> Principal:
        """On whose behalf a session goes on that began with a login of those claims, by the present rules.

        Raises:
            AuthenticationError: No tokens of that issuer are taken any more.
            PermissionDeniedError: Their groups have no role any more.
            RateLimitedError: As for `authenticate`.
        """
        if self.tokens is None:
            raise AuthenticationError("logins of an identity provider are not taken any more; use an API key")
        return self._admitted_holder(self.tokens.principal_of(claims, namespace))

    def reconfigure(self, config: GatewayConfig) -> None:
        """Change the rules. Cached keys and the state of their rates stay."""
        self.required = config.demands_keys
        self._known.outage_grace_s = config.access.outage_grace_s
        labels, tokens = label_claims(config), self.tokens
        if tokens is not None and tokens.config == config.oidc:
            tokens.label_claims = labels
            return
        if tokens is not None:
            self._replaced_tokens.append(tokens)  # requests may be using them
        self.tokens = open_token_access(config)

    async def require_usable_key(self) -> None:
        """Return if there is a key that would be let in.

        Raises:
            ConfigError: There is none, with the command that makes the first.
            StoreUnavailableError: The store does not answer.
        """
        now = datetime.now(UTC)
        active = [stored for stored in await self.store.all() if stored.key.is_active(now)]
        if not active:
            raise ConfigError(
                "the gateway demands API keys, as it listens beyond loopback or access.required says so, and"
                f" there is none; make the first: {_CREATE_KEY}; or listen on 127.0.0.1; or set"
                " access.required to false, if a proxy in front admits only those it should"
            )
        if all(stored.pepper_id != pepper_id(self.pepper) for stored in active):
            raise ConfigError(
                f"none of the {len(active)} API keys was made under this SERAC_KEY_PEPPER; set the one they"
                f" were made under, or make a key under this one: {_CREATE_KEY}"
            )

    async def close(self) -> None:
        """Wait for writes under way. Idempotent."""
        await self._known.close()
        for tokens in (self.tokens, *self._replaced_tokens):
            if tokens is not None:
                await tokens.provider.close()
        await asyncio.gather(*self._noting)

    @property
    def _or_token(self) -> str:
        return "" if self.tokens is None else f", or a bearer token of {self.tokens.config.issuer}"

    async def _checked(self, presented: PresentedKey) -> ApiKey:
        stored = await self._known.get(presented.id)
        if not fits(presented, stored, self.pepper) or stored is None:
            if stored is not None and stored.pepper_id != pepper_id(self.pepper):
                log.warning("API key %s was made under another SERAC_KEY_PEPPER", presented.id)
            raise AuthenticationError(f"the API key is not known here; {_HOW}", field="authorization")
        return _active(stored.key)

    def _admitted(self, key: ApiKey) -> Principal:
        self._take_request(key.id, key.requests_per_minute, f"the API key {key.id} allows")
        self._note_use(key)
        return Principal(
            key_id=key.id, name=key.name, role=key.role, namespaces=key.namespaces, labels=key.labels
        )

    def _admitted_holder(self, principal: Principal) -> Principal:
        assert self.tokens is not None
        assert principal.key_id is not None
        limit = self.tokens.config.requests_per_minute
        self._take_request(principal.key_id, limit, "a token's holder is allowed")
        return principal

    def _take_request(self, credential: str, limit: int | None, whose: str) -> None:
        if limit is None:
            return
        after = allowance(
            self._allowances.get(credential), requests_per_minute=limit, now_s=time.monotonic()
        )  # fmt: skip
        self._allowances[credential] = after
        if after.wait_s > 0:
            raise RateLimitedError(
                f"{whose} {limit} requests a minute in each gateway process; try again in"
                f" {after.wait_s:.1f} s, or ask an admin for more",
                details={
                    "limit": limit,
                    "retry_after_s": math.ceil(after.wait_s),
                    "reason": "rate limited",
                },
            )

    def _note_use(self, key: ApiKey) -> None:
        now_s = time.monotonic()
        if now_s - self._use_noted_at_s.get(key.id, -math.inf) < _USE_NOTED_EVERY_S:
            return
        self._use_noted_at_s[key.id] = now_s
        task = asyncio.create_task(self._write_use(key.id))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _write_use(self, key_id: str) -> None:
        try:
            await self.store.note_use(key_id, datetime.now(UTC))
        except GatewayError as error:
            log.warning("the last use of API key %s was not noted: %s", key_id, error.message)


def _active(key: ApiKey) -> ApiKey:
    """`key` itself. Raises AuthenticationError if it is revoked or has expired."""
    if not key.is_active(datetime.now(UTC)):
        what = "has expired" if key.revoked_at is None else "was revoked"
        raise AuthenticationError(
            f"the API key {key.id} {what}; ask an admin for another", field="authorization"
        )
    return key


def open_token_access(config: GatewayConfig) -> TokenAccess | None:
    """Access by tokens as configured; None: none are taken."""
    if config.oidc.issuer is None:
        return None
    return TokenAccess(config.oidc, label_claims=label_claims(config))


def key_headers(headers: Headers) -> Headers:
    """The headers that `authenticate` reads for a key; empty if none has a key of ours."""
    read = [(name, value) for name, value in headers if name == OWN_HEADER or name in _SHARED_HEADERS]
    return read if any(name == OWN_HEADER or _PREFIX in value for name, value in read) else []


def credential_headers(headers: Headers, oidc: OidcConfig, *, required: bool) -> Headers:
    """All headers that `authenticate` reads; empty if none has a key or token that counts."""
    read = key_headers(headers)
    if oidc.issuer is None:
        return read
    if not read and (token := _bearer_token(headers)) is not None and (required or is_for_us(token, oidc)):
        read = [(name, value) for name, value in headers if name == b"authorization"]
    return [*read, *((name, value) for name, value in headers if name == NAMESPACE_HEADER)] if read else []


def without_keys(headers: Iterable[tuple[bytes, bytes]], oidc: OidcConfig) -> list[tuple[bytes, bytes]]:
    """`headers` without any that holds a key of ours, or a token for us: what may go to the upstream."""
    kept = [header for header in headers if _PREFIX not in header[1]]
    if oidc.issuer is None:
        return kept
    return [header for header in kept if not _has_our_token(header[1], oidc)]


def _has_our_token(value: bytes, oidc: OidcConfig) -> bool:
    return b"ey" in value and any(is_for_us(word, oidc) for word in _BETWEEN_WORDS.split(value))


def _bearer_token(headers: Headers) -> bytes | None:
    """The token of the header Authorization; None if there is none of the shape of one.

    Raises:
        AuthenticationError: There are several such headers.
    """
    tokens = [
        bearer[1]
        for name, value in headers
        if name == b"authorization" and (bearer := _BEARER.fullmatch(value)) and is_token(bearer[1])
    ]
    if len(tokens) > 1:
        raise AuthenticationError("several tokens were sent in headers authorization; send one")
    return tokens[0] if tokens else None


def _presented(headers: Headers) -> bytes | None:
    """The value that was sent as a key of ours, well-formed or not; None if there is none.

    Raises:
        AuthenticationError: Several keys were sent, or one in a form that is not ours.
    """
    own = [value for name, value in headers if name == OWN_HEADER]
    if len(own) > 1:
        raise AuthenticationError(
            f"{len(own)} headers {OWN_HEADER.decode()} were sent; send one", field=OWN_HEADER.decode()
        )
    if own:
        return own[0]
    shared = [(name, value) for name, value in headers if name in _SHARED_HEADERS]
    ours = [(name, value) for name, value in shared if _PREFIX in value]
    if not ours:
        return None
    ((name, value), *more) = ours
    if more or sum(other == name for other, _ in shared) > 1:
        raise AuthenticationError(
            f"several headers {name.decode()} were sent, or keys in several headers; send one, or the"
            f" gateway's key in {OWN_HEADER.decode()}",
            field=name.decode(),
        )
    if name != b"authorization":
        return value
    bearer = _BEARER.fullmatch(value)
    if bearer is None:
        raise AuthenticationError(f"the API key came in no form that is read; {_HOW}", field="authorization")
    return bearer[1]
