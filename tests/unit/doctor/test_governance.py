"""Rules that nobody can fulfil."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from serac_gateway.auth.api_keys import ApiKeyDraft, StoredApiKey, new_api_key
from serac_gateway.auth.principals import Role
from serac_gateway.config.model import AccessConfig, GatewayConfig, GovernanceConfig, NamespaceGovernance
from serac_gateway.doctor.findings import Level
from serac_gateway.doctor.governance import approval_findings, key_findings, proposal_findings
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.contracts.edit_store_calls import new
from tests.contracts.test_proposal_store import NOW, opened

CONFIG = GatewayConfig(
    access=AccessConfig(required=True),
    governance=GovernanceConfig(namespaces={"default": NamespaceGovernance(approvals=2)}),
)


def key(name: str, role: Role = Role.APPROVE, *namespaces: str, pepper: bytes = b"") -> StoredApiKey:
    draft = ApiKeyDraft(name=name, role=role, namespaces=namespaces or ("*",))
    return new_api_key(draft, pepper=pepper, created_by=None, now=datetime.now(UTC)).stored


def expired(stored: StoredApiKey) -> StoredApiKey:
    return msgspec.structs.replace(stored, key=msgspec.structs.replace(stored.key, revoked_at=NOW))


@pytest.mark.parametrize(
    ("keys", "level"),
    [
        ([key("Ann"), key("Bo"), key("Cy", Role.ADMIN)], Level.OK),
        ([key("Ann"), key("Bo")], Level.WARN),
        ([key("Ann Lee"), key("ann  LEE"), key("Ann Lee")], Level.FAIL),
        ([key("Ann"), key("Bo", Role.EDIT), key("Cy", Role.CHAT)], Level.FAIL),
        ([key("Ann"), key("Bo", Role.APPROVE, "other")], Level.FAIL),
        ([key("Ann"), key("Bo", Role.APPROVE, "default"), expired(key("Cy"))], Level.WARN),
    ],
)
def test_people_count_and_not_keys(keys: list[StoredApiKey], level: Level) -> None:
    """Two keys of one name are one person; other roles, other namespaces and revoked keys do not count."""
    now = datetime.now(UTC)
    (finding,) = approval_findings(CONFIG, [stored.key for stored in keys], now=now)
    assert finding.level is level


def test_without_approvals_nobody_is_needed() -> None:
    (finding,) = approval_findings(GatewayConfig(), [], now=NOW)
    assert finding.level is Level.OK


def test_keys_of_another_pepper_and_none_that_works_are_named() -> None:
    now = datetime.now(UTC)
    assert [finding.level for finding in key_findings(CONFIG, [key("Ann")], pepper=b"", now=now)] == [
        Level.OK
    ]
    assert [finding.level for finding in key_findings(CONFIG, [], pepper=b"", now=now)] == [Level.FAIL]
    other = key_findings(CONFIG, [key("Ann"), key("Bo", pepper=b"x" * 32)], pepper=b"", now=now)
    assert [finding.level for finding in other] == [Level.WARN]
    assert "1 of 2" in other[0].detail


async def test_proposals_that_expire_within_two_days_are_counted() -> None:
    store = InMemoryEditStore()
    proposal = await opened(store, new("e"))  # for seven days
    (early,) = await proposal_findings(CONFIG, store.proposals(), now=NOW)
    assert early.level is Level.OK
    (late,) = await proposal_findings(CONFIG, store.proposals(), now=NOW + timedelta(days=6))
    assert (late.level, proposal.id in late.detail) == (Level.WARN, True)
    (over,) = await proposal_findings(CONFIG, store.proposals(), now=NOW + timedelta(days=8))
    assert over.level is Level.OK
