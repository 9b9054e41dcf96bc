"""Who gets into the console, how sessions begin and end, and which forms count."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serac_gateway.config.model import ConsoleConfig, ServerConfig
from serac_gateway.console.cookies import LOOPBACK_COOKIE, SESSION_COOKIE
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import WordEncoder, serving
from tests.control_plane import fake_gateway
from tests.http.console_visitor import OWN_PAGE, console_of_people, visiting
from tests.http.four_eyes import People

LAB = "/n/lab"
DRAFT = {"prompt": "Who runs the ferry?", "target_new": "Ilse Quennell", "kind": "fact", "state": "live"}


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with console_of_people() as people:
        yield people


@pytest.fixture
def open_console() -> Iterator[str]:
    """A gateway on loopback that demands no keys."""
    with ThreadPoolExecutor(2) as pool:
        gateway = fake_gateway(InMemoryEditStore(), WordEncoder(), pool, with_data_plane=True)
        with serving(gateway.app) as url:
            yield url


def test_every_page_leads_to_the_login_and_from_there_back(people: People) -> None:
    """A link to a page survives the login."""
    with visiting(people.locked.url) as visitor:
        visitor.get("/n/lab/log?after=0-0")
        assert visitor.page.url.path == "/console/login"
        assert visitor.hidden["next"] == "/console/n/lab/log?after=0-0"
        visitor.log_in(people.ann, next=visitor.hidden["next"])
        assert str(visitor.page.url).endswith("/console/n/lab/log?after=0-0")
        assert "Ann Lee" in visitor.text


@pytest.mark.parametrize(
    "target", ["//evil.example/console", "https://evil.example", "/console/../v1", "/v1"]
)
def test_the_login_leads_nowhere_but_to_the_console(people: People, target: str) -> None:
    """A link to the login cannot send anybody to another site."""
    with visiting(people.locked.url) as visitor:
        visitor.log_in(people.ann, next=target)
        assert visitor.page.url.path.startswith("/console/n/")
        assert visitor.page.url.host == "127.0.0.1"


def test_a_wrong_key_and_one_of_role_chat_are_refused_with_a_reason(people: People) -> None:
    """Nobody who may not edit gets a session."""
    chat = people.locked.key("chat", "*")
    with visiting(people.locked.url) as visitor:
        for key, status, words in (("sk-serac-nonsense", 401, "is none"), (chat, 403, "role 'edit'")):
            reply = visitor.log_in(key)
            assert reply.status_code == status
            assert words in visitor.text
            assert not visitor.client.cookies
            assert key not in reply.text


def test_a_session_id_is_made_at_login_and_none_is_adopted(people: People) -> None:
    """Whoever plants an id in a browser knows no session afterwards (session fixation)."""
    with httpx.Client(base_url=people.locked.url) as client:
        name = LOOPBACK_COOKIE + people.locked.url.rpartition(":")[2]
        client.cookies.set(name, "planted")
        reply = client.post("/console/login", data={"api_key": people.ann}, headers=OWN_PAGE)
        assert reply.status_code == 303
        [cookie] = reply.headers.get_list("set-cookie")
        assert "planted" not in cookie
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
        assert cookie.startswith(f"{name}=")
        first = cookie
        again = client.post("/console/login", data={"api_key": people.ann}, headers=OWN_PAGE)
        assert again.headers["set-cookie"] != first
    stolen = {"cookie": f"{name}=planted"}
    assert httpx.get(f"{people.locked.url}/console/n/lab/edits", headers=stolen).status_code == 303
    old = cookie.partition(";")[0]
    assert httpx.get(f"{people.locked.url}/console/n/lab/edits", headers={"cookie": old}).status_code == 303


def test_beyond_this_machine_the_cookie_is_secure_and_plain_http_is_refused(people: People) -> None:
    """A session can be read on no network."""
    host = {"host": "edits.example.org", **OWN_PAGE}
    data = {"api_key": people.ann}
    plain = httpx.post(
        f"{people.locked.url}/console/login",
        data=data,
        headers={**host, "origin": "http://edits.example.org"},
    )
    assert plain.status_code == 400
    assert "TLS" in plain.text
    secure = httpx.post(
        f"{people.locked.url}/console/login",
        data=data,
        headers={**host, "origin": "https://edits.example.org"},
    )
    assert secure.headers["set-cookie"].startswith(f"{SESSION_COOKIE}=")
    assert "Secure" in secure.headers["set-cookie"]
    assert "Domain" not in secure.headers["set-cookie"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_hides_which_host_was_called_is_named(people: People, scheme: str) -> None:
    """Else the session of a public site would be kept as that of this machine: without Secure."""
    reply = httpx.post(
        f"{people.locked.url}/console/login",
        data={"api_key": people.ann},
        headers={**OWN_PAGE, "origin": f"{scheme}://edits.example.org"},
    )
    assert reply.status_code == 400
    assert "proxy_set_header Host" in reply.text
    assert "set-cookie" not in reply.headers


def test_after_logout_the_session_is_gone_on_the_server(people: People) -> None:
    """The cookie of before opens nothing."""
    with visiting(people.locked.url, people.ann) as visitor:
        cookies = dict(visitor.client.cookies)
        visitor.post("/logout")
        assert "logged out" in visitor.text
        reply = httpx.get(f"{people.locked.url}/console/n/lab/edits", cookies=cookies)
        assert reply.status_code == 303


def test_a_revoked_key_ends_its_sessions(people: People) -> None:
    """Within a second, as for the API."""
    key = people.locked.key("edit", "*", name="Leaving")
    with visiting(people.locked.url, key) as visitor:
        key_id = key.split("-")[2]
        people.locked.call(people.locked.admin, "DELETE", f"/serac/v1/keys/{key_id}")
        deadline = time.monotonic() + 5
        while visitor.page.url.path != "/console/login" and time.monotonic() < deadline:
            time.sleep(0.1)
            visitor.get("/n/lab/edits")
        assert "not valid any more" in visitor.text


def test_an_ended_session_loses_no_typed_text_and_stores_nothing(people: People) -> None:
    """The form comes back filled after the login, on its own page, and has to be sent again."""
    with visiting(people.locked.url, people.ann) as visitor:
        visitor.get(f"{LAB}/new")
        form = visitor.hidden
        visitor.client.cookies.clear()
        reply = visitor.send(f"{LAB}/new", form | DRAFT | {"reason": "It’s <b>new</b>"})
        assert reply.status_code == 401
        assert "not lost" in visitor.text
        visitor.log_in(people.ann, **{name: visitor.hidden[name] for name in ("next", "kept")})
        assert visitor.page.url.path == "/console/n/lab/new"
        assert "Ilse Quennell" in visitor.page.text
        assert "It’s &lt;b&gt;new&lt;/b&gt;" in visitor.page.text
        assert "nothing has been stored" in visitor.text.lower()
        assert people.edits("lab") == {}
        visitor.get(f"{LAB}/new")
        assert "Ilse Quennell" not in visitor.page.text


def test_a_form_of_an_earlier_session_is_kept_and_not_carried_out(people: People) -> None:
    """Somebody who logged in anew in another tab goes on with their text."""
    with visiting(people.locked.url, people.ann) as visitor:
        visitor.get(f"{LAB}/new")
        form = visitor.hidden
        visitor.log_in(people.ann)
        reply = visitor.send(f"{LAB}/new", form | DRAFT)
        assert reply.status_code == 403
        assert "earlier session" in visitor.text
        visitor.get(f"{LAB}/new")
        assert "Ilse Quennell" in visitor.page.text
        assert people.edits("lab") == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ],
)
def test_a_form_of_another_page_is_refused_even_with_the_token(
    people: People, headers: dict[str, str]
) -> None:
    """Cross-site request forgery ends before anything is read."""
    with visiting(people.locked.url, people.ann) as visitor:
        visitor.get(f"{LAB}/new")
        fields = visitor.hidden | DRAFT
        reply = visitor.client.post("/console/n/lab/new", data=fields, headers=headers)
        assert reply.status_code == 403
        assert people.edits("lab") == {}
        assert (
            visitor.client.post("/console/login", data={"api_key": people.ann}, headers=headers).status_code
            == 403
        )


def test_the_api_ignores_the_consoles_cookie(people: People) -> None:
    """A session is worth nothing at /serac/v1 and /v1, where no form is checked."""
    with visiting(people.locked.url, people.locked.admin) as visitor:
        assert visitor.client.get("/serac/v1/edits").status_code == 401
        assert visitor.client.post("/v1/chat/completions", json={}).status_code == 401


def test_a_gateway_without_keys_opens_the_console_at_once(open_console: str) -> None:
    """And its forms count in that session alone."""
    with visiting(open_console) as visitor:
        assert visitor.page.url.path == "/console/n/default/edits"
        assert "No key" in visitor.text
        visitor.get("/n/default/new")
        visitor.post("/n/default/new", **DRAFT, author="Jo")
        assert "in force" in visitor.text
        assert "Jo" in visitor.text
        other = httpx.post(f"{open_console}/console/n/default/new", data=DRAFT, headers=OWN_PAGE)
        assert other.status_code == 401


@pytest.mark.parametrize(
    ("console", "host", "is_served"),
    [
        (ConsoleConfig(), "127.0.0.1", True),
        (ConsoleConfig(), "0.0.0.0", False),
        (ConsoleConfig(enabled=True), "0.0.0.0", True),
        (ConsoleConfig(enabled=False), "127.0.0.1", False),
    ],
)
def test_the_console_is_on_for_loopback_unless_the_configuration_says_otherwise(
    console: ConsoleConfig, host: str, is_served: bool
) -> None:
    """Where it is off, there is nothing at /console."""
    with ThreadPoolExecutor(1) as pool:
        gateway = fake_gateway(
            InMemoryEditStore(),
            WordEncoder(),
            pool,
            console=console,
            server=ServerConfig(host=host),
            with_data_plane=True,
        )
        with serving(gateway.app) as url:
            assert (httpx.get(f"{url}/console/login").status_code == 200) is is_served


def test_a_session_ends_when_nothing_is_requested_for_too_long() -> None:
    """By the configuration in force at the request."""
    with ThreadPoolExecutor(1) as pool:
        gateway = fake_gateway(
            InMemoryEditStore(),
            WordEncoder(),
            pool,
            console=ConsoleConfig(session_idle_s=1),
            with_data_plane=True,
        )
        with serving(gateway.app) as url, visiting(url) as visitor:
            visitor.get("/n/default/new")
            time.sleep(1.1)
            reply = visitor.post("/n/default/new", **DRAFT)
            assert reply.status_code == 401
            assert "over" in visitor.text


def test_every_reply_forbids_foreign_scripts_frames_and_caches(people: People) -> None:
    """Pages, refusals, redirects and the login alike."""
    with visiting(people.locked.url, people.ann) as visitor:
        for path in ("/login", "/n/lab/edits", "/n/lab/edits/missing", "/nothing", "/"):
            reply = visitor.client.get(f"/console{path}")
            policy = reply.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cache-control"] == "no-store"
            assert reply.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_key_for_some_namespaces_sees_no_other(people: People) -> None:
    """Nor that it exists."""
    key = people.locked.key("edit", "lab", name="Lab only")
    with visiting(people.locked.url, key) as visitor:
        assert visitor.page.url.path == "/console/n/lab/edits"
        for path in ("/n/one/edits", "/n/one/log", "/n/one/new", "/namespace?name=one"):
            assert visitor.get(path).status_code == 403
