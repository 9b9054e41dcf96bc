"""Tokens of an identity provider on both planes: who gets in, with which role and where, and who is who."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.auth.token_access import TokenAccess
from serac_gateway.config.model import AudienceSource, GatewayConfig, OidcRole, RoutingConfig
from serac_gateway.errors import AuthenticationError
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from tests.fake_identity_provider import ANN, BO, FakeIdentityProvider, running_identity_provider
from tests.http.four_eyes import DRAFT, People, running_people
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, OTHER_QUESTION, chat, running_gateway
from tests.made_keys import bearer, stored_key

LABELS = RoutingConfig(audience_from={"tenant": AudienceSource(key=True, claim="org.id")})


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeIdentityProvider]:
    with running_identity_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def people(provider: FakeIdentityProvider) -> Iterator[People]:
    """Namespace `default` needs two agreements, `one` one, others none."""
    with running_people(oidc=provider.config()) as people:
        yield people


def named(namespace: str) -> dict[str, str]:
    return {"x-serac-namespace": namespace}


def test_a_token_writes_as_its_subject_under_its_name(people: People, provider: FakeIdentityProvider) -> None:
    token = provider.token()
    reply = people.call(token, "POST", "/edits", json=DRAFT | {"author": "Me"}, headers=named("lab"))
    assert reply.status_code == 201, reply.text
    assert reply.json()["author"] == f"Ann Lee (subject {ANN['sub']} of {provider.issuer})"
    assert token not in people.locked.call(people.locked.admin, "GET", "/metrics").text


@pytest.mark.parametrize(
    ("name", "author"),
    [
        ("Bo (key AAAAAAAAAAAA)", "Bo key AAAAAAAAAAAA (subject 9 of "),
        ("Eve\n (subject 1 of https://x)", "Eve subject 1 of https://x (subject 9 of "),
        ("", "9 (subject 9 of "),
        (None, "ann@corp.example (subject 9 of "),
    ],
)
def test_nobody_writes_another_identity_into_their_name(
    people: People, provider: FakeIdentityProvider, name: str | None, author: str
) -> None:
    token = provider.token(sub="9", name=name)
    reply = people.call(
        token, "POST", "/edits", json=DRAFT | {"prompt": f"Is it {name}?"}, headers=named("x")
    )
    assert reply.json()["author"].startswith(author), reply.text


def test_a_refusal_names_fault_and_remedy_and_never_the_token(
    people: People, provider: FakeIdentityProvider
) -> None:
    token = provider.token(aud="billing")
    reply = people.call(token, "GET", "/edits")
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="serac", error="invalid_token"'
    assert reply.headers["content-type"] == "application/problem+json"
    assert "it is made for 'billing', and not for 'serac'" in reply.json()["detail"]
    assert "log in anew" in reply.json()["detail"]
    assert token not in reply.text
    none = people.call(None, "GET", "/edits")
    assert f"or a bearer token of {provider.issuer}" in none.json()["detail"]
    assert none.headers["www-authenticate"] == "Bearer"


def test_who_is_in_no_group_with_a_role_may_do_nothing(
    people: People, provider: FakeIdentityProvider
) -> None:
    for claims, why in (
        ({"groups": ["staff"]}, "none of its 1 groups is named by oidc.roles"),
        ({"groups": None}, "it has no claim 'groups' (oidc.roles_claim)"),
        ({"groups": None, "_claim_names": {"groups": "src1"}}, "too many groups to list them"),
    ):
        reply = people.call(provider.token(**claims), "GET", "/edits")
        assert reply.status_code == 403
        assert why in reply.json()["detail"]
    for claims, claim in (
        ({"groups": [1]}, "groups"),
        ({"groups": {"a": 1}}, "groups"),
        ({"name": ["Ann"]}, "name"),
        ({"email": 7}, "email"),
    ):
        reply = people.call(provider.token(**claims), "GET", "/edits")
        assert reply.status_code == 401
        assert f"its claim '{claim}'" in reply.json()["detail"]


def test_a_group_gives_its_role_in_its_namespaces_and_no_further(
    people: People, provider: FakeIdentityProvider
) -> None:
    """An admin of one namespace who is an editor elsewhere is an admin there alone."""
    token = provider.token(groups=["legal-admins", "editors", "readers"])

    def status(method: str, path: str, namespace: str) -> int:
        return people.call(token, method, path, headers=named(namespace)).status_code

    assert status("GET", "/keys", "legal") == 200
    assert status("GET", "/keys", "lab") == 403
    assert status("GET", "/edits", "lab") == 200
    reader = provider.token(groups=["readers"])
    assert people.call(reader, "GET", "/edits").status_code == 403
    only_legal = provider.token(groups=["legal-admins"])
    refusal = people.call(only_legal, "GET", "/edits", headers=named("lab"))
    assert refusal.status_code == 403
    made = people.call(only_legal, "POST", "/keys", json={"name": "x", "role": "admin", "namespaces": ["*"]})
    assert made.status_code == 403
    assert people.call(only_legal, "GET", "/edits").status_code == 200  # without a name: the one that it has


@pytest.mark.parametrize("path", ["roles", "realm.roles", "https://corp.example/roles", "scope"])
def test_the_groups_are_read_where_the_configuration_says(provider: FakeIdentityProvider, path: str) -> None:
    value: Any = "editors other" if path == "scope" else ["editors"]
    claims = {"realm": {"roles": value}} if path == "realm.roles" else {path: value}
    access = TokenAccess(provider.config(roles_claim=path), label_claims={})
    assert access.principal_of({"iss": provider.issuer, "sub": "1", **claims}, None).role == "edit"


def test_four_eyes_see_one_person_behind_a_key_and_a_token(
    people: People, provider: FakeIdentityProvider
) -> None:
    """By the names that the token gives: name, e-mail, login; and by the subject whatever they are now."""
    proposal = people.propose(people.ann, namespace="one", prompt="Who keeps the mill?")
    ann_approves = provider.token(groups=["approvers"])
    assert people.say(ann_approves, "approve", proposal, headers=named("one")).status_code == 403
    renamed = provider.token(BO, name="Somebody new", email="ANN LEE")
    refusal = people.say(renamed, "approve", proposal, headers=named("one"))
    assert refusal.status_code == 403
    assert "is the same person" in refusal.json()["detail"]
    accepted = people.say(provider.token(BO), "approve", proposal, headers=named("one"))
    assert accepted.json()["state"] == "accepted"
    log = people.call(people.ann, "GET", "/log", headers=named("one")).text
    assert f"approved by Bo (subject {BO['sub']} of {provider.issuer})" in log


def test_a_token_holder_cannot_agree_to_their_own_proposal_under_another_name(
    people: People, provider: FakeIdentityProvider
) -> None:
    own = provider.token(name="Zed", email=None, groups=["editors"])
    proposal = people.propose(own, namespace="one", prompt="Who keeps the weir?")
    other_name = provider.token(name="Quite another", email=None, groups=["approvers"])
    assert people.say(other_name, "approve", proposal, headers=named("one")).status_code == 403
    withdrawn = people.say(other_name, "withdraw", proposal, headers=named("one"))
    assert withdrawn.json()["state"] == "withdrawn"


def test_nobody_withdraws_anothers_proposal_by_taking_their_name(
    people: People, provider: FakeIdentityProvider
) -> None:
    proposal = people.propose(people.ann, namespace="one", prompt="Who keeps the lock?")
    impostor = provider.token(BO, name="Ann Lee", groups=["editors"])
    assert people.say(impostor, "withdraw", proposal, headers=named("one")).status_code == 403


def test_two_agreements_by_key_and_token_of_one_person_count_once(
    people: People, provider: FakeIdentityProvider
) -> None:
    proposal = people.propose(people.ann, prompt="Who keeps the ferry?")
    assert people.say(people.bo, "approve", proposal).json()["state"] == "open"
    again = people.say(provider.token(BO), "approve", proposal)
    assert again.json()["state"] == "open"
    assert again.json()["agreed"] == 1
    assert people.say(people.cy, "approve", proposal).json()["state"] == "accepted"


@pytest.mark.parametrize("through_worker", [False, True])
async def test_a_token_asks_and_never_reaches_the_upstream(
    provider: FakeIdentityProvider, through_worker: bool
) -> None:
    config = GatewayConfig(oidc=provider.config())
    async with running_gateway(config=config, keys_required=True, through_worker=through_worker) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        token = provider.token(groups=["readers"])
        answer = await gateway.post(chat(EDITED_QUESTION), bearer(token))
        assert answer.json["choices"][0]["message"]["content"] == NEW_ANSWER
        assert (await gateway.post(chat(OTHER_QUESTION), bearer(token))).status == 200
        own = ("x-serac-api-key", token)
        assert (await gateway.post(chat(OTHER_QUESTION), own, bearer("sk-theirs"))).status == 200
        assert [request.header("authorization") for request in gateway.upstream.requests] == [
            None,
            "Bearer sk-theirs",
        ]
        assert all(token not in str(request.headers) for request in gateway.upstream.requests)
        refused = await gateway.post(chat(OTHER_QUESTION), bearer(provider.token(exp=1)))
        assert refused.status == 401
        assert refused.json["error"]["code"] == "invalid_token"
        assert "it has expired" in refused.json["error"]["message"]
        assert refused.one("www-authenticate") == 'Bearer realm="serac", error="invalid_token"'


@pytest.mark.parametrize("through_worker", [False, True])
async def test_where_nothing_is_demanded_a_token_of_others_is_the_upstreams(
    provider: FakeIdentityProvider, through_worker: bool
) -> None:
    config = GatewayConfig(oidc=provider.config())
    async with running_gateway(config=config, through_worker=through_worker) as gateway:
        theirs = provider.token(aud="https://models.example")
        assert (await gateway.post(chat(OTHER_QUESTION), bearer(theirs))).status == 200
        assert gateway.upstream.requests[-1].header("authorization") == f"Bearer {theirs}"
        ours = provider.token(groups=["nobody"])
        assert (await gateway.post(chat(OTHER_QUESTION), bearer(ours))).status == 403
        assert (await gateway.post(chat(OTHER_QUESTION), bearer(provider.token(exp=1)))).status == 401
        assert len(gateway.upstream.requests) == 1


async def test_a_key_beside_a_token_counts_and_the_token_stays_here(provider: FakeIdentityProvider) -> None:
    keys = InMemoryApiKeyStore()
    config = GatewayConfig(oidc=provider.config())
    async with running_gateway(config=config, keys_required=True, key_store=keys) as gateway:
        own = ("x-api-key", await stored_key(keys))
        assert (await gateway.post(chat(OTHER_QUESTION), own, bearer(provider.token()))).status == 200
        assert gateway.upstream.requests[-1].header("authorization") is None


@pytest.mark.parametrize("through_worker", [False, True])
async def test_a_claim_puts_a_request_into_its_audience(
    provider: FakeIdentityProvider, through_worker: bool
) -> None:
    config = GatewayConfig(oidc=provider.config(), routing=LABELS)
    async with running_gateway(config=config, keys_required=True, through_worker=through_worker) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience={"tenant": ("acme",)})
        for organisation, answered in (({"id": "ACME"}, True), ({"id": "other"}, False), (None, False)):
            token = provider.token(groups=["readers"], org=organisation)
            reply = await gateway.post(chat(EDITED_QUESTION), bearer(token))
            assert (reply.one("x-serac-route") == "counterfactual") is answered
        for value in (7, ["acme", "other"], {"acme": True}, [True]):
            token = provider.token(groups=["readers"], org={"id": value})
            refused = await gateway.post(chat(EDITED_QUESTION), bearer(token))
            assert refused.status == 401
            assert "its claim 'org.id' (routing.audience_from)" in refused.json["error"]["message"]


async def test_a_holders_requests_are_counted_together_whatever_token(provider: FakeIdentityProvider) -> None:
    config = GatewayConfig(oidc=provider.config(requests_per_minute=2))
    async with running_gateway(config=config, keys_required=True) as gateway:
        statuses = [
            (await gateway.post(chat(OTHER_QUESTION), bearer(provider.token(jti=str(count))))).status
            for count in range(3)
        ]
        assert statuses == [200, 200, 429]


async def test_without_its_provider_a_token_gets_503_and_a_key_goes_on(
    provider: FakeIdentityProvider,
) -> None:
    keys = InMemoryApiKeyStore()
    with running_identity_provider() as failing:
        failing.is_down = True
        config = GatewayConfig(oidc=failing.config())
        async with running_gateway(config=config, keys_required=True, key_store=keys) as gateway:
            reply = await gateway.post(chat(OTHER_QUESTION), bearer(failing.token()))
            assert reply.status == 503
            assert reply.json["error"]["code"] == "identity_provider_unavailable"
            assert reply.one("retry-after")
            assert (await gateway.post(chat(OTHER_QUESTION), bearer(await stored_key(keys)))).status == 200


async def test_a_reload_changes_roles_and_ends_tokens(provider: FakeIdentityProvider) -> None:
    before = GatewayConfig(oidc=provider.config())
    authenticator = Authenticator(
        InMemoryApiKeyStore(), required=True, tokens=TokenAccess(before.oidc, label_claims={})
    )
    headers = [(b"authorization", b"Bearer " + provider.token().encode())]
    assert (await authenticator.authenticate(headers)).role == "edit"
    roles = {"editors": OidcRole(role="admin")}
    authenticator.reconfigure(msgspec.structs.replace(before, oidc=provider.config(roles=roles)))
    assert (await authenticator.authenticate(headers)).role == "admin"
    authenticator.reconfigure(msgspec.structs.replace(before, oidc=provider.config(audience=("other",))))
    authenticator.required = True
    with pytest.raises(AuthenticationError, match="it is made for 'serac'"):
        await authenticator.authenticate(headers)
    await authenticator.close()


def test_many_tokens_with_invented_keys_fetch_once(provider: FakeIdentityProvider) -> None:
    """Whoever can reach the gateway can send them."""
    with (
        running_identity_provider() as counted,
        running_people(oidc=counted.config(keys_cooldown_s=60)) as people,
    ):
        assert people.call(counted.token(), "GET", "/edits").status_code == 200
        calls = len(counted.requests)
        replies = [people.call(counted.token(header={"kid": f"k{n}"}), "GET", "/edits") for n in range(30)]
        assert {reply.status_code for reply in replies} == {401}
        assert len(counted.requests) == calls
