"""The policy for web pages: which host names, which origins, with and without keys."""

from __future__ import annotations

import pytest

from serac_gateway.auth.origins import OriginPolicy, Surface, is_from_other_origin
from serac_gateway.config.loading import load_config
from serac_gateway.config.model import AccessConfig, GatewayConfig, ServerConfig
from serac_gateway.errors import ConfigError, ForeignHostError, ForeignOriginError
from tests.made_keys import new_key

APP = "https://app.example"


def policy(*, keys: bool = False, host: str = "127.0.0.1", **server: object) -> OriginPolicy:
    return OriginPolicy.of(
        GatewayConfig(access=AccessConfig(required=keys), server=ServerConfig(host=host, **server))
    )


def sent(**headers: str) -> list[tuple[bytes, bytes]]:
    return [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in {"host": "localhost:8080", **headers}.items()
    ]


def is_refused(policy: OriginPolicy, surface: Surface, **headers: str) -> bool:
    try:
        policy.check(sent(**headers), surface)
    except (ForeignHostError, ForeignOriginError):
        return True
    return False


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        ({"origin": "http://localhost:8080"}, False),
        ({"origin": "http://LOCALHOST:8080"}, False),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": APP}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "localhost:8080"}, True),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "same-origin", "origin": APP}, False),  # a proxy changed the Host header
        ({"sec_fetch_site": "same-site", "origin": "http://localhost:3000"}, True),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "http://localhost:8080"}, True),
        ({"sec_fetch_site": "anything"}, True),
    ],
)
def test_what_comes_from_a_page_of_another_origin(headers: dict[str, str], is_foreign: bool) -> None:
    assert is_from_other_origin(sent(**headers)) is is_foreign


@pytest.mark.parametrize(
    ("surface", "origins", "origin", "is_refused_"),
    [
        (Surface.DATA, (), APP, True),
        (Surface.DATA, (APP,), APP, False),
        (Surface.DATA, (APP,), "HTTPS://App.example", False),
        (Surface.DATA, (APP,), "https://app.example.evil.example", True),
        (Surface.DATA, (APP,), "http://app.example", True),
        (Surface.DATA, ("*",), APP, False),
        (Surface.DATA, ("*",), "null", False),
        (Surface.CONTROL, ("*", APP), APP, True),
        (Surface.OPEN, (), APP, False),
    ],
)
def test_without_keys_pages_use_what_their_origin_is_listed_for(
    surface: Surface, origins: tuple[str, ...], origin: str, is_refused_: bool
) -> None:
    listed = policy(cors_origins=origins)
    assert is_refused(listed, surface, origin=origin) is is_refused_
    assert is_refused(listed, surface, origin=origin, sec_fetch_site="cross-site") is is_refused_
    assert not is_refused(listed, surface)
    assert not is_refused(policy(keys=True), surface, origin=origin)


def test_a_page_that_has_a_key_is_no_stranger() -> None:
    key = new_key().text
    for surface in Surface:
        assert not is_refused(policy(), surface, origin=APP, authorization=f"Bearer {key}")
    assert is_refused(policy(), Surface.CONTROL, origin=APP, authorization="Bearer of-an-upstream")


@pytest.mark.parametrize(
    ("host", "allowed", "is_refused_"),
    [
        ("localhost:8080", (), False),
        ("LocalHost.", (), False),
        ("127.0.0.1:8080", (), False),
        ("[::1]:8080", (), False),
        ("10.1.2.3", (), False),
        ("app.localhost:8080", (), False),
        ("host.docker.internal:8080", (), False),
        ("evil.example:8080", (), True),
        ("localhost.evil.example", (), True),
        ("127.0.0.1.evil.example", (), True),
        ("evil.example", ("chat.example",), True),
        ("chat.example", ("Chat.Example",), False),
        ("a.chat.example", ("chat.example",), True),
        ("a.chat.example:80", ("*.chat.example",), False),
        ("evilchat.example", ("*.chat.example",), True),
        ("evil.example", ("*",), False),
        ("evil.example:80:80", (), True),
        ("gateway", (), True),
    ],
)
def test_without_keys_on_loopback_the_host_is_one_of_its_names(
    host: str, allowed: tuple[str, ...], is_refused_: bool
) -> None:
    named = policy(allowed_hosts=allowed)
    for surface in (Surface.DATA, Surface.CONTROL):
        assert is_refused(named, surface, host=host) is is_refused_
    assert not is_refused(named, Surface.OPEN, host=host)
    if not allowed:
        assert not is_refused(policy(keys=True), Surface.DATA, host=host)
        assert not is_refused(policy(host="0.0.0.0"), Surface.DATA, host=host)
    else:
        assert is_refused(policy(keys=True, allowed_hosts=allowed), Surface.DATA, host=host) is is_refused_


def test_a_refusal_names_the_value_and_the_setting() -> None:
    with pytest.raises(ForeignOriginError, match=r"https://app\.example.*server\.cors_origins"):
        policy().check(sent(origin=APP), Surface.DATA)
    with pytest.raises(ForeignHostError, match=r"'evil\.example'.*server\.allowed_hosts"):
        policy().check(sent(host="evil.example"), Surface.CONTROL)


def test_cors_headers_replace_the_upstreams_and_expose_all() -> None:
    reply = [(b"content-type", b"a"), (b"access-control-allow-origin", b"*"), (b"x-serac-route", b"base")]
    listed = policy(cors_origins=(APP,))
    assert listed.reply_headers(sent(origin=APP), reply, Surface.DATA) == [
        (b"content-type", b"a"),
        (b"x-serac-route", b"base"),
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", APP.encode()),
        (b"access-control-expose-headers", b"x-serac-route"),
    ]
    for other in (sent(), sent(origin="https://b.example")):
        assert b"access-control-allow-origin" not in dict(listed.reply_headers(other, reply, Surface.DATA))
    assert policy().reply_headers(sent(origin=APP), reply, Surface.DATA) is reply


def test_a_preflight_allows_what_is_requested_and_nothing_that_is_no_name() -> None:
    listed = policy(cors_origins=(APP,))
    request = sent(
        origin=APP,
        access_control_request_method="PATCH",
        access_control_request_headers="authorization, x-stainless-os",
        access_control_request_private_network="true",
    )
    headers = dict(listed.preflight_headers(request, Surface.CONTROL))
    assert headers[b"access-control-allow-methods"] == b"PATCH"
    assert headers[b"access-control-allow-headers"] == b"authorization, x-stainless-os"
    assert headers[b"access-control-allow-private-network"] == b"true"
    odd = sent(origin=APP, access_control_request_headers="a b", access_control_request_method="")
    assert not {name for name, _ in listed.preflight_headers(odd, Surface.DATA)} & {
        b"access-control-allow-methods",
        b"access-control-allow-headers",
    }
    with pytest.raises(ForeignOriginError, match=r"server\.cors_origins"):
        listed.preflight_headers(sent(origin="https://b.example"), Surface.DATA)


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "null", "https://a.example, b", ""]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.cors_origins"):
        load_config(environment={}, overrides={"server": {"cors_origins": [origin]}})
