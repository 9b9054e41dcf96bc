"""Login to the console by an identity provider: there and back, what is refused, what may be done."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.fake_identity_provider import (
    ANN,
    BO,
    CLIENT,
    FakeIdentityProvider,
    free_port,
    running_identity_provider,
)
from tests.http.console_visitor import OWN_PAGE, Visitor, visiting
from tests.http.four_eyes import People, running_people

LOGIN = "/login/oidc?next=%2Fconsole%2Fn%2Flab%2Flog"


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[FakeIdentityProvider, People]]:
    port = free_port()
    with (
        running_identity_provider() as provider,
        running_people(oidc=provider.login_config(port), port=port) as people,
    ):
        yield provider, people


@pytest.fixture
def provider(running: tuple[FakeIdentityProvider, People]) -> FakeIdentityProvider:
    """As at its start."""
    provider = running[0]
    provider.person, provider.login_fault = dict(ANN), None
    provider.callback_changes, provider.id_token_changes, provider.changes = {}, {}, {}
    return provider


@pytest.fixture
def people(running: tuple[FakeIdentityProvider, People]) -> People:
    return running[1]


@pytest.fixture
def visitor(people: People) -> Iterator[Visitor]:
    with visiting(people.locked.url) as visitor:
        yield visitor


def session_ids(visitor: Visitor) -> list[str | None]:
    return [
        c.value
        for c in visitor.client.cookies.jar
        if c.name.startswith("serac-console-") and "login" not in c.name
    ]


def test_a_link_leads_to_the_provider_and_back_to_the_page_that_was_wanted(
    provider: FakeIdentityProvider, visitor: Visitor
) -> None:
    assert "/console/login/oidc?next=" in visitor.get("/n/lab/log").text
    visitor.get(LOGIN)
    assert visitor.page.status_code == 200, visitor.text
    assert visitor.page.url.path == "/console/n/lab/log"
    assert "Ann Lee" in visitor.text
    assert "Role: edit" in visitor.text
    query = provider.token_forms[-1]
    assert query["client_id"] == CLIENT
    assert len(query["code_verifier"]) >= 43
    assert len(session_ids(visitor)) == 1
    assert not [c for c in visitor.client.cookies.jar if "login" in c.name]  # of the login nothing is left


def test_a_page_with_a_long_address_does_not_make_the_cookie_too_large(
    provider: FakeIdentityProvider, people: People
) -> None:
    """A list that was searched for a long text: the login ends at the first page instead."""
    for chars, wanted in ((1_900, True), (3_000, False)):
        target = "/console/n/lab/edits?q=" + "a" * (chars - 23)
        reply = httpx.get(f"{people.locked.url}/console/login/oidc", params={"next": target})
        assert reply.status_code == 303
        cookie = reply.headers["set-cookie"].partition(";")[0]
        assert len(cookie) <= 4_096
        assert (len(cookie) > 2_000) is wanted


def test_the_request_has_pkce_state_and_nonce_and_new_ones_each_time(
    provider: FakeIdentityProvider, people: People
) -> None:
    sent = []
    for _ in range(2):
        reply = httpx.get(f"{people.locked.url}/console{LOGIN}")
        assert reply.status_code == 303
        sent.append(parse_qs(urlsplit(reply.headers["location"]).query))
        cookie = reply.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "Path=/" in cookie
        assert "SameSite=lax" in cookie
        assert sent[-1]["state"][0] not in cookie.partition("=")[0]
    first, second = sent
    assert first["response_type"] == ["code"]
    assert first["code_challenge_method"] == ["S256"]
    assert first["redirect_uri"] == [f"{people.locked.url}/console/login/callback"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) >= 43
        assert first[name] != second[name]


def test_a_login_ends_the_session_before_and_makes_a_new_id(
    provider: FakeIdentityProvider, people: People, visitor: Visitor
) -> None:
    visitor.log_in(people.bo)
    (before,) = session_ids(visitor)
    visitor.get(LOGIN)
    (after,) = session_ids(visitor)
    assert before != after
    name = next(c.name for c in visitor.client.cookies.jar)
    with httpx.Client(cookies={name: before or ""}) as old:
        assert old.get(f"{people.locked.url}/console/n/lab/edits").status_code == 303


def looked_at(visitor: Visitor) -> dict[str, str]:
    """What the page's form says of the proposal that is shown."""
    return {name: visitor.hidden[name] for name in ("revision", "token") if name in visitor.hidden}


