"""Recent requests: named by our id or the upstream's, and forgotten with both."""

from __future__ import annotations

import msgspec

from serac_gateway.config.model import TrafficConfig
from serac_gateway.observability.recent_requests import RecentRequests
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.traffic_recorder import TrafficRecorder
from tests.unit.observability.test_metrics_cost import REQUEST


def add(recent: RecentRequests, request_id: str, upstream_id: str | None, key_id: str | None = None) -> None:
    observe = recent.observer(TrafficRecorder(InMemoryEditStore().traffic(), TrafficConfig()))
    observe(
        msgspec.structs.replace(
            REQUEST,
            request_id=request_id,
            upstream_request_id=upstream_id,
            namespace="default",
            key_id=key_id,
        )
    )


def test_the_upstreams_id_names_the_request_until_it_is_forgotten() -> None:
    recent = RecentRequests(limit=2)
    add(recent, "a", "up-a")
    add(recent, "b", "up-b")
    assert recent.get("default", "up-a") == recent.get("default", "a")
    assert recent.get("acme", "up-a") is None
    add(recent, "c", None)
    assert recent.get("default", "a") is None
    assert recent.get("default", "up-a") is None
    assert recent.get("default", "up-b") is not None


def test_an_id_that_is_used_again_names_the_last_request() -> None:
    recent = RecentRequests(limit=2)
    add(recent, "a", "up-1")
    add(recent, "a", "up-2")
    assert recent.get("default", "up-1") is None
    assert recent.get("default", "up-2") is not None
    add(recent, "b", "up-2")  # an upstream that gives the same id twice
    add(recent, "a", "up-3")
    named = recent.get("default", "up-2")
    assert named is not None
    assert named.request_id == "b"


def test_an_id_of_ours_goes_before_an_upstreams() -> None:
    recent = RecentRequests(limit=2)
    add(recent, "a", "b")
    add(recent, "b", "up-b")
    named = recent.get("default", "b")
    assert named is not None
    assert named.request_id == "b"


def test_a_key_sees_its_own_requests_only() -> None:
    recent = RecentRequests(limit=2)
    add(recent, "a", "up-a", key_id="k1")
    assert recent.get("default", "up-a", only_of_key="k1") is not None
    assert recent.get("default", "a", only_of_key="k2") is None
