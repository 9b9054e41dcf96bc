"""The identity provider: its configuration document and public keys, fetched seldom and kept in an outage.

However many tokens come, and with whatever key ids: there is one fetch at a time, and after each a cool-down.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from serac_gateway.config.loading import is_safe_url
from serac_gateway.config.model import OidcConfig
from serac_gateway.errors import IdentityProviderError

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
"""Of one request to the provider, from connecting to the last byte."""
_MAX_BYTES = 512_000
_MAX_KEYS = 100
_MOST_FORMS = 8
"""Under way at a time: requests that anybody can cause, each of which may take `_TIMEOUT_S`."""
_MIN_RSA_BITS = 2_048
_RETRY_S = 5.0
"""After a fetch that failed, where the cool-down is longer."""
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "Ed25519": "Ed25519"}

PublicKey = RSAKey | ECKey | OKPKey


class ProviderDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider says of itself, as far as it is used."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    end_session_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that checks tokens."""

    kid: str | None
    algorithm: str | None
    """The only one that it is for; None: any that fits its type."""
    key: PublicKey

    def fits(self, algorithm: str) -> bool:
        """Whether a signature of that algorithm can be checked by it."""
        if self.algorithm not in (None, algorithm):
            return False
        if algorithm[:2] in ("RS", "PS"):
            return isinstance(self.key, RSAKey)
        curve = self.key.as_dict(private=False).get("crv")
        return not isinstance(self.key, RSAKey) and curve == _CURVES.get(algorithm)


class _Fetched(msgspec.Struct, frozen=True, kw_only=True):
    keys: tuple[SigningKey, ...]
    thumbprints: frozenset[str]
    document: ProviderDocument | None
    """None: `jwks_url` is configured, and nobody has needed the document."""
    at_s: float


