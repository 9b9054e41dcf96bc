"""Which bearer tokens are believed, what is said of the others, and how seldom the provider is called."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey

from serac_gateway.auth.identity_provider import IdentityProvider
from serac_gateway.auth.tokens import TokenVerifier, is_for_us, is_token
from serac_gateway.config.model import OidcConfig, TokenAlgorithm
from serac_gateway.errors import InvalidTokenError
from tests.fake_identity_provider import ANN, AUDIENCE, FakeIdentityProvider, running_identity_provider
from tests.token_verifiers import Clock, verifying


@pytest.fixture
def provider() -> Iterator[FakeIdentityProvider]:
    with running_identity_provider() as provider:
        yield provider


async def refused(config: OidcConfig, token: str) -> str:
    async with verifying(config) as verifier:
        with pytest.raises(InvalidTokenError) as caught:
            await verifier.verified(token.encode())
    assert caught.value.status == 401
    assert token not in caught.value.message
    return caught.value.message


def encoded(content: object) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


async def test_a_signed_token_gives_its_claims_and_is_checked_once(provider: FakeIdentityProvider) -> None:
    async with verifying(provider.config()) as verifier:
        token = provider.token().encode()
        first = await verifier.verified(token)
        assert first.claims["sub"] == ANN["sub"]
        assert await verifier.verified(token) is first
    assert provider.requests == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSAKey.generate_key(2048), "PS384"),
        (ECKey.generate_key("P-384"), "ES384"),
        (ECKey.generate_key("P-521"), "ES512"),
        (OKPKey.generate_key("Ed25519"), "Ed25519"),
    ],
)
async def test_every_allowed_algorithm_is_checked_by_its_kind_of_key(
    provider: FakeIdentityProvider,
    key: Any,  # noqa: ANN401
    algorithm: str,
) -> None:
    provider.rotate("other", key=type(key).import_key(key.as_dict(private=True) | {"kid": "other"}))
    token = provider.token(header={"alg": algorithm})
    config = provider.config(algorithms=(TokenAlgorithm(algorithm),))
    async with verifying(config) as verifier:
        assert (await verifier.verified(token.encode())).claims["name"] == "Ann Lee"
    assert "its algorithm is" in await refused(provider.config(algorithms=(TokenAlgorithm.RS512,)), token)


FORGERIES: dict[str, tuple[Callable[[FakeIdentityProvider], str], str]] = {
    "no signature": (
        lambda p: f"{encoded({'alg': 'none'})}.{encoded(good(p))}.",
        "its algorithm is 'none'",
    ),
    "none in capitals": (
        lambda p: f"{encoded({'alg': 'NoNe'})}.{encoded(good(p))}.",
        "its algorithm is 'NoNe'",
    ),
    "the public key as an HMAC secret": (
        lambda p: hmac_signed(good(p), p.keys["first"].as_bytes(private=False)),
        "its algorithm is 'HS256', and only signatures by the provider's private key",
    ),
    "a key of the client's own in the header": (
        lambda p: own_key(p, {"jwk": OWN_KEY.as_dict(private=False)}),
        "its signature is not by",
    ),
    "another key of the same id": (lambda p: own_key(p, {}), "its signature is not by"),
    "an unknown key": (lambda p: own_key(p, {"kid": "mine"}), "its key id is not among the keys"),
    "claims of another token": (
        lambda p: splice(p.token(), p.token(BOSS)),
        "its signature is not by",
    ),
    "critical extensions": (
        lambda p: f"{encoded({'alg': 'RS256', 'crit': ['b64'], 'b64': False})}.{encoded(good(p))}.AA",
        "critical extensions",
    ),
    "a logout token": (lambda p: p.token(header={"typ": "logout+jwt"}), "its type (typ)"),
    "a key id that is no text": (
        lambda p: f"{encoded({'alg': 'RS256', 'kid': ['first']})}.{encoded(good(p))}.AA",
        "its key id is no text",
    ),
    "another issuer": (
        lambda p: p.token(iss="https://evil.example"),
        "it is by another issuer ('https://evil",
    ),
    "an issuer with a slash more": (lambda p: p.token(iss=p.issuer + "/"), "it is by another issuer"),
    "an issuer that is a list": (lambda p: p.token(iss=[p.issuer]), "it is by another issuer"),
    "no issuer": (lambda p: p.token(iss=None), "it has no claim iss"),
    "another audience": (lambda p: p.token(aud="billing"), "it is made for 'billing', and not for 'serac'"),
    "no audience": (lambda p: p.token(aud=None), "it has no claim aud"),
    "an audience that is a map": (lambda p: p.token(aud={AUDIENCE: True}), "it is made for several or none"),
    "expired": (lambda p: p.token(exp=int(time.time()) - 31), "it has expired; log in anew"),
    "an expiry that is no number": (lambda p: p.token(exp="never"), "of the wrong type"),
    "an expiry that is true": (lambda p: p.token(exp=True), "of the wrong type"),
    "no expiry": (lambda p: p.token(exp=None), "it has no claim exp"),
    "not yet valid": (lambda p: p.token(nbf=int(time.time()) + 60), "it is not valid yet (nbf)"),
    "issued in the future": (lambda p: p.token(iat=int(time.time()) + 60), "it was issued in the future"),
    "no subject": (lambda p: p.token(sub=None), "it has no claim sub"),
    "an empty subject": (lambda p: p.token(sub=" "), "its subject (sub) is no printable text"),
    "a subject that is a number": (lambda p: p.token(sub=7), "of the wrong type"),
    "a subject of two lines": (lambda p: p.token(sub="a\nb"), "its subject (sub) is no printable text"),
    "bound to a key": (lambda p: p.token(cnf={"jkt": "x"}), "it is bound to a key"),
    "too large": (lambda p: p.token(groups=["g" * 20_000]), "the limit is 16,384 (oidc.max_token_bytes)"),
    "encrypted": (lambda p: "eyJhbGciOiJSU0EifQ.a.b.c.d", "it is encrypted"),
    "deeply nested": (
        lambda p: f"{encoded({'alg': 'RS256'})}.{urlsafe_b64encode(b'[' * 9_000).decode()}.AA",
        "a part of it cannot be read",
    ),
    "claims that are a list": (
        lambda p: f"{encoded({'alg': 'RS256'})}.{encoded([1])}.AA",
        "a part of it is no JSON object",
    ),
}
BOSS = {"sub": "1", "name": "The boss", "groups": ["admins"]}
OWN_KEY = RSAKey.generate_key(2048)


def good(provider: FakeIdentityProvider) -> dict[str, Any]:
    return {"iss": provider.issuer, "aud": AUDIENCE, "exp": int(time.time()) + 300, **BOSS}


def own_key(provider: FakeIdentityProvider, header: dict[str, Any]) -> str:
    return provider.signed({"alg": "RS256", "kid": "first", **header}, good(provider), OWN_KEY)


def hmac_signed(claims: dict[str, Any], secret: bytes) -> str:
    signed = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded(claims)}"
    digest = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def splice(signed: str, wanted: str) -> str:
    head, _, signature = signed.split(".")
    return f"{head}.{wanted.split('.')[1]}.{signature}"


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_or_misused_token_is_refused_with_its_fault(
    provider: FakeIdentityProvider, forgery: str
) -> None:
    make, fault = FORGERIES[forgery]
    message = await refused(provider.config(), make(provider))
    assert fault in message
    assert message.startswith("the bearer token is not accepted: ")


async def test_clocks_may_differ_by_the_leeway(provider: FakeIdentityProvider) -> None:
    now = int(time.time())
    async with verifying(provider.config(leeway_s=60)) as verifier:
        assert await verifier.verified(provider.token(exp=now - 50).encode())
        assert await verifier.verified(provider.token(nbf=now + 50).encode())


async def test_a_known_token_ends_when_it_expires(provider: FakeIdentityProvider) -> None:
    keys = IdentityProvider(provider.config())
    clock = Clock()
    clock.now_s = time.time()
    verifier = TokenVerifier(provider.config(), keys, clock=clock)
    token = provider.token().encode()
    assert await verifier.verified(token)
    clock.now_s += 400
    with pytest.raises(InvalidTokenError, match="it has expired"):
        await verifier.verified(token)
    await keys.close()


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_of_a_token_is_accepted_and_none_breaks_the_reader(data: st.DataObject) -> None:
    token = SIGNED_ONCE
    position = data.draw(st.integers(0, len(token) - 1))
    change = data.draw(st.sampled_from(["replace", "delete", "insert"]))
    byte = data.draw(st.binary(min_size=1, max_size=3))
    tail = position if change == "insert" else position + 1
    changed = token[:position] + (b"" if change == "delete" else byte) + token[tail:]
    config = OidcConfig(issuer="http://127.0.0.1:9", audience=(AUDIENCE,))
    is_for_us(changed, config)
    outcome = asyncio.run(_outcome(config, changed))
    assert outcome == "refused" or same_signature(changed, token)


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_the_parts_hold_is_refused_and_not_an_error(head: bytes, body: bytes, tail: bytes) -> None:
    parts = [urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"' + head, body, tail)]
    config = OidcConfig(issuer="http://127.0.0.1:9", audience=(AUDIENCE,))
    for token in (b".".join(parts), head + b"." + body + b"." + tail):
        is_for_us(token, config)
        assert asyncio.run(_outcome(config, token)) == "refused"


SIGNING_KEY = ECKey.generate_key("P-256", {"kid": "k"})


class _OneKey(IdentityProvider):
    """Has its key from the start, so that nothing is fetched."""

    async def keys(self, kid: str | None, algorithm: str) -> list[Any]:
        from serac_gateway.auth.identity_provider import signing_keys

        keys = signing_keys({"keys": [SIGNING_KEY.as_dict(private=False)]})
        return [key for key in keys if kid in (None, key.kid) and key.fits(algorithm)]


async def _outcome(config: OidcConfig, token: bytes) -> str:
    try:
        await TokenVerifier(config, _OneKey(config)).verified(token)
    except InvalidTokenError:
        return "refused"
    return "accepted"


def same_signature(changed: bytes, token: bytes) -> bool:
    """Whether only unused bits of the signature's last character differ, which encode nothing."""
    return changed[:-1] == token[:-1] and is_token(changed)


