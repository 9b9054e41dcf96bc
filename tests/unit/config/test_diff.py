"""What differs between two configurations, and what of it needs a restart."""

from __future__ import annotations

import msgspec
import pytest

from serac_gateway.config.diff import NEEDS_RESTART, changed_keys, check_no_restart_needed
from serac_gateway.config.model import (
    Device,
    EngineConfig,
    FeedbackConfig,
    GatewayConfig,
    IndexConfig,
    IndexKind,
    MetricsConfig,
    ModelsConfig,
    NamedUpstreamConfig,
    NamespaceRouting,
    Precision,
    RoutingConfig,
    ServerConfig,
    StoreConfig,
    TrafficConfig,
    UpstreamConfig,
)
from serac_gateway.errors import ReloadRefusedError

DEFAULTS = GatewayConfig()
OTHER = NamedUpstreamConfig(url="http://other/v1", models=("gpt-*",))


def test_two_equal_configurations_differ_in_nothing() -> None:
    assert changed_keys(GatewayConfig(), GatewayConfig(upstreams={})) == ()
    check_no_restart_needed(GatewayConfig(), GatewayConfig())


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({"routing": RoutingConfig(scope_threshold=0.5, candidates=3)}, ["candidates", "scope_threshold"]),
        ({"traffic": TrafficConfig(redact=("x",))}, ["redact"]),
        ({"models": ModelsConfig(scope_classifier="x")}, ["scope_classifier"]),
        ({"server": ServerConfig(ping_interval_s=1.0)}, ["ping_interval_s"]),
        ({"upstream": UpstreamConfig(url="http://x/v1")}, ["url"]),
    ],
)
def test_keys_are_named_in_full_and_can_be_reloaded(changed: dict[str, object], keys: list[str]) -> None:
    after = msgspec.structs.replace(DEFAULTS, **changed)
    (section,) = changed
    assert changed_keys(DEFAULTS, after) == tuple(f"{section}.{key}" for key in keys)
    check_no_restart_needed(DEFAULTS, after)


def test_an_upstream_that_comes_or_goes_is_reported_by_its_name_and_one_that_changes_by_its_key() -> None:
    before = GatewayConfig(upstreams={"big": OTHER, "old": OTHER})
    after = GatewayConfig(
        upstreams={"big": msgspec.structs.replace(OTHER, models=("o3",)), "new": OTHER},
        routing=RoutingConfig(namespaces={"a": NamespaceRouting()}),
    )
    assert changed_keys(before, after) == (
        "upstreams.big.models",
        "upstreams.old",
        "upstreams.new",
        "routing.namespaces.a",
    )


RESTARTING = [
    ({"data_dir": "/elsewhere"}, "data_dir"),
    ({"store": StoreConfig(wait_timeout_s=1.0)}, "store.wait_timeout_s"),
    ({"engine": EngineConfig(url="unix:///e")}, "engine.url"),
    ({"index": IndexConfig(kind=IndexKind.FLAT)}, "index.kind"),
    ({"metrics": MetricsConfig(open=True)}, "metrics.open"),
    ({"models": ModelsConfig(encoder="x")}, "models.encoder"),
    ({"models": ModelsConfig(device=Device.CPU)}, "models.device"),
    ({"models": ModelsConfig(precision=Precision.BF16)}, "models.precision"),
    ({"feedback": FeedbackConfig(remembered_requests=1)}, "feedback.remembered_requests"),
    ({"server": ServerConfig(host="::1")}, "server.host"),
    ({"server": ServerConfig(port=1)}, "server.port"),
    ({"server": ServerConfig(max_control_body_bytes=1)}, "server.max_control_body_bytes"),
    ({"server": ServerConfig(max_body_memory_bytes=1)}, "server.max_body_memory_bytes"),
    ({"server": ServerConfig(max_head_bytes=1)}, "server.max_head_bytes"),
    ({"server": ServerConfig(max_connections=1)}, "server.max_connections"),
    ({"server": ServerConfig(head_timeout_s=1.0)}, "server.head_timeout_s"),
    ({"server": ServerConfig(body_gap_timeout_s=1.0)}, "server.body_gap_timeout_s"),
    ({"server": ServerConfig(drain_timeout_s=1.0)}, "server.drain_timeout_s"),
    ({"server": ServerConfig(workers=2)}, "server.workers"),
    ({"server": ServerConfig(trusted_proxies=())}, "server.trusted_proxies"),
]


@pytest.mark.parametrize(("changed", "key"), RESTARTING)
def test_what_lasts_as_long_as_the_process_is_refused_by_key(changed: dict[str, object], key: str) -> None:
    with pytest.raises(ReloadRefusedError, match="restart the gateway") as caught:
        check_no_restart_needed(DEFAULTS, msgspec.structs.replace(DEFAULTS, **changed))
    assert caught.value.details["keys"] == [key]
    assert f"cannot change {key} (now " in caught.value.message


def test_every_key_that_needs_a_restart_has_its_case() -> None:
    assert {
        key for key in NEEDS_RESTART if not any(changed_key.startswith(key) for _, changed_key in RESTARTING)
    } == set()


def test_all_keys_that_need_a_restart_are_named_at_once_and_no_password_is_shown() -> None:
    before = GatewayConfig(store=StoreConfig(url="redis://ops:old-secret@one:6379"))
    after = GatewayConfig(
        data_dir="/d",
        store=StoreConfig(url="redis://ops:new-secret@two:6379"),
        routing=RoutingConfig(candidates=1),
    )
    with pytest.raises(ReloadRefusedError) as caught:
        check_no_restart_needed(before, after)
    assert caught.value.details["keys"] == ["data_dir", "store.url"]
    assert "data_dir (now None, then '/d')" in caught.value.message
    assert "'redis://***@one:6379', then 'redis://***@two:6379'" in caught.value.message
    assert "secret" not in caught.value.message
