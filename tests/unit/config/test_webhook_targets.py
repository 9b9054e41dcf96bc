"""Where webhooks may send, and what a configuration of them must have."""

from __future__ import annotations

import ipaddress

import pytest

from serac_gateway.config.loading import load_config
from serac_gateway.config.model import WebhookConfig
from serac_gateway.config.webhook_targets import check_webhooks, is_public, refused_address, webhook_target
from serac_gateway.errors import ConfigError

INSIDE = (
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "192.0.0.8",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.7",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001:0:1::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
)


def webhook(url: str, **fields: object) -> WebhookConfig:
    return WebhookConfig(url=url, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", INSIDE)
def test_no_address_that_only_the_gateway_may_reach_is_public(text: str) -> None:
    target = webhook_target("a", webhook("https://hooks.example.org"))
    assert not is_public(ipaddress.ip_address(text))
    refusal = refused_address(ipaddress.ip_address(text), target)
    assert refusal is not None
    assert "allowed_networks" in refusal


@pytest.mark.parametrize("text", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_ones_are(text: str) -> None:
    target = webhook_target("a", webhook("https://hooks.example.org"))
    assert refused_address(ipaddress.ip_address(text), target) is None


def test_networks_that_the_operator_lists_are_allowed_and_no_others() -> None:
    target = webhook_target("a", webhook("http://hooks.internal/x", allowed_networks=("10.1.0.0/16", "::1")))
    assert refused_address(ipaddress.ip_address("10.1.9.9"), target) is None
    assert refused_address(ipaddress.ip_address("::ffff:10.1.9.9"), target) is None
    assert refused_address(ipaddress.ip_address("::1"), target) is None
    assert refused_address(ipaddress.ip_address("10.2.0.1"), target) is not None
    assert "unencrypted" in str(refused_address(ipaddress.ip_address("8.8.8.8"), target))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://hooks.example.org", "not usable"),
        ("https://", "not usable"),
        ("https://hooks.example.org/#x", "fragment"),
        ("https://hooks.example.org:99999999999999999999", "not usable"),
        ("https://hööks.example.org", "xn--"),
        ("https://user:geheim@hooks.example.org", "user or password"),
        ("http://hooks.example.org", "http://"),
        ("https://hooks.example.org:25", "port 25"),
        ("https://127.0.0.1/x", "no public address"),
        ("https://[::1]/x", "no public address"),
        ("https://[64:ff9b::a00:1]/x", "no public address"),
        ("https://127.1", "neither a name nor an address"),
        ("https://2130706433", "neither a name nor an address"),
        ("https://0x7f000001", "neither a name nor an address"),
        ("https://0177.0.0.1", "neither a name nor an address"),
        ("https://hooks.example.org.1", "neither a name nor an address"),
        ("https://hooks_.exa mple.org", "neither a name nor an address"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_its_path_or_password(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_webhooks({"audit": webhook(url)})
    assert words in raised.value.message
    assert raised.value.field == "webhooks.audit.url"
    assert "geheim" not in raised.value.message


@pytest.mark.parametrize(
    ("webhooks", "words"),
    [
        ({"Audit": webhook("https://a.example")}, "a name that is not allowed"),
        (
            {"a-b": webhook("https://a.example"), "a_b": webhook("https://b.example")},
            "SERAC_WEBHOOK_SECRET_A_B",
        ),
        ({"a": webhook("https://a.example", events=("proposal.gone",))}, "proposal.opened"),
        ({"a": webhook("https://a.example", allowed_networks=("10.0.0.1/8",))}, "10.0.0.1/8"),
    ],
)
def test_a_name_event_or_network_that_is_wrong_is_named(
    webhooks: dict[str, WebhookConfig], words: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        check_webhooks(webhooks)
    assert words in raised.value.message


def test_the_environment_configures_webhooks_and_their_secrets_are_no_keys() -> None:
    config = load_config(
        environment={
            "SERAC_WEBHOOKS__AUDIT__URL": "https://hooks.example.org/t0ken",
            "SERAC_WEBHOOK_SECRET_AUDIT": "whsec_x",
        }
    )
    assert config.webhooks == {"audit": webhook("https://hooks.example.org/t0ken")}
    assert webhook_target("audit", config.webhooks["audit"]).printable_url == "https://hooks.example.org:443"
    with pytest.raises(ConfigError, match=r"webhooks\.audit\.url"):
        load_config(environment={"SERAC_WEBHOOKS__AUDIT__URL": "https://10.0.0.1/x"})
