"""How seldom the identity provider is called, what becomes of its keys, which answers are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from joserfc.jwk import OKPKey, RSAKey

from serac_gateway.auth.identity_provider import IdentityProvider
from serac_gateway.errors import IdentityProviderError, InvalidTokenError
from tests.fake_identity_provider import FakeIdentityProvider, running_identity_provider
from tests.token_verifiers import Clock, verifying


@pytest.fixture
def provider() -> Iterator[FakeIdentityProvider]:
    with running_identity_provider() as provider:
        yield provider


async def test_a_new_key_is_fetched_and_unknown_ones_cost_one_fetch_in_the_cool_down(
    provider: FakeIdentityProvider,
) -> None:
    clock = Clock()
    async with verifying(provider.config(keys_cooldown_s=30), clock) as verifier:
        assert await verifier.verified(provider.token().encode())
        clock.now_s += 31
        provider.rotate("second")
        assert await verifier.verified(provider.token().encode())
        calls = len(provider.requests)
        for count in range(50):
            with pytest.raises(InvalidTokenError, match="its key id is not among"):
                await verifier.verified(provider.token(header={"kid": f"mine-{count}"}).encode())
        assert len(provider.requests) == calls
        clock.now_s += 31
        outcomes = await asyncio.gather(
            *(verifier.verified(provider.token(header={"kid": f"x{count}"}).encode()) for count in range(20)),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, InvalidTokenError) for outcome in outcomes)
        assert len(provider.requests) == calls + 2  # the document and the keys, once


async def test_a_key_that_is_withdrawn_ends_the_tokens_that_it_signed(provider: FakeIdentityProvider) -> None:
    clock = Clock()
    async with verifying(provider.config(), clock) as verifier:
        token = provider.token().encode()
        assert await verifier.verified(token)
        provider.rotate("second", keep=False)
        clock.now_s += 31
        assert await verifier.verified(provider.token().encode())
        with pytest.raises(InvalidTokenError, match="its key id is not among"):
            await verifier.verified(token)


async def test_in_an_outage_the_last_keys_go_on_for_their_time(provider: FakeIdentityProvider) -> None:
    clock = Clock()
    config = provider.config(keys_max_age_s=100, keys_outage_s=1_000)
    async with verifying(config, clock) as verifier:
        token = provider.token().encode()
        assert await verifier.verified(token)
        provider.is_down = True
        clock.now_s += 900
        assert await verifier.verified(token)
        assert await verifier.verified(provider.token().encode())
        clock.now_s += 300
        with pytest.raises(IdentityProviderError, match="has given no usable keys"):
            await verifier.verified(token)
        provider.is_down = False
        clock.now_s += 10
        assert await verifier.verified(token)


async def test_a_provider_that_is_down_at_first_is_called_seldom(provider: FakeIdentityProvider) -> None:
    provider.is_down = True
    clock = Clock()
    async with verifying(provider.config(keys_cooldown_s=30), clock) as verifier:
        for _ in range(20):
            with pytest.raises(IdentityProviderError, match="try again in a few seconds") as caught:
                await verifier.verified(provider.token().encode())
        assert caught.value.status == 503
        assert len(provider.requests) <= 2  # httpx may try a second connection
        provider.is_down = False
        clock.now_s += 6
        assert await verifier.verified(provider.token().encode())


async def test_how_to_log_in_is_asked_for_seldom_while_it_is_not_said(provider: FakeIdentityProvider) -> None:
    """Where the keys come from elsewhere: anybody can begin a login."""
    clock = Clock()
    config = provider.config(jwks_url=f"{provider.issuer}/keys", keys_cooldown_s=30)
    made = IdentityProvider(config, clock=clock)
    await made.check_usable()
    path = "/.well-known/openid-configuration"
    provider.answers[path] = lambda: (500, b"{}")
    failed = await asyncio.gather(*(made.document() for _ in range(20)), return_exceptions=True)
    failed += [*await asyncio.gather(made.document(), return_exceptions=True)]
    assert all(isinstance(error, IdentityProviderError) for error in failed)
    assert provider.requests.count(path) == 1
    del provider.answers[path]
    clock.now_s += 6
    assert (await made.document()).issuer == provider.issuer
    assert provider.requests.count(path) == 2
    await made.close()


async def test_only_so_many_logins_are_checked_at_a_time(provider: FakeIdentityProvider) -> None:
    may_answer = threading.Event()

    def slowly() -> tuple[int, bytes]:
        may_answer.wait(30)
        return 400, b"{}"

    provider.answers["/keys"] = slowly
    made = IdentityProvider(provider.config())
    forms = [asyncio.create_task(made.post_form(f"{provider.issuer}/keys", {}, {})) for _ in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(IdentityProviderError, match="8 logins are being checked"):
        await made.post_form(f"{provider.issuer}/keys", {}, {})
    may_answer.set()
    assert {status for status, _ in await asyncio.gather(*forms)} == {400}
    assert (await made.post_form(f"{provider.issuer}/keys", {}, {}))[0] == 400


WRONG_ANSWERS: dict[str, tuple[Callable[[FakeIdentityProvider], None], str]] = {
    "another issuer": (lambda p: p.changes.update(issuer="https://other.example"), "names the issuer"),
    "keys by plain http": (lambda p: p.changes.update(jwks_uri="http://keys.example/k"), "no https URL"),
    "no key address": (lambda p: p.changes.update(jwks_uri=None), "no configuration of an identity provider"),
    "no JSON": (lambda p: p.answers.update({"/keys": lambda: (200, b"<html>")}), "no JSON object"),
    "an error": (lambda p: p.answers.update({"/keys": lambda: (500, b"{}")}), "answers 500"),
    "no list": (lambda p: p.answers.update({"/keys": lambda: (200, b'{"keys": 1}')}), "has no list 'keys'"),
    "far too much": (
        lambda p: p.answers.update({"/keys": lambda: (200, b'{"keys": "' + b"x" * 600_000 + b'"}')}),
        "more than 512,000 bytes",
    ),
    "a secret": (
        lambda p: p.answers.update(
            {"/keys": lambda: (200, b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "first"}]}')}
        ),
        "none of the 1 keys can check a signature",
    ),
    "a short key": (
        lambda p: p.rotate("short", keep=False, key=RSAKey.generate_key(1024, {"kid": "short"})),
        "none of the 1 keys can check a signature",
    ),
    "keys for other algorithms": (
        lambda p: p.rotate("ed", keep=False, key=OKPKey.generate_key("Ed25519", {"kid": "ed"})),
        "has no key for any of RS256, ES256",
    ),
    "nonsense for keys": (
        lambda p: p.answers.update(
            {
                "/keys": lambda: (
                    200,
                    b'{"keys": [1, {"kty": []}, {"kty": "EC", "crv": "P-256", "x": "", "y": 1}]}',
                )
            }
        ),
        "none of the 3 keys can check a signature",
    ),
}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
async def test_a_provider_that_answers_wrongly_is_not_believed(
    provider: FakeIdentityProvider, wrong: str
) -> None:
    upset, fault = WRONG_ANSWERS[wrong]
    token = provider.token().encode()
    upset(provider)
    async with verifying(provider.config()) as verifier:
        with pytest.raises(IdentityProviderError) as caught:
            await verifier.verified(token)
    assert fault in caught.value.message
