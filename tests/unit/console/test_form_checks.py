"""Which forms count as sent by a page of the console."""

from __future__ import annotations

import pytest

from serac_gateway.console.cookies import (
    chosen_language,
    is_loopback_host,
    session_cookie,
    session_cookie_name,
)
from serac_gateway.console.form_checks import check_own_page, form_fields, is_of_session
from serac_gateway.console.paths import page_path, safe_target
from serac_gateway.errors import ForeignOriginError, InvalidRequestError, UnsupportedMediaTypeError


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ([(b"sec-fetch-site", b"same-origin")], True),
        ([(b"sec-fetch-site", b"none")], True),
        ([(b"sec-fetch-site", b"same-site")], False),
        ([(b"sec-fetch-site", b"cross-site"), (b"origin", b"http://a:8080")], False),
        ([(b"origin", b"http://a:8080")], True),
        ([(b"origin", b"HTTPS://A:8080")], True),
        ([(b"origin", b"http://a")], False),
        ([(b"origin", b"null")], False),
        ([(b"origin", b"a:8080")], False),
        ([], False),
    ],
)
def test_a_form_is_taken_from_the_gateways_own_pages(
    headers: list[tuple[bytes, bytes]], is_own: bool
) -> None:
    """Sec-Fetch-Site decides; without it the origin has to be the host."""
    sent = [(b"host", b"a:8080"), *headers]
    if is_own:
        check_own_page(sent)
    else:
        with pytest.raises(ForeignOriginError):
            check_own_page(sent)


def test_a_token_counts_in_its_session_alone() -> None:
    """A missing one counts nowhere."""
    assert is_of_session({"csrf": "abc"}, "abc")
    assert not is_of_session({"csrf": "abd"}, "abc")
    assert not is_of_session({}, "abc")
    assert not is_of_session({"csrf": "ä"}, "abc")


def test_a_form_is_read_as_browsers_write_it() -> None:
    """Line breaks are one character; of two fields of a name the last counts."""
    body = b"a=1%0D%0A2&b=%C3%A4+%26&b=last&c="
    assert form_fields(body, "application/x-www-form-urlencoded") == {"a": "1\n2", "b": "last", "c": ""}


@pytest.mark.parametrize("body", [b"a=%ff", b"a=\xff", b"&".join(b"a=1" for _ in range(501))])
def test_a_form_that_is_no_text_or_too_long_is_refused(body: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(InvalidRequestError):
        form_fields(body, "application/x-www-form-urlencoded")
    with pytest.raises(UnsupportedMediaTypeError):
        form_fields(b"{}", "application/json")


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("localhost:8080", True),
        ("LOCALHOST", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("localhost:80@evil.example", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_cookies_are_secure_wherever_they_could_be_read(host: str, is_loopback: bool) -> None:
    """On this machine alone they need no TLS."""
    assert is_loopback_host(host) is is_loopback
    cookie = session_cookie("x", host=host).to_header()
    assert ("Secure" in cookie) is not is_loopback
    assert ("__Host-" in cookie) is not is_loopback


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "/",
        "/v1",
        "//evil",
        "/console\\evil",
        "/console/../v1",
        "/consoles",
        "/console/login",
        "/console/a\n",
    ],
)
def test_after_a_login_only_pages_of_the_console_are_opened(target: str | None) -> None:
    """Anything else leads to the first page."""
    assert safe_target(target) == "/console"
    assert safe_target("/console/n/a/edits?q=x") == "/console/n/a/edits?q=x"


def test_paths_are_quoted() -> None:
    """Whatever an id or a search has in it."""
    assert (
        page_path("lab", "edits", "a/b", q="x&y", state="", kind=None) == "/console/n/lab/edits/a%2Fb?q=x%26y"
    )


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, "", "en"),
        (None, "de-CH, en;q=0.9", "de"),
        (None, "fr, de;q=0.5", "de"),
        ("de", "en", "de"),
        ("xx", "en", "en"),
    ],
)
def test_the_language_is_the_one_chosen_else_the_browsers(
    cookie: str | None, accepted: str, language: str
) -> None:
    """English where there is none of these."""
    cookies = {} if cookie is None else {"serac-console-language": cookie}
    assert chosen_language(cookies, accepted) == language


def test_two_gateways_of_one_machine_have_cookies_of_their_own() -> None:
    """Browsers send cookies to every port of a host."""
    names = [session_cookie_name(host=f"localhost:{port}") for port in (8080, 8081)]
    assert len(set(names)) == 2
    assert session_cookie_name(host="[::1]") == session_cookie_name(host="localhost")