REFUSED = {
    "another issuer": ("callback_changes", {"iss": "https://evil.example"}, "the answer is not by"),
    "no issuer": ("callback_changes", {"iss": None}, "the answer is not by"),
    "another state": ("callback_changes", {"state": "x"}, "not the end of a login that began here"),
    "no code": ("callback_changes", {"code": None}, "the answer has no code"),
    "another code": ("callback_changes", {"code": "x"}, "gives no ID token for the code"),
    "a refusal": ("login_fault", "access_denied<script>", "ended the login (access_deniedscript)"),
    "another nonce": ("id_token_changes", {"nonce": "x"}, "it is not of this login (nonce)"),
    "no nonce": ("id_token_changes", {"nonce": None}, "it is not of this login (nonce)"),
    "a token for another client": ("id_token_changes", {"aud": "serac"}, "it is made for 'serac'"),
    "a token to another client": ("id_token_changes", {"azp": "other"}, "issued to another client (azp)"),
    "an expired token": ("id_token_changes", {"exp": 1}, "it has expired"),
    "no role": ("person", {**ANN, "groups": ["staff"]}, "gives no access"),
    "too small a role": ("person", {**ANN, "groups": ["readers"]}, "this needs role 'edit'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_answer_to_this_login_is_refused(
    provider: FakeIdentityProvider, visitor: Visitor, case: str
) -> None:
    attribute, value, message = REFUSED[case]
    setattr(provider, attribute, value)
    page = visitor.get(LOGIN)
    assert page.status_code in (401, 403)
    assert message in visitor.text
    assert session_ids(visitor) == []
    assert visitor.hidden["next"] == "/console/n/lab/log" or case == "another state"


def test_a_login_cannot_be_finished_in_another_browser_or_twice(
    provider: FakeIdentityProvider, people: People, visitor: Visitor
) -> None:
    """A link with the attacker's own code would log the victim in as the attacker."""
    begun = visitor.client.get(f"/console{LOGIN}")
    back = httpx.get(begun.headers["location"]).headers["location"]
    with visiting(people.locked.url) as other:
        refusal = other.client.get(back)
        assert refusal.status_code == 401
        assert session_ids(other) == []
    assert visitor.client.get(back).status_code == 303
    visitor.client.cookies.set(*begun.headers["set-cookie"].split(";")[0].split("=", 1))
    assert visitor.client.get(back).status_code == 401  # the code is used


@pytest.mark.parametrize("cookie", ["", "x", "x.y", "e30=.0", "\xff.\xff"])
def test_a_forged_login_cookie_counts_for_nothing(
    provider: FakeIdentityProvider, people: People, cookie: str
) -> None:
    port = people.locked.url.rpartition(":")[2]
    reply = httpx.get(
        f"{people.locked.url}/console/login/callback?state=&code=x&iss={provider.issuer}",
        headers={"cookie": f"serac-console-login-{port}={cookie}".encode("latin-1")},
    )
    assert reply.status_code == 401


def test_the_console_must_be_open_where_logins_end(people: People, provider: FakeIdentityProvider) -> None:
    reply = httpx.get(f"{people.locked.url.replace('127.0.0.1', 'localhost')}/console/login/oidc")
    assert reply.status_code == 400
    assert "oidc.login_redirect_uri" in reply.text


def test_roles_hold_on_every_action_and_four_eyes_see_the_person(
    provider: FakeIdentityProvider, people: People, visitor: Visitor
) -> None:
    proposal = people.propose(people.ann, namespace="one", prompt="Who winds the clock?")
    page = f"/n/one/proposals/{proposal['id']}"
    visitor.get(LOGIN)
    visitor.get(page)
    assert visitor.post(page, verb="approve", reason="Mine", **looked_at(visitor)).status_code == 403
    provider.person = {**ANN, "sub": "9", "groups": ["approvers"]}
    visitor.get(LOGIN)
    visitor.get(page)
    refused = visitor.post(page, verb="approve", reason="As another subject", **looked_at(visitor))
    assert refused.status_code == 403
    assert "is the same person" in visitor.text
    provider.person = dict(BO)
    visitor.get(LOGIN)
    visitor.get(page)
    assert (
        people.call(
            people.bo, "GET", f"/proposals/{proposal['id']}", headers={"x-serac-namespace": "one"}
        ).json()["state"]
        == "open"
    )
    visitor.post(page, verb="approve", reason="Checked", **looked_at(visitor))
    state = people.call(
        people.bo, "GET", f"/proposals/{proposal['id']}", headers={"x-serac-namespace": "one"}
    )
    assert state.json()["state"] == "accepted"


def test_what_was_typed_survives_a_login_in_another_tab(
    provider: FakeIdentityProvider, visitor: Visitor
) -> None:
    visitor.get(LOGIN)
    visitor.get("/n/lab/new")
    visitor.client.cookies.clear()
    visitor.post("/n/lab/new", prompt="Who rows the boat?", target_new="Nobody")
    assert visitor.page.status_code == 401
    first_tab = visitor.hidden
    assert 'target="_blank"' in visitor.page.text
    visitor.client.get(f"/console{LOGIN}", follow_redirects=True)
    visitor.send("/login", first_tab | {"api_key": ""})
    assert visitor.page.status_code == 200
    assert "Who rows the boat?" in visitor.page.text


def test_logging_out_ends_the_session(provider: FakeIdentityProvider, visitor: Visitor) -> None:
    visitor.get(LOGIN)
    visitor.post("/logout")
    assert "You are logged out." in visitor.text
    assert visitor.client.get("/console/n/lab/edits").status_code == 303


def test_a_provider_that_is_down_leaves_the_login_by_key(people: People) -> None:
    port = free_port()
    with running_identity_provider() as failing:
        failing.is_down = True
        with running_people(oidc=failing.login_config(port), port=port) as others:
            reply = httpx.get(f"{others.locked.url}/console/login/oidc", headers=OWN_PAGE)
            assert reply.status_code == 503
            assert "given no usable keys" in reply.text
            with visiting(others.locked.url, others.ann) as visitor:
                assert "Ann Lee" in visitor.text