SIGNED_ONCE = (
    FakeIdentityProvider("http://127.0.0.1:9")
    .signed(
        {"alg": "ES256", "kid": "k"},
        {"iss": "http://127.0.0.1:9", "aud": AUDIENCE, "exp": 4_000_000_000, "sub": "1"},
        SIGNING_KEY,
    )
    .encode()
)


async def test_nonsense_fetches_nothing(provider: FakeIdentityProvider) -> None:
    for forgery in ("another issuer", "no audience", "expired", "no signature", "too large", "encrypted"):
        await refused(provider.config(), FORGERIES[forgery][0](provider))
    assert provider.requests == []


async def test_a_token_without_key_id_needs_a_single_key(provider: FakeIdentityProvider) -> None:
    token = provider.token(header={"kid": None}).encode()
    async with verifying(provider.config()) as verifier:
        assert await verifier.verified(token)
    provider.rotate("second", key=RSAKey.generate_key(2048, {"kid": "second"}))
    assert "it has no key id" in await refused(provider.config(), token.decode())


def test_what_is_for_this_gateway_is_read_off_its_issuer_and_audience(provider: FakeIdentityProvider) -> None:
    config = provider.config()
    assert is_for_us(provider.token().encode(), config)
    assert is_for_us(provider.token(aud=["billing", AUDIENCE]).encode(), config)
    assert not is_for_us(provider.token(aud="billing").encode(), config)
    assert not is_for_us(provider.token(iss="https://evil.example").encode(), config)
    assert not is_for_us(b"sk-upstream-key", config)
    assert not is_for_us(provider.token().encode(), OidcConfig())
