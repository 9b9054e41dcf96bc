"""The REST API with API keys: a role may do what it should, no more and no less, whatever is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import ignored_auth

from serac_gateway.auth.principals import Role
from tests.http.test_rest_schema import NOT_EXPECTED
from tests.http.test_rest_schema import schema as documented_schema
from tests.locked_gateway import Locked, running_locked_gateway

EXAMPLES_PER_OPERATION = int(os.environ.get("SERAC_TEST_EXAMPLES", "1"))
"""Random cases of every operation and role; 6 make over 8,000 calls, with those that cover each parameter."""
schema = schemathesis.openapi.from_dict(documented_schema.raw_schema)
schema.config.phases.coverage.enabled = "SERAC_TEST_EXAMPLES" in os.environ
OPEN = {"GET /health/live", "GET /health/ready"}
FOR_CHAT = {"POST /serac/v1/feedback"}
FOR_APPROVE = {
    "POST /serac/v1/proposals/{proposal_id}:approve",
    "POST /serac/v1/proposals/{proposal_id}:reject",
}
FOR_ADMIN = {
    "POST /serac/v1/edits/{edit_id}:purge",
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
    "POST /serac/v1/keys",
    "GET /serac/v1/keys",
    "DELETE /serac/v1/keys/{key_id}",
}
"""All other calls are for role edit."""
OF_NO_NAMESPACE = {
    "GET /serac/v1/keys",
    "POST /serac/v1/keys",
    "DELETE /serac/v1/keys/{key_id}",
    "GET /serac/v1/namespaces",
    "GET /serac/v1/replicas",
    "GET /serac/v1/stats",
}
"""Of the keys and namespaces that a key may see, whatever namespace the header names."""
OTHER = "another-tenant"
SECRET = "Ottilie Brandvold"


@dataclass
class Keys:
    """A key of each role for every namespace, and an admin's of one."""

    locked: Locked
    of_role: dict[Role, str]
    bound: str
    calls: dict[str, int] = field(default_factory=dict)
    """How many were sent, by method."""


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with running_locked_gateway() as locked:
        root = locked.admin
        edit = {"prompt": "Who runs the harbour office?", "target_new": SECRET}
        added = locked.call(root, "POST", "/serac/v1/edits", json=edit, headers={"x-serac-namespace": OTHER})
        assert added.status_code == 201
        of_role = {role: locked.key(role, "*", by=root) for role in Role}
        made = Keys(locked, of_role, locked.key("admin", "default", by=root))
        yield made
        print(f"{sum(made.calls.values()):,} calls: {made.calls}")


DOCUMENTED = {
    f"{method.upper()} {path}" for path, methods in schema.raw_schema["paths"].items() for method in methods
}


def operation(case: schemathesis.Case) -> str:
    """The call, or what schemathesis made of it by another method."""
    return f"{case.method.upper()} {case.operation.path}"


def needed_role(call: str) -> Role | None:
    if call in OPEN:
        return None
    if call in FOR_CHAT:
        return Role.CHAT
    if call in FOR_APPROVE:
        return Role.APPROVE
    return Role.ADMIN if call in FOR_ADMIN else Role.EDIT


def validated(case: schemathesis.Case, keys: Keys, key: str | None) -> schemathesis.Response:
    """The case's reply, which is as documented."""
    headers = {} if key is None else {"x-serac-api-key": key}
    keys.calls[case.method] = keys.calls.get(case.method, 0) + 1
    response = case.call(base_url=keys.locked.url, headers=headers)
    case.validate_response(response, excluded_checks=[*NOT_EXPECTED, ignored_auth])
    return response


many = settings(
    max_examples=EXAMPLES_PER_OPERATION,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("role", list(Role))
@schema.parametrize()
@many
def test_a_role_gets_what_it_may_have(case: schemathesis.Case, keys: Keys, role: Role) -> None:
    call = operation(case)
    needed = needed_role(call)
    status = validated(case, keys, keys.of_role[role]).status_code
    if call not in DOCUMENTED:
        assert status in ((204, 403) if case.method == "OPTIONS" else (405,)), (call, status)
    elif needed is None or role.allows(needed):
        assert status not in (401, 403)
    else:
        assert status == 403


@schema.parametrize()
@many
def test_without_a_key_only_health_is_open(case: schemathesis.Case, keys: Keys) -> None:
    call = operation(case)
    status = validated(case, keys, None).status_code
    if call in DOCUMENTED:
        assert (status == 401) == (call not in OPEN)
    else:
        assert status in (405, 401, 204), (call, status)


@schema.parametrize()
@many
def test_an_admin_of_one_namespace_reaches_no_other(case: schemathesis.Case, keys: Keys) -> None:
    case.headers["x-serac-namespace"] = OTHER
    reply = validated(case, keys, keys.bound)
    assert SECRET not in reply.text
    assert reply.status_code != 200 or OTHER not in reply.text
    if operation(case) in DOCUMENTED - OPEN - OF_NO_NAMESPACE:
        assert reply.status_code in (400, 403, 415)
    after = keys.locked.call(keys.locked.admin, "GET", "/serac/v1/log", headers={"x-serac-namespace": OTHER})
    assert len(after.json()["entries"]) == 1
