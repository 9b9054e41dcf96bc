"""The REST API keeps what its own OpenAPI promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import allow_header_conformance, positive_data_acceptance

from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import WordEncoder
from tests.control_plane import ControlPlane, fake_gateway, running_control_plane

EXAMPLES_PER_OPERATION = int(os.environ.get("SERAC_TEST_EXAMPLES", "30"))
"""Cases of every operation; 200 make more than 5,000 in all."""
NOT_EXPECTED = [
    # Blank texts, empty validity windows and missing If-Match are refused; JSON Schema cannot say so.
    positive_data_acceptance,
    # Litestar's own OPTIONS handler lists one method of a path whose handlers it merged.
    allow_header_conformance,
]


@pytest.fixture(scope="module")
def running() -> Iterator[ControlPlane]:
    with running_control_plane(InMemoryEditStore()) as control_plane:
        yield control_plane


def _documented() -> dict[str, Any]:
    """The OpenAPI without a server: tests are made of it before one runs."""
    with ThreadPoolExecutor(1) as pool:
        gateway = fake_gateway(InMemoryEditStore(), WordEncoder(), pool)
        return gateway.control_plane.litestar.openapi_schema.to_schema()


schema = schemathesis.openapi.from_dict(_documented())


@schema.parametrize()
@settings(
    max_examples=EXAMPLES_PER_OPERATION,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_any_request_is_answered_as_documented(case: schemathesis.Case, running: ControlPlane) -> None:
    case.call_and_validate(base_url=running.url, excluded_checks=NOT_EXPECTED)


def test_the_schema_names_every_call_with_an_example_of_what_to_send(running: ControlPlane) -> None:
    paths = httpx.get(f"{running.url}/serac/schema/openapi.json").json()["paths"]
    calls = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert calls == {
        "POST /serac/v1/edits",
        "GET /serac/v1/edits",
        "GET /serac/v1/edits/{edit_id}",
        "PATCH /serac/v1/edits/{edit_id}",
        "DELETE /serac/v1/edits/{edit_id}",
        "GET /serac/v1/edits/{edit_id}/versions",
        "POST /serac/v1/edits/{edit_id}:restore",
        "POST /serac/v1/edits/{edit_id}:rollback",
        "POST /serac/v1/edits/{edit_id}:purge",
        "POST /serac/v1/rollback",
        "POST /serac/v1/edits:retire",
        "GET /serac/v1/edits:due",
        "GET /serac/v1/proposals",
        "GET /serac/v1/proposals/{proposal_id}",
        "POST /serac/v1/proposals/{proposal_id}:approve",
        "POST /serac/v1/proposals/{proposal_id}:reject",
        "POST /serac/v1/proposals/{proposal_id}:withdraw",
        "POST /serac/v1/edits:import",
        "GET /serac/v1/edits:export",
        "POST /serac/v1/edits:preview",
        "POST /serac/v1/edits/{edit_id}:verify",
        "GET /serac/v1/edits/{edit_id}:compare",
        "GET /serac/v1/traffic",
        "GET /serac/v1/traffic/near-misses",
        "DELETE /serac/v1/traffic",
        "POST /serac/v1/scope",
        "GET /serac/v1/log",
        "GET /serac/v1/log:export",
        "GET /serac/v1/shadow",
        "POST /serac/v1/store:repair",
        "GET /serac/v1/store:check",
        "GET /serac/v1/store:backup",
        "POST /serac/v1/store:restore",
        "POST /serac/v1/store:reencode",
        "GET /serac/v1/replicas",
        "POST /serac/v1/config:reload",
        "GET /serac/v1/webhooks",
        "GET /serac/v1/webhooks/{name}/deliveries",
        "POST /serac/v1/webhooks/{name}:test",
        "GET /serac/v1/namespaces",
        "GET /serac/v1/stats",
        "POST /serac/v1/keys",
        "GET /serac/v1/keys",
        "DELETE /serac/v1/keys/{key_id}",
        "GET /health/live",
        "GET /health/ready",
        "POST /serac/v1/feedback",
        "GET /serac/v1/feedback:export",
        "DELETE /serac/v1/feedback",
        "GET /metrics",
    }
    for path, methods in paths.items():
        for method in ("post", "patch"):
            if method in methods and not path.endswith(
                (":import", ":verify", ":reload", ":test", "store:restore", "store:reencode", "store:repair")
            ):
                assert "example" in str(methods[method]["requestBody"]), path