class IdentityProvider:
    """Belongs to one event loop."""

    def __init__(self, config: OidcConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds and never goes back. Nothing is fetched yet."""
        assert config.issuer is not None
        self._config = config
        self._issuer: str = config.issuer
        self._clock = clock
        self._trust: ssl.SSLContext | None = None
        self._fetched: _Fetched | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._next_fetch_s = -math.inf
        self._reading: asyncio.Task[ProviderDocument] | None = None
        self._next_document_s = -math.inf
        self._forms_open = 0
        self._fault = "nothing was fetched yet"
        self.fetches = 0
        """How often it was called."""
        self.generation = 0
        """Changes whenever the set of keys does."""

    async def keys(self, kid: str | None, algorithm: str) -> list[SigningKey]:
        """The keys that may have signed a token with that key id; an unknown one has them fetched anew.

        Without a key id those that fit the algorithm.

        Raises:
            IdentityProviderError: There are no keys, or only ones that are older than `keys_outage_s`.
        """
        fetched = await self._current()
        fitting = _fitting(fetched, kid, algorithm)
        if not fitting and (self._fetching is not None or self._clock() >= self._next_fetch_s):
            await asyncio.shield(self._fetch_once())
            fitting = _fitting(self._usable() or fetched, kid, algorithm)
        return fitting

    async def check_usable(self) -> None:
        """Return if the keys may still be used; also has them fetched anew when it is time.

        Raises:
            IdentityProviderError: As for `keys`.
        """
        await self._current()

    async def document(self) -> ProviderDocument:
        """What the provider says of itself, fetched with the keys.

        Raises:
            IdentityProviderError: It does not answer, and has not lately.
        """
        fetched = await self._current()
        if fetched.document is not None:
            return fetched.document
        if self._reading is None:
            if self._clock() < self._next_document_s:
                raise IdentityProviderError(
                    f"{self._issuer} did not say a moment ago how to log in; try again in a few seconds",
                    details={"retry_after_s": math.ceil(self._next_document_s - self._clock())},
                )
            self._reading = asyncio.create_task(self._document_of_login())
            self._reading.add_done_callback(self._document_read)
        return await asyncio.shield(self._reading)

    async def post_form(
        self, url: str, fields: dict[str, str], headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Send a form to an endpoint of the provider; the reply's status, and its object ({} if it has none).

        Raises:
            IdentityProviderError: It does not answer, or as many forms as may be are under way.
        """
        if self._forms_open >= _MOST_FORMS:  # whoever knows how a login begins can send what ends none
            raise IdentityProviderError(
                f"{_MOST_FORMS} logins are being checked with {self._issuer} already; try again in a few"
                " seconds",
                details={"retry_after_s": 5},
            )
        self._forms_open += 1
        try:
            status, body = await self._request("POST", url, data=fields, headers=headers)
        finally:
            self._forms_open -= 1
        return status, _object_of(body)

    async def close(self) -> None:
        """End what is under way. Idempotent."""
        for task in (self._fetching, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _document_of_login(self) -> ProviderDocument:
        """The document, where the keys come from elsewhere."""
        self._next_document_s = self._clock() + min(_RETRY_S, self._config.keys_cooldown_s)
        document = await self._read_document()
        if self._fetched is not None:
            self._fetched = msgspec.structs.replace(self._fetched, document=document)
        return document

    def _document_read(self, reading: asyncio.Task[ProviderDocument]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # seen here, whether or not someone still waits

    async def _current(self) -> _Fetched:
        fetched = self._usable()
        age_s = math.inf if fetched is None else self._clock() - fetched.at_s
        if age_s >= self._config.keys_max_age_s and self._clock() >= self._next_fetch_s:
            self._fetch_once()
        if fetched is None and self._fetching is not None:
            await asyncio.shield(self._fetching)
            fetched = self._usable()
        if fetched is None:
            raise IdentityProviderError(
                f"tokens cannot be checked, because {self._issuer} has given no usable keys: {self._fault};"
                " try again in a few seconds, or use an API key; `serac doctor` says more to the operator",
                details={"retry_after_s": math.ceil(max(1.0, self._next_fetch_s - self._clock()))},
            )
        return fetched

    def _usable(self) -> _Fetched | None:
        fetched = self._fetched
        longest_s = self._config.keys_max_age_s + self._config.keys_outage_s
        if fetched is None or self._clock() - fetched.at_s > longest_s:
            return None
        return fetched

    def _fetch_once(self) -> asyncio.Task[None]:
        """The fetch under way, or one that begins now."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    def _ended(self, fetching: asyncio.Task[None]) -> None:
        self._fetching = None
        if not fetching.cancelled():
            fetching.exception()  # seen here, whether or not someone still waits

    async def _fetch(self) -> None:
        self._next_fetch_s = math.inf
        was_failing = self._fault != ""
        try:
            document = None
            if self._config.jwks_url is None:
                document = await self._read_document()
            elif self._fetched is not None:
                document = self._fetched.document
            url = self._config.jwks_url or (document.jwks_uri if document else "")
            keys = signing_keys(await self._read(url))
            if not any(key.fits(algorithm) for key in keys for algorithm in self._config.algorithms):
                allowed = ", ".join(self._config.algorithms)
                raise IdentityProviderError(f"{url} has no key for any of {allowed} (oidc.algorithms)")
        except IdentityProviderError as error:
            self._next_fetch_s = self._clock() + min(_RETRY_S, self._config.keys_cooldown_s)
            if not was_failing or self._fault != error.message:
                log.warning("the identity provider's keys could not be fetched: %s", error.message)
            self._fault = error.message
            return
        except BaseException:
            self._next_fetch_s = self._clock() + self._config.keys_cooldown_s
            raise
        self._next_fetch_s = self._clock() + self._config.keys_cooldown_s
        thumbprints = frozenset(key.key.thumbprint() for key in keys)
        if self._fetched is None or thumbprints != self._fetched.thumbprints:
            self.generation += 1
            log.info("%d keys of %s are in use", len(keys), self._issuer)
        self._fault = ""
        self._fetched = _Fetched(keys=keys, thumbprints=thumbprints, document=document, at_s=self._clock())

    async def _read_document(self) -> ProviderDocument:
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            document = msgspec.convert(await self._read(url), ProviderDocument)
        except msgspec.ValidationError as exc:
            raise IdentityProviderError(f"{url} is no configuration of an identity provider: {exc}") from exc
        if document.issuer != self._issuer:
            raise IdentityProviderError(
                f"{url} names the issuer {document.issuer[:200]!r}, and oidc.issuer is {self._issuer!r}; they"
                " must be equal, letter by letter"
            )
        for endpoint in (
            document.jwks_uri,
            document.authorization_endpoint,
            document.token_endpoint,
            document.end_session_endpoint,
        ):
            if endpoint is not None and not is_safe_url(endpoint):
                raise IdentityProviderError(f"{url} names {endpoint[:200]!r}, which is no https URL")
        return document

    async def _read(self, url: str) -> dict[str, Any]:
        status, body = await self._request("GET", url)
        if status != 200:
            raise IdentityProviderError(f"{url} answers {status}")
        content = _object_of(body)
        if not content:
            raise IdentityProviderError(f"{url} answers with no JSON object")
        return content

    async def _request(
        self,
        method: str,
        url: str,
        *,
        data: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        self.fetches += 1
        content = bytearray()
        sent = {"accept": "application/json", "accept-encoding": "identity"} | (headers or {})
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._client() as client,
                client.stream(method, url, headers=sent, data=data) as response,
            ):
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        raise IdentityProviderError(f"{url} answers with more than {_MAX_BYTES:,} bytes")
                return response.status_code, bytes(content)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as exc:
            raise IdentityProviderError(f"{url} does not answer: {str(exc) or type(exc).__name__}") from exc

    def _client(self) -> httpx.AsyncClient:
        """A new one for each request: they are hours apart, and a provider closes idle connections."""
        if self._trust is None:
            try:
                self._trust = ssl.create_default_context(cafile=self._config.ca_file)
            except OSError as exc:
                raise IdentityProviderError(
                    f"oidc.ca_file {self._config.ca_file!r} cannot be read: {exc}; name a PEM file"
                ) from exc
        return httpx.AsyncClient(
            verify=self._trust,
            follow_redirects=False,  # what is configured is what is believed
            trust_env=False,
            proxy=self._config.proxy,
            timeout=_TIMEOUT_S,
        )


def signing_keys(content: dict[str, Any]) -> tuple[SigningKey, ...]:
    """The keys of a JWK Set that can check tokens: asymmetric, public, meant for signatures, long enough.

    Others are left out.

    Raises:
        IdentityProviderError: It is no JWK Set, or has none of them.
    """
    listed = content.get("keys")
    if not isinstance(listed, list):
        raise IdentityProviderError("what should be the keys has no list 'keys'")
    keys = [key for entry in listed[:_MAX_KEYS] if (key := _signing_key(entry)) is not None]
    if not keys:
        raise IdentityProviderError(f"none of the {len(listed)} keys can check a signature")
    return tuple(keys)


def _signing_key(entry: Any) -> SigningKey | None:  # noqa: ANN401 - decoded JSON
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    operations = entry.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    kid, algorithm = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        return None
    kinds: dict[Any, type[PublicKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kty = entry.get("kty")
    kind = kinds.get(kty) if isinstance(kty, str) else None
    if kind is None:
        return None
    try:
        key = kind.import_key(
            {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
        )
        if isinstance(key, RSAKey) and key.public_key.key_size < _MIN_RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        log.warning("a key of the identity provider cannot be used: %s", exc)
        return None
    return SigningKey(kid=kid, algorithm=algorithm, key=key)


def _fitting(fetched: _Fetched, kid: str | None, algorithm: str) -> list[SigningKey]:
    return [key for key in fetched.keys if (kid is None or key.kid == kid) and key.fits(algorithm)]


def _object_of(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
